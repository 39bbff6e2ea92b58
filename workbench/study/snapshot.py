"""How far a study is, read from its files alone: any process may look at any time, without torch.

The remaining time is a small simulation: each task's remaining seconds (from its own speed once it runs, from
the speed of the others before) are dealt to the workers in the scheduler's order, each after what it needs.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from workbench.recipe import Recipe, load_recipe
from workbench.runs import read_events, read_metrics, run_status
from workbench.study.results import StudyError, StudyResults, load_results
from workbench.study.tasks import Task, work

KNOWN_SHARE = 0.05  # below this much of a task its own speed says little about its remaining time
EMPTY = pd.DataFrame({"step": [], "stage": [], "loss": []})


@dataclass(frozen=True, slots=True)
class TaskNow:
    """One task: ``state`` is "waiting" or a run's, ``share`` done in [0, 1], ``worked_s`` seconds so far.

    ``total`` is the number of training steps, None before the task has begun. ``losses`` has one row a step:
    step, stage, loss. ``scoring``: the last step is done, its evaluation is not.
    """

    task: Task
    state: str
    share: float
    worked_s: float
    total: int | None
    losses: pd.DataFrame
    scoring: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A study at one moment.

    ``study`` and ``recipe`` are the contents of study.json and recipe.yaml; ``share`` of all work is done, in
    [0, 1]; ``remaining_s`` is None while nothing has a speed yet, ``results`` before the first score.
    """

    directory: Path
    study: Mapping[str, Any]
    recipe: Mapping[str, Any]
    tasks: tuple[TaskNow, ...]
    share: float
    remaining_s: float | None
    results: StudyResults | None

    @property
    def finished(self) -> bool:
        return all(now.state == "finished" for now in self.tasks)


class StudyReader:
    """Takes snapshots of one study directory; scores and finished runs are read once and kept."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._losses: dict[str, pd.DataFrame] = {}
        self._seen: tuple[object, ...] = ()
        self._results: StudyResults | None = None
        self._loaded: Recipe | None = None

    def snapshot(self) -> Snapshot | None:
        """The study as its files tell it now; None until the study has written ``study.json``."""
        try:
            study = json.loads((self.directory / "study.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        tasks = [Task(**{**entry, "needs": tuple(entry["needs"])}) for entry in study["tasks"]]
        now = tuple(self._task(task) for task in tasks)
        total = sum(task.cost for task in tasks)
        share = sum(n.task.cost * n.share for n in now) / total if total else 1.0
        recipe = yaml.safe_load((self.directory / "recipe.yaml").read_text(encoding="utf-8"))
        left = remaining_seconds(now, int((recipe.get("machine") or {}).get("workers") or 1))
        return Snapshot(self.directory, study, recipe, now, share, left, self._scores(now))

    def _task(self, task: Task) -> TaskNow:
        run = self.directory / "runs" / task.id
        if not (run / "run.json").is_file():
            return TaskNow(task, "waiting", 0.0, 0.0, None, EMPTY)
        status = run_status(run)
        finished = status.state == "finished"
        at, total = status.step or 0, status.total
        # steps of different stages take different times: what counts is the work behind
        share = 1.0 if finished else work(self._recipe(), task.arm).done(at, total) if total else 0.0
        if task.id not in self._losses:
            losses = read_metrics(run)
            losses = losses[["step", "stage", "loss"]] if "loss" in losses else EMPTY
            if finished:
                self._losses[task.id] = losses
        else:
            losses = self._losses[task.id]
        worked = _worked_seconds(run, status.state == "running")
        scoring = bool(total) and at == total and not finished
        return TaskNow(task, status.state, share, worked, total, losses, scoring)

    def _recipe(self) -> Recipe:
        if self._loaded is None:
            self._loaded = load_recipe(self.directory / "recipe.yaml")
        return self._loaded

    def _scores(self, tasks: Sequence[TaskNow]) -> StudyResults | None:
        files = sorted((self.directory / "runs").glob("*/scores/*.parquet"))
        states = tuple((now.task.id, now.state) for now in tasks)
        seen = (states, tuple((path, path.stat().st_mtime_ns) for path in files))
        if files and seen != self._seen:
            try:
                self._results, self._seen = load_results(self.directory), seen
            except StudyError:
                self._results = None  # a table without rows, so far
        return self._results


def _worked_seconds(run: Path, running: bool) -> float:
    """Seconds in which a process worked on the run, the pauses between sessions left out."""
    total, begun, last = 0.0, None, 0.0
    for event in read_events(run):
        at = datetime.fromisoformat(event["time"]).timestamp()
        if event["kind"] in ("start", "reopen"):
            total += last - begun if begun is not None else 0.0
            begun = at
        last = at
    if running:
        last = max(last, time.time())
    return total + (last - begun if begun is not None else 0.0)


def remaining_seconds(tasks: Sequence[TaskNow], workers: int) -> float | None:
    """Seconds until the last task ends, or None while no task has done enough to have a speed."""
    done = sum(now.task.cost * now.share for now in tasks)
    worked = sum(now.worked_s for now in tasks if now.share)
    if all(now.state == "finished" for now in tasks):
        return 0.0
    if not worked or not any(now.share >= KNOWN_SHARE for now in tasks):
        return None
    left = {}
    for now in tasks:
        own = now.worked_s * (1 - now.share) / now.share if now.share >= KNOWN_SHARE else None
        left[now.task.id] = now.task.cost * (1 - now.share) * worked / done if own is None else own
    return _makespan(
        [now.task for now in tasks], left, {n.task.id for n in tasks if n.state == "running"}, workers
    )


def _makespan(tasks: Sequence[Task], left: Mapping[str, float], running: set[str], workers: int) -> float:
    """When list scheduling ends: a free worker takes the ready task with the most work behind it."""

    def order(task: Task) -> tuple[bool, float]:
        after = sum(left[other.id] for other in tasks if task.id in other.needs)
        return task.id not in running, -(left[task.id] + after)

    waiting = [task for task in tasks if left[task.id] > 0]
    done = {task.id for task in tasks if left[task.id] <= 0}
    busy: list[tuple[float, str]] = []
    clock = 0.0
    while waiting or busy:
        ready = sorted((t for t in waiting if done.issuperset(t.needs)), key=order)
        for task in ready[: workers - len(busy)]:
            waiting.remove(task)
            heapq.heappush(busy, (clock + left[task.id], task.id))
        if not busy:
            break  # what waits needs a task that this study does not have
        clock, ended = heapq.heappop(busy)
        done.add(ended)
    return clock
