"""More arms from the base of a study that is finished already: in a study directory of their own, beside it.

    same = beside(study, "same-mean", {"fixed-5": {"policy": "fixed", "frames": 5}})
    same.watch()
    between(load_results(study.directory), "hybrid", load_results(same.directory), "fixed-5", "video")

The new study's recipe is the old one's with the base's checkpoint in place of the base's stages, so the arms start from
the same weights and see the same data; only the frames differ. Its folder carries a digest of recipe and weights: other
frames, or a base trained again, make another folder, and what is there already is only read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.errors import RecipeError, WorkbenchError
from workbench.recipe import Recipe, load_recipe, to_yaml
from workbench.runs.checkpoints import complete
from workbench.study.contrasts import Contrast, measure_skills
from workbench.study.intervals import paired
from workbench.study.live import LiveStudy
from workbench.study.results import StudyResults
from workbench.study.tasks import BASE, base_seed, make_tasks, task_id

ASKED = "asked.yaml"


def beside(
    study: LiveStudy,
    name: str,
    arms: Mapping[str, Mapping[str, Any] | None],
    seeds: Sequence[int] | None = None,
) -> LiveStudy:
    """Start training arms from the base of ``study``, or find them trained.

    Args:
        study: whose base is finished; a quick study's arms stay as short as its own.
        name: of the new study directory, before its digest.
        arms: by name, the ``frames`` section that replaces the one of the study's first arm; None takes the recipe's own
            arm of that name (and the arms that it needs).
        seeds: default those of the study.

    Raises:
        WorkbenchError: the base is not finished, every seed has a base of its own, or the recipe has no arms.
        RecipeError: arms that do not validate.
    """
    recipe = study.recipe
    if not recipe.arms:
        raise WorkbenchError(
            f"train arms beside {recipe.name}",
            "its recipe has no arm to take the stage from",
            "Use a study with arms",
        )
    there = json.loads((study.directory / "study.json").read_text(encoding="utf-8"))["seeds"]
    wanted = tuple(there if seeds is None else seeds)
    bases = {base_seed(recipe, seed) for seed in wanted}
    if len(bases) > 1:
        raise WorkbenchError(
            f"train arms beside {recipe.name}",
            f"every seed has a base of its own: {', '.join(map(str, sorted(bases)))}",
            "Choose one seed, or a study whose seeds share a base (`base_seed`)",
        )
    run = study.directory / "runs" / task_id(BASE, bases.pop())
    found = complete(run) if run.is_dir() else []
    if not found:
        raise WorkbenchError(
            f"train arms beside {recipe.name}", "its base has no checkpoint", "Run the study first", str(run)
        )
    model = found[-1] / "model"
    folder = study.directory.parent
    content = _content(recipe, model, arms, wanted)
    text = json.dumps(content, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode() + _weights(model)).hexdigest()[:8]
    directory = folder / f"{name}-{digest}"
    directory.mkdir(parents=True, exist_ok=True)
    asked = directory / ASKED
    # validated under the name of its directory, where `workbench study` will put it
    asked.write_text(json.dumps(content | {"name": directory.name}, indent=1), encoding="utf-8")
    try:
        loaded = load_recipe(asked)
    except RecipeError:
        asked.unlink()
        with contextlib.suppress(OSError):  # something else lies in it
            directory.rmdir()
        raise
    asked.write_text(to_yaml(loaded), encoding="utf-8")
    argv = [sys.executable, "-m", "workbench.cli", "study", str(asked), "--out", str(folder)]
    return LiveStudy(loaded, directory, study.root, make_tasks(loaded), argv).start()


def having(study: LiveStudy, arms: Sequence[str], name: str) -> LiveStudy:
    """The study itself where these arms of its recipe are finished, else one beside it that trains them (``watch`` it).

    Raises: as ``beside``.
    """
    declared = json.loads((study.directory / "study.json").read_text(encoding="utf-8"))["arms"]
    if set(arms) <= set(declared):
        return study
    return beside(study, name, dict.fromkeys(arms))


def _content(
    recipe: Recipe, model: Path, arms: Mapping[str, Mapping[str, Any] | None], seeds: Sequence[int]
) -> dict[str, Any]:
    """The new recipe as plain data, without its name."""
    content = recipe.model_dump(mode="json")
    own = content["arms"]
    template = own[next(iter(own))]
    chosen: dict[str, Any] = {}
    for name, frames in arms.items():
        if frames is None:
            for needed in _with_needs(recipe, name):
                chosen[needed] = own[needed]
            continue
        stage = {**template["stages"][-1], "frames": dict(frames)}
        plain: dict[str, Any] = {
            "measure": None,
            "first_seed_only": False,
            "shown": True,
            "needs": [],
        }  # it may be a pilot
        chosen[name] = {**template, **plain, "title": frames_title(frames), "stages": [stage]}
    content |= {"arms": chosen, "stages": [], "seeds": list(seeds), "quick": None, "probes": {}}
    content["title"] = f"beside {recipe.title or recipe.name}"
    content["model"] = {"checkpoint": str(model)}
    content["evaluation"] |= {"at": [1.0], "copies": False}
    return content


def _with_needs(recipe: Recipe, name: str) -> list[str]:
    """The arm after the arms that it needs. Raises RecipeError for a name that the recipe lacks."""
    return list(dict.fromkeys(task.arm for task in make_tasks(recipe, arms=[name]) if task.arm != BASE))


def frames_title(frames: Mapping[str, Any]) -> str:
    """A frames section in a few words."""
    policy = str(frames.get("policy", "fixed"))
    if policy == "fixed":
        return f"fixed {frames['frames']} frames"
    if policy == "random_matched":
        return f"random, matched to {frames['like']}"
    return policy


def _weights(model: Path) -> bytes:
    digest = hashlib.sha256()
    for path in sorted(model.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.digest()


def between(
    results: StudyResults, arm: str, other: StudyResults, reference: str, measure: str = "image"
) -> Contrast | None:
    """``arm`` of one study minus ``reference`` of another, paired over the seeds and questions that both have.

    Args:
        measure: as in ``contrasts``: image, image_no_count, video, video_temporal, or one skill ("video:brief").

    Returns:
        In percentage points; None where the two share nothing.
    """
    estimate = paired(_rows(results, arm, measure), _rows(other, reference, measure))
    return None if estimate is None else Contrast(arm, reference, measure, "secondary", estimate)


def _rows(results: StudyResults, arm: str, measure: str) -> pd.DataFrame:
    rows = results.select(arm, "image" if measure.startswith("image") else "video")
    done = rows["seed"].map(lambda seed: (arm, seed) in results.finished).astype(bool)
    return rows[done & rows["skill"].isin(measure_skills(results, measure))]
