"""Temporal Fiber Fusion's memory branch: first-order recurrences along the frame axis, forward and backward.

Axes: F frames, N everything else (batch x patches x channels) as one contiguous axis.

``gated_memory``    the paper's eq. 2, ``m_f = a_f * m_{f-1} + (1 - a_f) * x_f`` with ``m_{-1} = 0``.
``release_memory``  what the TempFlex release of 2025-12 computes instead (see the function).

Both run as one loop over frames with preallocated results, and carry a hand-written backward loop, because on CPU autograd of
the same Python loop records several nodes a frame and copies a full [F, N] gradient for every one of them. There is no
closed form over cumulative products here: dividing by (or taking logarithms of) prod(a) loses all digits once gates saturate.
N is walked in blocks that stay in cache while F runs, so that memory is read once rather than once an operation.

Cost: O(F N) work, 2 x [F, N] saved for backward. Double backward is not supported (it raises).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK_BYTES = 1 << 18  # one frame's block of one operand; about five are live at once


def gated_memory(a_FN: Tensor, x_FN: Tensor) -> Tensor:
    """Memory branch of the paper (eq. 2): an exponential moving average with a gate for each element and frame.

    Args:
        a_FN: gates in [0, 1], ``[F, ...]``; 1 keeps the past, 0 takes the new frame.
        x_FN: inputs of the same shape.

    Returns:
        ``m`` of the same shape and of x's dtype. Half-precision inputs are accumulated in float32.
    """
    return _in_float(_GatedMemory, a_FN, x_FN)


def release_memory(a_FN: Tensor, x_FN: Tensor) -> Tensor:
    """Memory branch as the TempFlex release computes it: ``m_f = sum_{i<=f} w_i (1 - a_i) x_i``.

    ``w_0 = 1`` and ``w_i = prod_{j=i-1}^{F-1} a_j``: the weight of frame i does not depend on f, so nothing decays as f grows,
    and it multiplies the gates of *later* frames in, so the future leaks into earlier frames.

    Args and returns as :func:`gated_memory`.
    """
    return _in_float(_ReleaseMemory, a_FN, x_FN)


def _in_float(function: type[torch.autograd.Function], a: Tensor, x: Tensor) -> Tensor:
    if a.shape != x.shape:
        raise ValueError(f"gates {tuple(a.shape)} and inputs {tuple(x.shape)} must have one shape")
    dtype = torch.promote_types(torch.promote_types(a.dtype, x.dtype), torch.float32)
    return function.apply(a.to(dtype), x.to(dtype)).to(x.dtype)


def _blocks(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """The tensors as lists of [F, n] views over the same columns, n small enough for cache on CPU (all of N elsewhere)."""
    flat = [t.reshape(t.shape[0], -1) for t in tensors]
    columns = flat[0].shape[1]
    width = columns if flat[0].is_cuda else max(1, _BLOCK_BYTES // flat[0].element_size())
    return [tuple(t[:, start : start + width] for t in flat) for start in range(0, columns, width)]


class _GatedMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, x: Tensor) -> Tensor:
        a, x = a.contiguous(), x.contiguous()
        m = torch.empty_like(x)
        for a_Fn, x_Fn, m_Fn in _blocks(a, x, m):
            torch.sub(x_Fn[0], x_Fn[0] * a_Fn[0], out=m_Fn[0])
            for f in range(1, len(x_Fn)):
                torch.lerp(x_Fn[f], m_Fn[f - 1], a_Fn[f], out=m_Fn[f])
        ctx.save_for_backward(a, x, m)
        return m

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        # d_f = dL/dm_f in full: what leaves at frame f plus what later frames kept of it, a_{f+1} d_{f+1}.
        a, x, m = ctx.saved_tensors
        grad = grad.contiguous()
        da, dx = torch.empty_like(a), torch.empty_like(x)
        for g_Fn, a_Fn, x_Fn, m_Fn, da_Fn, dx_Fn in _blocks(grad, a, x, m, da, dx):
            d, kept = torch.empty_like(g_Fn[0]), torch.zeros_like(g_Fn[0])
            for f in range(len(x_Fn) - 1, -1, -1):
                torch.add(g_Fn[f], kept, out=d)
                torch.mul(a_Fn[f], d, out=kept)
                torch.sub(d, kept, out=dx_Fn[f])
                if f:
                    torch.sub(m_Fn[f - 1], x_Fn[f], out=da_Fn[f])
                else:
                    torch.neg(x_Fn[f], out=da_Fn[f])
                da_Fn[f].mul_(d)
        return da, dx


class _ReleaseMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, x: Tensor) -> Tensor:
        a, x = a.contiguous(), x.contiguous()
        w, m = torch.empty_like(x), torch.empty_like(x)
        for a_Fn, x_Fn, w_Fn, m_Fn in _blocks(a, x, w, m):
            frames = len(x_Fn)
            later = a_Fn[frames - 1]  # prod_{j > f} a_j
            for f in range(frames - 2, -1, -1):
                later = torch.mul(later, a_Fn[f], out=w_Fn[f + 1])
            w_Fn[0].fill_(1.0)
            for f in range(frames):
                torch.sub(x_Fn[f], a_Fn[f] * x_Fn[f], out=m_Fn[f])
                m_Fn[f].mul_(w_Fn[f])
                if f:
                    m_Fn[f].add_(m_Fn[f - 1])
        ctx.save_for_backward(a, x, w)
        return m

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        # s_i = sum_{f>=i} g_f reaches frame i's term w_i (1-a_i) x_i. The gate a_j sits in that term for i = j, and inside every
        # w_i with 1 <= i <= j + 1; w_i / a_j is the product without a_j = (prod_{i-1..j-1} a) * (prod_{j+1..} a), so
        # dw = h_j * prod_{k>j} a_k with h_j = u_{j+1} + a_{j-1} h_{j-1}, u_i = s_i (1-a_i) x_i (i >= 1): no division.
        a, x, w = ctx.saved_tensors
        grad = grad.contiguous()
        da, dx = torch.empty_like(a), torch.empty_like(x)
        for g_Fn, a_Fn, x_Fn, w_Fn, da_Fn, dx_Fn in _blocks(grad, a, x, w, da, dx):
            frames = len(x_Fn)
            s, u_Fn = torch.zeros_like(g_Fn[0]), torch.empty_like(g_Fn)
            for f in range(frames - 1, -1, -1):
                s.add_(g_Fn[f])
                torch.mul(s, w_Fn[f], out=dx_Fn[f])
                torch.mul(dx_Fn[f], x_Fn[f], out=da_Fn[f]).neg_()
                torch.mul(s, x_Fn[f], out=u_Fn[f])
                u_Fn[f].addcmul_(u_Fn[f], a_Fn[f], value=-1.0)
                dx_Fn[f].addcmul_(dx_Fn[f], a_Fn[f], value=-1.0)
            h = torch.zeros_like(g_Fn[0])
            for j in range(frames):
                if j:
                    h.mul_(a_Fn[j - 1])
                if j + 1 < frames:
                    h.add_(u_Fn[j + 1])
                if j + 2 < frames:  # prod_{k>j} a_k = w_{j+2}
                    da_Fn[j].addcmul_(h, w_Fn[j + 2])
                elif j + 2 == frames:
                    da_Fn[j].addcmul_(h, a_Fn[frames - 1])
                else:
                    da_Fn[j].add_(h)
        return da, dx
