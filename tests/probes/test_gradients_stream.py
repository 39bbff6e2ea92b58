"""Streamed inner products equal those of whole gradients; nothing is kept, missing is not 0, errors name modules."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.models.hosts import tiny
from tests.models.worlds import model as tempflex
from tests.probes.gradient_worlds import batch_of, double_model, loss_of, whole_gradients
from workbench.errors import CheckpointError
from workbench.probes.common import ProbeError
from workbench.probes.gradients import stream as stream_module
from workbench.probes.gradients.adam import AdamMetric
from workbench.probes.gradients.gram import blocks_of, measure, passes_of
from workbench.probes.gradients.parameters import parameter_groups, refuse_shards
from workbench.probes.gradients.stream import GradientStream

KINDS = ("tempflex", *tiny.KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_inner_products_equal_those_of_whole_gradients(kind):
    made, processor = double_model(kind)
    batches = {f: batch_of(processor, f, (1, 2), kind) for f in (1, 4)} | {
        0: batch_of(processor, 0, (3,), kind)
    }
    probed = parameter_groups(made)
    gram = measure(
        GradientStream(made, probed), lambda s: loss_of(made, batches[s]), [(1, 4), (1, 0), (4, 0)], copies=1
    )
    whole = {f: whole_gradients(made, loss_of(made, batch)) for f, batch in batches.items()}
    for a, b in ((1, 4), (1, 0), (4, 0), (1, 1), (4, 4), (0, 0)):
        for i, name in enumerate(probed.names):
            one, two, found = whole[a][name], whole[b][name], gram.dot(a, b)[i]
            if one is None or two is None:
                assert np.isnan(found), (a, b, name)
            else:
                assert found == pytest.approx(float((one * two).sum()), rel=1e-9, abs=1e-12), (a, b, name)
    assert all(p.grad is None for p in made.parameters())


@settings(max_examples=8, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.sampled_from([16, 32, 48]),
    st.booleans(),
)
def test_any_shape_and_number_of_copies(copies, frames, width, fusion):
    """However many gradients are kept at a time, and however small the blocks of the sum, numbers are the same."""
    made, processor = double_model(fusion=fusion)
    batches = [batch_of(processor, f, (i,), width=width) for i, f in enumerate(frames)]
    edges = [(i, j) for i in range(len(frames)) for j in range(i + 1, len(frames))]
    probed = parameter_groups(made)
    block, stream_module.BLOCK = stream_module.BLOCK, 1000
    try:
        gram = measure(GradientStream(made, probed), lambda s: loss_of(made, batches[s]), edges, copies)
    finally:
        stream_module.BLOCK = block
    whole = [whole_gradients(made, loss_of(made, batch)) for batch in batches]
    for i, j in edges:
        expected = sum(
            float((whole[i][n] * whole[j][n]).sum())
            for n in probed.names
            if whole[i][n] is not None and whole[j][n] is not None
        )
        assert np.nansum(gram.dot(i, j)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert gram.passes == passes_of(edges, copies)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=20), st.integers(1, 5))
def test_plan_covers_every_product_with_few_copies(edges, copies):
    edges = [(a, b) for a, b in edges if a != b]
    covered = set()
    for block, streamed in blocks_of(edges, copies):
        assert 1 <= len(block) <= copies and not set(block) & set(streamed)
        met = []
        for source in [*block, *streamed]:
            covered |= {frozenset((kept, source)) for kept in met}
            if source in block:
                met.append(source)
    assert {frozenset(edge) for edge in edges} <= covered


def test_at_most_one_parameters_gradient_lives_beside_the_kept_copy():
    made, processor = double_model()
    probed = parameter_groups(made)
    stream = GradientStream(made, probed)
    image = loss_of(made, batch_of(processor, 1, (1,)))
    _, kept = stream.run(image, keep=True)
    assert kept is not None and kept.nbytes <= probed.copy_bytes
    alive = []
    inner = stream._scalars

    def watch(index, gradient, others):
        alive.append(sum(p.grad is not None for p in made.parameters()))
        return inner(index, gradient, others)

    stream._scalars = watch
    stream.run(loss_of(made, batch_of(processor, 4, (1,))), {"image": kept})
    assert len(alive) == len(probed.names) and max(alive) == 0


def test_a_kept_copy_is_written_into_the_memory_of_the_last_one():
    made, processor = double_model()
    probed = parameter_groups(made)
    stream = GradientStream(made, probed)
    text = loss_of(made, batch_of(processor, 0, (1,)))  # reaches neither the encoder nor the merger
    clip = loss_of(made, batch_of(processor, 3, (1,)))
    _, first = stream.run(clip, keep=True)
    places = [None if t is None else t.data_ptr() for t in first.tensors]
    _, expected = GradientStream(made, probed).run(text, keep=True)
    stream.reuse(first)
    scalars, second = stream.run(text, keep=True)
    for place, now, right in zip(places, second.tensors, expected.tensors, strict=True):
        assert (now is None) == (right is None)
        if now is not None:
            assert now.data_ptr() == place and torch.equal(now, right)
    assert {i for i, t in enumerate(second.tensors) if t is None} == set(scalars.missing) != set()
    _, third = stream.run(clip, keep=True)  # nothing was taken back: memory of its own
    assert not {t.data_ptr() for t in third.tensors} & {t.data_ptr() for t in second.tensors if t is not None}


def test_tied_embeddings_count_once_with_both_uses():
    made, processor = double_model()
    assert made.config.tie_word_embeddings
    probed = parameter_groups(made)
    assert len({id(p) for p in probed.parameters}) == len(probed.parameters) == len(list(made.parameters()))
    name = "language_model.embed_tokens.weight"
    assert probed.names.count(name) == 1 and "lm_head.weight" not in probed.names
    loss = loss_of(made, batch_of(processor, 1, (1,)))
    scalars, _ = GradientStream(made, probed).run(loss)
    expected = float(whole_gradients(made, loss)[name].square().sum())
    assert scalars.squares["plain"][probed.names.index(name)] == pytest.approx(expected, rel=1e-10)


def test_groups_are_those_of_the_model_and_its_language_layers():
    made, _ = double_model()
    probed = parameter_groups(made)
    sizes = {name: len(members) for name, members in probed.groups.items()}
    parts = ("encoder", "fusion", "merger", "llm")
    assert sizes["all"] == sum(sizes[part] for part in parts) == len(probed.names)
    assert [name for name in sizes if name.startswith("llm.")] == ["llm.0", "llm.1", "llm.2"]
    for i in range(3):
        assert all(f"layers.{i}." in probed.names[k] for k in probed.groups[f"llm.{i}"])


def test_asked_groups_only_and_others_untouched():
    made, processor = double_model()
    probed = parameter_groups(made, ["merger", "llm.1"])
    assert set(probed.groups) == {"all", "merger", "llm.1"}
    frozen = made.encoder.post_norm.weight
    scalars, _ = GradientStream(made, probed).run(loss_of(made, batch_of(processor, 1, (1,))))
    assert not np.isnan(scalars.squares["plain"]).any()
    assert frozen.grad is None and all(p.requires_grad for p in made.parameters())
    with pytest.raises(ProbeError, match=r"'llm.9'.*it has encoder"):
        parameter_groups(made, ["llm.9"])


def test_gradients_that_were_there_survive_a_pass_and_an_error():
    made, processor = double_model()
    loss = loss_of(made, batch_of(processor, 1, (1,)))
    loss().backward()
    before = {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}
    stream = GradientStream(made, parameter_groups(made))
    stream.run(loss)
    with torch.no_grad():
        made.merger.mlp_in.weight[0, 0] = torch.nan
    with pytest.raises(ProbeError):
        stream.run(loss)
    assert all(torch.equal(p.grad, before[n]) for n, p in made.named_parameters() if n in before)
    assert not made.merger.mlp_in.weight._post_accumulate_grad_hooks


def test_broken_weights_are_named():
    made, processor = double_model()
    with torch.no_grad():
        made.language_model.layers[1].mlp.up_proj.weight[0, 0] = torch.inf
    stream = GradientStream(made, parameter_groups(made))
    with pytest.raises(
        ProbeError, match=r"weights of language_model.layers.1.mlp.up_proj.weight are not finite"
    ):
        stream.run(loss_of(made, batch_of(processor, 1, (1,))))


def test_an_overflowing_module_is_named():
    made, processor = tempflex()
    made.eval()
    with torch.no_grad():
        made.merger.mlp_out.weight.fill_(3e38)
    stream = GradientStream(made, parameter_groups(made))
    with pytest.raises(ProbeError, match=r"the output of merger.mlp_out is the first that is not finite"):
        stream.run(loss_of(made, batch_of(processor, 1, (1,))))


def test_a_broken_gradient_names_its_module_group():
    """The loss is finite, a gradient is not: a square root at 0 inside the second layer of the LLM."""
    made, processor = double_model()
    layer = made.language_model.layers[1].mlp
    layer.register_forward_hook(lambda m, i, out: out + (out * 0).abs().sum().sqrt())
    stream = GradientStream(made, parameter_groups(made))
    with pytest.raises(ProbeError, match=r"language_model.layers.1.*module group llm.1.*NaN or infinite"):
        stream.run(loss_of(made, batch_of(processor, 1, (1,))))


def test_gradients_in_parts_are_refused():
    made, processor = double_model(fusion=False)
    made.train()
    made.activation_checkpointing_enable({"use_reentrant": True})
    twice = made.language_model.layers[0]
    made.language_model.layers[
        1
    ].self_attn.q_proj.weight = twice.self_attn.q_proj.weight  # one weight, two segments
    batch = batch_of(processor, 1, (1,))
    stream = GradientStream(made, parameter_groups(made))
    with pytest.raises(ProbeError, match=r"came in parts \(reentrant checkpointing\)"):
        stream.run(loss_of(made, batch))


def test_checkpointing_without_reentrance_gives_the_same_squares():
    made, processor = double_model()
    loss = loss_of(made, batch_of(processor, 4, (1, 2)))
    stream = GradientStream(made, parameter_groups(made))
    plain, _ = stream.run(loss)
    made.train()
    made.activation_checkpointing_enable({"use_reentrant": False})
    again, _ = stream.run(loss)
    np.testing.assert_allclose(again.squares["plain"], plain.squares["plain"], rtol=1e-9)


def test_adam_metric_weighs_by_the_optimizer_and_lacks_what_was_frozen(tmp_path):
    made, processor = double_model()
    parameters = dict(made.named_parameters())
    for name in made.module_groups()["encoder"]:
        parameters[name].requires_grad_(False)
    trained = {n: p for n, p in parameters.items() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), betas=(0.9, 0.95), lr=0.0)
    batch = batch_of(processor, 4, (1, 2))
    for _ in range(3):
        loss_of(made, batch)().backward()
        optimizer.step()
    state = {f"{m}::{n}": optimizer.state[p][m] for n, p in trained.items() for m in ("exp_avg_sq", "step")}
    save_file(
        {k: v.detach().clone().contiguous() for k, v in state.items()}, tmp_path / "trainer.safetensors"
    )
    for parameter in parameters.values():
        parameter.requires_grad_(True)
        parameter.grad = None
    probed = parameter_groups(made)
    stream = GradientStream(made, probed, AdamMetric(tmp_path, beta2=0.95))
    image = loss_of(made, batch_of(processor, 1, (5,)))
    gram = measure(stream, {"i": image, "v": loss_of(made, batch)}.__getitem__, [("i", "v")])
    g_i, g_v = whole_gradients(made, image), whole_gradients(made, loss_of(made, batch))
    for i, name in enumerate(probed.names):
        found = gram.dot("i", "v", "adam")[i]
        if name not in trained:
            assert np.isnan(found) and not np.isnan(gram.dot("i", "v")[i])
            continue
        # a step of AdamW without momentum: what the optimizer itself would do with this gradient
        state = optimizer.state[parameters[name]]
        scale = (state["exp_avg_sq"] / (1 - 0.95 ** float(state["step"]))).sqrt() + 1e-8
        assert found == pytest.approx(float((g_i[name] * g_v[name] / scale).sum()), rel=1e-8, abs=1e-12), name


def test_optimizer_state_that_is_missing_or_of_another_model_is_said(tmp_path):
    made, processor = double_model()
    with pytest.raises(CheckpointError, match="no readable optimizer state"):
        AdamMetric(tmp_path, 0.95)
    save_file({"rng": torch.zeros(1)}, tmp_path / "trainer.safetensors")
    with pytest.raises(CheckpointError, match="no second moments"):
        AdamMetric(tmp_path, 0.95)
    name = "merger.mlp_in.weight"
    save_file(
        {f"exp_avg_sq::{name}": torch.ones(3, 2), f"step::{name}": torch.ones(())},
        tmp_path / "trainer.safetensors",
    )
    stream = GradientStream(made, parameter_groups(made), AdamMetric(tmp_path, 0.95))
    with pytest.raises(CheckpointError, match=r"second moments of merger.mlp_in.weight have shape \(3, 2\)"):
        stream.run(loss_of(made, batch_of(processor, 1, (1,))))


def test_shards_and_absent_weights_are_refused(tmp_path):
    folder = tmp_path / "global"
    folder.mkdir()
    (folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"holds ZeRO shards.*zero_to_fp32"):
        refuse_shards(folder)
    (folder / "model.safetensors").write_bytes(b"x")  # consolidated weights beside the shards are fine
    refuse_shards(folder)
    made, _ = double_model()
    made.merger.mlp_in.weight.ds_id = 7
    with pytest.raises(ProbeError, match=r"merger.mlp_in.weight are not here: it is partitioned"):
        parameter_groups(made)
