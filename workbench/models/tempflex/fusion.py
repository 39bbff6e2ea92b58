"""Temporal Fiber Fusion (TFF): the stack of layers between the visual encoder and the patch merger.

Axes: L layers, B clips, F frames, P patches, D channels. The layers: fusion_layer.py (paper),
fusion_release.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor, nn

from workbench.models.tempflex.fusion_layer import LayerWeights, PaperLayer
from workbench.models.tempflex.fusion_ops import aliased_frequencies
from workbench.models.tempflex.fusion_release import ReleaseLayer

__all__ = ["FusionWeights", "TemporalFiberFusion", "aliased_frequencies"]


@dataclass(frozen=True)
class FusionWeights:
    """What every layer did to one batch, without gradients; see :class:`LayerWeights` for the meaning.

    beta ``[L, B, P, 3]``, norms ``[L, B, F, P, 3]`` (L2 over D, before weighting; order local, memory,
    periodic), gates ``[L, B, F, P]`` (mean over D).
    """

    beta: Tensor
    norms: Tensor
    gates: Tensor

    @classmethod
    def stack(cls, layers: Sequence[LayerWeights]) -> FusionWeights:
        return cls(
            torch.stack([w.beta for w in layers]),
            torch.stack([w.norms for w in layers]),
            torch.stack([w.gates for w in layers]),
        )


class TemporalFiberFusion(nn.Module):
    """A stack of TFF layers, ``[B, F, P, D]`` to the same shape.

    Clips of different F or P do not share a batch: every frame counts in the circular kernel, the cosines and
    the means, so padding would change the result. Group clips of one (F, P) together.

    Args:
        dim: channels D.
        depth: layers; 4 in the paper and in the released scripts.
        local_hidden: hidden width of the MLP that makes the local kernel; D if None.
        ffn_hidden: hidden width of the refining FFN; 2 D if None. The release variant doubles it (4 D).
        frequencies: w of the periodic branch.
        variant: "paper" (eq. 1-5) or "release" (the code of 2025-12).
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        local_hidden: int | None = None,
        ffn_hidden: int | None = None,
        frequencies: Sequence[int] = (1, 2, 4, 8, 16),
        variant: Literal["paper", "release"] = "paper",
    ) -> None:
        super().__init__()
        if variant not in ("paper", "release"):
            raise ValueError(f"variant must be 'paper' or 'release', not {variant!r}")
        self.dim, self.variant, self.frequencies = dim, variant, tuple(frequencies)
        layer: type[PaperLayer] | type[ReleaseLayer] = PaperLayer if variant == "paper" else ReleaseLayer
        self.layers = nn.ModuleList(
            layer(dim, local_hidden or dim, ffn_hidden or 2 * dim, self.frequencies) for _ in range(depth)
        )

    @overload
    def forward(self, x_BFPD: Tensor, return_weights: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, x_BFPD: Tensor, return_weights: Literal[True]) -> tuple[Tensor, FusionWeights]: ...

    def forward(self, x_BFPD: Tensor, return_weights: bool = False) -> Tensor | tuple[Tensor, FusionWeights]:
        """Fuse ``[B, F, P, D]`` features along time.

        Returns:
            ``[B, F, P, D]`` (a transposed view when B > 1); with ``return_weights`` that and
            :class:`FusionWeights`.

        Raises:
            ValueError: x is not ``[B, F, P, dim]`` with at least one frame.
        """
        if x_BFPD.dim() != 4 or x_BFPD.shape[-1] != self.dim or x_BFPD.shape[1] == 0:
            raise ValueError(f"expected [B, F, P, {self.dim}], got {list(x_BFPD.shape)}")
        seen: list[LayerWeights] = []
        x_FBPD = x_BFPD.transpose(0, 1).contiguous()  # frames first inside; free for one clip
        for layer in self.layers:
            x_FBPD, weights = layer(x_FBPD, return_weights)
            if weights is not None:
                seen.append(weights)
        z_BFPD = x_FBPD.transpose(0, 1)
        return (z_BFPD, FusionWeights.stack(seen)) if return_weights else z_BFPD
