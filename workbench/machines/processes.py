"""The processes of a job, wherever they have got to.

Every process that a supervisor starts carries the job's folder in its environment, and passes it on: launchers
put their ranks into sessions of their own, and orphans change parents, but nobody changes that. So one look at
the environments of this user's processes finds all of them, also after the supervisor has died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil

MARK = "WORKBENCH_JOB"


def members(job: Path) -> list[psutil.Process]:
    """Live processes of the job in ``job`` (``ROOT/NAME/job``), this process left out."""
    mark, found = str(job.absolute()), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            # a process of another user, or one that has just died, is not ours
            if process.environ().get(MARK) != mark or process.pid == os.getpid():
                continue
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def tell(processes: list[psutil.Process], number: int) -> None:
    """Send a signal to each; those that have gone meanwhile are left out."""
    for process in processes:
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            process.send_signal(number)


def kill_all(job: Path, wait_s: float = 10.0) -> int:
    """KILL every process of the job until none is left; returns how many there were.

    Processes may start others while they are being killed, hence the rounds.
    """
    seen: set[int] = set()
    until = time.monotonic() + wait_s
    while (left := members(job)) and time.monotonic() < until:
        seen |= {process.pid for process in left}
        tell(left, signal.SIGKILL)
        # not psutil.wait_procs: of our own child it would take the exit code that Popen is waiting for
        time.sleep(0.02)
    return len(seen)
