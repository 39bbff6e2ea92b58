"""What a run has written so far, kept as columns that grow: rows come in once, by number, and are never read again."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.runs.metrics import NONFINITE, ROW

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("step", "loss", "seconds", "tokens", "padding")  # beside lr_<group>
RATE = "lr_"


@dataclass
class RunRecord:
    """One run.

    Attributes:
        name: of its directory.
        arm, seed: of its study; ``arm`` is the name where there is none.
        state: waiting, running, finished, interrupted, failed, lost, or unreadable (then ``error`` says why).
        step, total, eta_s, loss: as its heartbeat says.
        stages: name of the stage of each kept row.
        columns: numbers of each kept row, NaN where it has none; ``_row`` is the row's number.
        histogram: planned training samples by frame count, of the last stage that planned.
        checkpoints: names, oldest first.
        scores: by suite and step, one row a question (columns of ``docs/formats.md``); condition ``own``.
    """

    name: str
    arm: str = ""
    seed: int = 0
    state: str = "waiting"
    step: int | None = None
    total: int | None = None
    eta_s: float | None = None
    loss: float | None = None
    error: str | None = None
    stages: list[str] = field(default_factory=list)
    columns: dict[str, list[float]] = field(default_factory=lambda: {ROW: [], "step": []})
    histogram: dict[int, int] = field(default_factory=dict)
    checkpoints: list[str] = field(default_factory=list)
    scores: dict[tuple[str, int], pd.DataFrame] = field(default_factory=dict)
    wanted: list[int] = field(default_factory=list)  # steps whose score tables have not been read yet
    worked: list[tuple[str, float]] = field(default_factory=list)  # (kind, s since the epoch) of every event
    marks: list[tuple[int, int]] = field(default_factory=list)  # (row, step) of resumes

    def __len__(self) -> int:
        return len(self.columns["step"])

    @property
    def rates(self) -> list[str]:
        """Columns of learning rates."""
        return [name for name in self.columns if name.startswith(RATE)]

    def rows(self, items: list[dict[str, Any]]) -> None:
        """Add metric rows, in order. A step written again replaces the one before (a run that was resumed)."""
        for item in items:
            step = item["step"]
            if any(item[ROW] < row and step > last for row, last in self.marks):
                continue
            steps = self.columns["step"]
            if steps and steps[-1] >= step:
                self._keep(slice(bisect.bisect_left(steps, step)))
            known = {name for name in item if name in COLUMNS or name.startswith(RATE)} | {ROW}
            for name in sorted(known - self.columns.keys()):
                self.columns[name] = [math.nan] * len(self)
            for name, values in self.columns.items():
                values.append(_number(item.get(name)))
            self.stages.append(str(item.get("stage") or ""))

    def drops(self, marks: list[dict[str, Any]]) -> None:
        """Of the rows numbered below ``row``, read or not, those of steps after ``step`` do not count."""
        for mark in marks:
            self.marks.append((mark["row"], mark["step"]))
            if len(self) and self.columns[ROW][-1] < mark["row"]:
                self._keep(slice(bisect.bisect_right(self.columns["step"], mark["step"])))

    def events(self, items: list[dict[str, Any]]) -> None:
        """Take from a run's events what is shown."""
        from datetime import datetime

        for event in items:
            kind = event["kind"]
            self.worked.append((kind, datetime.fromisoformat(event["time"]).timestamp()))
            if kind == "frames":
                self.histogram = {int(n): int(count) for n, count in (event.get("histogram") or {}).items()}
            elif kind == "checkpoint":
                self.checkpoints.append(event["name"])
            elif kind == "evaluated":
                self.wanted.append(event["step"])

    def worked_s(self, now: float) -> float:
        """Seconds in which a process worked on it, the pauses between sessions left out."""
        total, begun, last = 0.0, None, 0.0
        for kind, at in self.worked:
            if kind in ("start", "reopen"):
                total += last - begun if begun is not None else 0.0
                begun = at
            last = at
        last = max(last, now) if self.state == "running" else last
        return total + (last - begun if begun is not None else 0.0)

    def _keep(self, which: slice) -> None:
        self.columns = {name: values[which] for name, values in self.columns.items()}
        self.stages = self.stages[which]


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    return float(NONFINITE.get(value, math.nan)) if isinstance(value, str) else float(value)
