"""Writing files so that a crash, a power cut or a full disk never damages what was complete before.

Three rules: a whole file appears by rename (never half written under its own name); a line is appended by one
``write``; whatever says "no room" becomes a ``DiskFullError`` that says what is safe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import DiskFullError, WorkbenchError

if TYPE_CHECKING:
    import pandas as pd

# EFBIG is what a file-size limit (ulimit -f) answers, EDQUOT a quota: for the user both are "no room".
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Libraries that write in Rust or C++ (safetensors, torch) report the errno only in their message.
FULL_TEXT = re.compile(
    r"No space left|StorageFull|FileTooLarge|QuotaExceeded|Disk quota|File too large|code: (28|27|122)\b"
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class RunError(WorkbenchError):
    """A run directory that cannot be used as asked; ``where`` names the file."""


def check_name(what: str, name: str) -> str:
    """Refuse names that would leave their folder or clash with in-progress marks."""
    if not NAME.fullmatch(name) or name.endswith((".partial", ".tmp", ".old")):
        raise RunError(
            f"name a {what} {name!r}",
            "it is not a plain file name",
            "use letters, digits, '-', '_', '+', '.', not ending in .partial, .tmp or .old",
        )
    return name


def is_disk_full(error: BaseException) -> bool:
    """Whether ``error``, or what caused it, says that there is no room."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL:
            return True
        if not isinstance(seen, OSError) and FULL_TEXT.search(str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def no_room(directory: Path, size: int = 65536) -> bool:
    """Whether ``size`` bytes do not fit into ``directory`` now; for errors that do not say why."""
    probe = directory / f"room.{os.getpid()}.tmp"
    try:
        probe.write_bytes(b"\0" * size)
    except OSError as error:
        return error.errno in FULL
    finally:
        probe.unlink(missing_ok=True)
    return False


@contextlib.contextmanager
def disk_guard(asked: str, where: Path) -> Iterator[None]:
    """Turn every "no room" error of the block into a ``DiskFullError``; other errors pass unchanged."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise DiskFullError(
                asked,
                "no space is left on the disk (or a file-size limit or quota was reached)",
                "What was sealed before (events, metrics, scores, complete checkpoints) is intact. Free some "
                "space, then run the same command again to resume from the last checkpoint",
                str(where),
            ) from error
        raise


def sync_dir(directory: Path) -> None:
    """Make renames in ``directory`` survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except (
        OSError
    ) as error:  # some network file systems cannot sync a directory; they order renames themselves
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte of ``data`` (a regular file may take fewer when the disk fills)."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_atomic(path: Path, data: bytes, sync: bool = True) -> None:
    """Write ``path`` whole or not at all.

    Args:
        path: the final name; a file already there is replaced.
        data: its bytes.
        sync: also survive a power cut (costs one disk flush).

    Raises:
        DiskFullError: no room; the old file, if any, is untouched and no temporary file stays.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with disk_guard(f"write {path.name}", path):
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                write_all(fd, data)
                if sync:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if sync:
            sync_dir(path.parent)


class LineFile:
    """An append-only file of lines, safe against torn tails.

    Opening it for writing cuts off a torn last line (what a crash in the middle of a write leaves). Every
    ``append`` is one ``write`` with ``O_APPEND``; when the disk fills in the middle, the partial line is
    taken back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_guard(f"open {path.name}", path):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._size = os.fstat(self._fd).st_size
        whole = self._whole_bytes()
        if whole != self._size:
            os.ftruncate(self._fd, whole)
            self._size = whole

    def _whole_bytes(self) -> int:
        """Bytes up to and with the last newline, looking back from the end in blocks."""
        end = self._size
        while end > 0:
            start = max(0, end - 65536)
            block = os.pread(self._fd, end - start, start)
            newline = block.rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0

    def append(self, line: bytes, sync: bool = False) -> None:
        """Append ``line`` (without its newline). Raises ``DiskFullError``; the file then is as before."""
        with disk_guard(f"append to {self.path.name}", self.path):
            try:
                write_all(self._fd, line + b"\n")
                if sync:
                    os.fsync(self._fd)
            except OSError:
                os.ftruncate(self._fd, self._size)
                raise
        self._size += len(line) + 1

    def sync(self) -> None:
        """Make the lines appended so far survive a power cut."""
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_lines(path: Path) -> list[bytes]:
    """The complete lines of a file; a torn last line is left out, a missing file has none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    return data.split(b"\n")[:-1]


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet file as a data frame. Raises ``RunError`` when it was cut or changed from outside."""
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        if isinstance(error, FileNotFoundError):
            raise
        reason = " ".join(str(error).split())[:120]
        raise RunError(
            "read a table of the run",
            f"it is not whole Parquet ({reason})",
            "Restore or delete the file",
            str(path),
        ) from error


def plain(value: Any) -> Any:
    """``value`` as JSON types: arrays and tensors become lists, paths text, non-finite numbers their names.

    JSON has no NaN or infinity; they are written as the strings ``"NaN"``, ``"Infinity"``, ``"-Infinity"``.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if hasattr(value, "tolist"):  # numpy arrays and scalars, torch tensors, without importing either
        return plain(value.tolist())
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def to_json(value: Any) -> bytes:
    """Compact JSON in UTF-8, on one line."""
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def pretty_json(value: Any) -> bytes:
    """Indented JSON for files that people read."""
    return (json.dumps(plain(value), ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()
