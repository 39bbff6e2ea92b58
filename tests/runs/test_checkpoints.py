"""Checkpoints are complete or absent, in the order in which they were completed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.runs.made import META, RECIPE
from workbench.errors import CheckpointError
from workbench.runs import Run


def fill(path: Path, text: str = "weights") -> None:
    (path / "model").mkdir()
    (path / "model" / "w.bin").write_text(text)


def test_checkpoints_are_complete_or_absent(run):
    assert run.latest_checkpoint() is None
    for name in ("step-000010", "stage-a", "step-000005"):  # the order of completion counts, not the names
        with run.checkpoint_dir(name) as path:
            assert path.name == f"{name}.partial" and run.latest_checkpoint() != path
            fill(path, name)
    assert [path.name for path in run.checkpoints()] == ["step-000010", "stage-a", "step-000005"]
    with pytest.raises(RuntimeError, match="boom"), run.checkpoint_dir("broken") as path:
        fill(path)
        raise RuntimeError("boom")
    assert run.latest_checkpoint().name == "step-000005"
    assert not list((run.directory / "checkpoints").glob("*.partial"))
    with run.checkpoint_dir("stage-a") as path:  # again: replaced, and now the newest
        fill(path, "new")
    assert run.latest_checkpoint().name == "stage-a"
    assert (run.latest_checkpoint() / "model" / "w.bin").read_text() == "new"
    run.prune_checkpoints(keep="step-000005", prefix="step-")
    assert [path.name for path in run.checkpoints()] == ["step-000005", "stage-a"]
    assert [event["name"] for event in run.events() if event["kind"] == "checkpoint"][-1] == "stage-a"


@pytest.mark.parametrize("damage", ["cut", "missing", "mark"])
def test_a_damaged_checkpoint_is_refused_by_name(run, damage):
    with run.checkpoint_dir("one") as path:
        fill(path)
    file = run.directory / "checkpoints" / "one" / "model" / "w.bin"
    if damage == "cut":
        file.write_text("wei")
    elif damage == "missing":
        file.unlink()
    else:
        (run.directory / "checkpoints" / "one" / "complete.json").write_text("{")
    with pytest.raises(CheckpointError) as caught:
        run.latest_checkpoint()
    assert "one" in str(caught.value) and "delete" in caught.value.todo


def test_what_a_crash_leaves_among_checkpoints_is_cleared_by_the_next_writer(run):
    with run.checkpoint_dir("one") as path:
        fill(path)
    folder = run.directory / "checkpoints"
    (folder / "two.partial").mkdir()
    (folder / "one").rename(folder / "one.old")  # a replacement, cut between its two renames
    assert run.latest_checkpoint() is None
    again = Run.create(run.directory, RECIPE, META)
    again.event("note")
    assert again.latest_checkpoint().name == "one" and os.listdir(folder) == ["one"]
