"""``workbench.attach("gpu:trap/hybrid-s0")``: a job, or one run of it, from any kernel at any time.

What is shown comes from the job's files by number, never from what some process printed, so nothing is lost
while nobody looks, any number of observers may look, and each sees the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.errors import WorkbenchError
from workbench.machines.address import Address, parse_address
from workbench.machines.base import Machine, Progress, Unreachable
from workbench.machines.connect import machine as open_machine

if TYPE_CHECKING:
    import pandas as pd

METRICS, DROPS = "#metrics", "#drops"
EVERY_S, LONGEST_S = 0.25, 10.0  # between two looks; between two attempts to reach a machine that is away


class Item(NamedTuple):
    """One thing that was written: the stream it belongs to (see ``Machine.tail``) and its content."""

    stream: str
    data: dict[str, Any]


def attach(address: str, machine: Machine | None = None) -> Attached:
    """A job by its address, ``MACHINE:JOB`` or ``MACHINE:JOB/RUN``; nothing is started or disturbed.

    Args:
        machine: the machine, when it is open already.

    Raises:
        WorkbenchError: no such address, machine, job or run, or the machine does not answer.
    """
    place = parse_address(address)
    attached = Attached(machine or open_machine(place.machine), place)
    attached.machine.tail(place.job, run=place.run, limit=1)  # raises what is wrong with the address
    return attached


class Attached:
    """A job on a machine, or one run of it.

    Attributes:
        machine: where it is.
        address: its parts.
    """

    def __init__(self, machine: Machine, address: Address) -> None:
        self.machine, self.address = machine, address
        self._cursors: dict[str, int] = {}
        self._seen: dict[str, list[dict[str, Any]]] = {}

    def __repr__(self) -> str:
        return f"<attached to {self.address}>"

    # -- looking -------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The job's status; of a run its own state, step, total, loss, eta_s, with the job's state as ``job``.

        ``state``: starting, running, stopping, or how it ended: finished, stopped, failed, killed,
        out_of_memory, lost (then ``error`` says more). A run that has not begun is ``waiting``.
        """
        found = self.machine.status(self.address.job)
        if self.address.run is None:
            return found
        row = found["runs"].get(self.address.run, {"state": "waiting", "step": None, "total": None})
        return {**row, "job": found["state"]}

    def events(self, from_seq: int = 0) -> list[dict[str, Any]]:
        """Events of the run (of the job itself when the address names none) numbered ``from_seq`` and up."""
        self._catch_up()
        return self._seen.get(self.address.run or "", [])[from_seq:]

    def metrics(self) -> pd.DataFrame:
        """One row a step, as ``Run.metrics()`` on the machine gives them.

        Of a whole job: the rows of all its runs below one another, named in the column ``run``.
        """
        import pandas as pd

        self._catch_up()
        runs = [s.removesuffix(METRICS) for s in self._seen if s.endswith(METRICS)]
        if self.address.run is not None:
            return self._table(self.address.run)
        parts = [self._table(run).assign(run=run) for run in sorted(runs)]
        return (
            pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"step": pd.Series(dtype="int64")})
        )

    def so_far(self) -> Iterator[Item]:
        """Everything that has been written, stream by stream."""
        yield from _items(self.answers({}, follow=False))

    def follow(
        self, every_s: float = EVERY_S, from_start: bool = True, patience_s: float = 600.0
    ) -> Iterator[Item]:
        """Everything that is written, as it comes, until the job has ended: gapless, nothing twice.

        Args:
            every_s: seconds between two looks when nothing is new.
            from_start: begin with what was written before; False: only what comes from now on.
            patience_s: go on asking a machine that does not answer for so long; nothing is missed meanwhile.

        Raises:
            Unreachable: no answer for ``patience_s``.
        """
        cursors: dict[str, int] = {}
        if not from_start:
            while self._look(cursors)["more"]:
                pass
        yield from _items(self.answers(cursors, True, every_s, patience_s))

    def answers(
        self,
        cursors: dict[str, int],
        follow: bool = True,
        every_s: float = EVERY_S,
        patience_s: float = 600.0,
    ) -> Iterator[dict[str, list[dict[str, Any]]]]:
        """What is written from ``cursors`` on, {stream: items}, as much at a time as one answer holds.

        ``cursors`` (see ``Machine.tail``) stand behind what was given last: whoever keeps them can go on there.

        Args:
            follow: go on until the job has ended; False: until everything written so far was given.
        """
        ended, away_since, pause = not follow, None, every_s
        while True:
            try:
                # asked before the look: what a job that has ended wrote is in the look that follows
                ended = ended or self.machine.status(self.address.job)["reason"] is not None
                answer = self._look(cursors)
            except Unreachable:
                if not follow:
                    raise
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > patience_s:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_S)
                continue
            away_since, pause = None, every_s
            if answer["events"]:
                yield answer["events"]
            if answer["more"]:
                continue
            if ended:
                return
            time.sleep(every_s)

    def _look(self, cursors: dict[str, int]) -> dict[str, Any]:
        """One answer; ``cursors`` then stand behind it."""
        answer = self.machine.tail(self.address.job, cursors, run=self.address.run)
        cursors.update(answer["cursors"])
        return answer

    def _catch_up(self) -> None:
        while True:
            answer = self._look(self._cursors)
            for stream, items in answer["events"].items():
                self._seen.setdefault(stream, []).extend(items)
            if not answer["more"]:
                return

    def _table(self, run: str) -> pd.DataFrame:
        from workbench.runs.metrics import table_of

        marks = [(mark["row"], mark["step"]) for mark in self._seen.get(run + DROPS, [])]
        return table_of(self._seen.get(run + METRICS, []), marks)

    # -- asking --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask the job to finish its steps, save and end. (Runs of one job are stopped together.)"""
        self.machine.signal(self.address.job, "stop")

    def checkpoint(self) -> None:
        """Ask for a checkpoint at the next step, of the run or of all that work."""
        self.machine.signal(self.address.job, "checkpoint", self.address.run)

    def kill(self) -> None:
        """End the job's processes at once; it can go on from its last checkpoint."""
        self.machine.signal(self.address.job, "kill")

    def resume(self) -> None:
        """Start an ended job again; it goes on from its checkpoints."""
        self.machine.resume(self.address.job)

    def wait(self, timeout_s: float | None = None, every_s: float = 0.5) -> dict[str, Any]:
        """Until the job has ended; returns its status.

        Raises:
            WorkbenchError: it works still after ``timeout_s``.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while (found := self.machine.status(self.address.job))["reason"] is None:
            if until is not None and time.monotonic() > until:
                asked, said = (
                    f"see the end of {self.address}",
                    f"it is {found['state']} after {timeout_s:g} s",
                )
                raise WorkbenchError(asked, said, "Wait longer, or stop it")
            time.sleep(every_s)
        return found

    def fetch(self, destination: str | Path, checkpoints: bool = False) -> Path:
        """Copy the job's files here; see ``Machine.fetch``. Returns the folder (of the run, if one is named)."""
        folder = self.machine.fetch(self.address.job, destination, checkpoints)
        return folder if self.address.run is None else folder / "runs" / self.address.run

    def evaluate(self, on_progress: Progress | None = None, **what: Any) -> dict[str, Any]:
        """Score a checkpoint of this run there: ``suite=``, ``source=`` or ``data=``, ``checkpoint=``,
        ``frames=``, ``copies=``, ``limit=`` (``workbench.machines.evaluate``).

        Raises:
            WorkbenchError: the address names no run, or no such checkpoint or suite.
        """
        if self.address.run is None:
            todo = f"Attach to one: {self.address}/RUN"
            raise WorkbenchError("evaluate a checkpoint", "the address names a job, not a run", todo)
        return self.machine.evaluate(self.address.job, self.address.run, on_progress, **what)


def _items(answers: Iterator[dict[str, list[dict[str, Any]]]]) -> Iterator[Item]:
    for events in answers:
        for stream, items in events.items():
            for data in items:
                yield Item(stream, data)
