"""The supervised end of a job: what a process does that a supervisor started (``workbench.machines``).

It says that it has come up and how it ended (``job/ranks/ATTEMPT-RANK.json``: launchers such as torchrun tell
nobody which rank died of what), refuses to train with fewer processes than were asked for, and does not outlive
its supervisor: when that is gone, training stops at its next step, saves, and ends.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from workbench.errors import DiskFullError, WorkbenchError
from workbench.runs.files import pretty_json, write_atomic
from workbench.runs.status import is_gone, read_heartbeat

JOB, ATTEMPT = "WORKBENCH_JOB", "WORKBENCH_ATTEMPT"  # in the environment: the job's folder, which start it is
RANKS, RESERVE = "ranks", "reserve"  # below the job's folder
WATCH_S = 0.5
# cgroups and drivers kill without a word; these are the ones that say it themselves
_NO_MEMORY_TEXT = ("out of memory", "can't allocate memory", "Cannot allocate memory")


def no_memory(error: BaseException | None) -> bool:
    """Whether an exception, or one that caused it, says that memory ran out (host or GPU)."""
    while error is not None:
        known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if known or (isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY_TEXT)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def reporting() -> Iterator[None]:
    """Around the work of a process; does nothing in one that no supervisor started.

    Raises:
        WorkbenchError: another number of processes came up than the job asked for.
    """
    folder = os.environ.get(JOB)
    if folder is None or not (Path(folder) / "job.json").is_file():
        yield
        return
    job = Path(folder)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    path = job / RANKS / f"{os.environ.get(ATTEMPT, '0')}-{rank}.json"
    path.parent.mkdir(exist_ok=True)
    record: dict[str, Any] = {
        "rank": rank,
        "world": world,
        "pid": os.getpid(),
        "started": time.time(),
        "code": None,
    }
    _write(path, record)
    about = json.loads((job / "job.json").read_bytes())
    threading.Thread(
        target=_watch, args=(job, float(about["grace_s"])), name="supervisor", daemon=True
    ).start()
    try:
        _check_count(about, world)
        yield
    except BaseException as error:
        record |= {"code": _exit_code(error), "error": _words(error), "out_of_memory": no_memory(error)}
        raise
    else:
        record["code"] = 0
    finally:
        _write(path, record)


def _write(path: Path, record: dict[str, Any]) -> None:
    """Also on a full disk, where the reason of the end is what matters: the job's reserve makes room."""
    data = pretty_json(record)
    try:
        write_atomic(path, data, sync=False)
    except DiskFullError:
        (path.parents[1] / RESERVE).unlink(missing_ok=True)
        with suppress(DiskFullError):
            write_atomic(path, data, sync=False)


def _check_count(about: dict[str, Any], world: int) -> None:
    asked, launcher = int(about["processes"]), about["launcher"]
    if world == asked:
        return
    todo = "Use machine.launcher: torchrun"
    if launcher == "accelerate":
        todo += " (accelerate starts several processes only where it sees several GPUs)"
    raise WorkbenchError(
        f"train on {asked} processes", f"{launcher} started a group of {world}", todo, "machine.processes"
    )


def _exit_code(error: BaseException) -> int:
    if isinstance(error, WorkbenchError):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {text}".rstrip(": ")


def _watch(job: Path, grace_s: float) -> None:
    """End with the supervisor: TERM to ourselves asks for a stop with a checkpoint, KILL follows after the
    grace. Without this a killed supervisor would leave a training that nobody records, restarts or can stop.
    """
    supervisor = read_heartbeat(job)  # once: its pid decides, not a file that a full disk may hold up
    while not is_gone(supervisor):
        time.sleep(WATCH_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)
