"""From recipe files to finished studies with a table and a report: the whole of `workbench study`."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.util
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from workbench.errors import CheckpointError, DataError, WorkbenchError
from workbench.models import model_folder
from workbench.recipe import Recipe, load_recipe
from workbench.recipe.schema import StageSection
from workbench.runs.supervised import reporting
from workbench.samples.source import load_source
from workbench.study import ranks
from workbench.study.scheduler import Study, TerminalProgress, open_study, run_studies


@reporting()  # to the supervisor, when one started this process
def run_recipes(
    recipes: Sequence[str | Path],
    *,
    overrides: Mapping[str, object] | None = None,
    out: str | Path | None = None,
    seeds: Sequence[int] | None = None,
    arms: Sequence[str] | None = None,
    quick: bool = False,
    workers: int | None = None,
    command: str = "the same call",
    name: str | None = None,
    report: bool = True,
    progress: Callable[[float, float, str], None] | None = None,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Train and evaluate the recipes in one pool of worker processes, print a table and write
    ``report.html``.

    Args:
        quick: keep only what the recipe's ``quick`` section names, with its share of the steps; its runs go to
            ``<name>-quick``.
        arms: only these arms; an empty sequence trains the stages alone.
        name: of the study directory below ``out``, where there is one recipe; default the recipe's.

    Returns:
        The study directories.

    Raises:
        WorkbenchError: a recipe that does not validate, data that is missing, a task that failed, Ctrl-C.
    """
    together = ranks.world_size() > 1
    if together and ranks.rank() != 0:
        say = _nothing
    studies: list[Study] = []
    for path in recipes:
        recipe = load_recipe(path, overrides)
        with _one_at_a_time(Path(recipe.data.root)):
            ensure_data(recipe, say)
        check_inputs(recipe)
        chosen_arms, chosen_seeds, folder = arms, seeds, recipe.name
        if quick and recipe.quick is not None:
            chosen_arms = arms if arms is not None else recipe.quick.arms
            chosen_seeds = seeds if seeds is not None else recipe.quick.seeds
            folder = f"{recipe.name}-quick"
            recipe = shortened(recipe, recipe.quick.steps)
        directory = Path(out or recipe.output) / (name or folder)
        opened = functools.partial(
            open_study, recipe, directory, seeds=chosen_seeds, arms=chosen_arms, quick=quick
        )
        studies.append(ranks.in_turn(opened) if together else opened())
    if together:
        for study in studies:
            ranks.run_here(study, command)
        if ranks.rank() == 0:
            _report(studies, report, say)
        return [study.directory for study in studies]
    bar = TerminalProgress() if progress is None else None
    try:
        run_studies(
            studies,
            workers=workers or max(study.recipe.machine.workers for study in studies),
            command=command,
            progress=progress or bar,
        )
    finally:
        if bar is not None:
            bar.close()
    _report(studies, report, say)
    return [study.directory for study in studies]


def shortened(recipe: Recipe, share: float) -> Recipe:
    """The recipe with this share of every stage's steps, at least one each; stages in epochs stay as they are."""

    def stages(before: Sequence[StageSection]) -> tuple[StageSection, ...]:
        return tuple(
            s if s.steps is None else s.model_copy(update={"steps": max(1, round(s.steps * share))})
            for s in before
        )

    arms = {n: arm.model_copy(update={"stages": stages(arm.stages)}) for n, arm in recipe.arms.items()}
    return recipe.model_copy(update={"stages": stages(recipe.stages), "arms": arms})


def _nothing(text: str) -> None:
    return None


def _report(studies: Sequence[Study], report: bool, say: Callable[[str], None]) -> None:
    for study in studies:
        if study.recipe.evaluation.suites and any(task.arm != "base" for task in study.tasks):
            _tell(study, report, say)
        else:
            say(f"{study.recipe.name}: finished, runs in {study.directory}")


def _tell(study: Study, report: bool, say: Callable[[str], None]) -> None:
    from workbench.study.results import load_results
    from workbench.study.table import render_table

    results = load_results(study.directory)  # once: table and report share its analysis
    say(render_table(results))
    if report:
        from workbench.report import build_report

        say(f"report: {build_report(results)}")


@contextlib.contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Around making data that is missing: several jobs, or ranks, find it missing at the same moment."""
    if root.exists():
        yield
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / f".{root.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_inputs(recipe: Recipe) -> None:
    """Look at what the tasks will need before any process is started for them: the attention kernel, the checkpoint,
    and every row of the sources once (30 us each).

    Raises:
        WorkbenchError: ``machine.attention`` names a kernel that is not installed.
        DataError: the first row that cannot be used, as ``file:line``.
        CheckpointError: no model where ``model.checkpoint`` points.
    """
    kernel = recipe.machine.attention
    if kernel == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise WorkbenchError(
            f"run {recipe.name} with machine.attention: {kernel}",
            "the package flash_attn is not installed",
            "Install it where CUDA is (pip install --no-build-isolation -e '.[gpu]'), or set machine.attention: sdpa",
        )
    start = recipe.model.checkpoint
    if start is not None and not (model_folder(Path(start)) / "config.json").is_file():
        if not Path(start).exists() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", start):
            from workbench.models.hosts.loading import local_folder  # only here: it loads torch

            local_folder(start, f"start {recipe.name} from {start}")  # fetched once, for all workers
        else:
            raise CheckpointError(
                f"start {recipe.name} from the checkpoint {start}",
                "there is no config.json in it" if Path(start).is_dir() else "there is no such folder",
                "Set model.checkpoint to a saved model (RUN/checkpoints/NAME/model) or a hub name",
            )
    for section in recipe.data.sources.values():
        load_source(Path(recipe.data.root) / section.path, limit=section.limit, skills=section.skills)


def ensure_data(recipe: Recipe, say: Callable[[str], None]) -> None:
    """Make the recipe's data with the command it names, if its folder is missing.

    Raises:
        DataError: the folder is missing and the recipe does not say how to make it.
    """
    root = Path(recipe.data.root)
    if root.exists():
        return
    if recipe.data.make is None:
        raise DataError(
            f"run {recipe.name}",
            f"its data folder {root} does not exist",
            "set data.root to where the data lies",
        )
    from workbench.cli.main import main

    arguments = ["data", "make", *shlex.split(recipe.data.make), "--out", str(root)]
    say("making data: workbench " + shlex.join(arguments))
    code = main(arguments)
    if code:
        raise DataError(
            f"make the data of {recipe.name}", f"`data make` ended with {code}", "see the message above"
        )
