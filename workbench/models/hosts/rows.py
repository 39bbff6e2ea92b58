"""Rows of several conversations: positions that restart, masks for attention functions that take one.

B rows, L positions; ``segments [B, L]`` are 0 on padding, 1.. on conversations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.models.tempflex.masks import packed_masks


def segment_starts(segments: Tensor) -> Tensor:
    """Column at which the segment of every position begins, ``[B, L]``."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    new = F.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True)
    return torch.where(new, index, 0).cummax(1).values


def text_positions(segments: Tensor) -> Tensor:
    """0, 1, 2 ... in every run of equal numbers of ``segments``; 0 where they are 0."""
    index = torch.arange(segments.shape[1], device=segments.device)
    return (index - segment_starts(segments)) * (segments > 0)


@dataclass
class _MaskConfig:
    """What ``packed_masks`` reads of a configuration; older language models do not say their layers' types."""

    layer_types: list[str]
    sliding_window: int | None
    _attn_implementation: str


def block_masks(segments: Tensor, text: Any, dtype: torch.dtype) -> Any:
    """Block-diagonal causal masks for a language model of configuration ``text``: one ``[B, 1, L, L]`` where all layers
    see alike, else one a kind of layer."""
    window = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None) or ["sliding_attention" if window else "full_attention"]
    config: Any = _MaskConfig(sorted(set(kinds)), window, text._attn_implementation)
    masks = packed_masks(segments, config, dtype)
    return masks if len(masks) > 1 else next(iter(masks.values()))
