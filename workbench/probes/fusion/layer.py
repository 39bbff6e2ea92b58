"""One TFF layer on one clip, taken apart into parts that add up to its output.

Axes: F frames, P patches, D channels; J = 3 branches (local, memory, periodic) or taps. Steps: fusion_layer.py.

``y = beta_1 L + beta_2 M + beta_3 P + context`` is a sum already. What follows is not: a LayerNorm. But with its own
scale s held fixed, LN is linear up to its bias, ``LN(sum_k u_k) = sum_k g (u_k - mean(u_k)) / s + b``, so the layer's
output is *exactly*

    z = x + local + memory + periodic + context + ffn + bias

    paper    u_1..4 = the addends of y, u_5 = FFN(y), all through the one norm; bias b
    release  u_1..4 through norm 1, bias its b; ffn = FFN(LN2(o)) as it is

"Exactly" is checked on every clip against the output that the live model produced (``LayerView.check``). The branches
are recomputed here, the memory from its written-out weights, so the check covers every number the lens reports.
Patches are walked in blocks; only the context needs all of them, so several blocks cost the branches twice.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from workbench.models.tempflex.fusion_layer import PaperLayer
from workbench.models.tempflex.fusion_ops import local_conv, periodic, periodic_gains
from workbench.probes.fusion.memory import memory_view
from workbench.probes.fusion.names import PARTS

BLOCK = 1 << 23  # elements of one [F, P, D] block; about twenty of them live at a time


@dataclass(frozen=True)
class LayerView:
    """What one layer did to one clip; in the layer's precision, float32 at least.

    Attributes:
        beta: ``[P, J]``, share of each branch, sums to 1.
        kernels: ``[P, 3, D]``, taps on frames f - 1, f, f + 1.
        norms: ``[F, P, 8]``, L2 over D of what ``NORMS`` names: input x; L, M and P *before* beta weighs them; fused
            ``beta_1 L + beta_2 M + beta_3 P``; context; refine z - x; output z.
        shares: ``[F, P, 6]``, part of the update: ``<part, z - x> / |z - x|^2`` for ``PARTS``; sums to 1, may be
            negative.
        whole_shares: ``[6]``, the same over the whole clip at once (a ratio of sums).
        horizon: ``[F, P, 6]``, see ``names.HORIZON``.
        memory_weights: ``[F, F]``, v_{f,i} averaged over patches and channels.
        horizon_channels: ``[D]``, effective_frames of the last frame in each channel, averaged over patches.
        gains: ``[F]``, ``|C_f|_F / sqrt(D)`` of the periodic branch ``P_f = C_f x_f``: what it does to the norm of a
            vector of random direction; ``|gain|`` for the release.
        update: ``|z - x| / |x|`` over the whole clip.
        offset: ``|mean u|^2 / mean |u|^2`` of the update u = z - x over frames and patches: 1 when every token of the clip
            is shifted alike, about 0 when the shifts cancel.
        check: ``max |x + sum of parts - z| / max |z|`` against the live output z.
        parts: ``[F, P, 6, D]``, the parts themselves; None unless kept.
    """

    beta: Tensor
    kernels: Tensor
    norms: Tensor
    shares: Tensor
    whole_shares: Tensor
    horizon: Tensor
    memory_weights: Tensor
    horizon_channels: Tensor
    gains: Tensor
    update: float
    offset: float
    check: float
    parts: Tensor | None


@dataclass(frozen=True)
class _Branches:
    """Of one block of patches: L, M, P and their weighted sum, ``[F, P, D]`` each, and what the memory tells."""

    all: tuple[Tensor, Tensor, Tensor]
    weighted: tuple[Tensor, Tensor, Tensor]
    horizon: Tensor
    weights: Tensor
    channels: Tensor

    @property
    def fused(self) -> Tensor:
        return self.weighted[0] + self.weighted[1] + self.weighted[2]


def take_apart(
    layer: Any, x_FPD: Tensor, z_FPD: Tensor, keep_parts: bool = False, block: int = BLOCK
) -> LayerView:
    """Take apart what ``layer`` made of one clip.

    Args:
        layer: a ``PaperLayer`` or ``ReleaseLayer``.
        x_FPD, z_FPD: its live input and output.
        keep_parts: keep the parts as vectors (six times the size of x).
        block: elements walked at a time.
    """
    if x_FPD.dtype not in (torch.float32, torch.float64):
        layer, x_FPD, z_FPD = copy.deepcopy(layer).float(), x_FPD.float(), z_FPD.float()
    frames, patches, dim = x_FPD.shape
    fiber_PD = x_FPD.mean(0)
    beta_PJ = torch.softmax(layer.blend(fiber_PD), dim=-1)
    kernel_PJD = layer.local_out(functional.gelu(layer.local_in(fiber_PD))).unflatten(-1, (3, -1))

    step = max(1, block // (frames * dim))
    blocks = [slice(at, min(at + step, patches)) for at in range(0, patches, step)]

    def branches() -> Iterator[_Branches]:
        return (_branches(layer, x_FPD[:, at], beta_PJ[at], kernel_PJD[at]) for at in blocks)

    kept = list(branches()) if len(blocks) == 1 else None
    total_FD = sum((b.fused.sum(1) for b in kept or branches()), torch.zeros_like(x_FPD[:, 0]))
    context_FD = layer.gamma * total_FD / patches

    norms, shares, horizons, parts, off = [], [], [], [], []
    weights, along = x_FPD.new_zeros(frames, frames), x_FPD.new_zeros(len(PARTS))
    common_D, channels_D, square = x_FPD.new_zeros(dim), x_FPD.new_zeros(dim), x_FPD.new_zeros(())
    for at, b in zip(blocks, kept or branches(), strict=True):
        x, context = x_FPD[:, at], context_FD[:, None].expand_as(b.fused)
        pieces = _through_refine(layer, x, (*b.weighted, context))
        update = torch.stack(pieces).sum(0)
        norms.append(_norms(x, *b.all, b.fused, context, update, z_FPD[:, at]))
        inner = torch.stack([(piece * update).sum(-1) for piece in pieces], dim=-1)
        shares.append(inner / update.square().sum(-1, keepdim=True))
        along += inner.sum((0, 1))
        common_D += update.sum((0, 1))
        square += update.square().sum()
        off.append((x + update - z_FPD[:, at]).abs().max())
        horizons.append(b.horizon)
        weights += b.weights
        channels_D += b.channels
        if keep_parts:
            parts.append(torch.stack(pieces, dim=2))
    return LayerView(
        beta_PJ,
        kernel_PJD,
        torch.cat(norms, 1),
        torch.cat(shares, 1),
        along / along.sum(),
        torch.cat(horizons, 1),
        weights / (patches * dim),
        channels_D / patches,
        _gains(layer, frames, dim, x_FPD),
        relative_change(x_FPD, z_FPD),
        float(common_D.square().sum() / (frames * patches) / square),
        float(torch.stack(off).max() / z_FPD.abs().max()),
        torch.cat(parts, 1) if keep_parts else None,
    )


def _branches(layer: Any, x_FPD: Tensor, beta_PJ: Tensor, kernel_PJD: Tensor) -> _Branches:
    gates = torch.sigmoid(layer.gate(x_FPD))
    seen = memory_view(gates, x_FPD, "paper" if isinstance(layer, PaperLayer) else "release")
    local = local_conv(kernel_PJD.movedim(1, 0)[:, None], x_FPD[:, None])[:, 0]
    if isinstance(layer, PaperLayer):
        regular = periodic(x_FPD[:, None], layer.periodic, layer.frequencies)[:, 0]
    else:
        regular = _scalar_gains(layer, x_FPD)[:, None, None] * x_FPD
    branches = (local, seen.memory_FPD, regular)
    weighted = tuple(beta_PJ[:, j, None] * branch for j, branch in enumerate(branches))
    terms = (weighted[0], weighted[1], weighted[2])
    return _Branches(branches, terms, seen.horizon_FPH, seen.weights_FF, seen.channels_D)


def _scalar_gains(layer: Any, like: Tensor) -> Tensor:
    """The release's ``sum_w cos(2 pi w f / F)``, ``[F]``."""
    return periodic_gains(len(like), layer.frequencies).sum(1).to(like.device, like.dtype)


