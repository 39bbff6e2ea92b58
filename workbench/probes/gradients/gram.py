"""Inner products between many gradients while few are kept.

Each gradient can be made again by a backward pass, so only ``copies`` of them are ever stored: a block of that
many is kept, every gradient that one of them is to be multiplied with is streamed past the block, the block is
freed. With ``copies=1`` memory is the model, one gradient and the activations of a batch; more copies save
passes. E inner products over K kept gradients take K + (partners of each block) passes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from workbench.probes.gradients.stream import GradientStream, KeptGradient, Scalars

Source = Hashable  # what names a gradient, for example ("video", pair, frames)
Edge = tuple[Source, Source]  # (kept, streamed)


@dataclass
class Gram:
    """Scalars by parameter: float64 ``[P]``, NaN where a gradient is missing.

    Attributes:
        losses: of each source's batch.
        passes: forward and backward passes it took.
    """

    squares: dict[tuple[Source, str], np.ndarray] = field(default_factory=dict)
    products: dict[tuple[Source, Source, str], np.ndarray] = field(default_factory=dict)
    losses: dict[Source, float] = field(default_factory=dict)
    passes: int = 0

    def square(self, source: Source, metric: str = "plain") -> np.ndarray:
        return self.squares[(source, metric)]

    def dot(self, a: Source, b: Source, metric: str = "plain") -> np.ndarray:
        """<a, b> by parameter, in either order. Raises KeyError when it was not asked for."""
        if a == b:
            return self.square(a, metric)
        found = self.products.get((a, b, metric))
        return self.products[(b, a, metric)] if found is None else found

    def record(self, source: Source, scalars: Scalars) -> None:
        self.passes += 1
        self.losses[source] = scalars.loss
        for metric, values in scalars.squares.items():
            self.squares[(source, metric)] = values
        for (kept, metric), values in scalars.dots.items():
            self.products[(kept, source, metric)] = values


def blocks_of(edges: Iterable[Edge], copies: int) -> list[tuple[list[Source], list[Source]]]:
    """(kept together, streamed past them) for every block, in the order in which the edges name them.

    Raises:
        ValueError: ``copies`` below 1.
    """
    if copies < 1:
        raise ValueError(f"at least one gradient must be kept, not {copies}")
    edges = list(edges)
    kept = list(dict.fromkeys(a for a, _ in edges))
    plan = []
    for start in range(0, len(kept), copies):
        block = kept[start : start + copies]
        streamed = dict.fromkeys(b for a, b in edges if a in block and b not in block)
        plan.append((block, list(streamed)))
    return plan


def passes_of(edges: Sequence[Edge], copies: int) -> int:
    """Backward passes that ``measure`` will take."""
    return sum(len(block) + len(streamed) for block, streamed in blocks_of(edges, copies))


def measure(
    stream: GradientStream,
    loss_of: Callable[[Source], Callable[[], Tensor]],
    edges: Sequence[Edge],
    copies: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Gram:
    """The inner products ``edges`` ask for, and the squares of everything on them.

    Args:
        loss_of: source -> a function that computes the loss of its batch.
        copies: gradients kept at a time.
        progress: called with the passes done, after each.

    Raises:
        ProbeError: as ``GradientStream.run``.
    """
    gram = Gram()
    wanted = {frozenset(edge) for edge in edges}
    try:
        for block, streamed in blocks_of(edges, copies):
            kept: dict[Source, KeptGradient] = {}
            for source in [*block, *streamed]:
                against = {other: kept[other] for other in kept if frozenset((other, source)) in wanted}
                scalars, copy = stream.run(loss_of(source), against, keep=source in block)
                if copy is not None:
                    kept[source] = copy
                gram.record(source, scalars)
                if progress is not None:
                    progress(gram.passes)
            for copy in kept.values():
                stream.reuse(copy)
    finally:
        stream.release()
    return gram
