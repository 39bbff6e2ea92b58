"""Which samples does step k see? A pure function of (seed, stage, step), so that resuming needs a step number
and nothing else.

Algorithm, in three phases:
1. *shares to counts*: by step k a source is owed ``batch * share * (k + 1)`` visits; whole ones are given,
   places left over go to the sources owed most, so that long-run shares are exact. O(steps * sources) once.
2. *counts to positions*: a source is read as an endless sequence of epochs, each one a fresh permutation
   keyed by (seed, stage, source, epoch); the running sum of counts says where step k starts. O(batch) a step.
3. *turns*: of a conversation with more turns than asked, a subset keyed by (seed, stage, step, place) is
   kept, in order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.errors import DataError
from workbench.samples.sample import Sample


def _generator(*keys: object) -> np.random.Generator:
    digest = hashlib.blake2b("\x1f".join(map(str, keys)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


@dataclass(frozen=True, slots=True)
class Visit:
    """One sample at one step, with the turns of its conversation that are trained (None = all)."""

    sample: Sample
    turns: tuple[int, ...] | None


class BatchPlan:
    """Deterministic batches of a stage.

    Args:
        sources: source name -> its samples.
        shares: source name -> share of each batch (normalised here).
        batch: samples a step (over all ranks).
        steps, epochs: exactly one is given. An epoch ends when every source was seen once or more.
        turns: keep at most so many turns of a conversation a visit.

    Raises:
        DataError: a source without samples, or a share for a source that is not there.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[Sample]],
        shares: Mapping[str, float],
        batch: int,
        *,
        seed: int,
        stage: str,
        steps: int | None = None,
        epochs: int | None = None,
        turns: int | None = None,
    ) -> None:
        if (steps is None) == (epochs is None):
            raise ValueError("exactly one of steps and epochs")
        self.names = tuple(shares)
        for name in self.names:
            if not sources.get(name):
                raise DataError(
                    f"train stage {stage!r} on source {name!r}",
                    "it has no samples",
                    "check its path, limit and skills in the recipe's data section",
                )
        self.sources = {name: sources[name] for name in self.names}
        self.batch, self.seed, self.stage, self.turns = batch, seed, stage, turns
        weights = np.array([shares[name] for name in self.names], dtype=np.float64)
        weights /= weights.sum()
        if steps is None:
            assert epochs is not None
            visits = [len(self.sources[n]) / (w * batch) for n, w in zip(self.names, weights, strict=True)]
            steps = max(1, math.ceil(epochs * max(visits) - 1e-9))
        self.steps = steps
        self._starts = np.zeros((steps + 1, len(self.names)), dtype=np.int64)
        for step in range(steps):
            owed = weights * batch * (step + 1) - self._starts[step]
            take = np.floor(np.maximum(owed, 0) + 1e-9).astype(np.int64)
            while (surplus := int(take.sum()) - batch) != 0:  # at most one round a source
                order = np.argsort(take - owed, kind="stable")
                if surplus < 0:
                    take[order[:-surplus]] += 1
                else:
                    take[[i for i in order[::-1] if take[i] > 0][:surplus]] -= 1
            self._starts[step + 1] = self._starts[step] + take
        self._orders: dict[tuple[str, int], np.ndarray] = {}

    def _order(self, name: str, epoch: int) -> np.ndarray:
        key = (name, epoch)
        if key not in self._orders:
            if len(self._orders) > 4 * len(self.names):
                self._orders.clear()
            self._orders[key] = _generator(self.seed, self.stage, name, epoch).permutation(
                len(self.sources[name])
            )
        return self._orders[key]

    def step(self, step: int) -> list[Visit]:
        """The visits of one step, in a fixed order; ``0 <= step < self.steps``."""
        visits: list[Visit] = []
        for column, name in enumerate(self.names):
            samples = self.sources[name]
            for position in range(int(self._starts[step, column]), int(self._starts[step + 1, column])):
                epoch, place = divmod(position, len(samples))
                sample = samples[int(self._order(name, epoch)[place])]
                visits.append(Visit(sample, self._turns(sample, step, len(visits))))
        return visits

    def _turns(self, sample: Sample, step: int, place: int) -> tuple[int, ...] | None:
        if self.turns is None or len(sample.turns) <= self.turns:
            return None
        chosen = _generator(self.seed, self.stage, "turns", step, place).choice(
            len(sample.turns), self.turns, replace=False
        )
        return tuple(sorted(int(i) for i in chosen))

    def samples(self) -> list[Sample]:
        """Every sample the stage can see, each once (the frame plan is made over these)."""
        return [sample for name in self.names for sample in self.sources[name]]


def fingerprint(visits: Sequence[Visit], indices: Sequence[Sequence[int]]) -> str:
    """Short hash of ids, turns and frame indices of a step: equal fingerprints mean the same batch."""
    text = ";".join(
        f"{v.sample.id}|{v.turns}|{','.join(map(str, i))}" for v, i in zip(visits, indices, strict=True)
    )
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
