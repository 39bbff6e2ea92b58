"""What ``FramePlanView`` shows, read from a plan, a run or a study. Opens no media, needs no torch.

A study's plans are made again by the policies themselves and found in ``cache/plans``; where they are not there any more,
or the data are not, the numbers of the runs' events ``frames`` stand in for them, and the view says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.errors import WorkbenchError
from workbench.frames import FramePlan, policy_regret
from workbench.frames.labels import EPSILON
from workbench.frames.regret import Regret
from workbench.recipe import Recipe, load_recipe
from workbench.recipe.schema import StageSection
from workbench.runs import read_events
from workbench.samples.sample import Sample
from workbench.samples.source import load_source
from workbench.study.arms import AWARE_POLICIES, BASE
from workbench.study.planned import MEASURED, Planner
from workbench.study.tasks import task_id

ALL = "all"
COLUMNS = (
    "sample_id",
    "question",
    "skill",
    "requested",
    "available",
    "used",
    "policy",
    "reason",
    "min_frames",
)


@dataclass(frozen=True)
class Planned:
    """One plan, or what a run's events say of it.

    Attributes:
        rows: one row a question about a readable video, ``COLUMNS``; None where only events are left.
        counts: videos by frames used.
        means: mean frames used by skill.
        failures: samples that could not be read, by kind of error.
        regret: used against needed, where the data know what is needed.
        note: why something is not shown; empty where nothing is missing.
    """

    name: str
    title: str
    rows: pd.DataFrame | None
    counts: Mapping[int, int]
    means: Mapping[str, float]
    failures: Mapping[str, int] = field(default_factory=dict)
    regret: Regret | None = None
    policy: str = ""
    seed: int | None = None
    note: str = ""

    @property
    def videos(self) -> int:
        return sum(self.counts.values())

    @property
    def mean(self) -> float:
        """Mean frames used a video; NaN without videos."""
        return sum(n * k for n, k in self.counts.items()) / self.videos if self.videos else float("nan")

    @property
    def fewer(self) -> int | None:
        """Videos that got fewer frames than the policy asked for, because they have no more."""
        if self.rows is None:
            return None
        rows = self.rows.drop_duplicates("sample_id")
        return int((rows["used"] < rows["requested"]).sum())

    def by_skill(self) -> pd.DataFrame:
        """Questions by skill (rows) and frames used (columns); without rows only the line ``all``."""
        total = pd.DataFrame([self.counts], index=[ALL])
        if self.rows is None or not len(self.rows):
            return total
        table = pd.crosstab(self.rows["skill"], self.rows["used"])
        return table if len(table) == 1 else pd.concat([table, total]).fillna(0).astype(int)


@dataclass(frozen=True)
class Plans:
    """All that one view shows. ``measured``: a pilot's losses (``study.planned.pilot_losses``), tolerated to ``epsilon``."""

    title: str
    plans: tuple[Planned, ...]
    provenance: str
    measured: pd.DataFrame | None = None
    epsilon: float = EPSILON


class NoMedia:
    """Stands where a reader stands: a view opens no media to make a plan that nobody kept."""

    def info(self, ref: Any) -> Any:
        raise WorkbenchError(
            "show a frame plan", "the study does not keep it any more", "Its events are shown"
        )


def of_plan(plan: FramePlan, samples: Sequence[Sample] | None = None, name: str = "plan") -> Planned:
    """A plan by itself; without samples there are no questions and no skills.

    Raises:
        DataError: a video of the plan is none of the samples.
    """
    videos = plan.videos().set_index("sample_id", drop=False)
    if samples is None:
        rows = videos.assign(question="", skill=ALL, min_frames=float("nan"))
        regret, means = None, {}
    else:
        asked = [
            (sample.id, turn.question, turn.skill, sample.min_frames)
            for sample in samples
            if sample.id in videos.index
            for turn in sample.turns
        ]
        questions = pd.DataFrame(asked, columns=["sample_id", "question", "skill", "min_frames"])
        rows = questions.join(videos.drop(columns="sample_id"), on="sample_id")
        known = any(s.min_frames is not None and s.id in videos.index for s in samples)
        regret = policy_regret(plan, samples) if known else None
        means = plan.by_skill(samples)
    policy, seed = plan.metadata.get("policy"), plan.metadata.get("seed")
    policy = policy or (str(videos["policy"].iloc[0]) if len(videos) else "")
    counts = plan.histogram()
    note = "" if counts else "This plan holds no video that can be read."
    rows = rows.loc[:, list(COLUMNS)].reset_index(drop=True)
    return Planned(name, name, rows, counts, means, plan.failures(), regret, str(policy), seed, note)


def of_events(run: Path, name: str, title: str, seed: int | None, note: str) -> Planned:
    """What a run's last event ``frames`` says."""
    events = [event for event in read_events(run) if event["kind"] == "frames"]
    if not events:
        return Planned(name, title, None, {}, {}, seed=seed, note="No frames have been planned here yet.")
    last = next((event for event in reversed(events) if event.get("histogram")), events[-1])
    counts = {int(count): int(n) for count, n in (last.get("histogram") or {}).items()}
    means = {str(skill): float(mean) for skill, mean in (last.get("by_skill") or {}).items()}
    if not counts:
        note = "This run was trained without videos."
    failures = dict(last.get("failures") or {})
    return Planned(name, title, None, counts, means, failures, None, str(last.get("policy", "")), seed, note)


