"""A stop is heard wherever the training is: in an evaluation, while it waits for data, inside a checkpoint."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pandas as pd
import pytest

from tests.training.processes import run, start
from tests.training.studies import recipe, rows, until
from workbench.runs import Run

EVALUATION = {"suites": {"image": "image_test", "video": "video_test"}, "common_frames": 2}


def base(out: Path) -> Path:
    return out / "runs" / "base-s0"


def evaluated(out: Path) -> list[int]:
    return [event["step"] for event in Run.open(base(out)).events() if event["kind"] == "evaluated"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    assert run(recipe(folder, evaluation=EVALUATION), folder / "out") == 0
    return folder / "out"


def stop_in_evaluation(calls: int) -> None:
    """Ask for a stop when the suites have been asked ``calls`` times."""
    from workbench.study import worker

    asked, evaluate, write = [], worker.evaluate, Run.write_scores
    runs: list[Path] = []

    def remember(self: Run, *rest):
        runs.append(self.directory)
        return write(self, *rest)

    def evaluate_and_ask(*rest, **more):
        asked.append(1)
        if len(asked) == calls:
            Run.open(runs[-1]).ask("stop")
        return evaluate(*rest, **more)

    Run.write_scores, worker.evaluate = remember, evaluate_and_ask


def data_dries_up(step: int, pipe: Path) -> None:
    """When ``step`` is written, reading begins to wait for a pipe that nobody fills, as on a dead network mount."""
    from workbench.training import loop

    read, metric, dead = loop.clip_of, Run.metric, []

    def clip_of(*rest):
        if dead:
            pipe.with_suffix(".waiting").touch()
            pipe.open("rb")
        return read(*rest)

    def written(self: Run, number: int | None = None, **row):
        metric(self, step=row.pop("step", number), **row)
        if self.metrics()["step"].max() == step:
            dead.append(1)

    loop.clip_of, Run.metric = clip_of, written


def stop_in_checkpoint(calls: int) -> None:
    """Ask for a stop when a checkpoint has its weights and not yet its optimizer, the ``calls``-th time."""
    from workbench.training import loop

    seen, save = [], loop.save_trainer

    def saving(directory: Path, *rest):
        seen.append(1)
        if len(seen) == calls:
            assert directory.name.endswith(".partial")
            Run.open(directory.parents[1]).ask("stop")
        return save(directory, *rest)

    loop.save_trainer = saving


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_stop_inside_a_checkpoint_finishes_it_and_one_more_step(tmp_path, straight, calls):
    path, out = recipe(tmp_path, evaluation=EVALUATION), tmp_path / "out"
    assert run(path, out, functools.partial(stop_in_checkpoint, calls)) == 130
    record = Run.open(base(out))
    last = int(record.metrics()["step"].max())
    newest = record.latest_checkpoint()
    assert record.status().state == "interrupted" and last < 16
    assert newest is not None and newest.name == f"step-{last:06d}"
    assert not list((base(out) / "checkpoints").glob("*.partial"))
    saved = [event["name"] for event in record.events() if event["kind"] == "checkpoint"]
    assert len(saved) == calls + 1  # the one that was interrupted, whole, and that of the stop
    assert run(path, out) == 0
    pd.testing.assert_frame_equal(rows(base(out)), rows(base(straight)), check_exact=True)


@pytest.mark.parametrize("step", [3, 8, 12])  # at a checkpoint, at a stage's end, between two
def test_a_stop_while_data_is_awaited_saves_what_is_done(tmp_path, straight, step):
    path, out, pipe = recipe(tmp_path, evaluation=EVALUATION), tmp_path / "out", tmp_path / "pipe"
    os.mkfifo(pipe)
    child = start(path, out, functools.partial(data_dries_up, step, pipe))
    until(lambda: pipe.with_suffix(".waiting").exists())
    before = len(Run.open(base(out)).metrics())
    Run.open(base(out)).ask("stop")
    child.join(30)
    assert child.exitcode == 130
    record = Run.open(base(out))
    last = int(record.metrics()["step"].max())
    assert step <= before <= last < 16 and record.status().state == "interrupted"
    newest = record.latest_checkpoint()
    assert newest is not None and newest.name in (f"step-{last:06d}", "stage-align")
    assert run(path, out) == 0
    pd.testing.assert_frame_equal(rows(base(out)), rows(base(straight)), check_exact=True)


def test_a_stop_during_evaluation_saves_and_the_evaluation_is_made_up_for(tmp_path, straight):
    path, out = recipe(tmp_path, evaluation=EVALUATION), tmp_path / "out"
    assert run(path, out, functools.partial(stop_in_evaluation, 2)) == 130
    record = Run.open(base(out))
    assert record.status().state == "interrupted" and evaluated(out) == []
    newest = record.latest_checkpoint()
    assert newest is not None and newest.name == "stage-sft"
    assert run(path, out) == 0
    assert evaluated(out) == evaluated(straight)
    pd.testing.assert_frame_equal(rows(base(out)), rows(base(straight)), check_exact=True)
    mine, theirs = (Run.open(base(o)).scores() for o in (out, straight))
    pd.testing.assert_frame_equal(mine, theirs)


def test_stopped_again_in_the_evaluation_that_was_owed(tmp_path, straight):
    path, out = recipe(tmp_path, evaluation=EVALUATION), tmp_path / "out"
    assert run(path, out, functools.partial(stop_in_evaluation, 2)) == 130
    assert run(path, out, functools.partial(stop_in_evaluation, 2)) == 130
    assert evaluated(out) == [] and Run.open(base(out)).status().state == "interrupted"
    assert run(path, out) == 0 and evaluated(out) == evaluated(straight)
