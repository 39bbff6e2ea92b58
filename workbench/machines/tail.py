"""``tail``: what a job and its runs have written since a cursor; gapless, nothing twice, in order.

A cursor is the number of the next thing wanted, counted from 0 in each stream: events by ``seq``, metric rows
by ``_row``, lines of ``drops.jsonl``. Cursors belong to the reader, so any number of readers may follow, and
one that was away for a day asks again where it stood. Cost of a call: what is new, plus a look at each file;
where in a file the last answer ended is remembered, so a long log is not read again (a fresh process, as over
ssh, reads it once).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.machines.base import Progress
from workbench.machines.job import FOLDER, job_folder, no_run, planned_runs, run_names
from workbench.runs.events import FILE as EVENTS
from workbench.runs.events import parse_events
from workbench.runs.metrics import DIRECTORY as METRICS
from workbench.runs.metrics import DROPS, rows_from

LIMIT = 1 << 20  # bytes of an answer, about


def tail(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Verb: {root, job, cursors, run?, limit?} -> {events: {stream: [...]}, cursors, more}.

    Streams: ``""`` the job's events, ``RUN`` a run's events, ``RUN#metrics`` rows, ``RUN#drops`` marks
    {row, step}: of the rows below ``row`` those of later steps no longer count. Streams without a cursor start
    at 0, so runs that begin later come by themselves. Non-finite numbers are the texts of ``docs/formats.md``.

    Raises:
        WorkbenchError: no such job or run, or a file was changed from outside.
    """
    study = job_folder(request)
    cursors: dict[str, int] = {name: int(at) for name, at in dict(request.get("cursors") or {}).items()}
    only = request.get("run")
    names = run_names(study)
    if only is not None and only not in names and only not in planned_runs(study):
        raise no_run(study, only)
    room = _Room(int(request.get("limit") or LIMIT))
    events: dict[str, list[dict[str, Any]]] = {}
    for stream, read in _streams(study, [name for name in names if only in (None, name)]):
        start = max(0, cursors.get(stream, 0))
        taken = [] if room.full else room.take(read(start))
        if taken:
            events[stream] = [item for _, item in taken]
        cursors[stream] = taken[-1][0] + 1 if taken else start
    return {"events": events, "cursors": cursors, "more": room.full}


Numbered = list[tuple[int, dict[str, Any]]]


class _Room:
    """Bytes left in the answer. One item always fits, so that every call gets on."""

    def __init__(self, size: int) -> None:
        self.left, self.full, self.empty = size, False, True

    def take(self, items: Numbered) -> Numbered:
        taken = []
        for number, item in items:
            size = len(json.dumps(item))
            if size > self.left and not self.empty:
                self.full = True
                break
            self.left, self.empty = self.left - size, False
            taken.append((number, item))
        return taken


def _streams(study: Path, runs: list[str]):
    yield "", lambda start: _events(study / FOLDER, start)
    for name in runs:
        run = study / "runs" / name
        yield name, lambda start, run=run: _events(run, start)
        # marks first: a reader that has the rows and not yet the mark shows steps twice for a moment
        yield f"{name}#drops", lambda start, run=run: _drops(run, start)
        yield f"{name}#metrics", lambda start, run=run: rows_from(run, start)


def _events(directory: Path, start: int) -> Numbered:
    path = directory / EVENTS
    lines = _new_lines(path, start)
    return [(event["seq"], event) for event in parse_events(lines, start, path)]


def _drops(run: Path, start: int) -> Numbered:
    lines = _new_lines(run / METRICS / DROPS, start)
    return [(start + i, json.loads(line)) for i, line in enumerate(lines)]


# -- where the last answer ended ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """Line ``number`` of the file ``inode`` begins at byte ``offset``."""

    inode: int
    number: int
    offset: int


_places: dict[Path, list[_Place]] = {}
_KEPT = 8  # places a file: observers that stand at different lines


def _new_lines(path: Path, start: int) -> list[bytes]:
    """Complete lines from number ``start`` on of an append-only file; a torn last line is left out."""
    try:
        with path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            known = [p for p in _places.get(path, ()) if p.inode == inode and p.number <= start]
            at = max(known, key=lambda place: place.number, default=_Place(inode, 0, 0))
            file.seek(max(0, at.offset - 1))
            # cut and written again under us (a crash took the torn line away): read from the beginning
            if at.offset and file.read(1) != b"\n":
                at = _Place(inode, 0, 0)
                file.seek(0)
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    end = _Place(inode, at.number + len(lines), at.offset + sum(map(len, lines)) + len(lines))
    _places[path] = [end, *(p for p in _places.get(path, ()) if p != end and p.inode == inode)][:_KEPT]
    return lines[start - at.number :]
