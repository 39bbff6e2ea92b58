"""``control/``: the drop box. An empty file asks the writing process for something at its next step."""

from __future__ import annotations

import contextlib
from pathlib import Path

from workbench.runs.files import RunError, write_atomic

DIRECTORY = "control"
REQUESTS = ("stop", "checkpoint")


def ask(directory: Path, request: str) -> None:
    """Drop a request. Raises ``RunError`` for one that nobody would answer."""
    if request not in REQUESTS:
        raise RunError(
            f"ask a run to {request!r}", "it does not know that", f"Use one of {', '.join(REQUESTS)}"
        )
    (directory / DIRECTORY).mkdir(exist_ok=True)
    write_atomic(directory / DIRECTORY / request, b"", sync=False)


def take(directory: Path) -> frozenset[str]:
    """What lies in the box; it is empty afterwards. Two missing files cost some microseconds."""
    taken = set()
    for name in REQUESTS:
        with contextlib.suppress(FileNotFoundError):
            (directory / DIRECTORY / name).unlink()
            taken.add(name)
    return frozenset(taken)


def forget_before(directory: Path, epoch: float) -> None:
    """Remove requests dropped before ``epoch`` (s): they were meant for a session that is gone."""
    for name in REQUESTS:
        path = directory / DIRECTORY / name
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < epoch:
                path.unlink()
