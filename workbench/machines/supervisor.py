"""The process that owns a job: starts its training, passes requests on, restarts it, records how it ended.

``main`` detaches: a session of its own and a child of nobody, so that the kernel, the connection or the terminal
it came from may die. It loads no torch, and it is the one process that learns how the others ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from workbench.errors import DiskFullError
from workbench.machines import exits, launch
from workbench.machines.job import CONTROL, FOLDER, OUTPUT, SIGNALS, meta, run_names
from workbench.machines.processes import MARK, kill_all, members, tell
from workbench.runs import lock, run_status
from workbench.runs.control import ask
from workbench.runs.events import EventLog
from workbench.runs.files import write_atomic
from workbench.runs.rundir import RESERVE_BYTES
from workbench.runs.status import Heart
from workbench.runs.supervised import ATTEMPT, RESERVE

POLL_S = 0.2
BEAT_S = 1.0
AGAIN_S = 1.0  # a stop is dropped into the runs that work, again and again: one may have begun only now
KILL_AFTER_TERM_S = 5.0  # between TERM and KILL, when the grace has passed
COME_UP_S = 300.0  # after the first rank has reported, for the others
BACKOFF_S = (1.0, 5.0, 30.0)  # before the first, second, third and later restart


class Supervisor:
    """Runs one job to its end.

    Args:
        study: ``ROOT/NAME``, with ``job/job.json`` written.
    """

    def __init__(self, study: Path) -> None:
        self.study, self.job = study, study / FOLDER
        self.about = meta(study)
        self.grace_s = float(self.about["grace_s"])
        self.processes, self.restarts = int(self.about["processes"]), int(self.about["restarts"])
        self.asked: str | None = None  # "stop" or "kill"
        self.asked_at = 0.0
        self.told = False  # by a signal
        self.forced: str | None = None  # why we ourselves killed the processes
        lock.acquire(self.job)
        kill_all(self.job)  # what a supervisor before us may have left behind
        for box in SIGNALS:  # meant for a session that is gone
            (self.job / CONTROL / box).unlink(missing_ok=True)
        with contextlib.suppress(
            DiskFullError
        ):  # given back when the disk is full, for the reason of the end
            write_atomic(self.job / RESERVE, b"\0" * RESERVE_BYTES, sync=False)
        self.log, self.heart = EventLog(self.job), Heart(self.job)

    def begin(self) -> None:
        """The first sign of life."""
        self._note("resumed" if self.log.next_seq else "submitted", {"pid": os.getpid()})
        self.heart.write()

    def run(self) -> str:
        """Start, watch, restart; returns the reason of the end, which is also the last event."""
        attempt, restarts = exits.next_attempt(self.job), 0
        while True:
            end = self._once(attempt)
            if not end.crash or restarts == self.restarts or self.asked is not None:
                break
            self._pause(BACKOFF_S[min(restarts, len(BACKOFF_S) - 1)])
            if self.asked is not None:
                break
            restarts, attempt = restarts + 1, attempt + 1
            self._note("restarted", {"attempt": attempt, "after": end.reason, "error": end.error})
        self._beat()
        self._note("finish", dict(exits.summary(end, restarts)))
        return end.reason

    def terminated(self, number: int, frame: FrameType | None) -> None:
        """A signal handler: only a mark, which the next look at the requests sees."""
        self.told = True

    def failed(self, error: BaseException) -> None:
        """The supervisor itself failed: nothing may go on without it, and the reason is kept."""
        kill_all(self.job)
        self._note("finish", {"reason": "failed", "error": f"the supervisor failed: {error!r}"})

    def _note(self, kind: str, data: dict[str, Any]) -> None:
        """Append an event. On a full disk the reserve makes room; without any the job goes on unrecorded."""
        try:
            self.log.append(kind, data)
        except DiskFullError:
            (self.job / RESERVE).unlink(missing_ok=True)
            with contextlib.suppress(DiskFullError):
                self.log.append(kind, data)

    def _beat(self) -> None:
        with contextlib.suppress(DiskFullError):  # the training says so itself
            self.heart.write()

    # -- one start -----------------------------------------------------------------------------------------

    def _once(self, attempt: int) -> exits.End:
        argv = launch.command(self.about["launcher"], self.processes, self.about["argv"])
        environment = {**os.environ, MARK: str(self.job.absolute()), ATTEMPT: str(attempt)}
        oom_before = exits.oom_kills()
        with (self.job / OUTPUT).open("ab") as output:
            begin = output.tell()
            child = subprocess.Popen(
                argv,
                cwd=self.about["workdir"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**environment, "PYTHONUNBUFFERED": "1"},
            )
        self._note("launched", {"pid": child.pid, "attempt": attempt, "argv": argv})
        code = self._watch(child, attempt)
        kill_all(self.job)  # workers without their parent, ranks that hang: nothing stays
        ranks = exits.codes(self.job, attempt)
        died_of = -code if code < 0 else None
        self._note("exited", {"code": code, "signal": died_of, "attempt": attempt, "ranks": ranks})
        return exits.judge(
            self.job,
            attempt,
            code,
            output_from=begin,
            oom=exits.oom_kills() > oom_before,
            asked=self.asked,
            forced=self.forced,
        )

    def _watch(self, child: subprocess.Popen[bytes], attempt: int) -> int:
        """Until the launcher has ended: beat, take requests, carry them out. Returns its exit code."""
        beaten = dropped = first = 0.0
        while (code := child.poll()) is None:
            now = time.monotonic()
            self._take_requests()
            if now - beaten >= BEAT_S:
                beaten = now
                self._beat()
                come = len(exits.codes(self.job, attempt))
                first = first or (now if come else 0.0)
                if come < self.processes and first and now - first > COME_UP_S:
                    self.forced = f"{come} of {self.processes} processes came up in {COME_UP_S:.0f} s"
                    kill_all(self.job)
            if self.asked == "kill":
                kill_all(self.job)
            elif self.asked == "stop" and now - dropped >= AGAIN_S:
                dropped = now
                self._stop(now - self.asked_at)
            time.sleep(POLL_S)
        return code

    def _take_requests(self) -> None:
        if self.told:
            self.ask("stop")
        for what in SIGNALS:
            try:
                (self.job / CONTROL / what).unlink()
            except FileNotFoundError:
                continue
            if what == "checkpoint":
                for run in self._running():
                    ask(run, "checkpoint")
            else:
                self.ask(what)

    def ask(self, what: str) -> None:
        """Stop or kill the job; a stop may still become a kill."""
        if self.asked == what or self.asked == "kill":
            return
        self._note("stop_asked", {"what": what, "grace_s": self.grace_s})
        self.asked, self.asked_at = what, self.asked_at or time.monotonic()

    def _stop(self, waited: float) -> None:
        """The runs finish their step and save; when the grace has passed TERM goes to every process, then KILL."""
        if waited < self.grace_s:
            for run in self._running():
                ask(run, "stop")
            return
        self.forced = (
            f"it had not stopped after {self.grace_s:g} s and was ended; it goes on from its last checkpoint"
        )
        if waited < self.grace_s + KILL_AFTER_TERM_S:
            tell(members(self.job), signal.SIGTERM)
        else:
            kill_all(self.job)

    def _running(self) -> list[Path]:
        runs = [self.study / "runs" / name for name in run_names(self.study)]
        return [run for run in runs if run_status(run).state == "running"]

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.asked is None:
            self._beat()
            self._take_requests()
            time.sleep(POLL_S)


def detach() -> int:
    """Go on as a child of nobody in a session of its own.

    The process that was started waits for a byte on the descriptor that this returns, and ends with 0 then, with
    1 when the descriptor is closed without one: who started it knows that way whether the supervisor lives.
    """
    ready, tell_ready = os.pipe()
    if os.fork():
        os.close(tell_ready)
        os._exit(0 if os.read(ready, 1) else 1)
    os.close(ready)
    os.setsid()
    return tell_ready


def main(study: Path) -> int:
    """Supervise the job in ``study``. A TERM (a machine that goes down) is a request to stop."""
    ready = detach()
    supervisor = Supervisor(study)
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, supervisor.terminated)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        supervisor.begin()
        os.write(ready, b"1")
        os.close(ready)
        supervisor.run()
    except BaseException as error:
        supervisor.failed(error)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
