"""Temporal Fiber Fusion against float64 loops, in values and gradients; what it reports and refuses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.models.fusion_reference import layer_params, paper_layer, release_layer, release_state
from workbench.models.tempflex import fusion_ops
from workbench.models.tempflex.fusion import FusionWeights, TemporalFiberFusion, aliased_frequencies
from workbench.models.tempflex.release_weights import load_release_fusion

DIM = 4


def _fusion(variant: str, depth: int = 1, dim: int = DIM) -> TemporalFiberFusion:
    """A stack with random everything, gamma and norms included, so that no term is silently absent."""
    torch.manual_seed(1)
    fusion = TemporalFiberFusion(dim, depth, variant=variant)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.4)
    return fusion


def _pair(variant: str, depth: int = 1):
    """Our stack in float64 and the reference of the same weights, with the reference's leaf tensors."""
    fusion = _fusion(variant, depth)
    if variant == "paper":
        leaves = {key: value.detach().double().requires_grad_() for key, value in fusion.state_dict().items()}
        layer = paper_layer
    else:
        state = release_state(DIM, depth)
        load_release_fusion(fusion, state)
        leaves = {key: value.double().requires_grad_() for key, value in state.items()}
        layer = release_layer

    def reference(x_BFPD: Tensor) -> Tensor:
        for index in range(depth):
            x_BFPD = layer(x_BFPD, layer_params(leaves, index, double=False))
        return x_BFPD

    return fusion.double(), reference, leaves


