"""A study directory as one tidy object. Needs no torch; works while the study is still running.

Everything shown by the table, the report and the notebook starts here; what is missing is listed, never
filled in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from workbench.errors import WorkbenchError
from workbench.runs import read_events, read_scores
from workbench.study.arms import BASE, Arm, describe_arms
from workbench.study.temporal import temporal_skills

SCORE_COLUMNS = ("sample_id", "suite", "skill", "question", "correct", "step", "arm", "seed", "condition")
COST_COLUMNS = ("arm", "seed", "mean_frames", "seconds", "visual_tokens", "steps")
FRAME_COLUMNS = ("arm", "seed", "skill", "frames")
HISTOGRAM_COLUMNS = ("arm", "seed", "frames", "samples")


class StudyError(WorkbenchError):
    """A study directory that cannot be read."""


@dataclass(frozen=True, eq=False)
class StudyResults:
    """What a study has measured so far.

    Attributes:
        scores: one row a question asked: ``arm, seed, step, kind (image | video), suite, skill, condition,
            sample_id, question, correct`` and what else the score files hold. The base's rows have arm
            ``"base"`` and step 0.
        costs: one row an arm and seed: mean frames a training clip, seconds of training on one worker,
            visual tokens.
        frames: mean frames planned, by arm, seed and skill.
        histogram: training samples by frame count, by arm and seed.
        final_steps: arm -> the last step at which a finished run of the arm was scored.
        finished: (arm, seed) pairs whose run reached its end.
        missing: one sentence for each thing the study promised and the directory does not hold.
        shared_base: all seeds start from one base model, so intervals say nothing about other bases.
        temporal: video skills that no single frame answers, as the data say; None where they do not say.
    """

    directory: Path
    study: Mapping[str, Any]
    recipe_yaml: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    scores: pd.DataFrame
    costs: pd.DataFrame
    frames: pd.DataFrame
    histogram: pd.DataFrame
    final_steps: Mapping[str, int]
    finished: frozenset[tuple[str, int]]
    missing: tuple[str, ...]
    shared_base: bool = False
    temporal: frozenset[str] | None = None

    @property
    def name(self) -> str:
        return str(self.study.get("name") or self.directory.name)

    @property
    def complete(self) -> bool:
        return not self.missing

    def arm(self, name: str) -> Arm | None:
        return next((arm for arm in self.arms if arm.name == name), None)

    def title(self, name: str) -> str:
        arm = self.arm(name)
        return arm.title if arm else ("Base" if name == BASE else name)

    def skills(self, kind: str) -> list[str]:
        """Skills asked in the image or video suites, alphabetically."""
        return self._skills.get(kind, [])

    @cached_property
    def _skills(self) -> dict[str, list[str]]:
        pairs = self.scores[["kind", "skill"]].drop_duplicates()
        return {str(kind): sorted(rows["skill"]) for kind, rows in pairs.groupby("kind")}

    def counting_skills(self) -> set[str]:
        """Image skills whose answer is a number of things: the ones a wrong frame budget can multiply."""
        return {skill for skill in self.skills("image") if skill.startswith("count")}

    def select(self, arm: str, kind: str, condition: str = "own", step: int | None = None) -> pd.DataFrame:
        """Rows of one arm at one step (default: the end of its finished runs; 0 for the base)."""
        rows = self.scores
        if step is None:
            step = 0 if arm == BASE else self.final_steps.get(arm, -1)
        keep = (rows["arm"] == arm) & (rows["kind"] == kind) & (rows["condition"] == condition)
        return rows[keep & (rows["step"] == step)]

    def steps(self, arm: str) -> list[int]:
        """Steps at which the arm was scored, the base's 0 included."""
        own = self.scores[(self.scores["arm"] == arm) & (self.scores["condition"] == "own")]
        return sorted({0, *(int(step) for step in own["step"].unique())}) if len(own) else []


