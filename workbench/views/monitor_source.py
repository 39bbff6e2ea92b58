"""Where a monitor reads: a run, a study, or a job on any machine. Each gives what is new since the last look."""

from __future__ import annotations

import base64
import io
import json
import time
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from workbench.errors import WorkbenchError
from workbench.runs import Run, run_status
from workbench.runs.control import ask
from workbench.runs.events import read_events
from workbench.runs.files import RunError, read_lines
from workbench.runs.metrics import DIRECTORY, DROPS, rows_from
from workbench.runs.rundir import META
from workbench.views.monitor_records import RunRecord

if TYPE_CHECKING:
    import pandas as pd

    from workbench.machines.attached import Attached

LIVE = ("starting", "running", "stopping", "waiting")
SCORED = ["sample_id", "suite", "skill", "question", "correct", "arm", "seed", "step", "condition"]


class Source(ABC):
    """A place that writes runs.

    Attributes:
        address: how the place is called.
        recipe: its resolved recipe, as far as it has one.
        runs: what has been read so far, by name, in the order planned.
        titles: of arms; costs: relative ones of runs, where known; planned: how many runs there will be.
        state: of the whole: starting, running, stopping, or how it ended; ``error`` says more.
        eta_s: seconds to the end, None where unknown.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.recipe: dict[str, Any] = {}
        self.titles: dict[str, str] = {}
        self.runs: dict[str, RunRecord] = {}
        self.costs: dict[str, float] = {}
        self.planned = 0
        self.state = "starting"
        self.error: str | None = None
        self.eta_s: float | None = None

    @property
    def ended(self) -> bool:
        return self.state not in LIVE

    @abstractmethod
    def read(self) -> None:
        """Bring everything up to what is written now; only what is new is read.

        Raises:
            WorkbenchError: it cannot be read, or the machine does not answer.
        """

    @abstractmethod
    def ask(self, what: str, run: str | None = None) -> None:
        """``stop`` or ``checkpoint``. Raises ``WorkbenchError``: nobody is there to answer."""

    def _record(self, name: str) -> RunRecord:
        if name not in self.runs:
            arm, _, seed = name.rpartition("-s")
            known = bool(arm) and seed.isdigit()
            self.runs[name] = RunRecord(name, arm if known else name, int(seed) if known else 0)
        return self.runs[name]

    def _wanted(self, name: str) -> list[tuple[str, int]]:
        """Score tables that a run says it has written and that were not read yet: (suite, step)."""
        suites = (self.recipe.get("evaluation") or {}).get("suites") or {}
        record = self.runs[name]
        steps, record.wanted = record.wanted, []
        return [(suite, step) for step in steps for suite in suites]


class Folder(Source):
    """A run's directory, or a study's without a job (``workbench study`` in a terminal)."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory.name)
        self.directory = directory
        self.single = (directory / META).is_file() or not (directory / "study.json").is_file()
        self._cursors: dict[str, int] = {}
        self._estimate: Any = None

    def _path(self, name: str) -> Path:
        return self.directory if self.single else self.directory / "runs" / name

    def read(self) -> None:
        study = {} if self.single else json.loads((self.directory / "study.json").read_text("utf-8"))
        if not self.recipe and (file := self.directory / "recipe.yaml").is_file():
            self.recipe = yaml.safe_load(file.read_text("utf-8")) or {}
        self.titles = {name: str(title or name) for name, title in (study.get("arms") or {}).items()}
        names = [self.directory.name] if self.single else [task["id"] for task in study.get("tasks") or ()]
        self.costs = {task["id"]: float(task["cost"]) for task in study.get("tasks") or ()}
        self.planned = len(names)
        for name in names:
            self._read_run(name, self._record(name))
        states = [record.state for record in self.runs.values()]
        self.state = _together(states, not self.single)
        failed = [r for r in self.runs.values() if r.error]
        self.error = f"{failed[0].name}: {failed[0].error}" if failed and not self.single else None
        if self.single:
            (record,) = self.runs.values()
            self.eta_s, self.error = record.eta_s, record.error
        else:
            self.eta_s = self._remaining(study) if self.state == "running" else None

    def _read_run(self, name: str, record: RunRecord) -> None:
        path = self._path(name)
        if not (path / META).is_file():
            return
        try:
            meta = Run.open(path).meta  # refuses a newer format
            record.arm, record.seed = meta.get("arm") or record.arm, int(meta.get("seed") or 0)
            status = run_status(path)
            self._read_streams(name, path, record)
        except RunError as error:
            record.state, record.error = "unreadable", str(error)
            return
        record.state, record.error = status.state, status.error
        record.step, record.total, record.loss = status.step, status.total, status.loss
        record.eta_s = status.eta_s

    def _read_streams(self, name: str, path: Path, record: RunRecord) -> None:
        at = self._cursors.get
        events = read_events(path, at(name, 0))
        self._cursors[name] = at(name, 0) + len(events)
        record.events(events)
        marks = read_lines(path / DIRECTORY / DROPS)[at(f"{name}#drops", 0) :]
        rows = rows_from(path, at(f"{name}#metrics", 0))
        record.drops([json.loads(mark) for mark in marks])
        self._cursors[f"{name}#drops"] = at(f"{name}#drops", 0) + len(marks)
        if rows:
            self._cursors[f"{name}#metrics"] = rows[-1][0] + 1
            record.rows([row for _, row in rows])
        for suite, step in self._wanted(name):
            if (file := path / "scores" / f"{suite}-{step:06d}-own.parquet").is_file():
                record.scores[suite, step] = _scored(file.read_bytes())

    def _remaining(self, study: dict[str, Any]) -> float | None:
        """As a study's own progress says it: tasks dealt to workers, each at its own speed."""
        from workbench.recipe import load_recipe
        from workbench.study.snapshot import EMPTY, TaskNow, remaining_seconds
        from workbench.study.tasks import Task, work

        if self._estimate is None:
            self._estimate = load_recipe(self.directory / "recipe.yaml")
        tasks = []
        for entry in study["tasks"]:
            task = Task(**{**entry, "needs": tuple(entry["needs"])})
            record = self.runs[task.id]
            done = record.step or 0
            share = 1.0 if record.state == "finished" else 0.0
            if not share and record.total:
                share = work(self._estimate, task.arm).done(done, record.total)
            tasks.append(
                TaskNow(task, record.state, share, record.worked_s(time.time()), record.total, EMPTY)
            )
        return remaining_seconds(tasks, int((self.recipe.get("machine") or {}).get("workers") or 1))

    def ask(self, what: str, run: str | None = None) -> None:
        working = [name for name, record in self.runs.items() if record.state == "running"]
        named = [name for name in working if run in (None, name)]
        if not named:
            todo = "Nothing is left to do" if self.state == "finished" else "Start it again: it resumes"
            raise WorkbenchError(f"ask {run or self.address} to {what}", f"it is {self.state}", todo)
        for name in named:  # one run that stops ends its study: the others save and end too
            ask(self._path(name), what)