def of_run(run: Path) -> Plans:
    """One run: of a study with its plan, any other by its events.

    Raises:
        WorkbenchError: the folder is no run.
    """
    file = run / "run.json"
    if not file.is_file():
        raise WorkbenchError(
            "show frame plans",
            f"{run} is neither a study nor a run",
            "Give the folder of one, or a FramePlan",
        )
    meta = json.loads(file.read_text(encoding="utf-8"))
    study = run.parent.parent
    if (study / "study.json").is_file() and meta.get("arm") is not None:
        return of_study(study, [str(meta["arm"])], int(meta["seed"]))
    note = "The run keeps no plan: its event has the counts, not the single clips."
    planned = of_events(run, run.name, run.name, meta.get("seed"), note)
    return Plans(
        f"Frames of {run.name}", (planned,), f"run {run.name}, event `frames` of its last stage with videos"
    )


def of_study(directory: Path, arms: Sequence[str] | None = None, seed: int | None = None) -> Plans:
    """The arms of a study: those that choose first, each followed by its controls, then the others.

    Args:
        arms: only these, in this order.
        seed: default the study's first.

    Raises:
        WorkbenchError: no study, or it has no such arm; RecipeError: its recipe does not load.
    """
    try:
        study = json.loads((directory / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return of_run(directory)
    recipe = load_recipe(directory / "recipe.yaml")
    hidden = set(study.get("hidden") or ())
    known = [name for name in study.get("arms") or () if name in recipe.arms and recipe.arms[name].stages]
    known += [BASE] if recipe.stages else []
    shown = _in_order(recipe, [n for n in known if n not in hidden and n != BASE])
    chosen = list(arms) if arms is not None else shown or known
    if unknown := [name for name in chosen if name not in known]:
        raise WorkbenchError(
            f"show the frames of {unknown[0]!r}", f"the study has {', '.join(known)}", "Choose among these"
        )
    seed = int(study["seeds"][0]) if seed is None else seed
    root = data_root(recipe, directory)
    planner = Planner(recipe, directory, NoMedia())
    titles = study.get("arms") or {}
    plans = [
        _of_arm(planner, recipe, directory, root, name, str(titles.get(name) or name), seed)
        for name in chosen
    ]
    epsilons = [_stage(recipe, n).frames.epsilon for n in chosen]
    epsilon = next((e for e in epsilons if e is not None), EPSILON)
    title = f"Frames: {study.get('title') or study.get('name') or directory.name}"
    digest = str(study.get("recipe_hash", "unknown"))[:8]
    said = f"study {study.get('name') or directory.name}, recipe {digest}, plans of seed {seed}, last stage of each arm"
    return Plans(title, tuple(plans), said, _measured(recipe, directory, root, chosen), epsilon)


def _of_arm(
    planner: Planner, recipe: Recipe, directory: Path, root: Path | None, name: str, title: str, seed: int
) -> Planned:
    if name == BASE and recipe.base_seed is not None:
        seed = recipe.base_seed
    run, stage = directory / "runs" / task_id(name, seed), _stage(recipe, name)
    try:
        if root is None:
            raise WorkbenchError("read the samples", "the data are not on this machine", "Make them again")
        samples = [sample for source in stage.data for sample in _samples(recipe, root, source)]
        found = of_plan(planner.plan(stage.frames, samples, seed), samples, name)
    except (WorkbenchError, OSError) as error:
        reason = error.found if isinstance(error, WorkbenchError) else str(error)
        return of_events(run, name, title, seed, f"Single clips are not shown: {reason}.")
    return Planned(name, title, *(getattr(found, key) for key in _REST))


def _stage(recipe: Recipe, name: str) -> StageSection:
    """The last stage of an arm or of the base: the one whose frames are compared."""
    return (recipe.stages if name == BASE else recipe.arms[name].stages)[-1]


_REST = ("rows", "counts", "means", "failures", "regret", "policy", "seed", "note")


def _samples(recipe: Recipe, root: Path, source: str) -> list[Sample]:
    section = recipe.data.sources[source]
    return load_source(root / section.path, limit=section.limit, skills=section.skills)


def data_root(recipe: Recipe, directory: Path) -> Path | None:
    """The recipe's data folder, looked up from the working directory and from above the study; None: not here."""
    for folder in (Path.cwd(), *directory.resolve().parents):
        if (root := folder / recipe.data.root).is_dir():
            return root
    return None


def _in_order(recipe: Recipe, names: Sequence[str]) -> list[str]:
    """Arms whose policy chooses, each with the arms matched to it; then those with one count for all."""

    def policy(name: str) -> str:
        return _stage(recipe, name).frames.policy

    ordered: list[str] = []
    for name in (n for n in names if policy(n) in AWARE_POLICIES):
        matched = [n for n in names if _stage(recipe, n).frames.like == name]
        ordered += [name, *matched]
    return list(dict.fromkeys([*ordered, *names]))


def _measured(recipe: Recipe, directory: Path, root: Path | None, arms: Sequence[str]) -> pd.DataFrame | None:
    """The losses that a pilot of these arms measured, with each question's skill; None where there are none."""
    pilots = dict.fromkeys(p for name in arms if (p := _stage(recipe, name).frames.pilot) is not None)
    for pilot in pilots:
        for file in sorted((directory / "runs").glob(f"{pilot}-s*/{MEASURED}")):
            table = pd.read_parquet(file)
            arm = recipe.arms.get(pilot)
            skills: dict[str, str] = {}
            if root is not None and arm is not None and arm.measure is not None:
                try:
                    skills = {s.id: s.skill for s in _samples(recipe, root, arm.measure.source)}
                except WorkbenchError:
                    skills = {}
            return table.assign(skill=table["sample_id"].map(skills).fillna(ALL))
    return None