def load_results(directory: str | Path) -> StudyResults:
    """Read a study directory, finished or not.

    Raises:
        StudyError: the directory is no study, ``study.json`` is damaged, or no run has been scored yet.
    """
    directory = Path(directory)
    study = _read_study_json(directory)
    recipe_file = directory / "recipe.yaml"
    recipe_yaml = recipe_file.read_text(encoding="utf-8") if recipe_file.is_file() else ""
    recipe = yaml.safe_load(recipe_yaml) if recipe_yaml else {}
    recipe = recipe if isinstance(recipe, dict) else {}
    hidden = {str(name) for name in study.get("hidden") or ()}
    declared = {name: title for name, title in (study.get("arms") or {}).items() if name not in hidden}
    arms = describe_arms(declared, recipe)
    runs = [run for run in _read_runs(directory) if run.arm not in hidden]
    if not any(len(run.scores) for run in runs):
        raise StudyError(
            f"report on {directory.name}",
            "no run in it has any scores yet",
            "wait until the first evaluation is done, or look at the logs of its runs",
        )
    if not arms:
        arms = describe_arms({run.arm: None for run in runs}, recipe)
    seeds = tuple(sorted({int(seed) for seed in study.get("seeds") or {run.seed for run in runs}}))
    shared_base = recipe.get("base_seed") is not None
    if shared_base:
        runs += [copy for run in runs if run.arm == BASE for copy in _for_seeds(run, seeds)]
    scores = _tidy_scores(pd.concat([run.scores for run in runs if len(run.scores)], ignore_index=True))
    finished = frozenset((run.arm, run.seed) for run in runs if run.finished)
    final_steps = _final_steps(scores, finished)
    return StudyResults(
        directory=directory,
        study=study,
        recipe_yaml=recipe_yaml,
        arms=arms,
        seeds=seeds,
        scores=scores,
        costs=pd.DataFrame([run.cost for run in runs if run.cost], columns=list(COST_COLUMNS)),
        frames=pd.DataFrame([row for run in runs for row in run.frames], columns=list(FRAME_COLUMNS)),
        histogram=pd.DataFrame(
            [row for run in runs for row in run.histogram], columns=list(HISTOGRAM_COLUMNS)
        ),
        final_steps=final_steps,
        finished=finished,
        missing=_missing(arms, seeds, runs, scores, final_steps, recipe),
        shared_base=shared_base,
        temporal=temporal_skills(scores, recipe),
    )


def _for_seeds(base: _RunFiles, seeds: tuple[int, ...]) -> list[_RunFiles]:
    """The one base of a study, as the starting point of every other seed (its cost is counted once)."""
    others = (seed for seed in seeds if seed != base.seed)
    return [
        replace(base, seed=seed, scores=base.scores.assign(seed=seed), cost={}, frames=[], histogram=[])
        for seed in others
    ]


# ---------------------------------------------------------------------------------- reading the files


@dataclass
class _RunFiles:
    arm: str
    seed: int
    scores: pd.DataFrame
    cost: dict[str, Any]
    frames: list[dict[str, Any]]
    histogram: list[dict[str, Any]]
    finished: bool


def _read_study_json(directory: Path) -> dict[str, Any]:
    asked, file = f"read the study {directory}", directory / "study.json"
    if not file.is_file():
        found = "there is no study.json in it" if directory.is_dir() else "there is no such folder"
        raise StudyError(asked, found, "give the folder that `workbench study` wrote, for example runs/trap")
    try:
        study = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        todo = "run the study again with the same command: finished runs are kept"
        raise StudyError(asked, f"study.json is damaged ({error})", todo, str(file)) from None
    if not isinstance(study, dict):
        raise StudyError(asked, "study.json holds no mapping", "run the study again", str(file))
    return study


def _read_runs(directory: Path) -> list[_RunFiles]:
    runs = []
    for run_json in sorted((directory / "runs").glob("*/run.json")):
        try:
            meta = json.loads(run_json.read_text(encoding="utf-8"))
            arm, seed = str(meta["arm"]), int(meta["seed"])
        except (ValueError, KeyError, TypeError):
            continue  # a run of something else, or one being created at this moment: listed as missing below
        runs.append(_read_run(run_json.parent, arm, seed))
    return runs


def _read_run(directory: Path, arm: str, seed: int) -> _RunFiles:
    events = read_events(directory)
    plans = [event for event in events if event["kind"] == "frames"]
    ends = [event for event in events if event["kind"] == "stage_end"]
    shared = {event["step"] for event in events if event["kind"] == "scores_shared"}
    life = [event for event in events if event["kind"] in ("start", "resume", "finish")]
    cost: dict[str, Any] = {}
    if plans or ends:
        cost = {
            "arm": arm,
            "seed": seed,
            "mean_frames": float(plans[-1]["mean"]) if plans else float("nan"),
            "seconds": sum(float(event["seconds"]) for event in ends) if ends else float("nan"),
            "visual_tokens": sum(int(event["visual_tokens"]) for event in ends) if ends else float("nan"),
            "steps": sum(int(event["steps"]) for event in ends),
        }
    plan = plans[-1] if plans else {}
    by_skill = (plan.get("by_skill") or {}).items()
    histogram = (plan.get("histogram") or {}).items()
    scores = _read_scores(directory)
    if len(scores):
        scores = scores.assign(arm=arm, seed=seed)
        twice = scores["step"].isin(shared) & (scores["condition"] == "own") & _is_video(scores)
        scores = pd.concat([scores, scores[twice].assign(condition="common")], ignore_index=True)
    return _RunFiles(
        arm=arm,
        seed=seed,
        scores=scores,
        cost=cost,
        frames=[{"arm": arm, "seed": seed, "skill": k, "frames": float(v)} for k, v in by_skill],
        histogram=[{"arm": arm, "seed": seed, "frames": int(k), "samples": int(v)} for k, v in histogram],
        finished=bool(life) and life[-1].get("reason") == "finished",
    )


