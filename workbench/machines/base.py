"""``Machine``: submit, status, tail, signal, fetch, over any ``Transport``.

A transport carries one JSON request to ``agent.handle`` on the machine and its answer back. Errors travel as
``{asked, found, todo, where, kind}`` and are raised here as what they were there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from workbench import __version__, errors
from workbench.errors import WorkbenchError
from workbench.runs.files import RunError

if TYPE_CHECKING:
    from workbench.machines.checkup import Report

PROTOCOL = 1  # of requests and answers; another number is refused by both ends
Signal = Literal["stop", "checkpoint", "kill"]
Progress = Callable[[dict[str, Any]], None]


class Unreachable(WorkbenchError):
    """The machine does not answer now and may again: no network, a server that restarts. Followers try again."""


class Transport(Protocol):
    """Carries requests to the agent of one machine. Calls may come from several threads."""

    def call(self, request: dict[str, Any], on_progress: Progress | None = None) -> dict[str, Any]:
        """The result of ``agent.handle(request)`` there.

        Raises:
            WorkbenchError: what the agent raised (``raise_error``), or what is wrong with the connection:
                ``Unreachable`` where waiting may help, another where it will not (a wrong token).
        """
        ...

    def close(self) -> None:
        """Let go of the connection; jobs are not touched."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """A job that ``submit`` started. ``notes``: what the machine wants said, for example a model that it will
    download.
    """

    machine: str
    name: str
    pid: int
    notes: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """What ``workbench.attach`` and the command line take."""
        return f"{self.machine}:{self.name}"


class Machine:
    """One machine by name.

    Args:
        name: as in the machines file.
        transport: how its agent is reached.
        root: folder there that holds the jobs; ``~`` is that machine's.
        workdir: folder there that a recipe's relative paths start from; None: the agent's working directory.
    """

    def __init__(
        self, name: str, transport: Transport, root: str = "~/workbench/runs", workdir: str | None = None
    ) -> None:
        self.name, self.transport, self.root, self.workdir = name, transport, root, workdir

    def __repr__(self) -> str:
        return f"<machine {self.name}>"

    def call(self, verb: str, on_progress: Progress | None = None, **data: Any) -> dict[str, Any]:
        """One request to the agent: ``verb`` and its own keys. Values that are None are left out."""
        request = {"protocol": PROTOCOL, "workbench": __version__, "verb": verb, "root": self.root}
        request |= {key: value for key, value in data.items() if value is not None}
        return self.transport.call(request, on_progress)

    def close(self) -> None:
        """Let go of the connection."""
        self.transport.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- the verbs -----------------------------------------------------------------------------------------

    def hello(self) -> dict[str, Any]:
        """Who answers: protocol, workbench, python, host (a name to show), time (s, epoch), root."""
        return self.call("hello")

    def submit(
        self,
        recipe: str | Path,
        name: str | None = None,
        *,
        overrides: Mapping[str, Any] | None = None,
        quick: bool = False,
        seeds: Sequence[int] | None = None,
        arms: Sequence[str] | None = None,
    ) -> Job:
        """Start a recipe as a job: it is checked there first, then owned by a detached supervisor.

        Args:
            recipe: a file here; what it extends is resolved here.
            name: of the job; default the recipe's, with ``-quick`` for a quick study.
            overrides: dotted recipe keys and values.

        Raises:
            RecipeError: the recipe does not validate.
            WorkbenchError: the name is taken, data or weights are not there, no room, another version there.
        """
        from workbench.recipe import load_recipe, to_yaml

        loaded = load_recipe(recipe, overrides)
        name = name or (f"{loaded.name}-quick" if quick and loaded.quick is not None else loaded.name)
        answer = self.call(
            "submit",
            name=name,
            recipe_yaml=to_yaml(loaded),
            quick=quick,
            seeds=None if seeds is None else list(seeds),
            arms=None if arms is None else list(arms),
            workdir=self.workdir,
        )
        return Job(self.name, answer["job"], answer["pid"], tuple(answer.get("notes", ())))

    def resume(self, job: str) -> Job:
        """Start a job again that has ended before its recipe was done; it goes on from its checkpoints."""
        answer = self.call("resume", job=job)
        return Job(self.name, answer["job"], answer["pid"])

    def jobs(self) -> list[dict[str, Any]]:
        """What is below ``root``: name, state, step, total, eta_s and runs of every job."""
        return self.call("jobs")["jobs"]

    def status(self, job: str) -> dict[str, Any]:
        """state, reason, error, and ``runs`` {id: state, step, total, loss, eta_s} of a job."""
        return self.call("status", job=job)

    def tail(
        self,
        job: str,
        cursors: Mapping[str, int] | None = None,
        *,
        run: str | None = None,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """What was written since ``cursors``: {events: {stream: [...]}, cursors, more}.

        Give the answer's ``cursors`` to the next call: no gap, nothing twice, in order. Streams: ``""`` (the
        job), ``"RUN"`` (its events), ``"RUN#metrics"`` (rows), ``"RUN#drops"`` (rows that no longer count).

        Args:
            run: only the streams of this run and of the job.
            limit: bytes of an answer, about; ``more`` says that it was reached.
        """
        return self.call("tail", job=job, cursors=dict(cursors or {}), run=run, limit=limit)

    def signal(self, job: str, what: Signal, run: str | None = None) -> None:
        """Ask a job to ``stop`` (after its step, saving), to ``checkpoint`` (``run``: only that run), or
        ``kill`` it at once.
        """
        self.call("signal", job=job, what=what, run=run)

    def fetch(self, job: str, destination: str | Path, checkpoints: bool = False) -> Path:
        """Copy a job's files to ``destination/JOB`` here; see ``workbench.machines.fetch``."""
        from workbench.machines.fetch import fetch

        return fetch(self, job, Path(destination), checkpoints)

    def evaluate(
        self, job: str, run: str, on_progress: Progress | None = None, **what: Any
    ) -> dict[str, Any]:
        """Score a checkpoint of a run there; the table is written into the run (``agent``: evaluate)."""
        return self.call("evaluate", on_progress, job=job, run=run, **what)

    def probe(self, job: str, run: str, on_progress: Progress | None = None, **what: Any) -> dict[str, Any]:
        """Look inside a checkpoint of a run there: keys of a recipe's ``probes:`` section, ``name``, ``checkpoint``.

        Captures stay in the run (``fetch`` brings them); what comes back is which they are and what they show in words.
        """
        return self.call("probe", on_progress, job=job, run=run, **what)

    def check(
        self, recipe: str | Path | None = None, on_progress: Progress | None = None, smoke: bool = True
    ) -> Report:
        """Connect and look at everything jobs need there; see ``workbench.machines.checkup``."""
        from workbench.machines.checkup import check_machine

        return check_machine(self, recipe, on_progress, smoke)


# -- errors as JSON --------------------------------------------------------------------------------------------


def error_to_json(error: BaseException) -> dict[str, Any]:
    """``{asked, found, todo, where, kind}`` of any exception."""
    if isinstance(error, WorkbenchError):
        fields = {"asked": error.asked, "found": error.found, "todo": error.todo, "where": error.where}
        return {**fields, "kind": type(error).__name__}
    text = " ".join(str(error).split())
    found = f"{type(error).__name__}: {text}" if text else type(error).__name__
    todo = "This is an error nobody foresaw: please report it with the recipe"
    return {"asked": "answer on the machine", "found": found, "todo": todo, "where": None, "kind": "Error"}


def raise_error(fields: Mapping[str, Any]) -> None:
    """Raise what ``error_to_json`` described: the same class where it is one of ours."""
    kinds: dict[str, type[WorkbenchError]] = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, WorkbenchError)
    }
    kind = {**kinds, "RunError": RunError, "Unreachable": Unreachable}.get(
        str(fields.get("kind")), WorkbenchError
    )
    raise kind(fields["asked"], fields["found"], fields["todo"], fields.get("where"))
