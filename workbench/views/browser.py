"""``RunBrowser``: what is below a folder of runs, or on a machine: studies, jobs and runs with state and last scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import __version__
from workbench.errors import WorkbenchError
from workbench.runs import Run, run_status
from workbench.runs.captures import complete
from workbench.runs.files import RunError
from workbench.runs.rundir import META
from workbench.views import stills
from workbench.views.base import View
from workbench.views.monitor_words import duration, number
from workbench.views.pieces import Module, Piece

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

COLUMNS = ("name", "kind", "state", "step", "loss", "time left", "scores", "captures")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that can be looked at.

    Attributes:
        name: as shown: ``trap``, ``trap/base-s0``, ``gpu:trap``.
        kind: study, run or job.
        path: its folder here, None for a job elsewhere.
        study: the folder of the study that a run belongs to.
    """

    name: str
    kind: str
    state: str
    path: Path | None = None
    study: Path | None = None
    step: str = ""
    loss: str = ""
    left: str = ""
    scores: str = ""
    captures: int = 0
    error: str = ""

    @property
    def address(self) -> str:
        """What a monitor takes."""
        return self.name if self.path is None else str(self.path)

    def row(self) -> dict[str, Any]:
        captures = str(self.captures) if self.captures else ""
        state = f"{self.state}: {self.error}" if self.error else self.state
        values = (self.name, self.kind, state, self.step, self.loss, self.left, self.scores, captures)
        return dict(zip(COLUMNS, values, strict=True))


def below(folder: Path) -> list[Entry]:
    """Studies (each before its runs) and single runs at or below ``folder``, two folders deep; damaged ones too."""
    found: list[Entry] = []
    for path in [folder, *sorted(p for p in folder.glob("*") if p.is_dir())]:
        if (path / "study.json").is_file() or (path / "job" / "job.json").is_file():
            runs = [_run(run, path) for run in sorted(p.parent for p in path.glob(f"runs/*/{META}"))]
            found += [_study(path, runs), *runs]
        elif (path / META).is_file():
            found.append(_run(path, None))
    return found


def jobs_of(machine: str) -> list[Entry]:
    """The jobs of a machine.

    Raises:
        WorkbenchError: there is no such machine, or it does not answer.
    """
    from workbench.machines.connect import machine as open_machine

    with open_machine(machine) as there:
        if there.name == "local":
            found = below(Path(there.root).expanduser())
            jobs = {entry.path for entry in found if entry.kind == "job"}
            return [entry for entry in found if entry.path in jobs or entry.study in jobs]
        return [
            Entry(
                f"{machine}:{job['name']}",
                "job",
                job["state"],
                step=f"{job['step']} of {job['total']}" if job.get("total") else "",
                left=duration(job["eta_s"]) if job.get("eta_s") is not None else "",
                error=" ".join((job.get("error") or "").split()),
            )
            for job in there.jobs()
        ]


def _study(path: Path, runs: Sequence[Entry]) -> Entry:
    job = (path / "job" / "job.json").is_file()
    try:
        planned = json.loads((path / "study.json").read_text("utf-8")).get("tasks") or []
    except FileNotFoundError:  # a job that has not begun its study yet
        planned = list(runs)
    except (OSError, ValueError) as error:
        return Entry(path.name, "study", "unreadable", path, path, error=f"study.json: {error}")
    done = sum(run.state == "finished" for run in runs)
    states = {run.state for run in runs}
    rest = next(
        (s for s in ("running", "failed", "lost", "interrupted", "unreadable") if s in states),
        "starting" if job else "waiting",
    )
    state = "finished" if done == len(planned) and done else rest
    kind = "job" if job else "study"
    captures = sum(run.captures for run in runs)
    return Entry(path.name, kind, state, path, path, f"{done} of {len(planned)} runs", captures=captures)


def _run(path: Path, study: Path | None) -> Entry:
    name = path.name if study is None else f"{study.name}/{path.name}"
    try:
        Run.open(path)
        status = run_status(path)
    except RunError as error:
        return Entry(name, "run", "unreadable", path, study, error=error.found)
    return Entry(
        name,
        "run",
        status.state,
        path,
        study,
        "" if status.step is None else f"{status.step} of {status.total}",
        "" if status.loss is None else number(status.loss),
        "" if status.eta_s is None else duration(status.eta_s),
        last_scores(path),
        len(complete(path)),
        " ".join((status.error or "").split()),
    )