@pytest.mark.parametrize("variant", ["paper", "release"])
@settings(max_examples=12, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), st.sampled_from([1, 2, 3, 5, 8]), st.integers(1, 3)),
    seed=st.integers(0, 99),
)
def test_layer_equals_the_float64_loops(variant: str, shape: tuple[int, int, int], seed: int) -> None:
    fusion, reference, _ = _pair(variant)
    x = torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(fusion(x), reference(x), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(fusion.float()(x.float()).double(), reference(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["paper", "release"])
@pytest.mark.parametrize("frames", [1, 2, 7, 33])
def test_stack_of_two_and_all_its_gradients(variant: str, frames: int) -> None:
    fusion, reference, leaves = _pair(variant, depth=2)
    x = torch.randn(2, frames, 2, DIM, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn_like(x)
    names = list(leaves)
    expected = torch.autograd.grad(reference(x), [x, *leaves.values()], cotangent)
    z = fusion(x)
    torch.testing.assert_close(z, reference(x), rtol=1e-10, atol=1e-10)
    own = dict(fusion.named_parameters())
    if variant == "release":  # bring the reference's gradients under our names with the loader itself
        carrier = TemporalFiberFusion(DIM, 2, variant="release").double()
        load_release_fusion(carrier, dict(zip(names, expected[1:], strict=True)))
        wanted = dict(carrier.state_dict())
    else:
        wanted = dict(zip(names, expected[1:], strict=True))
    found = torch.autograd.grad(z, [x, *own.values()], cotangent)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-9)
    for name, gradient in zip(own, found[1:], strict=True):
        torch.testing.assert_close(
            gradient, wanted[name], rtol=1e-8, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    ("variant", "count", "published"), [("paper", 21_250_947, "21.25"), ("release", 22_582_659, "22.58")]
)
def test_parameters_of_a_full_layer(variant: str, count: int, published: str) -> None:
    with torch.device("meta"):
        fusion = TemporalFiberFusion(1152, 1, local_hidden=1152, ffn_hidden=2304, variant=variant)
        by_default = TemporalFiberFusion(1152, 4, variant=variant)
    found = sum(parameter.numel() for parameter in fusion.parameters())
    assert found == count and f"{found / 1e6:.2f}" == published
    assert sum(parameter.numel() for parameter in by_default.parameters()) == 4 * count


@pytest.mark.parametrize("variant", ["paper", "release"])
def test_weights_report_what_the_layers_did(variant: str) -> None:
    fusion = _fusion(variant, depth=2).double()
    x = torch.randn(2, 5, 3, DIM, dtype=torch.float64)
    z, weights = fusion(x, return_weights=True)
    assert isinstance(weights, FusionWeights)
    torch.testing.assert_close(z, fusion(x))
    assert weights.beta.shape == (2, 2, 3, 3) and weights.norms.shape == (2, 2, 5, 3, 3)
    assert weights.gates.shape == (2, 2, 5, 3)
    assert not (weights.beta.requires_grad or weights.norms.requires_grad or weights.gates.requires_grad)
    first = fusion.layers[0]
    beta = torch.softmax(x.mean(1) @ first.blend.weight.T + first.blend.bias, -1)
    gates = torch.sigmoid(x @ first.gate.weight.T + first.gate.bias)
    torch.testing.assert_close(weights.beta[0], beta)
    torch.testing.assert_close(weights.gates[0], gates.mean(-1))
    # The release's periodic branch is x times a scalar: its norm is known without the layer.
    gain = torch.tensor([sum(math.cos(2 * math.pi * w * f / 5) for w in (1, 2, 4, 8, 16)) for f in range(5)])
    if variant == "release":
        torch.testing.assert_close(weights.norms[0, ..., 2], gain.abs()[:, None].double() * x.norm(dim=-1))
    # Frame 0 of the paper's memory is (1 - a_0) x_0; of the release's too, because w_0 = 1.
    torch.testing.assert_close(weights.norms[0, :, 0, :, 1], ((1 - gates) * x)[:, 0].norm(dim=-1))


@pytest.mark.parametrize("variant", ["paper", "release"])
def test_clips_of_a_batch_do_not_touch(variant: str) -> None:
    fusion = _fusion(variant, depth=2).double()
    x = torch.randn(3, 4, 2, DIM, dtype=torch.float64)
    alone = torch.cat([fusion(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(fusion(x), alone)


def test_one_combined_matrix_a_frame_and_paired_frames_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    for frames in (1, 2, 3, 8, 9):
        x = torch.randn(frames, 2, 2, 3, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(5, 3, 3, dtype=torch.float64, requires_grad=True)
        results = []
        for limit in (1 << 20, 0):
            monkeypatch.setattr(fusion_ops, "_ALL_FRAMES_AT_ONCE", limit)
            out = fusion_ops.periodic(x, weight, (1, 2, 4, 8, 16))
            results.append((out, *torch.autograd.grad(out.sin().sum(), (x, weight))))
        torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("variant", ["paper", "release"])
def test_half_precision_and_autocast_stay_close(variant: str) -> None:
    fusion = _fusion(variant, depth=1, dim=16)
    x = torch.randn(1, 32, 3, 16)
    exact = fusion(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = fusion(x.requires_grad_())
        z.float().square().mean().backward()
    assert (z.float() - exact).norm() / exact.norm() < 0.03
    assert all(torch.isfinite(parameter.grad).all() for parameter in fusion.parameters())
    half = fusion.bfloat16()(x.detach().bfloat16())
    assert half.dtype == torch.bfloat16 and (half.float() - exact).norm() / exact.norm() < 0.05


def test_fresh_layer_moves_features_by_a_unit_norm_update() -> None:
    """What activation does to an encoder's features, as docs/tff.md says: an update of RMS 1."""
    torch.manual_seed(0)
    for scale in (0.1, 1.0, 10.0):
        x = scale * torch.randn(2, 8, 4, 64)
        update = TemporalFiberFusion(64, 1)(x) - x
        assert 0.95 < update.square().mean().sqrt() < 1.05


@pytest.mark.parametrize(("variant", "gamma"), [("paper", 0.0), ("release", 1.0)])
def test_reset_parameters_fills_a_stack_made_without_storage(variant: str, gamma: float) -> None:
    with torch.device("meta"):
        fusion = TemporalFiberFusion(16, 2, variant=variant)
    fusion = fusion.to_empty(device="cpu")
    for parameter in fusion.parameters():
        torch.nn.init.constant_(parameter, math.nan)
    for module in fusion.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert all(torch.isfinite(parameter).all() for parameter in fusion.parameters())
    assert all((layer.gamma == gamma).all() for layer in fusion.layers)


def test_aliased_frequencies() -> None:
    w = (1, 2, 4, 8, 16)
    assert aliased_frequencies(1, w) == {0: [1, 2, 4, 8, 16]}
    assert aliased_frequencies(2, w) == {1: [1], 0: [2, 4, 8, 16]}
    assert aliased_frequencies(9, w) == {1: [1, 8], 2: [2, 16], 4: [4]}
    assert aliased_frequencies(16, w) == {1: [1], 2: [2], 4: [4], 8: [8], 0: [16]}
    assert [len(aliased_frequencies(f, w)) for f in (31, 32, 64)] == [5, 5, 5]
    assert aliased_frequencies(31, w) == {1: [1], 2: [2], 4: [4], 8: [8], 15: [16]}
    for frames in range(1, 70):  # same folded value <=> same cosine on every frame
        gains = fusion_ops.periodic_gains(frames, w)
        for i, a in enumerate(w):
            for j, b in enumerate(w):
                together = any(a in group and b in group for group in aliased_frequencies(frames, w).values())
                assert together == torch.allclose(gains[:, i], gains[:, j], atol=1e-9)


def test_refuses_what_it_cannot_fuse() -> None:
    fusion = TemporalFiberFusion(8, 1)
    with pytest.raises(ValueError, match=r"expected \[B, F, P, 8\], got \[2, 3, 8\]"):
        fusion(torch.zeros(2, 3, 8))
    with pytest.raises(ValueError, match="expected"):
        fusion(torch.zeros(1, 2, 3, 4))
    with pytest.raises(ValueError, match="expected"):
        fusion(torch.zeros(1, 0, 3, 8))
    with pytest.raises(ValueError, match="variant"):
        TemporalFiberFusion(8, 1, variant="other")


def test_empty_stack_is_the_identity() -> None:
    x = torch.randn(1, 2, 3, 8)
    torch.testing.assert_close(TemporalFiberFusion(8, 0)(x), x)
