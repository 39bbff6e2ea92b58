"""Temporal Fiber Fusion's memory branch: first-order recurrences along the frame axis, forward and backward.

Axes: F frames first, then anything; written ``[F, N]``.

``gated_memory``    the paper's eq. 2, ``m_f = a_f * m_{f-1} + (1 - a_f) * x_f`` with ``m_{-1} = 0``.
``release_memory``  what the TempFlex release of 2025-12 computes instead.

Each is one loop over frames that writes into a preallocated result (one fused operation a frame), and a
hand-written backward: one reverse loop for the true recurrence, then whole-tensor operations for everything
that is not one. Autograd of the same Python loop records four nodes a frame and allocates for each. There is
deliberately no closed form over cumulative products: dividing by prod(a), or taking its logarithm, loses
every digit once gates saturate.

Cost: O(F N) work; 3 [F, N] tensors kept for backward. Double backward is not supported (it raises).
Walking N in cache-sized blocks was measured and does not help: whole frames stream well enough (docs/tff.md).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def gated_memory(a_FN: Tensor, x_FN: Tensor) -> Tensor:
    """Memory branch of the paper (eq. 2): a running average with a gate for each element and frame.

    Args:
        a_FN: gates in [0, 1], ``[F, ...]``; 1 keeps the past, 0 takes the new frame.
        x_FN: inputs of the same shape.

    Returns:
        ``m``, of x's shape and dtype. Half-precision inputs are accumulated in float32.

    Raises:
        ValueError: the shapes differ.
    """
    return _in_float(_GatedMemory, a_FN, x_FN)


def release_memory(a_FN: Tensor, x_FN: Tensor) -> Tensor:
    """Memory branch as the TempFlex release computes it: ``m_f = sum_{i<=f} w_i (1 - a_i) x_i``.

    ``w_0 = 1`` and ``w_i = prod_{j=i-1}^{F-1} a_j``. The weight of frame i does not depend on f, so nothing
    decays as f grows; and it contains the gates of frames after f, so the future leaks into earlier frames.

    Args, returns and raises as :func:`gated_memory`.
    """
    return _in_float(_ReleaseMemory, a_FN, x_FN)


def _in_float(function: type[torch.autograd.Function], a: Tensor, x: Tensor) -> Tensor:
    if a.shape != x.shape:
        raise ValueError(f"gates {tuple(a.shape)} and inputs {tuple(x.shape)} must have one shape")
    dtype = torch.promote_types(torch.promote_types(a.dtype, x.dtype), torch.float32)
    return function.apply(a.to(dtype).contiguous(), x.to(dtype).contiguous()).to(x.dtype)


class _GatedMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, x: Tensor) -> Tensor:
        m = torch.empty_like(x)
        a_F, x_F, m_F = a.unbind(0), x.unbind(0), m.unbind(0)
        torch.addcmul(x_F[0], a_F[0], x_F[0], value=-1, out=m_F[0])
        for f in range(1, len(x_F)):
            torch.lerp(x_F[f], m_F[f - 1], a_F[f], out=m_F[f])
        ctx.save_for_backward(a, x, m)
        return m

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        # d_f = dL/dm_f through every path: what leaves at frame f, and what the next frame kept of it.
        a, x, m = ctx.saved_tensors
        d = torch.empty_like(x)
        grad_F, a_F, d_F = grad.unbind(0), a.unbind(0), d.unbind(0)
        d_F[-1].copy_(grad_F[-1])
        for f in range(len(d_F) - 2, -1, -1):
            torch.addcmul(grad_F[f], a_F[f + 1], d_F[f + 1], out=d_F[f])
        da = torch.empty_like(a)
        torch.sub(m[:-1], x[1:], out=da[1:])
        torch.neg(x[0], out=da[0])
        da.mul_(d)
        return da, d.addcmul_(a, d, value=-1)  # dx = (1 - a) d


class _ReleaseMemory(torch.autograd.Function):
    # tail_f = prod_{j>=f} a_j, so w_i = tail_{i-1} for i >= 1.

    @staticmethod
    def forward(ctx, a: Tensor, x: Tensor) -> Tensor:
        tail = torch.empty_like(a)
        a_F, tail_F = a.unbind(0), tail.unbind(0)
        tail_F[-1].copy_(a_F[-1])
        for f in range(len(a_F) - 2, -1, -1):
            torch.mul(tail_F[f + 1], a_F[f], out=tail_F[f])
        m = torch.addcmul(x, a, x, value=-1)
        m[1:].mul_(tail[:-1])
        m_F = m.unbind(0)
        for f in range(1, len(m_F)):
            m_F[f].add_(m_F[f - 1])
        ctx.save_for_backward(a, x, tail)
        return m

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        # s_i = sum_{f>=i} grad_f is what reaches the term w_i v_i, v_i = (1 - a_i) x_i.
        # A gate a_j sits in v_j, and in w_i for 1 <= i <= j + 1, where the product without a_j is
        # (prod_{i-1 <= k < j} a_k) tail_{j+1}. So the second share is h_j tail_{j+1} with
        # h_j = s_{j+1} v_{j+1} + a_{j-1} h_{j-1}: a recurrence again, and no division by a gate.
        a, x, tail = ctx.saved_tensors
        s = torch.empty_like(x)
        grad_F, a_F, s_F = grad.unbind(0), a.unbind(0), s.unbind(0)
        frames = len(s_F)
        s_F[-1].copy_(grad_F[-1])
        for f in range(frames - 2, -1, -1):
            torch.add(s_F[f + 1], grad_F[f], out=s_F[f])

        h = torch.addcmul(x, a, x, value=-1).mul_(s)  # row j + 1 holds h_j; row 0 is unused
        h_F = h.unbind(0)
        for f in range(2, frames):
            h_F[f].addcmul_(a_F[f - 2], h_F[f - 1])

        s[1:].mul_(tail[:-1])  # s w
        da = torch.mul(s, x).neg_()
        da[:-1].addcmul_(h[1:], tail[1:])
        if frames > 1:  # the last gate: h_{F-1} = a_{F-2} h_{F-2}, and nothing comes after it
            da[-1].addcmul_(a_F[-2], h_F[-1])
        return da, s.addcmul_(a, s, value=-1)
