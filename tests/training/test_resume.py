"""Killed at any moment and started again, a training gives the steps that an undisturbed one gives, to the
last bit.
"""

from __future__ import annotations

import functools
import os
import random
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.training.processes import run, start
from tests.training.studies import RECIPE, recipe, rows, until
from workbench.runs import Run

STEPS = sum(stage["steps"] for stage in RECIPE["stages"])


def base(out: Path) -> Path:
    return out / "runs" / "base-s0"


def weights(out: Path) -> dict[str, torch.Tensor]:
    checkpoint = Run.open(base(out)).latest_checkpoint()
    assert checkpoint is not None
    return load_file(checkpoint / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("straight")
    assert run(recipe(folder), folder / "out") == 0
    return folder / "out"


def same(out: Path, straight: Path) -> None:
    found, expected = rows(base(out)), rows(base(straight))
    assert found["step"].tolist() == list(range(1, STEPS + 1))  # none missing, none twice
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    mine, theirs = weights(out), weights(straight)
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)

    def costs(study: Path) -> list[tuple]:
        keys = ("stage", "steps", "visual_tokens", "answer_tokens", "real_tokens", "places", "skipped")
        ends = [e for e in Run.open(base(study)).events() if e["kind"] == "stage_end"]
        return sorted({tuple(event[key] for key in keys) for event in ends})

    assert costs(out) == costs(straight)  # what a stage cost does not forget the sessions before a kill
    assert Run.open(base(out)).status().state == "finished"


def kill_at_step(step: int) -> None:
    """SIGKILL from inside, the moment the row of ``step`` is written."""
    written = Run.metric

    def metric(self: Run, **row: object) -> None:
        written(self, **row)  # type: ignore[arg-type]
        if row["step"] == step:
            os.kill(os.getpid(), signal.SIGKILL)

    Run.metric = metric  # type: ignore[assignment, method-assign]


def kill_in_checkpoint(name: str, file: str) -> None:
    """SIGKILL when the checkpoint ``name`` holds ``file`` and is not complete."""
    from workbench.training import loop

    saved = loop.save_trainer

    def save_trainer(directory: Path, *rest: object) -> None:
        if directory.name.startswith(name):
            if file == "trainer":
                saved(directory, *rest)  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGKILL)
        saved(directory, *rest)  # type: ignore[arg-type]

    loop.save_trainer = save_trainer


# before the first checkpoint; between two; right after one; at a stage's end; in the second stage; at the
# very end
@pytest.mark.parametrize("kills", [(2,), (8, 9), (11, 12, 15), (16,)])
def test_kill_9_at_any_step_changes_nothing(tmp_path, straight, kills):
    path = recipe(tmp_path)
    for step in kills:
        assert run(path, tmp_path / "out", functools.partial(kill_at_step, step)) == -signal.SIGKILL
    assert run(path, tmp_path / "out") == 0
    same(tmp_path / "out", straight)


@pytest.mark.parametrize(
    ("name", "file"), [("step-000003", "model"), ("stage-align", "trainer"), ("step-000011", "trainer")]
)
def test_kill_9_inside_a_checkpoint_changes_nothing(tmp_path, straight, name, file):
    path = recipe(tmp_path)
    trap = functools.partial(kill_in_checkpoint, name, file)
    assert run(path, tmp_path / "out", trap) == -signal.SIGKILL
    assert any(p.name == f"{name}.partial" for p in (base(tmp_path / "out") / "checkpoints").iterdir())
    assert run(path, tmp_path / "out") == 0
    same(tmp_path / "out", straight)


def test_kill_9_at_random_moments_changes_nothing(tmp_path, straight):
    """From outside, wherever the process happens to be: reading, computing, writing."""
    path, draw = recipe(tmp_path), random.Random(5)
    for attempt in range(4):
        child = start(path, tmp_path / "out")
        beat = base(tmp_path / "out") / "metrics" / "tail.jsonl"
        until(lambda at=beat: not child.is_alive() or at.exists())  # noqa: B023 - asked at once
        child.join(draw.uniform(0, 0.4) * (attempt + 1) / 2)
        child.kill()
        child.join()
    assert run(path, tmp_path / "out") == 0
    same(tmp_path / "out", straight)


# 8 is the last step of a stage: its own checkpoint is the save
@pytest.mark.parametrize(
    ("step", "number"), [(5, signal.SIGINT), (8, signal.SIGINT), (12, signal.SIGTERM)], ids=str
)
def test_a_stop_signal_finishes_the_step_and_saves(tmp_path, straight, step, number):
    path = recipe(tmp_path)
    assert run(path, tmp_path / "out", functools.partial(stop_at_step, step, number)) == 130
    record = Run.open(base(tmp_path / "out"))
    assert record.status().state == "interrupted" and record.metrics()["step"].max() == step
    newest = record.latest_checkpoint()
    assert newest is not None and newest.name == ("stage-align" if step == 8 else f"step-{step:06d}")
    said = (tmp_path / "out" / "interrupted.txt").read_text()
    assert f"step {step} of {STEPS}" in said and "Resume with: the same command" in said
    assert run(path, tmp_path / "out") == 0
    same(tmp_path / "out", straight)


def stop_at_step(step: int, number: int) -> None:
    written = Run.metric

    def metric(self: Run, **row: object) -> None:
        written(self, **row)  # type: ignore[arg-type]
        if row["step"] == step:
            os.kill(os.getpid(), number)

    Run.metric = metric  # type: ignore[assignment, method-assign]


def ask_at_step(step: int, request: str) -> None:
    written = Run.metric

    def metric(self: Run, **row: object) -> None:
        written(self, **row)  # type: ignore[arg-type]
        if row["step"] == step:
            Run.open(self.directory).ask(request)  # type: ignore[arg-type]

    Run.metric = metric  # type: ignore[assignment, method-assign]


def test_requests_in_the_drop_box(tmp_path, straight):
    path = recipe(tmp_path)
    assert run(path, tmp_path / "out", functools.partial(ask_at_step, 10, "stop")) == 130
    assert run(path, tmp_path / "out", functools.partial(ask_at_step, 13, "checkpoint")) == 0
    made = [e["name"] for e in Run.open(base(tmp_path / "out")).events() if e["kind"] == "checkpoint"]
    assert "step-000010" in made and "step-000013" in made
    same(tmp_path / "out", straight)
