"""The quick study made small: a world of a few hundred files, some dozen steps, half a minute in all."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "00_start_here.ipynb"
WORLD = (
    "glyphworld --seed 0 --train-images 300 --train-video-questions 400 "
    "--calibration-questions 20 --test-images 60 --test-video-questions 60"
)
STEPS = {
    "quick.steps": 0.6,  # of the steps below: 60, 60 and 80, then 24
    "stages.0.steps": 100,
    "stages.1.steps": 100,
    "stages.2.steps": 133,
    "arms.fixed-2.stages.0.steps": 40,
    "arms.fixed-16.stages.0.steps": 40,
    "evaluation.limit": 40,
    "evaluation.at": [0.25, 0.5, 1.0],
}


def overrides(world: Path) -> dict[str, object]:
    """Recipe values for ``launch``; the study makes the world itself when it is not there."""
    return {"data.root": str(world), "data.make": WORLD, **STEPS}


def quick_set(world: Path) -> str:
    """The same as the text of ``WORKBENCH_QUICK_SET``."""
    return shlex.join(f"{key}={json.dumps(value)}" for key, value in overrides(world).items())
