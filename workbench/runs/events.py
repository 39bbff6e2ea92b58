"""``events.jsonl``: what happened in a run, one numbered JSON object a line, never rewritten.

Line *i* has ``"seq": i``, so a reader that knows the last number it saw asks for the rest without gaps or
repeats.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.runs.files import LineFile, RunError, read_lines, to_json

FILE = "events.jsonl"
RESERVED = ("seq", "time", "kind")
# These mark a state on disk that must survive a power cut; the others need only survive the process.
DURABLE = ("start", "reopen", "finish", "checkpoint")


def utc_now() -> str:
    """Now in UTC, ISO 8601 with microseconds, for example ``2026-03-01T12:00:00.000000+00:00``."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _parse(line: bytes, seq: int, path: Path) -> dict[str, Any]:
    try:
        event = json.loads(line)
        if event["seq"] == seq:
            return event
        found = f"the line has seq {event['seq']} where {seq} belongs"
    except (ValueError, KeyError, TypeError):
        found = "the line is not an event"
    raise RunError(
        "read the events of a run",
        found,
        "The file was changed from outside: restore it, or delete this line and all after it",
        f"{path}:{seq + 1}",
    )


def parse_events(lines: list[bytes], start: int, path: Path) -> list[dict[str, Any]]:
    """The events of complete lines, the first of which is numbered ``start``.

    All in one go is several times faster than one by one; one by one only finds the bad one.

    Raises:
        RunError: a line is not an event, or numbers are missing.
    """
    try:
        events = json.loads(b"[" + b",".join(lines) + b"]")
        if len(events) == len(lines) and all(event["seq"] == seq for seq, event in enumerate(events, start)):
            return events
    except (ValueError, KeyError, TypeError):
        pass
    return [_parse(line, seq, path) for seq, line in enumerate(lines, start)]


def read_events(directory: str | Path, from_seq: int = 0) -> list[dict[str, Any]]:
    """Events numbered ``from_seq`` and up, oldest first; works on a run that is being written.

    Returns:
        Dictionaries with ``seq``, ``time``, ``kind`` and the event's own keys beside them. A torn last line
        (a crash or a write in progress) is left out: it was never complete.

    Raises:
        RunError: a complete line is not an event, or numbers are missing.
    """
    path = Path(directory) / FILE
    lines = read_lines(path)
    start = max(0, from_seq)
    return parse_events(lines[start:], start, path)


def last_event(directory: str | Path, kinds: tuple[str, ...]) -> dict[str, Any] | None:
    """The newest event of one of ``kinds``, found from the end without parsing the rest."""
    path = Path(directory) / FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    marks = [f'"kind":"{kind}"'.encode() for kind in kinds]
    end = data.rfind(b"\n") + 1  # what comes after is a torn line
    while (found := max(data.rfind(mark, 0, end) for mark in marks)) >= 0:
        start = data.rfind(b"\n", 0, found) + 1
        event = _parse(data[start : data.index(b"\n", found)], data.count(b"\n", 0, start), path)
        if event["kind"] in kinds:  # the mark may also stand inside an event's own data
            return event
        end = start
    return None


class EventLog:
    """The one writer of a run's ``events.jsonl``."""

    def __init__(self, directory: Path) -> None:
        self._lines = LineFile(directory / FILE)
        complete = read_lines(directory / FILE)
        self.next_seq = len(complete)
        if complete:
            _parse(complete[-1], self.next_seq - 1, directory / FILE)

    def append(self, kind: str, data: dict[str, Any]) -> int:
        """Append one event and return its number. Raises ``DiskFullError`` (the log then is as before)."""
        clash = [key for key in RESERVED if key in data]
        if clash:
            raise ValueError(f"an event's own keys cannot be called {clash}")
        seq = self.next_seq
        line = to_json({"seq": seq, "time": utc_now(), "kind": kind, **data})
        self._lines.append(line, sync=kind in DURABLE)
        self.next_seq = seq + 1
        return seq

    def close(self) -> None:
        self._lines.close()
