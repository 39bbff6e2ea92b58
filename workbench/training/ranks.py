"""Training on several processes (``torchrun``): the same steps as on one, and rank 0 alone writes.

Two rules keep a reduction from waiting for ever: every rank runs the same number of micro-batches, and every
micro-batch touches every module that is trained. So a rank without video, or without any sample at all, adds
a black clip without labels at zero loss, decided after packing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from workbench.runs import Run
from workbench.training.packing import IGNORE, PackedBatch

Item = TypeVar("Item")


class SilentRun:
    """What ranks other than 0 hold: a run that can be read, and that takes every write without doing
    anything.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._run = Run.open(directory)

    def latest_checkpoint(self) -> Path | None:
        return self._run.latest_checkpoint()

    def requests(self) -> frozenset[str]:
        """Requests are taken by rank 0, which tells the others."""
        return frozenset()

    def _nothing(self, *_: object, **__: object) -> None:
        return None

    event = metric = beat = drop_after = finish = write_scores = prune_checkpoints = _nothing


class Ranks:
    """The other processes of a training, if there are any.

    Args:
        accelerator: knows how many there are and moves tensors between them.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.rank, self.world = accelerator.process_index, accelerator.num_processes

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def gather(self, item: Item) -> list[Item]:
        """One item of every rank, in the order of ranks, on every rank."""
        return [item] if self.world == 1 else gather_object([item])

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over ranks, on every rank."""
        values = values.to(self.accelerator.device)
        return values if self.world == 1 else self.accelerator.reduce(values, "sum")

    def equalise(self, batches: list[PackedBatch], dummy: PackedBatch, join: bool) -> list[PackedBatch]:
        """As many micro-batches as the rank that has most; with ``join``, a clip in each of them.

        Args:
            dummy: a batch that holds one black clip and no label.
            join: put the dummy below every micro-batch without a clip of two frames or more.
        """
        if self.world == 1:
            return batches
        most = max(self.gather(len(batches)))
        if join:
            batches = [batch if _has_clip(batch) else _join(batch, dummy) for batch in batches]
        return batches + [dummy] * (most - len(batches))


def _has_clip(batch: PackedBatch) -> bool:
    return batch.grids is not None and bool((batch.grids[:, 0] > 1).any())


def _join(batch: PackedBatch, dummy: PackedBatch) -> PackedBatch:
    """Put the dummy clip into a row of its own below ``batch``."""
    width = max(batch.input_ids.shape[1], dummy.input_ids.shape[1])

    def stack(name: str, fill: int) -> torch.Tensor:
        parts = [getattr(batch, name), getattr(dummy, name)]
        return torch.cat([nn.functional.pad(p, (0, width - p.shape[1]), value=fill) for p in parts])

    def chain(name: str) -> torch.Tensor:
        return torch.cat([part for part in (getattr(batch, name), getattr(dummy, name)) if part is not None])

    return dataclasses.replace(
        batch,
        input_ids=stack("input_ids", 0),
        labels=stack("labels", IGNORE),
        position_ids=stack("position_ids", 0),
        segment_ids=stack("segment_ids", 0),
        pixel_values=chain("pixel_values"),
        grids=chain("grids"),
        rows=(*batch.rows, (-1,)),
    )


@dataclasses.dataclass(frozen=True)
class Share:
    """What one rank did of a step. ``skipped`` lists (place in the step's batch, sample id, error)."""

    skipped: list[tuple[int, str, str]]
    visual_tokens: int
    real_tokens: int
    places: int


def skipped_places(shares: list[Share]) -> Iterator[tuple[int, str, str]]:
    """Every sample of a step that could not be read, in the order of the batch."""
    return iter(sorted(entry for share in shares for entry in share.skipped))
