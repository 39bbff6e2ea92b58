"""TensorBoard: ``OUT/JOB/RUN/events.out.tfevents...``, a file a session.

Beside them ``workbench.json`` says how far each file may be trusted. A session that was killed wrote more than
was noted: the next one cuts that off, so nothing stands there twice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from workbench.runs.files import disk_guard
from workbench.sinks.base import load_position, need, said, save_position

STATE = "workbench.json"


class TensorBoardSink:
    """One run in ``folder``. Tags are the columns of ``metrics/``; events are texts ``events/KIND``."""

    def __init__(self, folder: Path) -> None:
        writer, self._proto = (
            need("tensorboardX.event_file_writer", "tensorboard"),
            need("tensorboardX.proto.event_pb2", "tensorboard"),
        )
        self._summary = need("tensorboardX.summary", "tensorboard")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.position, kept = load_position(folder / STATE)
        self._sizes: dict[str, int] = kept.get("files", {})
        for path in folder.glob("events.out.tfevents.*"):
            size = self._sizes.get(path.name, 0)
            if size and path.stat().st_size >= size:
                os.truncate(path, size)
            else:
                path.unlink()
        self._writer = writer.EventsWriter(str(folder / "events"), f".{len(self._sizes)}")
        self._path = Path(self._writer._file_name)

    def row(self, number: int, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._write(self._summary.scalar(key, value), step, None)

    def event(self, event: Mapping[str, Any], step: int) -> None:
        when = datetime.fromisoformat(event["time"]).timestamp()
        self._write(self._summary.text(f"events/{event['kind']}", said(event)), step, when)

    def _write(self, summary: Any, step: int, when: float | None) -> None:
        record = self._proto.Event(summary=summary, step=step)
        record.wall_time = when if when is not None else datetime.now().timestamp()
        self._writer.write_event(record)

    def flush(self) -> None:
        with disk_guard("write for TensorBoard", self._path):
            self._writer.flush()
            self._sizes[self._path.name] = self._path.stat().st_size
            save_position(self._folder / STATE, self.position, files=self._sizes)

    def close(self) -> None:
        self._writer.close()
