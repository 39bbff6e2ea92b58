"""The conflict map against autograd: a scale on each frame's share of G_I in every linear layer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.models.hosts import tiny
from tests.probes.gradient_worlds import conversation, double_model, loss_of, whole_gradients
from workbench.probes.gradients.conflict_map import PLACES, conflict_map
from workbench.probes.gradients.parameters import parameter_groups
from workbench.probes.gradients.stream import GradientStream
from workbench.training.packing import materialise

KINDS = ("tempflex", *tiny.KINDS)


def image_gradient(made, processor, kind="tempflex"):
    batch = materialise([conversation(processor, 1, 9, kind)], [[0]], processor.pad_token_id)
    probed = parameter_groups(made)
    _, kept = GradientStream(made, probed).run(loss_of(made, batch), keep=True)
    return probed, kept


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [2, 4, 5])
def test_the_map_adds_up_and_other_holds_no_linear_layer(kind, frames):
    """frames + places = <g_V, g_I>, and what is called "other" is exactly the parameters of no linear layer."""
    made, processor = double_model(kind)
    probed, kept = image_gradient(made, processor, kind)
    prepared = conversation(processor, frames, 3, kind)
    found = conflict_map(made, probed, kept, prepared, num_items=2, pad_id=processor.pad_token_id)
    batch = materialise([prepared], [[0]], processor.pad_token_id)
    whole = whole_gradients(made, loss_of(made, batch, num_items=2))
    words = set(made.module_groups()["llm"])
    linear = {
        id(p)
        for name, m in made.named_modules()
        if isinstance(m, nn.Linear) or (isinstance(m, nn.Embedding) and f"{name}.weight" in words)
        for p in (m.weight, getattr(m, "bias", None))
        if p is not None
    }
    for g, (group, members) in enumerate(probed.groups.items()):
        parts = {True: 0.0, False: 0.0}
        for i in members:
            gradient, image = whole[probed.names[i]], kept.tensors[i]
            if gradient is not None and image is not None:
                parts[id(probed.parameters[i]) in linear] += float((gradient * image).sum())
        scale = abs(found.frames[g]).sum() + abs(found.rest[g]).sum() + 1e-9
        assert found.whole[g] == pytest.approx(sum(parts.values()), abs=1e-9 * scale)
        assert found.frames[g].sum() + found.rest[g].sum() == pytest.approx(found.whole[g], abs=1e-9 * scale)
        other = found.rest[g, PLACES.index("other")]
        assert other == pytest.approx(parts[False], abs=1e-7 * scale), group


class Scaled(nn.Module):
    """A linear layer or embedding with eps[place of each token] * G_I added to its weight for that token."""

    def __init__(self, inner, weight, bias, place_T, eps):
        super().__init__()
        self.inner, self.g_weight, self.g_bias, self.place, self.eps = inner, weight, bias, place_T, eps

    @property
    def weight(self):
        return self.inner.weight

    def forward(self, x):
        if isinstance(self.inner, nn.Embedding):
            moved = self.g_weight[x]
        else:
            moved = F.linear(x, self.g_weight, self.g_bias)
        scale = self.eps[self.place].view(*moved.shape[:-1], 1)
        return self.inner(x) + scale * moved


@settings(max_examples=6, deadline=None)
@given(st.integers(2, 6), st.sampled_from([32, 48]), st.integers(0, 50))
def test_each_frame_has_what_autograd_says(frames, width, seed):
    """d loss / d eps_f, where eps_f moves each layer's weight along G_I for the tokens of frame f alone."""
    made, processor = double_model()
    probed, kept = image_gradient(made, processor)
    gradients = dict(zip(probed.names, kept.tensors, strict=True))
    prepared = conversation(processor, frames, seed, width=width)
    found = conflict_map(made, probed, kept, prepared, num_items=2)
    _, rows, cols = prepared.grid
    raster = torch.arange(frames).repeat_interleave(rows * cols)
    kinds, spans = prepared.token_map.kind, prepared.token_map.frame_span[:, 0]
    text = frames  # one more place for everything that is no frame
    positions = torch.tensor([int(s) if k == 3 else text for k, s in zip(kinds, spans, strict=True)])
    layers = {"encoder": {}, "llm.1": {}, "merger": {}}
    for name, module in made.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        if name.startswith("encoder."):
            layers["encoder"][name] = raster
        elif name.startswith("language_model.layers.1."):
            layers["llm.1"][name] = positions
        elif name.startswith("merger."):
            layers["merger"][name] = raster.view(frames, -1)[:, ::4].flatten()
    for group, members in layers.items():
        eps = torch.zeros(frames + 1, dtype=torch.float64, requires_grad=True)
        swapped = {}
        for name, place in members.items():
            parent, _, leaf = name.rpartition(".")
            owner = made.get_submodule(parent)
            swapped[name] = getattr(owner, leaf)
            bias = gradients.get(f"{name}.bias")
            setattr(owner, leaf, Scaled(swapped[name], gradients[f"{name}.weight"], bias, place, eps))
        try:
            batch = materialise([prepared], [[0]], processor.pad_token_id)
            (expected,) = torch.autograd.grad(loss_of(made, batch, num_items=2)(), eps)
        finally:
            for name, module in swapped.items():
                parent, _, leaf = name.rpartition(".")
                setattr(made.get_submodule(parent), leaf, module)
        g = found.groups.index(group)
        np.testing.assert_allclose(found.frames[g], expected[:frames], rtol=1e-7, atol=1e-10)
        if group == "llm.1":
            own = found.rest[g].sum() - found.rest[g, PLACES.index("other")]
            assert own == pytest.approx(float(expected[frames]), rel=1e-7, abs=1e-10)
        patches = found.patches[g]
        np.testing.assert_allclose(patches.sum(-1), found.frames[g], rtol=1e-7, atol=1e-10)


