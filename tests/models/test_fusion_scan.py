"""The memory recurrences: exact in float32 when gates saturate, gradients by finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models import fusion_reference
from workbench.models.tempflex.fusion_ops import local_conv
from workbench.models.tempflex.scan import gated_memory, release_memory

PAIRS = [
    pytest.param(gated_memory, fusion_reference.paper_memory, id="paper"),
    pytest.param(release_memory, fusion_reference.release_memory, id="release"),
]


def _reference(oracle, a: Tensor, x: Tensor) -> Tensor:
    return torch.stack(oracle(list(a.double()), list(x.double())))


@pytest.mark.parametrize(("ours", "oracle"), PAIRS)
@pytest.mark.parametrize("frames", [1, 2, 3, 8, 21])
def test_float64_values_and_gradcheck(ours, oracle, frames: int) -> None:
    torch.manual_seed(frames)
    a = torch.rand(frames, 2, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(frames, 2, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(a, x), _reference(oracle, a, x), rtol=1e-13, atol=1e-13)
    assert torch.autograd.gradcheck(ours, (a, x))


@pytest.mark.parametrize(("ours", "oracle"), PAIRS)
@pytest.mark.parametrize("gates", ["uniform", "keeping", "forgetting", "saturated"])
def test_float32_is_exact_to_1e5_forward_and_backward(ours, oracle, gates: str) -> None:
    torch.manual_seed(0)
    frames, width = 48, 40
    logits = {"uniform": 1.0, "keeping": 3.0, "forgetting": 3.0, "saturated": 60.0}[gates] * torch.randn(
        frames, width
    )
    logits += {"keeping": 5.0, "forgetting": -5.0}.get(gates, 0.0)
    a, x, cotangent = torch.sigmoid(logits), torch.randn(frames, width), torch.randn(frames, width)
    assert gates != "saturated" or (a == 1).any()
    a32, x32 = a.clone().requires_grad_(), x.clone().requires_grad_()
    a64, x64 = a.double().requires_grad_(), x.double().requires_grad_()
    m32, m64 = ours(a32, x32), _reference(oracle, a64, x64)
    found = torch.autograd.grad(m32, (a32, x32), cotangent)
    wanted = torch.autograd.grad(m64, (a64, x64), cotangent.double())
    for value, exact in zip((m32, *found), (m64, *wanted), strict=True):
        assert torch.isfinite(value).all()
        assert (value - exact).abs().max() <= 1e-5 * exact.abs().max()


@pytest.mark.parametrize(("ours", "oracle"), PAIRS)
def test_gates_of_exactly_zero_and_one(ours, oracle) -> None:
    a = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.5, 1.0, 1.0]], requires_grad=True)
    x = torch.arange(12.0).reshape(4, 3).requires_grad_()
    a64, x64 = a.detach().double().requires_grad_(), x.detach().double().requires_grad_()
    found = torch.autograd.grad(ours(a, x).square().sum(), (a, x))
    wanted = torch.autograd.grad(_reference(oracle, a64, x64).square().sum(), (a64, x64))
    for value, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)


def test_only_the_release_lets_the_future_in() -> None:
    torch.manual_seed(0)
    a, x = torch.rand(6, 4), torch.randn(6, 4)
    changed = a.clone()
    changed[5] *= 0.5
    assert torch.equal(gated_memory(a, x)[:5], gated_memory(changed, x)[:5])
    leak = (release_memory(a, x) - release_memory(changed, x))[:5].abs().amax(-1)
    assert leak[0] == 0 and (leak[1:] > 0).all()  # w_0 = 1 keeps only frame 0 clean


@pytest.mark.parametrize("ours", [gated_memory, release_memory])
def test_half_precision_is_accumulated_in_float32(ours) -> None:
    torch.manual_seed(0)
    a, x = torch.sigmoid(torch.randn(64, 8) + 4).bfloat16(), torch.randn(64, 8).bfloat16()
    m = ours(a, x)
    assert m.dtype == torch.bfloat16
    assert torch.equal(m, ours(a.float(), x.float()).bfloat16())


def test_transposed_inputs_and_repeated_backward() -> None:
    a = torch.rand(3, 7, dtype=torch.float64).t().requires_grad_()
    x = torch.randn(3, 7, dtype=torch.float64).t().requires_grad_()
    total = gated_memory(a, x).sum()
    first = torch.autograd.grad(total, (a, x), retain_graph=True)
    torch.testing.assert_close(first, torch.autograd.grad(total, (a, x)))
    with pytest.raises(ValueError, match="one shape"):
        gated_memory(a, x[:3])


def test_double_backward_is_refused() -> None:
    a, x = torch.rand(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(gated_memory(a, x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_local_convolution_is_circular(frames: int) -> None:
    torch.manual_seed(0)
    k = torch.randn(3, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(frames, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([sum(k[j + 1] * x[(f + j) % frames] for j in (-1, 0, 1)) for f in range(frames)])
    torch.testing.assert_close(local_conv(k, x), expected)
    assert torch.autograd.gradcheck(local_conv, (k, x))
