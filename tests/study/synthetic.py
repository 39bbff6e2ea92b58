"""Study directories with known true effects: real files in the layout of a real study, no training.

A question is answered right when its own luck ``u`` (uniform, fixed for a seed and question, so that arms
are paired as they are in a real study) lies below the arm's true accuracy for that skill, step and
condition.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from workbench.runs import Run

IMAGE_SKILLS = ("ocr", "colour", "where", "count", "comparison")
VIDEO_SKILLS = ("order", "change", "brief", "flash", "static")
MIN_FRAMES = {"order": 4, "change": 2, "brief": 8, "flash": 16}  # every other skill: one frame answers
STEPS = (60, 120, 240)


@dataclass(frozen=True)
class ArmTruth:
    """True accuracy changes against the base, as fractions. ``count_by_copies`` comes back when images
    are copied.
    """

    frames: int | dict[str, int] = 2
    image: float = 0.0  # change of every image skill but counting
    count: float = 0.0  # change of counting, images shown once
    count_by_copies: float = 0.0  # how much of counting's change returns with copies
    video: float = 0.0  # change of every video skill
    title: str = ""
    policy: Mapping[str, Any] = field(default_factory=lambda: {"policy": "fixed", "frames": 2})
    temporal: float = 0.0  # change, beside ``video``, of the video skills that need more than one frame


DEFAULT_ARMS: dict[str, ArmTruth] = {
    "fixed-2": ArmTruth(2, -0.03, -0.05, 0.0, 0.08, "Fixed 2", {"policy": "fixed", "frames": 2}),
    "fixed-16": ArmTruth(16, -0.03, -0.50, 0.45, 0.16, "Fixed 16", {"policy": "fixed", "frames": 16}),
    "hybrid": ArmTruth(
        {"static": 2, "order": 8, "change": 4, "brief": 16, "flash": 16},
        -0.03,
        -0.10,
        0.05,
        0.16,
        "Hybrid-Frame",
        {"policy": "keywords", "rules": {"first": 8, "flash": 16}, "frames": 2},
    ),
    "random-matched": ArmTruth(
        8, -0.03, -0.10, 0.05, 0.08, "Random, matched", {"policy": "random_matched", "like": "hybrid"}
    ),
}


def two_pair_arms() -> dict[str, ArmTruth]:
    """Two question-aware arms, each with a control of its own: the first choice helps temporal skills, the
    second nothing.
    """
    aware, control = DEFAULT_ARMS["hybrid"], DEFAULT_ARMS["random-matched"]
    words = {"policy": "keywords", "rules": {"moment": 16}, "frames": 2}
    return {
        "fixed-2": DEFAULT_ARMS["fixed-2"],
        "fixed-16": DEFAULT_ARMS["fixed-16"],
        "hybrid": replace(aware, video=0.08, temporal=0.2),
        "random-matched": control,
        "keywords": replace(aware, title="Keywords", policy=words, video=0.08),
        "random-keywords": replace(
            control, title="Random as keywords", policy={"policy": "random_matched", "like": "keywords"}
        ),
    }


def null_arms() -> dict[str, ArmTruth]:
    """The same arms without any true effect."""
    return {
        n: replace(a, image=0.0, count=0.0, count_by_copies=0.0, video=0.0) for n, a in DEFAULT_ARMS.items()
    }


def reversed_arms() -> dict[str, ArmTruth]:
    """Every effect with its sign turned: video falls, counting rises with many frames."""
    return {
        n: replace(a, image=-a.image, count=-a.count, count_by_copies=-a.count_by_copies, video=-a.video)
        for n, a in DEFAULT_ARMS.items()
    }


def write_study(
    directory: Path,
    arms: Mapping[str, ArmTruth] | None = None,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    images: int = 60,
    videos: int = 300,
    copies: bool = True,
    common: bool = True,
    unfinished: Sequence[str] = (),
    absent: Sequence[str] = (),
    seed_noise: float = 0.01,
    base_image: float = 0.75,
    base_video: float = 0.6,
    quick: bool = False,
    steps: Sequence[int] = STEPS,
) -> Path:
    """Write a study directory and return it.

    ``unfinished`` and ``absent`` name runs such as ``"hybrid-s1"``: cut after the first step, or never
    started.
    """
    arms = dict(DEFAULT_ARMS if arms is None else arms)
    directory.mkdir(parents=True, exist_ok=True)
    study = {
        "name": directory.name,
        "recipe_hash": "0f" * 16,
        "seeds": list(seeds),
        "arms": {"base": "base"} | {name: arm.title or name for name, arm in arms.items()},
        "hidden": [],
        "quick": quick,
        "started": "2026-11-21T10:00:00+00:00",
        "finished": None if unfinished or absent else "2026-11-21T10:09:30+00:00",
        "wall_s": 570.0,
        "peak_rss_bytes": 1_900_000_000,
        "versions": {"workbench": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "python": "3.11.9"},
    }
    (directory / "study.json").write_text(json.dumps(study), encoding="utf-8")
    stage = {"name": "video-sft", "train": {"llm": 1e-3}, "data": {"video": 1.0}, "steps": steps[-1]}
    recipe = {
        "name": directory.name,
        "seeds": list(seeds),
        "arms": {
            name: {"title": arm.title, "stages": [{**stage, "frames": dict(arm.policy)}]}
            for name, arm in arms.items()
        },
        "evaluation": {
            "suites": {"image": "image-eval", "video": "video-eval"},
            "common_frames": 8,
            "copies": copies,
        },
    }
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    questions = _questions(images, videos)
    for seed in seeds:
        rng = np.random.default_rng(1000 + seed)
        luck = rng.random(len(questions))
        for name, arm in {"base": ArmTruth(1), **arms}.items():
            run = f"{name}-s{seed}"
            if run in absent:
                continue
            shift = rng.normal(0, seed_noise) if name != "base" else 0.0
            cut = run in unfinished
            _write_run(
                directory / "runs" / run,
                study["name"],
                name,
                seed,
                arm,
                questions,
                luck,
                shift,
                (800,) if name == "base" else (tuple(steps[:1]) if cut else tuple(steps)),
                steps[-1] if name != "base" else 800,
                copies and not cut,
                common and not cut,
                not cut,
                base_image,
                base_video,
            )
    return directory


def _questions(images: int, videos: int) -> pd.DataFrame:
    rows = [
        {"sample_id": f"i-{i:05d}", "suite": "image", "skill": skill, "question": f"{skill}?"}
        for i in range(images)
        for skill in IMAGE_SKILLS
    ]
    rows += [
        {
            "sample_id": f"v-{i:05d}",
            "suite": "video",
            "skill": VIDEO_SKILLS[i % len(VIDEO_SKILLS)],
            "question": f"{VIDEO_SKILLS[i % len(VIDEO_SKILLS)]}?",
        }
        for i in range(videos)
    ]
    return pd.DataFrame(rows)


def _frames_of(arm: ArmTruth, skill: str) -> int:
    return arm.frames if isinstance(arm.frames, int) else arm.frames.get(skill, 2)


def _accuracy(
    arm: ArmTruth, suite: str, skill: str, share: float, condition: str, bases: tuple[float, float]
) -> float:
    if suite == "video":
        return bases[1] + (arm.video + (arm.temporal if skill in MIN_FRAMES else 0.0)) * share
    change = arm.count if skill == "count" else arm.image
    if skill == "count" and condition == "copies":
        change += arm.count_by_copies
    # worst in the middle of training, partly back at the end, as the prototype saw
    bump = 0.3 * change * 4 * share * (1 - share)
    return bases[0] + change * share + bump


def _write_run(
    directory: Path,
    study: str,
    name: str,
    seed: int,
    arm: ArmTruth,
    questions: pd.DataFrame,
    luck: np.ndarray,
    shift: float,
    steps: tuple[int, ...],
    last: int,
    copies: bool,
    common: bool,
    finished: bool,
    base_image: float,
    base_video: float,
) -> None:
    is_base = name == "base"
    run = Run.create(directory, f"name: {study}\n", {"arm": name, "seed": seed, "study": study})
    jobs = [(suite, step, "own") for step in steps for suite in ("image", "video")]
    if copies and not is_base:
        jobs.append(("image", last, "copies"))
    if common:
        jobs.append(("video", last, "common"))
    for suite, step, condition in jobs:
        part = questions[questions["suite"] == suite]
        share = 0.0 if is_base else step / last
        truth = np.array(
            [
                _accuracy(arm, suite, skill, share, condition, (base_image, base_video)) + shift
                for skill in part["skill"]
            ]
        )
        own = np.array([_frames_of(arm, skill) if suite == "video" else 1 for skill in part["skill"]])
        frames = own
        if condition == "common":
            frames = np.full(len(part), 8)
        if condition == "copies":
            frames = np.full(len(part), arm.frames if isinstance(arm.frames, int) else 2)
        correct = luck[part.index] < np.clip(truth, 0, 1)
        table = part.assign(
            answer="a",
            prediction=np.where(correct, "a", "b"),
            correct=correct,
            probability=np.clip(truth, 0.01, 0.99),
            log_probability=np.log(np.clip(truth, 0.01, 0.99)),
            frames_used=frames,
            visual_tokens=frames * 4,
            min_frames=[MIN_FRAMES.get(skill, 1) for skill in part["skill"]],
            step=step,
            arm=name,
            seed=seed,
            condition=condition,
        )
        run.write_scores(f"{suite}-{step:06d}-{condition}", table)
    _write_events(run, arm, last, finished, is_base)


def _write_events(run: Run, arm: ArmTruth, last: int, finished: bool, base: bool) -> None:
    counts = [_frames_of(arm, skill) for skill in VIDEO_SKILLS]
    mean = float(np.mean(counts))
    if not base:
        histogram = {str(c): counts.count(c) * 100 for c in sorted(set(counts))}
        by_skill = {skill: float(_frames_of(arm, skill)) for skill in VIDEO_SKILLS}
        run.event("frames", stage="video-sft", mean=mean, histogram=histogram, by_skill=by_skill)
    if finished:
        run.event(
            "stage_end",
            stage="video-sft",
            steps=last,
            seconds=6.0 + 3.4 * mean,
            visual_tokens=int(32 * last * 4 * mean),
            answer_tokens=32 * last,
            real_tokens=int(32 * last * (4 * mean + 20)),
            padding_share=0.05,
        )
        run.finish("finished")
    run.close()
