"""Looking inside the models of a study from a notebook: the study found or made, its captures found or made.

    study = trained("recipes/laptop/trap.yaml")
    before, = look(study, "base", probe="gradients", frames=(2, 8, 16))

Captures lie in the runs (``RUN/captures/``): they are made once, and the study's report shows them too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from workbench.errors import WorkbenchError
from workbench.recipe import Recipe, load_recipe
from workbench.recipe.probes import ProbeSection, check_probe
from workbench.recipe.problems import from_validation
from workbench.runs import run_status
from workbench.study.live import LiveStudy, launch, project_root
from workbench.study.tasks import BASE, base_seed, make_tasks, task_id

if TYPE_CHECKING:
    from workbench.captures import Capture


def trained(recipe: str | Path = "recipes/laptop/trap.yaml", **options: Any) -> LiveStudy:
    """The whole study where it is finished already, else its quick one: watched until it ends.

    A study is taken only when it was made by the recipe as it is now.

    Args:
        options: of ``launch``, for the quick study.

    Raises:
        RecipeError: a recipe that does not validate.
        WorkbenchError: the quick study failed; ``Interrupted``, ``StoppedWatching`` as ``LiveStudy.watch``.
    """
    path = Path(recipe)
    if not path.is_absolute() and not path.exists():
        path = project_root() / path
    loaded = load_recipe(path)
    root = project_root(path.resolve().parent)
    folder = Path(options.get("out") or os.environ.get("WORKBENCH_RUNS") or root / loaded.output).resolve()
    whole = LiveStudy(loaded, folder / loaded.name, root, make_tasks(loaded), [])
    if whole.finished:
        return whole
    study = launch(path, quick=True, **options)
    if not study.finished:
        study.watch()
    return study


def seeds_of(study: LiveStudy, arm: str) -> list[int]:
    """Seeds of an arm that are finished in the study directory, ascending."""
    listed = json.loads((study.directory / "study.json").read_text(encoding="utf-8"))["seeds"]
    found = {base_seed(study.recipe, seed) for seed in listed} if arm == BASE else set(listed)
    return sorted(seed for seed in found if _finished(study.directory / "runs" / task_id(arm, seed)))


def _finished(run: Path) -> bool:
    return (run / "run.json").is_file() and run_status(run).state == "finished"


def look(
    study: LiveStudy,
    arm: str,
    seed: int | None = None,
    *,
    name: str | None = None,
    checkpoint: str | None = None,
    tell: Any = None,
    **section: Any,
) -> list[Capture]:
    """Captures of one run of a study; what is there already is only opened.

    Args:
        arm: of the study, or "base".
        seed: default the first one that is finished.
        name: of the captures' files, default the probe's.
        checkpoint: of the run, default the newest.
        tell: called as ``tell(what, done, total)`` while a probe works.
        section: keys of a recipe's ``probes:`` section (``workbench.recipe.probes``).

    Raises:
        WorkbenchError: no such finished run, a wrong key or value; see ``make_captures``.
    """
    from workbench.probes.asked import Asked, load_captures

    there = seeds_of(study, arm)
    seed = there[0] if seed is None and there else seed
    if seed is None or seed not in there:
        raise WorkbenchError(
            f"look into {arm}" + ("" if seed is None else f", seed {seed}"),
            f"its finished seeds are {', '.join(map(str, there)) or 'none'}",
            "Choose one of those, or run the study first",
            str(study.directory),
        )
    wanted = checked_section(study.recipe, section)
    start = None
    if arm != BASE:
        start = study.directory / "runs" / task_id(BASE, base_seed(study.recipe, seed))
    run = study.directory / "runs" / task_id(arm, seed)
    asked = Asked(run, wanted, name or wanted.probe, checkpoint, start, study.root)
    return load_captures(asked, tell)


def checked_section(recipe: Recipe, values: dict[str, Any]) -> ProbeSection:
    """The values as a section of that recipe. Raises WorkbenchError: the nearest valid key, as in a recipe."""
    try:
        section = ProbeSection.model_validate(values)
        names = [BASE, *recipe.arms]
        problems = list(check_probe((), section, recipe.evaluation.suites, recipe.data.sources, names))
    except ValidationError as error:
        problems = from_validation(error, ProbeSection)
    if problems:
        raise WorkbenchError("look with a probe", problems[0].found, problems[0].todo)
    return section