def _read_scores(directory: Path) -> pd.DataFrame:
    table = read_scores(directory)
    if not len(table):
        return table
    lacking = [column for column in SCORE_COLUMNS if column not in table]
    if lacking:
        raise StudyError(
            "read the scores",
            f"they lack the columns {', '.join(lacking)}",
            "delete this folder and run the study again: only this run is repeated",
            str(directory / "scores"),
        )
    return table


def _tidy_scores(scores: pd.DataFrame) -> pd.DataFrame:
    scores = scores.assign(correct=scores["correct"].astype(float), step=scores["step"].astype(int))
    scores["kind"] = _is_video(scores).map({True: "video", False: "image"})
    base = scores["arm"] == BASE
    if base.any():  # the end of the base is step 0 of every arm
        last = scores[base].groupby("seed")["step"].transform("max")
        scores = scores.drop(index=last.index[scores.loc[last.index, "step"] != last])
        scores.loc[scores["arm"] == BASE, "step"] = 0
    key = ["arm", "seed", "step", "suite", "condition", "sample_id", "question"]
    return scores.drop_duplicates(key, keep="last").reset_index(drop=True)


def _is_video(scores: pd.DataFrame) -> pd.Series:
    """By the suite's name; a suite whose name says nothing is a video suite if it ever used two frames."""
    video = {}
    for suite, rows in scores.groupby("suite"):
        name = str(suite).lower()
        if "image" in name or "video" in name:
            video[suite] = "image" not in name
        else:
            shown = rows.loc[rows["condition"] != "copies"].get("frames_used", pd.Series(dtype=float))
            video[suite] = bool((shown > 1).any())
    return scores["suite"].map(video).astype(bool)


def _final_steps(scores: pd.DataFrame, finished: frozenset[tuple[str, int]]) -> dict[str, int]:
    own = scores[scores["condition"] == "own"]
    done = own[[pair in finished for pair in zip(own["arm"], own["seed"], strict=True)]]
    return {str(arm): int(rows["step"].max()) for arm, rows in done.groupby("arm")}


# ---------------------------------------------------------------------------------- what is not there


def _missing(
    arms: tuple[Arm, ...],
    seeds: tuple[int, ...],
    runs: list[_RunFiles],
    scores: pd.DataFrame,
    final_steps: Mapping[str, int],
    recipe: Mapping[str, Any],
) -> tuple[str, ...]:
    found = {(run.arm, run.seed): run for run in runs}
    lines = []
    for arm in (BASE, *(arm.name for arm in arms)):
        absent = [seed for seed in seeds if (arm, seed) not in found]
        open_ = [seed for seed in seeds if (arm, seed) in found and not found[arm, seed].finished]
        if absent:
            lines.append(f"{arm}: not started for {_seeds(absent)}.")
        if open_:
            reached = [found[arm, s].scores["step"].max() if len(found[arm, s].scores) else 0 for s in open_]
            lines.append(f"{arm}: not finished for {_seeds(open_)} (scored up to step {int(min(reached))}).")
        own = scores[(scores["arm"] == arm) & (scores["condition"] == "own")]
        if arm in final_steps:
            last = own[own["step"] == (0 if arm == BASE else final_steps[arm])]
            for kind in ("image", "video"):
                if not (last["kind"] == kind).any():
                    lines.append(f"{arm}: no {kind} scores at its end.")
            copies = scores[(scores["arm"] == arm) & (scores["condition"] == "copies")]
            wanted = bool((recipe.get("evaluation") or {}).get("copies"))
            if wanted and arm != BASE and not len(copies):
                lines.append(f"{arm}: the copies probe has no scores.")
    return tuple(lines)


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
