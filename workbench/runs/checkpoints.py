"""``checkpoints/<name>/``: a directory that is complete, or carries ``.partial`` in its name and does not
count.

``complete.json`` inside says the order of completion and the size of every file, so the newest one is known
without trusting file times, and one that was cut or edited later is recognised.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.errors import CheckpointError
from workbench.runs.events import utc_now
from workbench.runs.files import (
    check_name,
    disk_guard,
    is_disk_full,
    no_room,
    pretty_json,
    sync_dir,
    write_atomic,
)

DIRECTORY = "checkpoints"
MARK = "complete.json"
PARTIAL, OLD = ".partial", ".old"


def _order(path: Path) -> int:
    return int(_mark(path)["order"])


def _mark(path: Path) -> dict[str, Any]:
    try:
        mark = json.loads((path / MARK).read_bytes())
        mark["files"], mark["order"]
        return mark
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"use the checkpoint {path.name}",
            f"its {MARK} is missing or unreadable",
            "The directory was changed from outside: delete it to go on from the checkpoint before",
            str(path),
        ) from error


def _files(path: Path) -> dict[str, int]:
    """Size in bytes of every file below ``path`` but the mark, by relative name."""
    found = {}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != MARK:
            found[file.relative_to(path).as_posix()] = file.stat().st_size
    return found


def complete(directory: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    folder = directory / DIRECTORY
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if p.is_dir() and p.suffix not in (PARTIAL, OLD)]
    return sorted(found, key=_order)


def verify(path: Path) -> Path:
    """``path`` itself when all its files have the size they had when complete.

    Raises:
        CheckpointError: in progress, cut, or with a file missing.
    """
    if path.suffix == PARTIAL:
        raise CheckpointError(
            f"use the checkpoint {path.name}",
            "it was never completed",
            "Use another one, or run the training again to make it",
            str(path),
        )
    expected, found = _mark(path)["files"], _files(path)
    for name, size in expected.items():
        if found.get(name) != size:
            seen = "is missing" if name not in found else f"has {found[name]} bytes"
            raise CheckpointError(
                f"use the checkpoint {path.name}",
                f"{name} {seen} where {size} bytes were written",
                "The checkpoint was cut or changed: delete its directory to go on from the one before",
                str(path),
            )
    return path


def latest(directory: Path) -> Path | None:
    """The newest complete checkpoint, verified; None when there is none. Raises ``CheckpointError``."""
    found = complete(directory)
    return verify(found[-1]) if found else None


def prune(directory: Path, keep: str, prefix: str) -> None:
    """Delete complete checkpoints named ``prefix...``, all but ``keep``."""
    for path in complete(directory):
        if path.name.startswith(prefix) and path.name != keep:
            path = path.rename(path.with_name(path.name + PARTIAL))  # half deleted, it must not look complete
            shutil.rmtree(path)


def clean(directory: Path) -> None:
    """Remove what a crash left: checkpoints in progress, and undo a replacement that was cut half-way."""
    folder = directory / DIRECTORY
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix == OLD and not path.with_suffix("").exists():
            path.rename(path.with_suffix(""))
        elif path.suffix in (PARTIAL, OLD):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def writing(directory: Path, name: str) -> Iterator[Path]:
    """Yield ``checkpoints/<name>.partial``; complete it when the block succeeds, remove it when it fails.

    Raises:
        DiskFullError: no room; older checkpoints stay, the partial one is removed to give its space back.
    """
    check_name("checkpoint", name)
    folder = directory / DIRECTORY
    final, partial, old = folder / name, folder / (name + PARTIAL), folder / (name + OLD)
    with disk_guard(f"write the checkpoint {name}", final):
        folder.mkdir(exist_ok=True)
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        try:
            yield partial
            for file in [p for p in partial.rglob("*") if p.is_file()]:
                fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            order = max((_order(p) for p in complete(directory)), default=-1) + 1
            mark = {"name": name, "order": order, "time": utc_now(), "files": _files(partial)}
            write_atomic(partial / MARK, pretty_json(mark))
            for inner in [p for p in partial.rglob("*") if p.is_dir()]:
                sync_dir(inner)
            if (
                final.exists()
            ):  # a directory cannot be replaced in one step: `clean` undoes a cut between the two
                final.rename(old)
            partial.rename(final)
            sync_dir(folder)
        except BaseException as error:
            # torch.save on a full disk says only "iostream error": ask the disk, before room is made again
            unsaid = isinstance(error, RuntimeError) and not is_disk_full(error) and no_room(folder)
            shutil.rmtree(partial, ignore_errors=True)
            if unsaid:
                raise OSError(errno.ENOSPC, "No space left on device") from error
            raise
        shutil.rmtree(old, ignore_errors=True)
