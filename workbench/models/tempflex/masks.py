"""Block-diagonal masks of packed rows, for attention functions that take a mask (see ``packed.py`` for those
that do not).

B rows, L positions a row. ``segment_ids`` are 0 on padding, 1.. on conversations. Padding forms a segment of
its own, so that no row of the softmax is empty (an empty row would be NaN) and nothing real sees it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedConfig


def packed_masks(segment_ids: Tensor, config: PreTrainedConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """Block-diagonal causal masks for each kind of layer in ``config.layer_types``.

    Returns bool ``[B, 1, L, L]``, True = visible; for the eager implementation, which adds its mask, 0 and
    the lowest number of ``dtype``. A sliding layer sees the last ``config.sliding_window`` positions, itself
    included.
    """
    length = segment_ids.shape[1]
    offsets = torch.arange(length, device=segment_ids.device)
    back = offsets[:, None] - offsets[None, :]
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    masks = {}
    for kind in set(config.layer_types):
        near = back >= 0
        if kind == "sliding_attention":
            near = near & (back < config.sliding_window)
        visible = same & near
        if config._attn_implementation == "eager":
            masks[kind] = torch.zeros_like(visible, dtype=dtype).masked_fill_(
                ~visible, torch.finfo(dtype).min
            )
        else:
            masks[kind] = visible
    return masks
