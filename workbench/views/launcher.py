"""``Launcher``: a recipe, what is changed in it, where it runs, what that will take; then it is submitted."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import __version__
from workbench.errors import RecipeError, WorkbenchError
from workbench.recipe import Difference, Recipe, diff, load_recipe, parse_overrides, recipe_hash, resolve
from workbench.views import stills
from workbench.views.base import View
from workbench.views.launcher_fields import shown, value_at
from workbench.views.pieces import Module, Piece

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from workbench.machines.base import Job, Machine
    from workbench.study.estimate import Estimate
    from workbench.views.monitor import RunMonitor

LOCAL = "local"


def find_recipes(folder: Path) -> list[Path]:
    """Recipe files below a folder, sorted."""
    return sorted(folder.glob("**/*.yaml"))


class Launcher(View):
    """Choose a recipe, change some of it, see what differs and what it will take, submit it.

    Args:
        recipe: a file; default the first of the project's ``recipes/``.
        machine: a name of the machines file; default ``local``.
        recipes: folder of recipe files; default ``recipes/`` of the project. The folder above it is where relative paths
            of recipes start.

    Attributes:
        recipe: the file.
        machine: where it will run.
        overrides: dotted keys that are changed, and their values; kept for each file.
        extra: more changes, lines of KEY=VALUE as ``--set`` takes them.
        name: of the job; empty: the recipe's own.
        quick: only what the recipe's ``quick`` section names.
        monitor: of the job submitted last.

    Raises:
        WorkbenchError: no project here, or no such recipe.
    """

    title = "Launcher"

    def __init__(
        self, recipe: str | Path | None = None, machine: str | None = None, recipes: str | Path | None = None
    ) -> None:
        from workbench.study.live import project_root

        folder = project_root() / "recipes" if recipes is None else Path(recipes).absolute()
        self.root = folder.parent
        self.recipes = find_recipes(folder)
        if recipe is not None:
            path = Path(recipe)
            path = path if path.is_file() or path.is_absolute() else self.root / path
            if not path.is_file():
                raise WorkbenchError(
                    f"launch {recipe}", "there is no such file", "Name a recipe", str(recipe)
                )
            path = next((file for file in self.recipes if file.samefile(path)), path)
            self.recipes = self.recipes if path in self.recipes else [path, *self.recipes]
            self.recipe = path
        elif self.recipes:
            self.recipe = self.recipes[0]
        else:
            raise WorkbenchError("launch a recipe", f"{folder} holds none", "Write one there")
        self.machine = machine or LOCAL
        self.name, self.quick, self.extra = "", False, ""
        self.monitor: RunMonitor | None = None
        self.estimated: Estimate | None = None
        self._changes: dict[Path, dict[str, Any]] = {}

    # -- what is chosen ------------------------------------------------------------------------------------

    @property
    def overrides(self) -> dict[str, Any]:
        return self._changes.setdefault(self.recipe, {})

    @property
    def machines(self) -> list[str]:
        """Names of the machines file, ``local`` first.

        Raises:
            WorkbenchError: the file is wrong (file and line).
        """
        from workbench.machines.config import load_entries

        return list(load_entries())

    def set(self, key: str, value: Any) -> None:
        """Change a value; what equals the file's is no change."""
        self.estimated = None
        if _plain(value) == _plain(value_at(self.file_values(), key)):
            self.overrides.pop(key, None)
        else:
            self.overrides[key] = value

    def file_values(self) -> dict[str, Any]:
        """The recipe as the file has it, with defaults where it validates and without where it does not."""
        try:
            return load_recipe(self.recipe).model_dump(mode="json")
        except RecipeError:
            return resolve(self.recipe)

    def values(self) -> dict[str, Any]:
        """The recipe with the changes."""
        try:
            return self.resolved().model_dump(mode="json")
        except RecipeError:
            return self._changed_values()

    def _changed_values(self) -> dict[str, Any]:
        try:
            return resolve(self.recipe, self.overrides)
        except RecipeError:  # not even a place for a value
            return resolve(self.recipe)

    def all_overrides(self) -> dict[str, Any]:
        """The changes of the form and the further ones. Raises ``RecipeError``: a line is not KEY=VALUE."""
        lines = [line.strip() for line in self.extra.splitlines() if line.strip()]
        return self.overrides | parse_overrides(lines)

    def resolved(self) -> Recipe:
        """The recipe with all changes.

        Raises:
            RecipeError: it does not validate; ``where`` is file and line, or the change that is wrong.
        """
        return load_recipe(self.recipe, self.all_overrides())

    def problem(self) -> RecipeError | None:
        """What is wrong with the recipe as it stands."""
        try:
            self.resolved()
        except RecipeError as error:
            return error
        return None

    def differences(self) -> list[Difference]:
        """What differs from the file. Raises ``RecipeError``: one of the two does not validate."""
        return diff(load_recipe(self.recipe), self.resolved())

    @property
    def job_name(self) -> str:
        """What the job will be called."""
        if self.name.strip():
            return self.name.strip()
        recipe = self.resolved()
        return f"{recipe.name}-quick" if self.quick and recipe.quick is not None else recipe.name

    # -- doing ---------------------------------------------------------------------------------------------

    def estimate(self) -> Estimate:
        """Tokens, memory and time (``workbench.study.estimate``); loads torch, no weights.

        Raises:
            WorkbenchError: the recipe does not validate, or its model cannot be described.
        """
        from workbench.machines.connect import machine
        from workbench.study.estimate import estimate

        runs = self.root / "runs"
        if not runs.is_dir():
            runs = Path(machine(LOCAL).root).expanduser()
        self.estimated = estimate(self.resolved(), quick=self.quick, runs=runs, root=self.root)
        return self.estimated

    def submit(self, on: Machine | None = None) -> Job:
        """Start it as a job; ``monitor`` then follows it.

        Args:
            on: the machine, when it is open already; default the one that is named.

        Raises:
            WorkbenchError: the recipe does not validate, the name is taken, something is missing there.
        """
        from workbench.machines.attached import attach
        from workbench.machines.connect import machine
        from workbench.views.monitor import RunMonitor

        there = on if on is not None else machine(self.machine)
        if there.workdir is None and there.name == LOCAL:
            there.workdir = str(self.root)  # relative data folders of a recipe start at the project's
        job = there.submit(
            self.recipe, self.name.strip() or None, overrides=self.all_overrides(), quick=self.quick
        )
        self.monitor = RunMonitor(attach(job.address, there))
        return job

    # -- as a view -----------------------------------------------------------------------------------------

    def pieces(self) -> Sequence[Piece]:
        rows = self.data().astype(str).to_dict("records")
        columns = [{"key": name, "title": name} for name in ("key", "in the file", "now")]
        table = {"caption": "{n} changes", "columns": columns, "rows": rows, "empty": "Nothing is changed."}
        return [Module("changes", "table", table)]

    def data(self) -> pd.DataFrame:
        """The changes; of a recipe that does not validate none."""
        import pandas as pd

        try:
            found = self.differences()
        except RecipeError:
            found = []
        rows = [(d.key, shown_or_absent(d.a), shown_or_absent(d.b)) for d in found]
        return pd.DataFrame(rows, columns=["key", "in the file", "now"])

    def words(self) -> str:
        if (problem := self.problem()) is not None:
            return f"The recipe does not validate. {problem}"
        changed = "; ".join(f"{row.key}: {row[2]} to {row[3]}" for row in self.data().itertuples())
        said = f"{self.job_name} of {self.recipe.name} on {self.machine}. Changed: {changed or 'nothing'}."
        return f"{said} {' '.join(sentences(self.estimated))}" if self.estimated is not None else said

    def caption(self) -> str:
        problem = self.problem()
        digest = f", hash {recipe_hash(self.resolved())[:8]}" if problem is None else ""
        return f"Recipe {self.recipe.name}{digest}; machine {self.machine}; workbench {__version__}."

    def picture(self) -> Figure:
        table = self.data()
        lines = [f"{row.key}:  {row[2]}  →  {row[3]}" for row in table.itertuples()] or [
            "Nothing is changed."
        ]
        if self.estimated is not None:
            lines += ["", *sentences(self.estimated)]
        wrapped = [part for line in lines for part in textwrap.wrap(line, 110) or [""]]
        figure = stills.figure(8, 0.6 + 0.2 * len(wrapped))
        figure.text(0.02, 0.96, "\n".join(wrapped), va="top", fontsize=9)
        return figure

    @cached_property
    def shown(self) -> Any:
        """The form (``launcher_form.LauncherShown``)."""
        from workbench.views.launcher_form import LauncherShown

        return LauncherShown(self)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def shown_or_absent(value: Any) -> str:
    return shown(value) if value is not None else "null"


def sentences(found: Estimate) -> list[str]:
    """An estimate in words, the numbers first."""
    from workbench.views.monitor_words import duration

    tokens = (
        "tokens not known"
        if found.tokens is None or found.visual is None
        else f"{_short(found.tokens)} tokens ({found.visual / max(1.0, found.tokens):.0%} visual)"
    )
    wall = "time not known" if found.seconds is None else f"about {duration(found.seconds)}"
    memory = f"{found.memory / 2**30:.1f} GiB a process, {found.processes} at once"
    first = (
        f"Estimates: {found.tasks} training{'s' if found.tasks != 1 else ''}, {found.steps:,} steps, "
        f"{_short(found.samples)} samples, {tokens}; {memory}; {wall}."
    )
    if found.seconds is None and found.operations is not None:
        first += f" {found.operations:.1e} floating point operations."
    return [first, *(f"{line[0].upper()}{line[1:]}." for line in found.basis)]


def _short(number: float) -> str:
    for size, unit in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.2g} {unit}" if number < 10 * size else f"{number / size:.0f} {unit}"
    return f"{number:,.0f}"
