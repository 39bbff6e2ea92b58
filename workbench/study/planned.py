"""The frame plans of a study: from a recipe's ``frames`` section to the plan its arms are trained with. Needs no torch.

A classifier or oracle needs what the pilot arm measured, a matched control the plan of the arm that it shuffles; both are
found in the study directory. Plans are kept in ``cache/plans``, so asking again opens no media.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.errors import WorkbenchError
from workbench.frames import FramePlan, fit_from_losses, make_plan, make_policy
from workbench.recipe import Recipe
from workbench.recipe.schema import FramesSection
from workbench.samples.sample import Sample
from workbench.samples.source import load_source
from workbench.study.live import LiveStudy
from workbench.study.tasks import task_id

MEASURED = "losses.parquet"


class Planner:
    """Makes plans as the arms of one study directory do.

    Args:
        reader: what opens media that no plan has seen yet.
    """

    def __init__(self, recipe: Recipe, study_dir: Path, reader: Any) -> None:
        self.recipe, self.study_dir, self.reader = recipe, study_dir, reader
        first = recipe.seeds or (recipe.seed,)
        self.first_seed = json.loads((study_dir / "study.json").read_text()).get("seeds", first)[0]

    def plan(self, frames: FramesSection, samples: list[Sample], seed: int, reader: Any = None) -> FramePlan:
        """The plan of one frames section over samples; pilots and matched arms are looked up in the study.

        Args:
            reader: in place of the study's; its plans are not kept.

        Raises:
            WorkbenchError: the pilot has measured nothing yet. DataError, RecipeError: see the policies.
        """
        extra: dict[str, Any] = {}
        if frames.policy in ("classifier", "oracle"):
            extra |= self._measured(frames)
        if frames.policy == "random_matched":
            assert frames.like is not None
            like = self.recipe.arms[frames.like].stages[-1].frames
            extra["like"] = self.plan(like, samples, seed, reader)
        policy = make_policy(frames, seed=seed, **extra)
        cache = self.study_dir / "cache" / "plans" if reader is None else None
        return make_plan(policy, samples, reader or self.reader, seed, cache=cache)

    def _measured(self, frames: FramesSection) -> dict[str, Any]:
        assert frames.pilot is not None
        path = self.study_dir / "runs" / task_id(frames.pilot, self.first_seed) / MEASURED
        if not path.exists():
            raise WorkbenchError(
                f"use the frame policy {frames.policy!r}",
                f"the pilot arm {frames.pilot!r} has measured nothing yet",
                "give that arm a `measure` section and let it finish first",
            )
        table = pd.read_parquet(path)
        if frames.policy == "oracle":
            return {"losses": table}
        return {"classifier": fit_from_losses(table, epsilon=frames.epsilon or 0.05)}


def plan_of(study: LiveStudy, arm: str, seed: int | None = None) -> tuple[FramePlan, list[Sample]]:
    """The frames that an arm's last stage is trained with, and the samples they are planned for.

    Raises:
        WorkbenchError: the recipe has no such arm, or a pilot is not finished; see ``Planner.plan``.
    """
    from workbench.samples.reader import FrameReader

    recipe = study.recipe
    if arm not in recipe.arms:
        raise WorkbenchError(
            f"plan the frames of {arm!r}", f"the recipe has {', '.join(recipe.arms)}", "Choose one of these"
        )
    stage = recipe.arms[arm].stages[-1]
    samples = [sample for name in stage.data for sample in samples_of(study, name)]
    with FrameReader() as reader:
        planner = Planner(recipe, study.directory, reader)
        return planner.plan(stage.frames, samples, planner.first_seed if seed is None else seed), samples


def samples_of(study: LiveStudy, source: str) -> list[Sample]:
    """The samples of one of the recipe's sources. Raises DataError."""
    section = study.recipe.data.sources[source]
    return load_source(study.data / section.path, limit=section.limit, skills=section.skills)


def pilot_losses(study: LiveStudy, pilot: str = "pilot") -> pd.DataFrame:
    """What a pilot arm measured: ``sample_id, question, frames, loss`` and, for the reader only, ``skill``.

    No policy sees the skill: a classifier is fitted on question and loss alone.

    Raises:
        WorkbenchError: the recipe has no such measuring arm, or it is not finished.
    """
    seeds = json.loads((study.directory / "study.json").read_text(encoding="utf-8"))["seeds"]
    path = study.directory / "runs" / task_id(pilot, seeds[0]) / MEASURED
    arm = study.recipe.arms.get(pilot)
    if arm is None or arm.measure is None or not path.is_file():
        raise WorkbenchError(
            f"read what the arm {pilot!r} measured",
            "there is nothing measured by it",
            "Train it first",
            str(path),
        )
    skills = {s.id: s.turns[0].skill for s in samples_of(study, arm.measure.source)}
    table = pd.read_parquet(path)
    return table.assign(skill=table["sample_id"].map(skills))
