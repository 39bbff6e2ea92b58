"""What every ``VideoLM`` of ours does alike: the loss of packed answers, and padding prepared conversations.

Axes: B rows, L positions a row, D hidden channels, V words, K labelled positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.models.videolm import Prepared

IGNORE = -100


def answer_loss(
    logits_of: Callable[[Tensor], Tensor],
    hidden_BLD: Tensor,
    labels: Tensor,
    segment_ids: Tensor | None,
    num_items: int | Tensor | None,
) -> Tensor:
    """Sum of the cross-entropies of the labelled positions over ``num_items`` (their number, if None).

    Each is predicted from the position before it in its own segment; the first token of a segment is nobody's
    target. ``logits_of``: ``[K, D]`` -> ``[K, V]``; logits are computed at those positions only.
    """
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORE)
    if segment_ids is not None:
        same = F.pad(segment_ids[:, 1:] == segment_ids[:, :-1], (0, 1), value=False)
        targets = targets.masked_fill(~same, IGNORE)
    targets = targets.flatten()
    places = (targets != IGNORE).nonzero().flatten()
    logits = logits_of(hidden_BLD.flatten(0, 1).index_select(0, places))
    total = F.cross_entropy(logits.float(), targets[places], reduction="sum")
    return total / (max(1, len(places)) if num_items is None else num_items)


def padded(prepared: Sequence[Prepared], pad_token_id: int, side: str = "left") -> dict[str, Tensor]:
    """A padded batch with ``attention_mask``, ready for ``generate`` (``side="left"``) or ``forward``."""
    longest = max(len(p.input_ids) for p in prepared)
    ids = torch.full((len(prepared), longest), pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, p in enumerate(prepared):
        n = len(p.input_ids)
        where = slice(longest - n, None) if side == "left" else slice(0, n)
        ids[i, where], mask[i, where] = p.input_ids, 1
    out = {"input_ids": ids, "attention_mask": mask}
    pixels = [p.pixel_values for p in prepared if p.pixel_values is not None]
    if pixels:
        out["pixel_values"] = torch.cat(pixels)
        out["grids"] = torch.tensor([p.grid for p in prepared if p.grid is not None])
    return out
