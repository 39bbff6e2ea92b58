"""Temporal Fiber Fusion's local and periodic branches, and what its frequencies mean at a given number of
frames.

Axes: F frames, B clips, P patches, D channels; W frequencies, J = 3 taps. A *fiber* is one patch position
followed through time. Frames come first here, so that one frame of a whole batch is one contiguous block.

Double backward is not supported (it raises).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Up to this many elements, one combined matrix a frame for all frames at once ([F, D, D]) is faster than
# pairing frames.
_ALL_FRAMES_AT_ONCE = 1 << 20


def periodic_gains(frames: int, frequencies: tuple[int, ...]) -> Tensor:
    """``cos(2 pi w f / F)`` as float64 ``[F, W]`` on the CPU; w f is reduced modulo F first: exact to
    rounding."""
    turns_FW = torch.outer(torch.arange(frames), torch.tensor(frequencies, dtype=torch.long)) % frames
    return torch.cos(turns_FW.double() * (2.0 * math.pi / frames))


def aliased_frequencies(frames: int, frequencies: tuple[int, ...]) -> dict[int, list[int]]:
    """Which frequencies of the periodic branch cannot be told apart when a clip has ``frames`` frames.

    On whole frames ``cos(2 pi w f / F)`` depends on w only through its folded value ``min(w mod F, F - w mod
    F)``.

    Returns:
        folded frequency -> the configured frequencies that fold to it, in the order given. Key 0 is a
        constant gain; a list of several is one cosine counted several times; a frequency under a key other
        than itself (w > F / 2) is seen as a slower one. (1, 2, 4, 8, 16) are five different cosines only from
        F = 32 on; at F = 1 all five fold to 0, and the release's scalar gain is 5.
    """
    folded: dict[int, list[int]] = {}
    for w in frequencies:
        rest = w % frames
        folded.setdefault(min(rest, frames - rest), []).append(w)
    return folded


def local_conv(k_JBPD: Tensor, x_FBPD: Tensor) -> Tensor:
    """Circular depthwise convolution over three frames (eq. 1): ``L_f = k_0 x_{f-1} + k_1 x_f + k_2
    x_{f+1}``, modulo F.

    Args:
        k_JBPD: one kernel a fiber, ``[3, B, P, D]``.
        x_FBPD: ``[F, B, P, D]``.

    Returns:
        ``[F, B, P, D]``. Same cost as three multiplications; nothing is rolled or padded.
    """
    dtype = torch.promote_types(k_JBPD.dtype, x_FBPD.dtype)
    return _LocalConv.apply(k_JBPD.to(dtype), x_FBPD.to(dtype))


class _LocalConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, k: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(k, x)
        return _three_taps(k[0], k[1], k[2], x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        k, x = ctx.saved_tensors
        dk = torch.empty_like(k)
        torch.sum(grad * x, 0, out=dk[1])
        # Tap 0 saw x_{f-1}, tap 2 saw x_{f+1}; the frame that wraps is added by itself.
        torch.sum(grad[1:] * x[:-1], 0, out=dk[0]).addcmul_(grad[0], x[-1])
        torch.sum(grad[:-1] * x[1:], 0, out=dk[2]).addcmul_(grad[-1], x[0])
        return dk, _three_taps(k[2], k[1], k[0], grad)  # the transpose runs the taps backwards


def _three_taps(before: Tensor, now: Tensor, after: Tensor, x: Tensor) -> Tensor:
    out = now * x
    out[1:].addcmul_(before, x[:-1])
    out[0].addcmul_(before, x[-1])
    out[:-1].addcmul_(after, x[1:])
    out[-1].addcmul_(after, x[0])
    return out


def periodic(x_FBPD: Tensor, weight_WDD: Tensor, frequencies: tuple[int, ...]) -> Tensor:
    """Periodic branch of the paper (eq. 3): ``P_f = sum_w cos(2 pi w f / F) W_w x_f``, with ``W_w =
    weight_WDD[w]``.

    The sum is folded into one matrix a frame, ``C_f = sum_w cos(2 pi w f / F) W_w``: one matrix product
    instead of W for every token. Frames f and F - f share their matrix. Under autocast it runs in autocast's
    dtype; matrices are combined, and their gradients summed, in float32 or better.

    Args:
        x_FBPD: ``[F, B, P, D]``.
        weight_WDD: ``[W, D, D]``, output channel before input channel as in nn.Linear.

    Returns:
        ``[F, B, P, D]``.
    """
    kind = x_FBPD.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        with torch.autocast(kind, enabled=False):
            return periodic(x_FBPD.to(dtype), weight_WDD.to(dtype), frequencies)
    frames, dim = x_FBPD.shape[0], x_FBPD.shape[-1]
    x_FND = x_FBPD.reshape(frames, -1, dim)
    exact = torch.promote_types(x_FBPD.dtype, torch.float32)
    gains_FW = periodic_gains(frames, frequencies).to(x_FBPD.device, exact)
    if frames * dim * dim <= _ALL_FRAMES_AT_ONCE:
        combined_FDD = (gains_FW @ weight_WDD.to(exact).flatten(1)).to(x_FBPD.dtype).unflatten(1, (dim, dim))
        return torch.bmm(x_FND, combined_FDD.transpose(1, 2)).view_as(x_FBPD)
    return _PairedPeriodic.apply(x_FND, weight_WDD, gains_FW).view_as(x_FBPD)


class _PairedPeriodic(torch.autograd.Function):
    """Holds one combined matrix at a time, used for frames f and F - f, and makes it again in backward."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, gains: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, gains)
        out = torch.empty_like(x)
        for pair, combined in _combined(weight, gains, x.dtype):
            for f in pair:
                torch.mm(x[f], combined.t(), out=out[f])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, gains = ctx.saved_tensors
        dx = torch.empty_like(x)
        dweight = torch.zeros(weight.shape, dtype=gains.dtype, device=weight.device)
        for pair, combined in _combined(weight, gains, x.dtype):
            for f in pair:
                torch.mm(grad[f], combined, out=dx[f])
            dcombined = torch.mm(grad[pair[0]].t(), x[pair[0]])
            if len(pair) == 2:
                dcombined.addmm_(grad[pair[1]].t(), x[pair[1]])
            dweight.flatten(1).addr_(gains[pair[0]], dcombined.flatten().to(gains.dtype))
        return dx, dweight.to(weight.dtype), None


def _combined(weight: Tensor, gains: Tensor, dtype: torch.dtype) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Yields ((f, F - f), C_f) over the frames that differ; a frame that is its own partner comes alone."""
    frames, columns_XW = len(gains), weight.to(gains.dtype).flatten(1).t()
    for f in range(frames // 2 + 1):
        partner = (frames - f) % frames
        yield (
            (f,) if partner == f else (f, partner),
            torch.mv(columns_XW, gains[f]).to(dtype).view(weight.shape[1:]),
        )
