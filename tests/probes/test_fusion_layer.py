"""A TFF layer taken apart equals float64 loops, and its parts add up to what the live layer gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.fusion_reference import layer_params, paper_layer
from tests.probes import fusion_oracle as oracle
from workbench.models.tempflex.fusion import TemporalFiberFusion
from workbench.models.tempflex.fusion_ops import periodic_gains
from workbench.probes.common import ProbeError
from workbench.probes.fusion.frequencies import frequency_table
from workbench.probes.fusion.layer import take_apart, tolerance
from workbench.probes.fusion.memory import memory_view
from workbench.probes.fusion.names import HORIZON
from workbench.probes.fusion.stack import look

VARIANTS = ["paper", "release"]
torch.set_num_threads(1)


def stack(variant: str, dim: int = 4, depth: int = 1, seed: int = 0) -> TemporalFiberFusion:
    """Random everything, gamma and norms included, so that no term is silently absent."""
    torch.manual_seed(seed)
    fusion = TemporalFiberFusion(dim, depth, local_hidden=dim + 1, variant=variant).double()
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.5)
    return fusion


def params_of(fusion: TemporalFiberFusion, layer: int = 0) -> dict[str, torch.Tensor]:
    return {k: v.detach() for k, v in layer_params(fusion.state_dict(), layer).items()}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=12, deadline=None)
@given(
    frames=st.integers(1, 6),
    patches=st.integers(1, 4),
    dim=st.integers(2, 5),
    block=st.integers(1, 80),
    seed=st.integers(0, 99),
)
def test_everything_equals_the_loops(variant, frames, patches, dim, block, seed):
    fusion = stack(variant, dim, seed=seed)
    x = random(frames, patches, dim, seed=seed)
    with torch.no_grad():
        z = fusion(x[None])[0]
        view = take_apart(fusion.layers[0], x, z, keep_parts=True, block=block)
    wanted = oracle.take_apart(params_of(fusion), x, variant)
    close = {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(wanted.pop("output"), z, **close)  # the oracle is the layer
    for name, value in wanted.items():
        torch.testing.assert_close(getattr(view, name), value, **close, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(x + view.parts.sum(2), z, **close)  # parts add up to the live output
    assert view.check < 1e-12
    ones = torch.ones(frames, patches, dtype=torch.float64)
    torch.testing.assert_close(view.shares.sum(-1), ones, **close)
    update = z - x
    assert view.update == pytest.approx(float(update.norm() / x.norm()))
    whole = (view.parts * update[:, :, None]).sum((0, 1, 3)) / update.square().sum()
    torch.testing.assert_close(view.whole_shares, whole, **close)
    assert view.offset == pytest.approx(
        float(update.mean((0, 1)).square().sum() / update.square().sum(-1).mean())
    )


def test_the_oracle_agrees_with_the_layer_reference_of_the_models():
    """Two independent sets of loops; the reference of tests/models is the one that froze eq. 1-5."""
    fusion, x = stack("paper"), random(5, 3, 4)
    params = params_of(fusion)
    torch.testing.assert_close(
        oracle.take_apart(params, x, "paper")["output"], paper_layer(x[None], params)[0]
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_wrong_number_is_noticed(variant):
    """The check catches a part that the live layer does not have: here another gate, kernel, gamma, frequency."""
    fusion, x = stack(variant), random(5, 3, 4)
    with torch.no_grad():
        z = fusion(x[None])[0]
        for name in ("gate.bias", "local_out.bias", "gamma", "norm.bias", "ffn_in.bias", "blend.weight"):
            other = stack(variant)
            dict(other.layers[0].named_parameters())[name][0] += 0.1
            assert take_apart(other.layers[0], x, z).check > tolerance(torch.float64)
        other = stack(variant)
        other.layers[0].frequencies = (1, 2, 4, 8, 15)
        assert take_apart(other.layers[0], x, z).check > tolerance(torch.float64)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_stack_is_taken_apart_layer_by_layer(variant):
    fusion, x = stack(variant, depth=3), random(4, 2, 4)
    seen = {}
    whole = look(fusion, x, seen.__setitem__, keep_parts=True)
    assert list(seen) == [0, 1, 2]
    z = x
    for layer, view in seen.items():
        torch.testing.assert_close(z.norm(dim=-1), view.norms[..., 0])
        z = z + view.parts.sum(2)
        torch.testing.assert_close(z, oracle_until(fusion, x, layer, variant))
    assert whole == pytest.approx(float((z - x).norm() / x.norm()))
    assert not any(layer._forward_hooks for layer in fusion.layers)


def oracle_until(fusion, x, layer, variant):
    for index in range(layer + 1):
        x = oracle.take_apart(params_of(fusion, index), x, variant)["output"]
    return x


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_is_taken_apart_in_float32(variant, dtype):
    fusion, x = stack(variant, dim=16).to(dtype), random(6, 3, 16).to(dtype)
    seen = []
    look(fusion, x, lambda _, view: seen.append(view))
    assert seen[0].beta.dtype == torch.float32 and 0 <= seen[0].check < tolerance(dtype)
    exact = oracle.take_apart(params_of(fusion), x.double(), variant)
    torch.testing.assert_close(seen[0].beta.double(), exact["beta"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[0].horizon.double(), exact["horizon"], rtol=1e-3, atol=1e-4)


# -- the memory's horizon --------------------------------------------------------------------------


def horizon_of(a: torch.Tensor, variant: str, x: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    view = memory_view(a, torch.ones_like(a) if x is None else x, variant)
    return {name: view.horizon_FPH[:, 0, at] for at, name in enumerate(HORIZON)}


@pytest.mark.parametrize("gate", [0.0, 0.3, 0.9])
def test_constant_gates_of_the_paper_have_a_known_horizon(gate):
    """Geometric weights: (sum)^2 / sum of squares -> (1 + a) / (1 - a), mean age -> a / (1 - a)."""
    found = horizon_of(torch.full((400, 1, 2), gate, dtype=torch.float64), "paper")
    assert float(found["effective_frames"][-1]) == pytest.approx((1 + gate) / (1 - gate))
    assert float(found["past_share"][-1]) == pytest.approx(gate)
    assert float(found["mean_age"][-1]) == pytest.approx(gate / (1 - gate))
    assert float(found["mass"][-1]) == pytest.approx(1.0)
    assert (found["leak"] == 0).all() and (found["future_factor"] == 1).all()


def test_saturated_gates_remember_nothing():
    found = horizon_of(torch.ones(3, 1, 2, dtype=torch.float64), "paper")
    assert (found["effective_frames"] == 0).all() and (found["mass"] == 0).all()
    assert found["past_share"].isnan().all()


def test_the_release_does_not_decay_and_leaks():
    gates = random(7, 1, 3, seed=3).sigmoid()
    found = horizon_of(gates, "release")
    view = memory_view(gates, torch.ones_like(gates), "release")
    for i in range(7):  # the weight of a frame is the same in every later memory
        column = view.weights_FF[i:, i]
        torch.testing.assert_close(column, column[:1].expand_as(column))
    assert found["leak"][0] == 0 and found["leak"][-1] == 0 and (found["leak"][1:-1] > 0).all()
    other = gates.clone()
    other[-1] = 0.999  # only the last frame's gate: the memory of frame 1 moves with it
    before, after = (memory_view(g, torch.ones_like(g), "release").memory_FPD[1] for g in (gates, other))
    assert not torch.allclose(before, after)
    torch.testing.assert_close(
        *(memory_view(g, torch.ones_like(g), "paper").memory_FPD[1] for g in (gates, other))
    )
    opened = gates.clone()
    opened[3:] = 1.0  # later gates of 1 scale nothing: no leak into frame 2
    assert float(horizon_of(opened, "release")["leak"][2]) == 0
    opened[-1] = 0.0  # a later gate of 0 erases all but frame 0's term
    assert float(horizon_of(opened, "release")["future_factor"][2]) == 0


# -- frequencies -----------------------------------------------------------------------------------


@given(frames=st.integers(1, 70))
def test_the_frequency_table_counts_cosines(frames):
    w = (1, 2, 4, 8, 16)
    found = frequency_table(frames, w, "release")
    gains = periodic_gains(frames, w)
    columns = {tuple(gains[:, i].mul(1e6).round().tolist()) for i in range(5)}
    assert found["distinct"] == len(columns)
    assert found["oscillating"] == len([c for c in columns if any(v != c[0] for v in c)])
    for i, each in enumerate(w):
        column = gains[:, i]
        assert (each in found["constant"]) == bool((column - 1).abs().max() < 1e-9)
        alternating = torch.tensor([(-1.0) ** f for f in range(frames)], dtype=torch.float64)
        flips = frames > 1 and bool((column - alternating).abs().max() < 1e-9)
        assert (each in found["at_half"]) == flips
        assert (each in found["too_fast"]) == (each > frames / 2)
    assert found["gains"] == pytest.approx(gains.sum(1).tolist())
    assert frequency_table(frames, w, "paper")["gains"] is None


# -- bad input -------------------------------------------------------------------------------------


def test_values_that_are_not_finite_name_the_layer():
    fusion, x = stack("paper", depth=2), random(3, 2, 4)
    with torch.no_grad():
        fusion.layers[1].ffn_out.bias[0] = float("nan")
    with pytest.raises(ProbeError, match=r"layer 1 of the fusion: its output is not finite"):
        look(fusion, x, lambda *_: None)
    assert not any(layer._forward_hooks for layer in fusion.layers)


def test_a_layer_that_computes_something_else_is_refused():
    fusion, x = stack("paper"), random(3, 2, 4)
    layer = fusion.layers[0]
    plain = layer._refine
    layer._refine = lambda x, y: 1.01 * plain(x, y)
    with pytest.raises(ProbeError, match="its parts miss its output"):
        look(fusion, x, lambda *_: None)
