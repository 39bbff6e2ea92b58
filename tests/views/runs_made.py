"""Runs and studies written by the real writers, step by step, without training: what monitors and browsers look at."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import yaml

from workbench.runs import Run

RECIPE = {
    "name": "made",
    "model": {"preset": "tiny"},
    "data": {"root": "nowhere", "sources": {"t": {"path": "t.jsonl"}}},
    "stages": [{"name": "one", "train": {"llm": 1.0}, "data": {"t": 1}, "steps": 40}],
    "arms": {
        "a": {
            "title": "arm a",
            "stages": [{"name": "sft", "train": {"llm": 1.0}, "data": {"t": 1}, "steps": 20}],
        }
    },
    "evaluation": {"suites": {"image": "t", "video": "t"}},
}


def made_run(directory: Path, arm: str = "base", seed: int = 0) -> Run:
    """A run of the recipe above that has planned its frames and not made a step."""
    meta = {"arm": arm, "seed": seed, "study": "made"}
    run = Run.create(directory, yaml.safe_dump(RECIPE), meta)
    run.event("frames", stage="one", mean=4.0, histogram={"2": 30, "8": 10}, by_skill={})
    return run


def steps(run: Run, numbers: Iterable[int], stage: str = "one", total: int = 40) -> None:
    """One row a step; every value can be told from the step's number."""
    for n in numbers:
        values = {
            "lr_llm": n / 1000,
            "lr_encoder": n / 2000,
            "tokens": 100 + n,
            "padding": 25,
            "seconds": 0.5,
        }
        run.metric(n, stage=stage, loss=4.0 / n, **values)
        run.beat(n, total)


def scored(run: Run, step: int, right: dict[str, list[bool]], arm: str = "base", seed: int = 0) -> None:
    """Score tables of a step, one a suite, and the event that says so."""
    for suite, answers in right.items():
        rows = [
            {"sample_id": f"s{i}", "suite": suite, "skill": "count" if i % 2 else "ocr", "question": f"q{i}",
             "correct": bool(ok), "arm": arm, "seed": seed, "step": step, "condition": "own"}
            for i, ok in enumerate(answers)
        ]  # fmt: skip
        run.write_scores(f"{suite}-{step:06d}-own", pd.DataFrame(rows))
    run.event("evaluated", step=step, final=False)


def made_study(directory: Path, runs: dict[str, float]) -> Path:
    """``study.json`` and ``recipe.yaml`` of a study whose tasks are ``runs`` {id: cost}; no run is made."""
    directory.mkdir(parents=True)
    (directory / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    tasks = []
    for name, cost in runs.items():
        arm, _, seed = name.rpartition("-s")
        needs = [] if arm == "base" else [f"base-s{seed}"]
        tasks.append({"id": name, "arm": arm, "seed": int(seed), "needs": needs, "cost": cost})
    study = {
        "name": "made",
        "title": "made",
        "arms": {"base": "base", "a": "arm a"},
        "tasks": tasks,
        "seeds": [0],
    }
    (directory / "study.json").write_text(json.dumps(study))
    return directory
