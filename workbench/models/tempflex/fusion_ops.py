"""Temporal Fiber Fusion's local and periodic branches, and what its frequencies mean at a given number of frames.

Axes: B clips, F frames, P patches, D channels; W frequencies. A *fiber* is one patch position followed through time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def periodic_gains(frames: int, frequencies: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    """``cos(2 pi w f / F)`` as float64 ``[F, W]``; the product w f is reduced modulo F first, so the angle is exact to rounding."""
    f = torch.arange(frames, device=device)
    turns = torch.outer(f, torch.tensor(frequencies, device=device)) % frames
    return torch.cos(turns.double() * (2.0 * math.pi / frames))


def aliased_frequencies(frames: int, frequencies: tuple[int, ...]) -> dict[int, list[int]]:
    """Which frequencies of the periodic branch cannot be told apart when a clip has ``frames`` frames.

    ``cos(2 pi w f / F)`` on whole frames only depends on w's folded value ``min(w mod F, F - w mod F)``.

    Returns:
        folded frequency -> the configured frequencies that fold to it, in the order given. A value equal to its only key is
        unaltered; a key 0 is a constant gain; a list with several entries is one cosine counted several times. All five of
        (1, 2, 4, 8, 16) stay distinct only from F = 32 on; at F = 1 all fold to 0 and the release's scalar gain is 5.
    """
    folded: dict[int, list[int]] = {}
    for w in frequencies:
        rest = w % frames
        folded.setdefault(min(rest, frames - rest), []).append(w)
    return folded


def local_conv(k_BJPD: Tensor, x_BFPD: Tensor) -> Tensor:
    """Circular depthwise convolution over three frames (eq. 1): ``L_f = k_0 x_{f-1} + k_1 x_f + k_2 x_{f+1}``, frames modulo F.

    Args:
        k_BJPD: one kernel a fiber, ``[B, 3, P, D]``.
        x_BFPD: ``[B, F, P, D]``.

    Returns:
        ``[B, F, P, D]``.
    """
    before, now, after = k_BJPD.unsqueeze(2).unbind(1)
    return before * x_BFPD.roll(1, 1) + now * x_BFPD + after * x_BFPD.roll(-1, 1)


def periodic(x_BFPD: Tensor, weight_WDD: Tensor, frequencies: tuple[int, ...]) -> Tensor:
    """Periodic branch of the paper (eq. 3): ``P_f = sum_w cos(2 pi w f / F) W_w x_f``."""
    frames = x_BFPD.shape[1]
    gains_FW = periodic_gains(frames, frequencies, x_BFPD.device).to(weight_WDD.dtype)
    combined_FDD = torch.einsum("fw,wde->fde", gains_FW, weight_WDD)
    return torch.einsum("bfpe,fde->bfpd", x_BFPD, combined_FDD)
