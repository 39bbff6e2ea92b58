"""``files`` and ``read``: a job's directory as a list with checksums, and its bytes piece by piece.

Files that grow are listed with the size they had; that many bytes of them never change. Files that are
replaced (score tables, the metrics tail) may differ from the list a moment later: the reader then lists again.
"""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.machines.base import Progress
from workbench.machines.job import job_folder, need
from workbench.runs.files import RunError

PIECE = 4 << 20  # bytes of one answer at most
# unfinished, or meaningful only on that machine
SKIPPED_FOLDERS = ("cache", "control")
SKIPPED_FILES = ("writer.lock", "reserve")
UNFINISHED = (".tmp", ".partial", ".old")
_sums: dict[tuple[str, int, int, int], str] = {}  # path, inode, size, mtime -> sha256


def files(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Verb: {root, job, checkpoints} -> {files: [{path, size, sha256}]}, paths relative to the job."""
    study, checkpoints = job_folder(request), bool(request.get("checkpoints"))
    found = []
    for path in _walk(study, checkpoints):
        try:
            size, digest = _sum(path)
        except FileNotFoundError:
            continue  # replaced or deleted while we looked
        found.append({"path": path.relative_to(study).as_posix(), "size": size, "sha256": digest})
    return {"files": found}


def read(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Verb: {root, job, path, offset, length} -> {data: base64 of zlib, size, sha256?}.

    ``size`` is that of the whole file now; ``sha256`` of the whole file comes when the answer holds all of it.

    Raises:
        RunError: outside the job's directory, or no such file.
    """
    study, name = job_folder(request), str(need(request, "path"))
    path = (study / name).resolve()
    asked = f"read {name} of the job {study.name}"
    if not path.is_relative_to(study.resolve()) or Path(name).is_absolute():
        raise RunError(
            asked, "it is outside the job's directory", "Name a file of the list that `files` gives"
        )
    length = min(max(0, int(request.get("length", PIECE))), PIECE)
    try:
        with path.open("rb") as file:
            file.seek(max(0, int(request.get("offset", 0))))
            data = file.read(length)
            # asked after reading: a file that grows meanwhile is not taken for a whole one
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise RunError(asked, str(error.strerror), "List the files again") from None
    answer = {"data": base64.b64encode(zlib.compress(data, 1)).decode(), "size": size}
    return answer | ({"sha256": hashlib.sha256(data).hexdigest()} if len(data) == size else {})


def _walk(study: Path, checkpoints: bool) -> Iterator[Path]:
    skipped = SKIPPED_FOLDERS if checkpoints else (*SKIPPED_FOLDERS, "checkpoints")
    for folder, inner, names in os.walk(study):
        inner[:] = sorted(n for n in inner if n not in skipped and not n.endswith(UNFINISHED))
        for name in sorted(names):
            path = Path(folder) / name
            if name not in SKIPPED_FILES and not name.endswith(UNFINISHED) and not path.is_symlink():
                yield path


def _sum(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file as it is now, also while it grows."""
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        key = (str(path), about.st_ino, about.st_size, about.st_mtime_ns)
        if key not in _sums:
            digest, left = hashlib.sha256(), about.st_size
            while left and (block := file.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
            _sums[key] = digest.hexdigest()
    return about.st_size, _sums[key]
