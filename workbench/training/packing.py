"""Packing: several conversations share a row, none sees another.

Axes: B packed rows, L row length, N tokens of one conversation, T patches of all media, M media items.

Phases: (1) *plan*: best-fit decreasing of lengths into rows of a given capacity, O(S log S) for S
conversations; a conversation longer than the capacity gets a row of its own (nothing is ever truncated); (2)
*materialise*: one copy of every tensor into place. Isolation is not the padding's job: ``segment_ids``
becomes the block-diagonal attention mask, ``position_ids`` restart, and media stay whole because the encoder
and the fusion see each item on its own.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.models.videolm import Prepared

IGNORE = -100


def plan_rows(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of indices into ``lengths``; every row's sum is at most ``capacity`` unless it holds a single
    longer item.

    Best-fit decreasing: the longest remaining item goes where it leaves the least room.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free places, row), sorted
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        at = bisect.bisect_left(room, (length, -1))
        if at == len(room):
            rows.append([index])
            free, row = capacity - length, len(rows) - 1
        else:
            free, row = room.pop(at)
            rows[row].append(index)
            free -= length
        if free > 0:
            bisect.insort(room, (free, row))
    return rows


@dataclass(frozen=True)
class PackedBatch:
    """One micro-batch; shapes as in docs/architecture.md. ``rows[b]`` lists the conversations of row b, left
    to right.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    segment_ids: torch.Tensor
    pixel_values: torch.Tensor | None
    grids: torch.Tensor | None
    rows: tuple[tuple[int, ...], ...]
    visual_tokens: int

    @property
    def real_tokens(self) -> int:
        return int((self.segment_ids > 0).sum())

    @property
    def answer_tokens(self) -> int:
        return int((self.labels != IGNORE).sum())

    @property
    def places(self) -> int:
        """Positions computed, padding included."""
        return self.input_ids.numel()

    def model_inputs(self, device: torch.device | str | None = None) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "input_ids": self.input_ids,
            "labels": self.labels,
            "position_ids": self.position_ids,
            "segment_ids": self.segment_ids,
        }
        if self.pixel_values is not None:
            inputs["pixel_values"], inputs["grids"] = self.pixel_values, self.grids
        if device is not None:
            inputs = {name: value.to(device, non_blocking=True) for name, value in inputs.items()}
        return inputs

    def starts(self) -> Iterator[tuple[int, int, int]]:
        """(conversation, row, first position) of every packed conversation."""
        for row, members in enumerate(self.rows):
            boundaries = (self.position_ids[row] == 0) & (self.segment_ids[row] > 0)
            for index, start in zip(members, boundaries.nonzero().flatten().tolist(), strict=True):
                yield index, row, start


def materialise(prepared: Sequence[Prepared], rows: Sequence[Sequence[int]], pad_id: int = 0) -> PackedBatch:
    """Copy the planned conversations into one batch."""
    length = max(sum(len(prepared[i].input_ids) for i in row) for row in rows)
    shape = (len(rows), length)
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    labels = torch.full(shape, IGNORE, dtype=torch.long)
    position_ids = torch.zeros(shape, dtype=torch.long)
    segment_ids = torch.zeros(shape, dtype=torch.long)
    pixels, grids, visual = [], [], 0
    for b, row in enumerate(rows):
        at = 0
        for segment, index in enumerate(row, start=1):
            item = prepared[index]
            end = at + len(item.input_ids)
            input_ids[b, at:end] = item.input_ids
            labels[b, at:end] = item.labels
            labels[b, at] = IGNORE  # nothing predicts the first token of a conversation
            position_ids[b, at:end] = torch.arange(end - at)
            segment_ids[b, at:end] = segment
            if item.pixel_values is not None:
                pixels.append(item.pixel_values)
                grids.append(item.grid)
                visual += len(item.token_map.visual)
            at = end
    return PackedBatch(
        input_ids,
        labels,
        position_ids,
        segment_ids,
        torch.cat(pixels) if pixels else None,
        torch.tensor(grids, dtype=torch.long) if grids else None,
        tuple(tuple(row) for row in rows),
        visual,
    )


def pack(
    prepared: Sequence[Prepared], tokens_per_row: int, rows_per_micro_batch: int, pad_id: int = 0
) -> list[PackedBatch]:
    """Micro-batches of packed rows covering every conversation exactly once.

    Rows of like length share a micro-batch, so that the padding at the right edge stays small.
    """
    lengths = [len(item.input_ids) for item in prepared]
    rows = plan_rows(lengths, tokens_per_row)
    rows.sort(key=lambda row: -sum(lengths[i] for i in row))
    return [
        materialise(prepared, rows[at : at + rows_per_micro_batch], pad_id)
        for at in range(0, len(rows), rows_per_micro_batch)
    ]


def pad(prepared: Sequence[Prepared], pad_id: int = 0) -> PackedBatch:
    """The ordinary way, one conversation a row, padded to the longest: what packing is measured against."""
    return materialise(prepared, [[i] for i in range(len(prepared))], pad_id)
