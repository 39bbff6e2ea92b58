"""A small real world, tiny recipes over it, and the command line as a real process: what tests of training,
studies and bad input share.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from workbench.errors import DataError
from workbench.runs import Run
from workbench.samples.glyphworld import make_glyphworld
from workbench.samples.glyphworld.make import VERSION

SEED = 3
COUNTS = {
    "train_images": 80,
    "train_video_questions": 80,
    "calibration_questions": 30,
    "test_images": 30,
    "test_video_questions": 30,
}
PROGRAM = [sys.executable, "-m", "workbench"]
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc_per_node",
    "2",
    "-m",
    "workbench",
]
ROOT = Path(__file__).parents[2]

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "model": {"preset": "tiny", "fusion_layers": 1},
    "data": {
        "root": "",
        "sources": {
            "captions": {"path": "train/captions.jsonl"},
            "images": {"path": "train/images.jsonl"},
            "videos": {"path": "train/videos.jsonl"},
            "image_test": {"path": "test/images.jsonl"},
            "video_test": {"path": "test/videos.jsonl"},
        },
    },
    "stages": [
        {
            "name": "align",
            "objective": "align",
            "train": {"encoder": 2.0e-3},
            "data": {"captions": 1},
            "frames": {"policy": "fixed", "frames": 1},
            "steps": 8,
            "batch": 8,
            "checkpoint_every": 3,
        },
        {
            "name": "sft",
            "train": {"encoder": 1.0e-3, "fusion": 1.0e-3, "merger": 1.0e-3, "llm": 1.0e-3},
            "data": {"images": 0.5, "videos": 0.5},
            "frames": {"policy": "fixed", "frames": 4},
            "steps": 8,
            "batch": 4,
            "turns": 1,
            "tokens_per_row": 128,
            "rows_per_micro_batch": 4,
            "checkpoint_every": 3,
        },
    ],
    "machine": {"workers": 2, "threads": 1},
}


@lru_cache(maxsize=1)
def world() -> Path:
    """The folder of the world, one a user and version: several test processes may ask at once, the first to
    finish makes it.
    """
    parent = Path(tempfile.gettempdir()) / f"workbench-tests-{os.getuid()}"
    # The name says what is inside. One name for all versions would have a checkout with another version of the world
    # delete this one under a running study, which then ends with exit code 2: its rows name files that are gone.
    made_of = hashlib.sha256(json.dumps([VERSION, SEED, COUNTS]).encode()).hexdigest()[:12]
    folder = parent / f"tiny-world-{made_of}"
    parent.mkdir(exist_ok=True)
    with _lock(folder.with_suffix(".lock")):
        try:
            make_glyphworld(folder, SEED, **COUNTS, progress=False)
        except DataError:  # files lost, for example to a cleaner of temporary folders
            shutil.rmtree(folder)
            make_glyphworld(folder, SEED, **COUNTS, progress=False)
    return folder


class _lock:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        import fcntl

        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def recipe(folder: Path, root: Path | None = None, **changes: Any) -> Path:
    """``folder/recipe.yaml``: ``RECIPE`` with top-level sections replaced (None removes one)."""
    made = copy.deepcopy(RECIPE)
    made["data"]["root"] = str(root or world())
    for key, value in changes.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = value
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    return path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


def workbench(*arguments: object, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*options.pop("program", PROGRAM), *map(str, arguments)]
    options.setdefault("env", environment())
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)


def train(recipe: Path, out: Path, *more: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return workbench("train", recipe, "--out", out, "--no-report", *more, **options)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one message of a command that failed; the progress bar's line is not one."""
    assert done.returncode not in (0, 1), (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.startswith("workbench: ")]
    rest = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip() and "|" not in line]
    assert len(lines) == 1 and rest == lines, done.stderr
    return lines[0].removeprefix("workbench: ")


def rows(run: Path) -> pd.DataFrame:
    """What must not depend on interruptions."""
    table = Run.open(run).metrics()
    rates = [name for name in table if name.startswith("lr_")]
    return table[
        ["step", "stage", "loss", "grad_norm", "batch", "answer_tokens", "visual_tokens", *sorted(rates)]
    ]


def until(condition: Any, seconds: float = 60.0) -> None:
    """Wait for something that another process does."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "waited in vain"
        threading.Event().wait(0.002)