class JobSource(Source):
    """A job on a machine, or one run of it, followed by number: what was read is never asked for again."""

    def __init__(self, attached: Attached) -> None:
        super().__init__(str(attached.address))
        self.attached = attached
        self._cursors: dict[str, int] = {}

    def read(self) -> None:
        job, only = self.attached.address.job, self.attached.address.run
        machine = self.attached.machine
        found = machine.status(job)  # asked first: what a job that has ended wrote is in the answers below
        if not self.recipe:
            self.recipe = yaml.safe_load(self._file("job/recipe.yaml") or b"") or {}
            arms = self.recipe.get("arms") or {}
            self.titles = {name: str(arm.get("title") or name) for name, arm in arms.items()}
        for answer in self.attached.answers(self._cursors, follow=False):
            for stream, items in answer.items():
                name, _, kind = stream.partition("#")
                if name:
                    record = self._record(name)
                    {"metrics": record.rows, "drops": record.drops, "": record.events}[kind](items)
        for name, row in found["runs"].items():
            if only in (None, name):
                record = self._record(name)
                record.state, record.error = row["state"], row["error"]
                record.step, record.total, record.eta_s = row["step"], row["total"], row["eta_s"]
                record.loss = None if row["loss"] is None else float(row["loss"])
        for name in self.runs:
            for suite, step in self._wanted(name):
                data = self._file(f"runs/{name}/scores/{suite}-{step:06d}-own.parquet")
                if data is not None:
                    self.runs[name].scores[suite, step] = _scored(data)
        self.state, self.error, self.eta_s = found["state"], found["error"], found["eta_s"]
        self.planned = 1 if only is not None else (found.get("tasks") or {}).get("total") or len(self.runs)
        if only is not None and only in self.runs:
            self.eta_s = self.runs[only].eta_s

    def _file(self, path: str) -> bytes | None:
        """One file of the job, None when it is not there."""
        data = b""
        while True:
            try:
                got = self.attached.machine.call(
                    "read", job=self.attached.address.job, path=path, offset=len(data)
                )
            except RunError:
                return None
            piece = zlib.decompress(base64.b64decode(got["data"]))
            data += piece
            if not piece or len(data) >= got["size"]:
                return data

    def ask(self, what: str, run: str | None = None) -> None:
        if what == "stop":
            self.attached.stop()
        elif run is not None:
            self.attached.machine.signal(self.attached.address.job, "checkpoint", run)
        else:
            self.attached.checkpoint()


def open_source(where: str | Path | Attached) -> Source:
    """The source that a path, an address (``MACHINE:JOB/RUN``) or an attached job names.

    Raises:
        WorkbenchError: there is nothing of that name; or the machine does not answer.
    """
    if not isinstance(where, str | Path):
        return JobSource(where)
    path = Path(where)
    if not path.is_dir():
        if isinstance(where, str) and (":" in where or "/" not in where):  # else it is meant as a path
            from workbench.machines import attach

            return JobSource(attach(str(where)))
        found = "there is no such folder"
        todo = "Name a run's or study's folder, or a job as MACHINE:JOB (`workbench jobs MACHINE` lists them)"
        raise WorkbenchError(f"watch {where}", found, todo)
    if (path / "job" / "job.json").is_file():
        from workbench.machines.address import Address
        from workbench.machines.attached import Attached as Job
        from workbench.machines.base import Machine
        from workbench.machines.local import LocalTransport

        here = path.absolute()
        return JobSource(
            Job(Machine("local", LocalTransport(), str(here.parent)), Address("local", here.name))
        )
    if not (path / META).is_file() and not (path / "study.json").is_file():
        found = f"{path} holds neither {META} nor study.json"
        raise WorkbenchError(f"watch {path.name}", found, "Name a run's or study's folder (`workbench runs`)")
    return Folder(path)


def _together(states: list[str], many: bool) -> str:
    """What a study does, from what its runs do."""
    if not many:
        return states[0] if states else "waiting"
    for state in ("running", "failed", "lost", "interrupted", "unreadable"):
        if state in states:
            return state
    if not states or "finished" not in states:
        return "starting"
    return "finished" if set(states) == {"finished"} else "running"


def _scored(data: bytes) -> pd.DataFrame:
    import pandas as pd

    table = pd.read_parquet(io.BytesIO(data))
    return table[[name for name in SCORED if name in table]]
