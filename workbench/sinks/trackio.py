"""trackio: project = job, run = run, in trackio's local database (``TRACKIO_DIR``); view it with ``trackio show``.

Every row carries an id, and the database takes an id once. So nothing is noted here: each session offers
everything, and what is there already is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.sinks.base import Position, need, said


class TrackioSink:
    """One run. Rows and events of an answer go in together, in one transaction.

    Args:
        project: trackio's project.
        run: its name there; ids of rows begin with it.
    """

    def __init__(self, project: str, run: str) -> None:
        need("trackio", "trackio")
        # trackio.init keeps one run a process and writes behind a thread; its storage, which its own importers
        # use too, takes ids and returns when the rows are safe
        self._storage = need("trackio.sqlite_storage", "trackio").SQLiteStorage
        self._storage.validate_project_name(project)
        self._project, self._run = project, run
        self.position = Position()
        self._waiting: list[tuple[str, int, dict[str, Any], str | None]] = []

    def row(self, number: int, step: int, values: Mapping[str, float]) -> None:
        self._waiting.append((f"{self._run}/row/{number}", step, dict(values), None))

    def event(self, event: Mapping[str, Any], step: int) -> None:
        values = {"event": said(event)}
        self._waiting.append((f"{self._run}/event/{event['seq']}", step, values, event["time"]))

    def flush(self) -> None:
        from workbench.runs.events import utc_now

        waiting, self._waiting = self._waiting, []
        if waiting:
            ids, steps, values, times = map(list, zip(*waiting, strict=True))
            times = [time or utc_now() for time in times]
            self._storage.bulk_log(
                self._project, self._run, values, steps=steps, timestamps=times, log_ids=ids
            )

    def close(self) -> None:
        return None
