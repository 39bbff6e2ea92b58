"""What the memory branch remembers: the weight of every frame in every frame's memory, and numbers made of it.

Axes: F frames (f the one that remembers, i the one remembered), P patches, D channels. Both variants are a weighted
sum of frames, ``m_f = sum_{i<=f} v_{f,i} x_i``, with a weight for each patch and channel:

    paper    v_{f,i} = (1 - a_i) prod_{i<j<=f} a_j: what eq. 2 unrolls to; the weights of a frame add up to
             1 - prod_{j<=f} a_j
    release  v_{f,i} = w_i (1 - a_i), w_0 = 1, w_i = prod_{j=i-1}^{F-1} a_j: the same for every f

The weights are written out and the branch is made from them, so the lens' check against the layer's own output
(layer.py) is a check of these numbers too. Cost O(F^2 P D) elementwise, below the layer's matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.probes.fusion.names import HORIZON


@dataclass(frozen=True)
class MemoryView:
    """The memory branch of one layer on some patches.

    memory ``[F, P, D]``; horizon ``[F, P, 6]``, numbers in the order of ``HORIZON``; weights ``[F, F]``: v summed
    over patches and channels (row f, column i; 0 for i > f); channels ``[D]``: effective_frames of the last frame
    in each channel, summed over patches.
    """

    memory_FPD: Tensor
    horizon_FPH: Tensor
    weights_FF: Tensor
    channels_D: Tensor


def paper_weights(a_FPD: Tensor) -> Iterator[Tensor]:
    """For f = 0, 1, ...: v_{f,0..f} as ``[f + 1, P, D]`` (a view that the next step overwrites)."""
    v = torch.empty_like(a_FPD)
    for f, a in enumerate(a_FPD):
        v[:f].mul_(a)
        torch.sub(1.0, a, out=v[f])
        yield v[: f + 1]


def release_weights(a_FPD: Tensor) -> Iterator[Tensor]:
    """As ``paper_weights``, for the release."""
    u, tail = 1.0 - a_FPD, torch.ones_like(a_FPD[0])
    for i in range(len(a_FPD) - 1, 0, -1):  # tail = prod_{j>=i} a_j; w_i has a_{i-1} more
        tail = tail * a_FPD[i]
        u[i].mul_(tail).mul_(a_FPD[i - 1])
    for f in range(len(a_FPD)):
        yield u[: f + 1]


def memory_view(a_FPD: Tensor, x_FPD: Tensor, variant: str) -> MemoryView:
    """Memory and horizon from gates and inputs, both ``[F, P, D]``.

    The numbers, for each frame f and patch; c runs over channels:

    - effective_frames: mean over c of ``(sum_i v)^2 / sum_i v^2`` (Kish' effective sample size): 1 when one frame has
      all the weight, n when n frames share it equally, 0 for a channel without weight (all gates 1);
    - past_share: ``sum_c sum_{i<f} v / sum_c sum_i v``; mean_age: ``sum_c sum_i v (f - i) / sum_c sum_i v`` in frames;
      both NaN when there is no weight at all;
    - mass: mean over c of ``sum_i v``; below 1 the memory is a shrunken average;
    - future_factor: mean over c of ``prod_{j>f} a_j`` for the release (by this factor the gates of *later* frames
      scale every term but frame 0's), 1 for the paper;
    - leak: ``|m_f - m~_f| / |m~_f|`` (L2 over c), m~ made with products that stop at f; 0 for the paper.
    """
    frames, patches, _ = x_FPD.shape
    memory, weights = torch.empty_like(x_FPD), x_FPD.new_zeros(frames, frames)
    horizon = x_FPD.new_zeros(frames, patches, len(HORIZON))
    horizon[..., HORIZON.index("future_factor")] = 1.0
    rows = paper_weights(a_FPD) if variant == "paper" else release_weights(a_FPD)
    for f, v in enumerate(rows):
        memory[f] = (v * x_FPD[: f + 1]).sum(0)
        weights[f, : f + 1] = v.sum((1, 2))
        mass_PD = v.sum(0)
        there = mass_PD > 0
        shares = v / mass_PD.where(there, mass_PD.new_ones(()))  # squares of v itself could vanish
        effective = torch.where(there, 1 / shares.square().sum(0), 0.0)
        per_frame = v.sum(-1)  # [f + 1, P]
        total, ages = per_frame.sum(0), torch.arange(f, -1, -1).to(x_FPD)
        horizon[f, :, 0] = effective.mean(-1)
        horizon[f, :, 1] = per_frame[:f].sum(0) / total
        horizon[f, :, 2] = (ages[:, None] * per_frame).sum(0) / total
        horizon[f, :, 3] = mass_PD.mean(-1)
    if variant != "paper":
        _leak(a_FPD, x_FPD, memory, horizon)
    return MemoryView(memory, horizon, weights, effective.sum(0))


def _leak(a_FPD: Tensor, x_FPD: Tensor, memory_FPD: Tensor, horizon_FPH: Tensor) -> None:
    """Fills future_factor and leak. Every term of m_f but frame 0's holds T_f = prod_{j>f} a_j, so with g the terms
    but the first, made with products that stop at f: m_f = first + T_f g and m~_f = first + g. g follows a
    recurrence, g_f = a_f (g_{f-1} + a_{f-1} (1 - a_f) x_f): no division by T_f, which may be 0."""
    frames = len(x_FPD)
    factors = torch.ones_like(a_FPD)
    for f in range(frames - 2, -1, -1):
        torch.mul(factors[f + 1], a_FPD[f + 1], out=factors[f])
    first, g = (1 - a_FPD[0]) * x_FPD[0], torch.zeros_like(x_FPD[0])
    for f in range(frames):
        if f > 0:
            g = a_FPD[f] * (g + a_FPD[f - 1] * (1 - a_FPD[f]) * x_FPD[f])
        causal = first + g
        moved = torch.linalg.vector_norm((factors[f] - 1) * g, dim=-1)
        horizon_FPH[f, :, 4] = factors[f].mean(-1)
        horizon_FPH[f, :, 5] = moved / torch.linalg.vector_norm(causal, dim=-1)
