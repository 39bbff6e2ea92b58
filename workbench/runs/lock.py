"""One writer a run: a second process that wants to write gets an error that names the first one's pid.

The lock is the kernel's (``lockf``), so it goes when its process dies, however it dies, and is not passed
on to forked decode workers. It does not exclude the same process; there the newest ``Run`` object takes
over.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from workbench.runs.files import RunError, disk_guard

FILE = "writer.lock"
_held: dict[Path, int] = {}  # one descriptor a run and process: closing any of them would release the lock


def acquire(directory: Path) -> None:
    """Take this process's write lock on a run. Raises ``RunError`` when another process holds it."""
    path = (directory / FILE).resolve()
    if path in _held:
        os.close(_held.pop(path))  # the directory may have been deleted and made again meanwhile
    with disk_guard("open the run for writing", path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # room is kept for this one line, so writing it cannot need another block
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise RunError(
                "write to this run",
                f"process {holder} is writing it",
                "Wait for that process, or stop it (`touch RUN/control/stop` lets it save first)",
                str(directory),
            ) from error
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            os.close(fd)
            raise
        # a file system without locks (some network mounts), or no room for the pid: go on unguarded
    _held[path] = fd


def release(directory: Path) -> None:
    """Give the lock back; nothing happens when this process does not hold it."""
    fd = _held.pop((directory / FILE).resolve(), None)
    if fd is not None:
        os.close(fd)


def forget_inherited() -> None:
    """In a forked child: the parent's locks are not ours."""
    _held.clear()


os.register_at_fork(after_in_child=forget_inherited)