def _through_refine(layer: Any, x_FPD: Tensor, addends: tuple[Tensor, ...]) -> list[Tensor]:
    """What each of ``PARTS`` adds to the output, ``[F, P, D]`` each, from the addends of y."""
    y = torch.stack(addends).sum(0)
    if isinstance(layer, PaperLayer):
        ffn = functional.glu(layer.ffn_out(functional.gelu(layer.ffn_in(y))), dim=-1)
        return _through_norm(layer.norm, (*addends, ffn))
    *through, bias = _through_norm(layer.norm, addends)
    o = x_FPD + layer.norm(y)
    ffn = functional.glu(layer.ffn_out(functional.gelu(layer.ffn_in(layer.norm_ffn(o)))), dim=-1)
    return [*through, ffn, bias]


def _through_norm(norm: torch.nn.LayerNorm, addends: tuple[Tensor, ...]) -> list[Tensor]:
    """LayerNorm of a sum as a sum: every addend centred, over the sum's own scale; the bias comes last."""
    total = torch.stack(addends).sum(0)
    scale = norm.weight * (total.var(-1, unbiased=False, keepdim=True) + norm.eps).rsqrt()
    return [*((u - u.mean(-1, keepdim=True)) * scale for u in addends), norm.bias.expand_as(total)]


def _norms(*vectors: Tensor) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(v, dim=-1) for v in vectors], dim=-1)


def _gains(layer: Any, frames: int, dim: int, like: Tensor) -> Tensor:
    """``|sum_w cos(2 pi w f / F) W_w|_F / sqrt(D)`` by the matrices' inner products: no [F, D, D] is made."""
    cosines_FW = periodic_gains(frames, layer.frequencies).to(like.device)
    if not isinstance(layer, PaperLayer):
        return cosines_FW.sum(1).abs().to(like.dtype)
    flat = layer.periodic.flatten(1).double()
    squares = ((cosines_FW @ (flat @ flat.T)) * cosines_FW).sum(1).clamp(min=0)
    return (squares / dim).sqrt().to(like.dtype)


def relative_change(x: Tensor, z: Tensor) -> float:
    """``|z - x| / |x|`` over all elements, in float32 or better."""
    exact = torch.promote_types(x.dtype, torch.float32)
    x, z = x.to(exact), z.to(exact)
    return float(torch.linalg.vector_norm(z - x) / torch.linalg.vector_norm(x))


def tolerance(dtype: torch.dtype) -> float:
    """The largest ``LayerView.check`` that rounding explains: the square root of the live model's precision."""
    return math.sqrt(torch.finfo(dtype).eps)
