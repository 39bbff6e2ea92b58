"""A study beside a notebook: started as a process of its own, watched through its files.

The notebook never owns the training. The study lives in its own session, writes its directory, and goes on
when the kernel is interrupted, restarted or gone; ``launch`` with the same arguments finds it again, running
or finished. What ``watch`` shows is rebuilt from files each time, so nothing is lost with a cell's output.
"""

from __future__ import annotations

import html
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import Interrupted, WorkbenchError
from workbench.recipe import Recipe, load_recipe, parse_overrides, recipe_hash
from workbench.runs import run_status
from workbench.runs.status import process_started
from workbench.study.run import shortened
from workbench.study.snapshot import Snapshot, StudyReader
from workbench.study.tasks import Task, make_tasks

if TYPE_CHECKING:
    from workbench.views.charts.live import LiveFigure

LOG, PROCESS = "study.log", "process.json"
PLOTLY_MIME = "application/vnd.plotly.v1+json"
FASTEST_S = 0.25  # more than four updates a second only fill the browser's queue
LOG_LINES = 12
SAME_START_S = 2.0  # process start times read twice differ by rounding


def project_root(start: str | Path | None = None) -> Path:
    """The nearest folder upwards from ``start`` (default: the working directory) that has ``recipes/``.

    Raises:
        WorkbenchError: there is none.
    """
    here = Path(start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "recipes").is_dir():
            return folder
    raise WorkbenchError(
        "find the project's folder", f"no `recipes` folder in or above {here}", "start inside the clone"
    )


def _root_of(recipe: Path) -> Path:
    """The project's folder that a recipe lies in, else (a recipe of one's own elsewhere) that of the working directory."""
    try:
        return project_root(recipe.resolve().parent)
    except WorkbenchError:
        return project_root()


def launch(
    recipe: str | Path = "recipes/laptop/trap.yaml",
    quick: bool = True,
    out: str | Path | None = None,
    *,
    overrides: Mapping[str, object] | Sequence[str] | None = None,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    workers: int | None = None,
) -> LiveStudy:
    """Start `workbench study` as a detached process, or find the one that runs; a finished one is only read.

    Args:
        recipe: path, from the working directory or the project's folder.
        quick: only what the recipe's ``quick`` section names.
        out: folder of the runs; default the environment variable ``WORKBENCH_RUNS``, else the recipe's
            ``output``.
        overrides: recipe values to change, ``{"machine.workers": 1}`` or ``["machine.workers=1"]``; default
            for a quick study the environment variable ``WORKBENCH_QUICK_SET``, for example
            ``"stages.0.steps=30 evaluation.limit=50"`` (that is how the tests make it shorter).
        arms, seeds, workers: as `workbench study` takes them.

    Raises:
        RecipeError: a recipe that does not validate.
    """
    path = Path(recipe)
    if not path.is_absolute() and not path.exists():
        path = project_root() / path
    if overrides is None:
        overrides = shlex.split(os.environ.get("WORKBENCH_QUICK_SET", "")) if quick else ()
    pairs = (
        [f"{k}={json.dumps(v)}" for k, v in overrides.items()]
        if isinstance(overrides, Mapping)
        else list(overrides)
    )
    loaded = load_recipe(path, parse_overrides(pairs))
    root = _root_of(path)
    folder = Path(out or os.environ.get("WORKBENCH_RUNS") or root / loaded.output).resolve()
    name = loaded.name
    chosen_arms, chosen_seeds = arms, seeds
    if quick and loaded.quick is not None:
        name = f"{loaded.name}-quick"
        chosen_arms = loaded.quick.arms if arms is None else arms
        chosen_seeds = loaded.quick.seeds if seeds is None else seeds
        loaded = shortened(
            loaded, loaded.quick.steps
        )  # what the process will run: `finished` compares the two
    argv = [sys.executable, "-m", "workbench.cli", "study", str(path.resolve()), "--out", str(folder)]
    argv += ["--quick"] if quick else []
    argv += ["--arms", *arms] if arms else []
    argv += ["--seeds", *map(str, seeds)] if seeds else []
    argv += ["--workers", str(workers)] if workers else []
    argv += ["--set", *pairs] if pairs else []
    study = LiveStudy(loaded, folder / name, root, make_tasks(loaded, chosen_seeds, chosen_arms), argv)
    return study.start()


