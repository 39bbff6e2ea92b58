"""Loading the release's TFF and merger: the result computes what the release does; bad files are refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from tests.models.fusion_reference import layer_params, release_layer, release_state
from workbench.errors import CheckpointError
from workbench.models.tempflex.fusion import TemporalFiberFusion
from workbench.models.tempflex.merger import PatchMerger
from workbench.models.tempflex.release_weights import load_release_fusion, load_release_merger


@pytest.mark.parametrize("prefix", ["", "temporal_encoder.", "model.temporal_encoder."])
def test_loaded_stack_computes_what_the_release_computes(prefix: str, tmp_path) -> None:
    state = {prefix + key: value for key, value in release_state(4, 2).items()}
    if prefix:
        state["model.mm_projector.ln_q.weight"] = torch.ones(4)  # a whole model's file has more in it
    save_file(state, tmp_path / "model.safetensors")
    fusion = TemporalFiberFusion(4, 2, variant="release")
    load_release_fusion(fusion, load_file(tmp_path / "model.safetensors"))
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    expected = x
    for layer in range(2):
        expected = release_layer(expected, layer_params(release_state(4, 2), layer))
    torch.testing.assert_close(fusion.double()(x), expected)


def _without(key: str):
    return lambda state: state.pop(key)


def _with(key: str, tensor: Tensor):
    return lambda state: state.update({key: tensor})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without("layers.1.mem_gate.bias"), "missing layers.1.mem_gate.bias"),
        (_with("layers.2.gamma", torch.ones(1, 1, 1, 4)), "unexpected layers.2.gamma"),
        (
            _with("layers.0.ffn.0.weight", torch.ones(8, 4)),
            r"layers.0.ffn.0.weight has shape \[8, 4\], not \[16, 4\]",
        ),
        (_with("layers.0.gamma", torch.ones(2, 1, 1, 4)), "layers.0.gamma has shape"),
        (dict.clear, "and 29 more"),
    ],
)
def test_bad_state_is_refused_and_nothing_is_loaded(spoil, said: str) -> None:
    state = release_state(4, 2)
    spoil(state)
    fusion = TemporalFiberFusion(4, 2, variant="release")
    before = {key: value.clone() for key, value in fusion.state_dict().items()}
    with pytest.raises(CheckpointError, match=said) as caught:
        load_release_fusion(fusion, state, source="model.safetensors")
    assert str(caught.value).startswith("model.safetensors: cannot load the release's TFF")
    assert all(torch.equal(value, before[key]) for key, value in fusion.state_dict().items())


def test_wrong_variant_depth_and_ambiguous_modules() -> None:
    with pytest.raises(CheckpointError, match="variant 'paper'"):
        load_release_fusion(TemporalFiberFusion(4, 2), release_state(4, 2))
    with pytest.raises(CheckpointError, match=r"missing layers\.2"):
        load_release_fusion(TemporalFiberFusion(4, 3, variant="release"), release_state(4, 2))
    twice = {f"{side}.temporal_encoder.{k}": v for side in "ab" for k, v in release_state(4, 1).items()}
    with pytest.raises(CheckpointError, match="several modules"):
        load_release_fusion(TemporalFiberFusion(4, 1, variant="release"), twice)


def test_merger() -> None:
    torch.manual_seed(0)
    shapes = {"ln_q.weight": (3,), "mlp.0.weight": (12, 12), "mlp.0.bias": (12,), "mlp.2.weight": (5, 12)}
    state = {name: torch.randn(shape) for name, shape in (shapes | {"mlp.2.bias": (5,)}).items()}
    merger = PatchMerger(3, 5, mode="strip4")
    load_release_merger(merger, {f"model.mm_projector.{key}": value for key, value in state.items()})
    x = torch.randn(2, 8, 3)
    normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * state["ln_q.weight"]
    hidden = functional.gelu(normed.reshape(-1, 12) @ state["mlp.0.weight"].T + state["mlp.0.bias"])
    expected = (hidden @ state["mlp.2.weight"].T + state["mlp.2.bias"]).reshape(2, 2, 5)
    torch.testing.assert_close(merger(x, 2, 4), expected)
    with pytest.raises(CheckpointError, match="merges by 2x2"):
        load_release_merger(PatchMerger(3, 5), state)
    with pytest.raises(CheckpointError, match=r"missing mlp\.2\.bias"):
        load_release_merger(merger, {key: value for key, value in state.items() if key != "mlp.2.bias"})
