"""``heartbeat`` (where the process is) and ``RunStatus`` (what a reader concludes from it and events)."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import platform
import time
from pathlib import Path
from typing import Any, Literal

from workbench.runs.events import last_event, utc_now
from workbench.runs.files import pretty_json, write_atomic

FILE = "heartbeat"
LOST_AFTER_S = 60.0
State = Literal["running", "finished", "interrupted", "failed", "lost"]


@dataclasses.dataclass(frozen=True, slots=True)
class RunStatus:
    """What a run is doing.

    ``state``: running; finished, interrupted or failed (it said so); lost (it stopped without saying so).
    ``step``, ``total``: last step reported and the last step planned, None before the first report.
    ``eta_s``: seconds to the end at this session's mean speed, only while running. ``loss``: the last one
    reported. ``age_s``: seconds since the last sign of life. ``error``: the text given with a failure.
    """

    state: State
    step: int | None = None
    total: int | None = None
    eta_s: float | None = None
    loss: float | None = None
    age_s: float | None = None
    pid: int | None = None
    error: str | None = None


@functools.lru_cache(maxsize=1)
def host_mark() -> str:
    """A mark that is equal for processes whose pids can be compared, without naming the machine."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        boot = ""
    return hashlib.sha256(f"{platform.node()}|{boot}".encode()).hexdigest()[:12]


def process_started(pid: int) -> float | None:
    """Start time (s, epoch) of a live process or None; tells a reused pid from the old process."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


class Heart:
    """Writes ``heartbeat`` at most once a second, and always at the first and last step."""

    def __init__(self, directory: Path, every_s: float = 1.0) -> None:
        self._path = directory / FILE
        self._every = every_s
        self._written = -every_s
        self._first: tuple[float, int] | None = None
        self._identity = {"pid": os.getpid(), "host": host_mark(), "started": process_started(os.getpid())}
        before = read_heartbeat(directory)  # a resumed run keeps showing where it was until its first step
        self.step: int | None = before.get("step")
        self.total: int | None = before.get("total")
        self.loss: float | None = None

    def beat(self, step: int, total: int) -> None:
        now = time.monotonic()
        due = self._first is None or step >= total or now - self._written >= self._every
        if self._first is None:
            self._first = (now, step)
        self.step, self.total = step, total
        if due:
            self.write()

    def write(self) -> None:
        """Write the file now. Raises ``DiskFullError``; the previous heartbeat then stays."""
        now = time.monotonic()
        speed = None
        if self._first is not None and self.step is not None and now > self._first[0]:
            speed = (self.step - self._first[1]) / (now - self._first[0])
        state = {"time": utc_now(), "epoch": time.time(), "step": self.step, "total": self.total}
        state |= {"loss": self.loss, "steps_per_s": speed, **self._identity}
        write_atomic(self._path, pretty_json(state), sync=False)
        self._written = now


def read_heartbeat(directory: str | Path) -> dict[str, Any]:
    """The last heartbeat, empty when there is none (or a power cut left it unreadable)."""
    try:
        beat = json.loads((Path(directory) / FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return beat if isinstance(beat, dict) else {}


def is_gone(beat: dict[str, Any], lost_after_s: float = LOST_AFTER_S) -> bool:
    """Whether the process that wrote a heartbeat is no more (on this host), or has been silent (elsewhere)."""
    if beat.get("host") == host_mark():
        started = process_started(int(beat["pid"]))
        return started is None or abs(started - (beat.get("started") or started)) >= 2.0
    return "epoch" not in beat or time.time() - beat["epoch"] > lost_after_s


def _being_created(directory: Path) -> bool:
    """Whether the process that holds a run's lock lives; for the moment between its creation and first beat."""
    path = directory / "writer.lock"
    try:
        holder, locked = int(path.read_text()), path.stat().st_mtime
    except (OSError, ValueError):
        return False
    started = process_started(holder)
    return started is not None and started < locked + 2.0


def run_status(directory: str | Path, lost_after_s: float = LOST_AFTER_S) -> RunStatus:
    """What the run in ``directory`` is doing, without torch and without disturbing it.

    A run that never said how it ended is lost when its process is known to be gone (same machine, no such
    process), or, where the process cannot be looked up (another machine), when its heartbeat is older than
    ``lost_after_s``.
    """
    beat = read_heartbeat(directory)
    life = last_event(directory, ("start", "reopen", "finish"))
    age = max(0.0, time.time() - beat["epoch"]) if "epoch" in beat else None
    loss = beat.get("loss")
    loss = float(loss) if loss is not None else None  # non-finite ones are stored by name; float() reads them
    known: dict[str, Any] = {"step": beat.get("step"), "total": beat.get("total"), "loss": loss}
    known |= {"age_s": age, "pid": beat.get("pid")}
    if life is not None and life["kind"] == "finish":
        return RunStatus(state=life["reason"], error=life.get("error"), **known)
    if not beat:  # created this moment, or by a process that died at once
        return RunStatus(state="running" if _being_created(Path(directory)) else "lost", **known)
    if is_gone(beat, lost_after_s):
        return RunStatus(state="lost", **known)
    eta, speed = None, beat.get("steps_per_s")
    if speed and known["step"] is not None and known["total"] is not None:
        eta = max(0.0, (known["total"] - known["step"]) / speed)
    return RunStatus(state="running", eta_s=eta, **known)