def test_patches_of_the_encoder_are_where_they_are():
    """A patch that the model is shown as zeros with a position of its own has its own place in the map."""
    made, processor = double_model()
    probed, kept = image_gradient(made, processor)
    prepared = conversation(processor, 3, 3)
    found = conflict_map(made, probed, kept, prepared, num_items=2)
    embed, index = made.encoder.patch_embedding, probed.names.index("encoder.patch_embedding.weight")
    only = parameter_groups(made, ["encoder"])
    assert found.patches.shape[1:] == (3, prepared.grid[1] * prepared.grid[2])
    # the first layer alone, patch by patch: <delta_p, G x_p> from a hook of our own
    seen = {}

    def look(module, inputs, output):
        output.register_hook(lambda d: seen.update(d=d.detach(), x=inputs[0].detach()))

    handle = embed.register_forward_hook(look)
    batch = materialise([prepared], [[0]], processor.pad_token_id)
    loss_of(made, batch, num_items=2)().backward()
    handle.remove()
    made.zero_grad()
    one = (seen["d"] * (seen["x"].double() @ kept.tensors[index].T)).sum(-1)
    alone = conflict_map(made, _just(probed, index), _only(kept, index), prepared, num_items=2)
    np.testing.assert_allclose(alone.patches[0], one.numpy(), rtol=1e-8, atol=1e-12)
    assert len(only.names) < len(probed.names)


def _just(probed, index):
    from workbench.probes.gradients.parameters import ParameterGroups

    return ParameterGroups(
        (probed.names[index],), (probed.parameters[index],), (probed.parts[index],), {"all": np.array([0])}
    )


def _only(kept, index):
    from workbench.probes.gradients.stream import KeptGradient

    return KeptGradient([kept.tensors[index]])


def test_averaged_frames_share_and_maps_of_a_batch_add_up():
    made, processor = double_model()
    made.config.pool_to = processor.config.pool_to = 2
    probed, kept = image_gradient(made, processor)
    pair = [conversation(processor, 4, seed) for seed in (1, 2)]
    maps = [conflict_map(made, probed, kept, prepared, num_items=4) for prepared in pair]
    total = maps[0] + maps[1]
    batch = materialise(pair, [[0, 1]], processor.pad_token_id)
    whole = whole_gradients(made, loss_of(made, batch, num_items=4))
    expected = sum(
        float((whole[n] * t).sum())
        for n, t in zip(probed.names, kept.tensors, strict=True)
        if whole[n] is not None and t is not None
    )
    assert total.whole[0] == pytest.approx(expected, rel=1e-9)
    llm = total.groups.index("llm")
    np.testing.assert_allclose(total.frames[llm][[0, 2]], total.frames[llm][[1, 3]])  # two frames, one token
    assert (total.frames[0].sum() + total.rest[0].sum()) == pytest.approx(expected, rel=1e-9)
    assert (
        isinstance(total.patches, np.ndarray) and total.patches.shape[-1] == pair[0].grid[1] * pair[0].grid[2]
    )
