"""From a job's streams into sinks: every row and event once, in order, wherever the last session ended.

A step that a resumed training takes again is not sent again: it starts from the same state and sees the same
batch. So each step has one value, the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from workbench.machines.attached import METRICS, Attached
from workbench.runs.metrics import NONFINITE, ROW
from workbench.sinks.base import Position, Sink

JOB = "job"  # what the job's own events (launched, restarted, finish ...) are called beside those of its runs


def feed(
    attached: Attached, open_sink: Callable[[str], Sink], follow: bool = False, every_s: float = 1.0
) -> dict[str, Position]:
    """Copy a job, or the run that ``attached`` names, into sinks.

    Args:
        open_sink: the sink of a run by its name; also of ``"job"`` unless one run is named.
        follow: go on until the job has ended.
        every_s: seconds between two looks when nothing is new.

    Returns:
        Where each sink stands.
    """
    sinks: dict[str, Sink] = {}

    def sink_of(run: str) -> Sink:
        if run not in sinks:
            sinks[run] = open_sink(run)
        return sinks[run]

    only = attached.address.run
    begun = attached.machine.status(attached.address.job)["runs"]
    cursors: dict[str, int] = {}
    try:
        for run in [name for name in begun if only in (None, name)]:
            at = sink_of(run).position
            cursors |= {run: at.seq, run + METRICS: at.row}
        if only is None:
            cursors[""] = sink_of(JOB).position.seq
        for answer in attached.answers(cursors, follow, every_s):
            touched = {}
            for stream, items in answer.items():
                run, _, kind = stream.partition("#")
                if (run or only is None) and kind in ("", "metrics"):
                    name = run or JOB
                    touched[name] = sink_of(name)
                    (_rows if kind else _events)(touched[name], items)
            for sink in touched.values():
                sink.flush()
    finally:
        for sink in sinks.values():
            sink.close()
    return {run: sink.position for run, sink in sinks.items()}


def _rows(sink: Sink, rows: list[dict[str, Any]]) -> None:
    at = sink.position
    for row in rows:
        number, step = int(row[ROW]), int(row["step"])
        if number >= at.row and step > at.step:
            sink.row(number, step, numbers(row))
        at.row, at.step = max(at.row, number + 1), max(at.step, step)


def _events(sink: Sink, events: list[dict[str, Any]]) -> None:
    at = sink.position
    for event in events:
        if event["seq"] >= at.seq:
            sink.event(event, int(event.get("step") or at.step))
            at.seq = event["seq"] + 1


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The columns of a row that a curve can show; non-finite values, written by name, are numbers again."""
    found = {}
    for key, value in row.items():
        value = NONFINITE.get(value, value) if isinstance(value, str) else value
        if key not in (ROW, "step") and isinstance(value, int | float) and not isinstance(value, bool):
            found[key] = float(value)
    return found