_scores: dict[tuple[Path, int], float] = {}


def last_scores(run: Path) -> str:
    """``image 93%, video 71%``: the newest table of each suite, mean over skills; each table is read once."""
    newest: dict[str, tuple[int, Path]] = {}
    for path in run.glob("scores/*-own.parquet"):
        suite, _, step = path.stem.removesuffix("-own").rpartition("-")
        if suite and step.isdigit():
            newest[suite] = max(newest.get(suite, (-1, path)), (int(step), path))
    parts = []
    for suite, (_, path) in sorted(newest.items()):
        key = (path, path.stat().st_mtime_ns)
        if key not in _scores:
            import pandas as pd

            table = pd.read_parquet(path, columns=["skill", "correct"])
            _scores[key] = 100 * float(
                table.astype({"correct": float}).groupby("skill")["correct"].mean().mean()
            )
        parts.append(f"{suite} {_scores[key]:.1f}%")
    return ", ".join(parts)


class RunBrowser(View):
    """Everything below a folder of runs, and the jobs of machines.

    Args:
        root: folder of studies and runs.
        machine: also list this machine's jobs; None: none.

    Attributes:
        entries: what was found at the last ``refresh``.
        filter: words that a row must contain, all of them.
        chosen: the entry that was picked last.
    """

    def __init__(self, root: str | Path = "runs", machine: str | None = None) -> None:
        self.root, self.machine = Path(root), machine
        self.title = f"Runs in {self.root}"
        self.filter, self.problem = "", ""
        self.entries: list[Entry] = []
        self.chosen: Entry | None = None
        self.refresh()

    def refresh(self) -> None:
        """Look again. A machine that does not answer is named in ``problem``; what is here stays listed."""
        self.problem = "" if self.root.is_dir() else f"There is no folder {self.root} yet."
        self.entries = below(self.root) if self.root.is_dir() else []
        if self.machine is not None:
            try:
                here = {entry.path for entry in self.entries if entry.path is not None}
                self.entries += [entry for entry in jobs_of(self.machine) if entry.path not in here]
            except WorkbenchError as error:
                self.problem = str(error)
        names = {entry.name: entry for entry in self.entries}
        self.chosen = names.get(self.chosen.name) if self.chosen is not None else None

    def find(self, name: str) -> Entry | None:
        """The entry of a name."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def _shown(self) -> Iterator[Entry]:
        words = self.filter.lower().split()
        for entry in self.entries:
            text = " ".join(map(str, entry.row().values())).lower()
            if all(word in text for word in words):
                yield entry

    def table(self) -> dict[str, Any]:
        """What the browser draws."""
        columns = [
            {"key": c, "title": c, "numeric": c in ("step", "loss", "time left", "captures")} for c in COLUMNS
        ]
        rows = [entry.row() | {"pick": {"run": entry.name}} for entry in self._shown()]
        empty = self.problem or (
            "Nothing matches the filter." if self.filter and self.entries else f"No runs in {self.root} yet."
        )
        return {"caption": "{n} entries", "columns": columns, "rows": rows, "empty": empty}

    def pieces(self) -> Sequence[Piece]:
        return [Module("runs", "table", self.table())]

    def data(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame([entry.row() for entry in self._shown()], columns=list(COLUMNS))

    def words(self) -> str:
        states: dict[str, int] = {}
        for entry in self._shown():
            states[entry.state] = states.get(entry.state, 0) + 1
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        return f"{sum(states.values())} entries: {counts or 'none'}. {self.problem}".strip()

    def caption(self) -> str:
        where = f"{self.root}" + (f" and jobs of {self.machine}" if self.machine else "")
        return f"{where}; scores: the newest of each suite, mean over skills, no intervals; workbench {__version__}."

    def picture(self) -> Figure:
        rows = [[value[:48] for value in entry.row().values()] for entry in self._shown()][:40]
        figure = stills.figure(10, 0.7 + 0.24 * max(1, len(rows)))
        axes = figure.subplots()
        axes.axis("off")
        if rows:
            table = axes.table(
                rows, colLabels=list(COLUMNS), loc="upper left", cellLoc="left", edges="horizontal"
            )
            table.auto_set_font_size(False)
            table.set_fontsize(7)
            table.auto_set_column_width(list(range(len(COLUMNS))))
        else:
            axes.text(0, 0.5, self.problem or "no runs yet")
        return figure
