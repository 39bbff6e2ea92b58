"""A real study of minutes made small: a base and three arms one seed, a pilot that measures, scores at two steps."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from tests.training.studies import RECIPE, recipe, workbench

_KEPT: list[tempfile.TemporaryDirectory[str]] = []
SFT = {
    **RECIPE["stages"][1],
    "name": "video-sft",
    "data": {"videos": 1},
    "steps": 4,
    "checkpoint_every": None,
}
STAGES = [{**stage, "steps": 2, "checkpoint_every": None} for stage in RECIPE["stages"]]
CHOICES = [1, 2, 4]


def _arm(title: str, policy: dict[str, object], **more: object) -> dict[str, object]:
    return {"title": title, "stages": [{**SFT, "frames": policy}], **more}


ARMS = {
    "fixed-2": _arm("fixed 2 frames", {"policy": "fixed", "frames": 2}),
    "pilot": _arm(
        "pilot",
        {"policy": "uniform_choice", "choices": CHOICES},
        first_seed_only=True,
        shown=False,
        measure={"source": "video_test", "frames": CHOICES},
    ),
    "hybrid": _arm(
        "hybrid: frames from the question",
        {"policy": "classifier", "choices": CHOICES, "pilot": "pilot", "epsilon": 0.1},
    ),
    "random-matched": _arm("random, matched to hybrid", {"policy": "random_matched", "like": "hybrid"}),
}
EVALUATION = {
    "suites": {"image": "image_test", "video": "video_test"},
    "at": [0.5, 1.0],
    "limit": 12,
    "common_frames": 4,
}


@cache
def small_study() -> Path:
    """The study directory, trained once a test process (about 20 s); read only, but for captures."""
    _KEPT.append(tempfile.TemporaryDirectory(prefix="small-study-"))
    folder = Path(_KEPT[0].name)
    made = recipe(folder, seeds=[0], stages=STAGES, arms=ARMS, evaluation=EVALUATION)
    done = workbench("study", made, "--out", folder, "--no-report", timeout=600)
    assert done.returncode == 0, done.stderr
    return folder / RECIPE["name"]
