"""A recipe's ``probes:`` in a task of a study: which are due when, made without changing the training.

During training a probe looks at the model in memory; at the end at the checkpoint on disk, so that its capture names
the weights' hash and Adam's state can be read. Captures that are there already are not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from workbench.probes.asked import Asked, make_captures
from workbench.recipe import Recipe
from workbench.recipe.probes import ProbeSection
from workbench.runs import Run
from workbench.study.tasks import BASE, Task, base_seed, task_id

Check = Callable[[], None]


class Probing:
    """The probes of one task.

    Args:
        study_dir: the study directory, to find the run that this one started from.
        steps: of the whole task.
    """

    def __init__(self, recipe: Recipe, study_dir: Path, task: Task, steps: int) -> None:
        self.recipe, self.study_dir, self.task, self.steps = recipe, study_dir, task, steps

    @property
    def points(self) -> frozenset[int]:
        """Steps on the way at which a probe is due, the end left out."""
        due = {self._step(share) for _, section in self._mine() for share in section.at}
        return frozenset(due - {self.steps})

    def during(self, run: Run, step: int, model: Any, processor: Any, check: Check) -> None:
        """Probes due at ``step``, on the model in memory; its mode and the random state are as before."""
        due = [(name, s) for name, s in self._mine() if step in map(self._step, s.at) and step < self.steps]
        if due:
            with torch.random.fork_rng():
                for name, section in due:
                    self._make(run, name, section, (model, processor, step), check)

    def after(self, run: Run, check: Check = lambda: None) -> None:
        """Probes due at the end, on the newest checkpoint."""
        for name, section in self._mine():
            if 1.0 in section.at:
                self._make(run, name, section, None, check)

    def _mine(self) -> Iterator[tuple[str, ProbeSection]]:
        for name, section in self.recipe.probes.items():
            if section.arms is None or self.task.arm in section.arms:
                yield name, section

    def _step(self, share: float) -> int:
        return max(1, round(share * self.steps))

    def _make(
        self, run: Run, name: str, section: ProbeSection, live: tuple[Any, Any, int] | None, check: Check
    ) -> None:
        start = None
        if self.task.arm != BASE:
            base = self.study_dir / "runs" / task_id(BASE, base_seed(self.recipe, self.task.seed))
            start = base if base.is_dir() else None
        asked = Asked(run.directory, section, name, start=start, live=live)
        paths = make_captures(asked, lambda what, done, total: check())
        run.event("probed", name=name, probe=section.probe, captures=[path.stem for path in paths])
