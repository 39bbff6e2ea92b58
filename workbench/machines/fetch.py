"""``fetch``: a job's files copied here, verified, and continued where an earlier attempt stopped.

A file is fetched into ``NAME.partial`` and takes its name when its SHA-256 is right, so what lies under its own
name is whole. Files that are here already with the right checksum are not fetched again; of one that has grown
since (events) only the rest is. A file that was replaced meanwhile is listed again.
"""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from workbench.errors import WorkbenchError
from workbench.machines.base import Machine, Progress
from workbench.runs.files import RunError, disk_guard

PIECE = 1 << 20  # bytes of one request
ROUNDS = 3  # times that files which changed under our hands are listed again
PARTIAL = ".partial"


def fetch(
    machine: Machine,
    job: str,
    destination: Path,
    checkpoints: bool = False,
    on_progress: Progress | None = None,
) -> Path:
    """Copy the files of ``job`` to ``destination/JOB``; calling it again goes on where it was cut.

    Args:
        checkpoints: also the checkpoints, which are large; left out otherwise.
        on_progress: called with {path, done, total}, bytes over all files.

    Returns:
        The folder; runs in it open like any other.

    Raises:
        WorkbenchError: no such job, a connection that broke, or files that differ from their checksum.
        DiskFullError: no room here.
    """
    folder = destination.expanduser() / job
    for _ in range(ROUNDS):
        files = machine.call("files", job=job, checkpoints=checkpoints)["files"]
        total, done, changed = sum(entry["size"] for entry in files), 0, []
        for entry in files:
            with disk_guard(f"fetch {entry['path']}", folder):
                if not _fetch_one(machine, job, folder, entry):
                    changed.append(entry["path"])
            done += entry["size"]
            if on_progress is not None:
                on_progress({"path": entry["path"], "done": done, "total": total})
        if not changed:
            return folder
    raise WorkbenchError(
        f"fetch the job {job!r}",
        f"{', '.join(changed)} arrive with another checksum than they have there",
        "Fetch again when the job has ended; if it stays so, the connection or a disk damages data",
    )


def _fetch_one(machine: Machine, job: str, folder: Path, entry: dict[str, Any]) -> bool:
    """One file; False when it changed there or did not arrive as it is there."""
    name = PurePosixPath(entry["path"])
    if name.is_absolute() or ".." in name.parts:
        raise RunError(
            f"fetch the job {job!r}", f"the machine lists a file {name} outside of it", "Do not use it"
        )
    path, size, digest = folder / name, int(entry["size"]), str(entry["sha256"])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    if path.is_file():
        if path.stat().st_size == size and _sum(path) == digest:
            return True
        if path.stat().st_size < size and not partial.exists():  # it may have grown: the sum will tell
            partial.write_bytes(path.read_bytes())
    for _ in range(2):  # what is here may not belong to this file: then once more from its beginning
        expected = _fill(
            lambda **at: machine.call("read", job=job, path=str(name), **at), partial, size, digest
        )
        if expected is not None and _sum(partial) == expected:
            os.replace(partial, path)
            return True
        partial.unlink(missing_ok=True)
    return False


def _fill(read: Callable[..., dict[str, Any]], partial: Path, size: int, digest: str) -> str | None:
    """Fetch what ``partial`` lacks of ``size`` bytes; returns the checksum it must have, None when it cannot.

    A file that comes in one piece brings its own checksum, of the moment it was read: it may be one that is
    replaced every second.
    """
    with partial.open("ab") as file:
        if file.tell() > size:
            file.truncate(size)
        while (at := file.tell()) < size or size == 0:
            answer = read(offset=at, length=PIECE)
            data = zlib.decompress(base64.b64decode(answer["data"]))
            if at == 0 and len(data) == answer["size"]:
                file.write(data)
                return str(answer["sha256"])
            if not data or size == 0:
                return None
            file.write(data[: size - at])
    return digest


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