class StoppedWatching(KeyboardInterrupt):
    """The kernel was interrupted while it watched. Cells behind it do not run; the training does."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]  # IPython shows this instead of a stack that says nothing to the reader


class LiveStudy:
    """A study in its own process.

    Attributes:
        recipe: the recipe with overrides.
        directory: the study directory, ``<out>/<name>``.
        root: the project's folder; the process runs there, so relative data folders are below it.
    """

    def __init__(
        self, recipe: Recipe, directory: Path, root: Path, tasks: Sequence[Task], argv: Sequence[str]
    ) -> None:
        self.recipe, self.directory, self.root = recipe, directory, root
        self._tasks, self._argv = tuple(tasks), list(argv)
        self._child: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = "finished" if self.finished else ("running" if self.running else "stopped")
        return f"<study {self.recipe.name}: {state}, {self.directory}>"

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.directory / LOG

    @property
    def data(self) -> Path:
        """The recipe's data folder."""
        return self.root / self.recipe.data.root

    @property
    def finished(self) -> bool:
        """Every task of this recipe is finished in the study directory."""
        state = self.directory / "study.json"
        if not state.is_file() or json.loads(state.read_text())["recipe_hash"] != recipe_hash(self.recipe):
            return False
        runs = [self.directory / "runs" / task.id for task in self._tasks]
        return all((run / "run.json").is_file() and run_status(run).state == "finished" for run in runs)

    @property
    def running(self) -> bool:
        """The process that ``launch`` started, from this kernel or an earlier one, is alive."""
        if self._child is not None and self._child.poll() is not None:
            return False
        return self._pid() is not None

    def _pid(self) -> int | None:
        try:
            known = json.loads((self.directory / PROCESS).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        started = process_started(int(known["pid"]))
        alive = started is not None and abs(started - known["started"]) < SAME_START_S
        return int(known["pid"]) if alive else None

    def start(self) -> LiveStudy:
        """Start the process, unless it runs or everything is finished."""
        if not self.finished and not self.running:
            self._start()
        return self

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(
                self._argv,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        known = {"pid": self._child.pid, "started": process_started(self._child.pid) or time.time()}
        (self.directory / PROCESS).write_text(
            json.dumps({**known, "argv": self._argv}, indent=1) + "\n", encoding="utf-8"
        )

    def snapshot(self) -> Snapshot | None:
        """How far it is, from its files; None before it has begun to write."""
        return StudyReader(self.directory).snapshot()

    def stop(self, wait_s: float = 60.0) -> None:
        """Ask the process to finish its step, save and end; ``launch`` as before goes on from there.

        Raises:
            WorkbenchError: it has not ended after ``wait_s`` seconds.
        """
        pid = self._pid() if self.running else None
        if pid is None:
            return
        # to the leader alone, who passes it on: a second signal would stop the workers at once, unsaved
        os.kill(pid, signal.SIGINT)
        until = time.monotonic() + wait_s
        while self.running:
            if time.monotonic() > until:
                todo = f"wait and call stop() again, or look into {self.log}"
                raise WorkbenchError("stop the study", f"it still works after {wait_s:.0f} s", todo)
            time.sleep(0.1)

    def watch(self, every_s: float = 2.0) -> Path:
        """Show the curves as they grow until the study ends; returns the study directory.

        Outside a notebook it prints the lines of progress only. Interrupting it ends the watching, not the
        training.

        Raises:
            WorkbenchError: the process failed; the last lines of its log.
            Interrupted: the process was stopped before its end.
            StoppedWatching: the kernel was interrupted.
        """
        view, reader = _View(), StudyReader(self.directory)
        try:
            while True:
                alive = (
                    self.running
                )  # asked first: what a process that has ended wrote is in the snapshot below
                view.show(reader.snapshot(), self._last_line() if alive else "")
                if not alive:
                    break
                time.sleep(max(FASTEST_S, every_s))
        except KeyboardInterrupt:
            raise StoppedWatching(
                "Stopped watching; the training goes on. "
                "Run the cell again (or `.watch()`) to see it, `.stop()` to end it."
            ) from None
        finally:
            view.close()
        code = self._child.poll() if self._child is not None else 0
        if self.finished and not code:
            return self.directory
        resume = "run the cell again: it goes on from the last checkpoint of each run"
        if code == Interrupted.exit_code:
            raise Interrupted("show the whole study", "it was stopped; finished steps are saved", resume)
        lines = self._log_lines()[-LOG_LINES:]
        raise WorkbenchError(
            "finish the study", "its process ended with:\n" + "\n".join(lines), resume, str(self.log)
        )

    def _log_lines(self) -> list[str]:
        """The log as a terminal shows it: of a line written over with carriage returns, its last state."""
        if not self.log.is_file():
            return ["(no log)"]
        text = self.log.read_text(encoding="utf-8", errors="replace").rstrip()
        return [line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]

    def _last_line(self) -> str:
        return self._log_lines()[-1]


def in_notebook() -> bool:
    """Whether this is a Jupyter kernel, where a figure can be shown."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class _View:
    """A line of progress and a figure under it, both updated in place; in a plain terminal only lines."""

    def __init__(self) -> None:
        self._notebook = in_notebook()
        self._line: Any = None
        self._printed = ""
        self._figure: LiveFigure | None = None
        self._place: Any = None
        self._widget = all(importlib.util.find_spec(name) for name in ("ipywidgets", "anywidget"))

    def show(self, snapshot: Snapshot | None, said: str) -> None:
        text, share = describe(snapshot, said)
        if not self._notebook:
            if text != self._printed:
                print(text, flush=True)
            self._printed = text
            return
        from IPython.display import display

        bar = f'<progress value="{share:.3f}" max="1" style="width:16em;vertical-align:middle"></progress>'
        bundle = {"text/plain": text, "text/html": f"{bar} {html.escape(text)}"}
        if self._line is None:
            self._line = display(bundle, raw=True, display_id=True)
        else:
            self._line.update(bundle, raw=True)
        if snapshot is None:
            return
        if self._figure is None:
            from workbench.views.charts.live import LiveFigure

            self._figure = LiveFigure(snapshot, self._widget)
            shown = self._figure.figure._repr_mimebundle_() if self._widget else self._picture()
            self._place = display(shown, raw=True, display_id=True)
        else:
            self._figure.update(snapshot)
            if not self._widget:
                self._place.update(self._picture(), raw=True)

    def close(self) -> None:
        """Put a plain picture where the widget was: a saved notebook keeps it without a kernel."""
        if self._figure is not None and self._widget:
            self._place.update(self._picture(), raw=True)

    def _picture(self) -> dict[str, Any]:
        """The figure as a message that can be updated: `display(figure)` ignores its display id."""
        assert self._figure is not None
        return {PLOTLY_MIME: json.loads(self._figure.figure.to_json()), "text/plain": "curves of the study"}


def describe(snapshot: Snapshot | None, said: str = "") -> tuple[str, float]:
    """One line about a study, and the share of its work that is done; ``said``: the process's last line."""
    if snapshot is None:
        return f"starting … {said}", 0.0
    if snapshot.finished:
        doing = " · writing the report" if said else ""
        return f"finished: {len(snapshot.tasks)} runs in {snapshot.directory.name}{doing}", 1.0
    parts = [f"{snapshot.share:.0%}"]
    for now in snapshot.tasks:
        if now.state not in ("waiting", "finished"):
            doing = "scoring" if now.scoring else f"{now.share:.0%}"
            parts.append(f"{now.task.id} {doing}" if now.state == "running" else f"{now.task.id} {now.state}")
    if snapshot.remaining_s is None:
        parts.append("remaining time not known yet")
    else:
        minutes, seconds = divmod(round(snapshot.remaining_s), 60)
        parts.append(f"about {minutes} min {seconds:02d} s left" if minutes else f"about {seconds} s left")
    return " · ".join(parts), snapshot.share
