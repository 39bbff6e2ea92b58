"""Real small training jobs for the tests, and what their files say."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.training.studies import RECIPE
from tests.training.studies import recipe as make_recipe


def endless(folder: Path, checkpoint_every: int = 400, **changes) -> Path:
    """A recipe that trains until it is stopped: one stage of a million short steps."""
    stage = {**RECIPE["stages"][1], "steps": 1_000_000, "checkpoint_every": checkpoint_every, "batch": 2}
    return make_recipe(folder, stages=[stage], **changes)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_until(condition, what: str, seconds: float = 120):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s")
