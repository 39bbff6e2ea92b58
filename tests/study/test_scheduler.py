"""The pool of workers with real trainings: order, failures, kills, resuming, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.training.studies import PROGRAM, RECIPE, environment, one_line, recipe, until, workbench
from workbench.errors import RecipeError
from workbench.recipe import load_recipe
from workbench.runs import Run
from workbench.study import open_study

STAGE = {**RECIPE["stages"][1], "train": {"llm": 1.0e-3}, "steps": 4, "batch": 2}


def arms(**more) -> dict:
    made = {
        "two": {"stages": [{**STAGE, "frames": {"policy": "fixed", "frames": 2}}], "needs": ["pilot"]},
        "pilot": {
            "stages": [STAGE],
            "measure": {"source": "video_test", "frames": [1, 2]},
            "first_seed_only": True,
        },
    }
    return made | more


def study_recipe(folder: Path, steps: int = 4, **more) -> Path:
    evaluation = {"suites": {"image": "image_test", "video": "video_test"}, "limit": 4, "copies": True}
    stages = [{**STAGE, "steps": steps, "checkpoint_every": 2}]
    changes = {"stages": stages, "arms": arms(), "evaluation": evaluation, "seeds": [0], **more}
    return recipe(folder, model={"preset": "tiny", "fusion_layers": 0}, **changes)


def events(out: Path, task: str, kind: str) -> list[dict]:
    return [e for e in Run.open(out / "runs" / task).events() if e["kind"] == kind]


def run(path: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return workbench("study", path, "--out", out, "--no-report", *more)


@pytest.fixture(scope="module")
def failed(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A study with two workers and one arm that asks for another model than the base is."""
    folder = tmp_path_factory.mktemp("study")
    bad = {"stages": [STAGE], "model": {"merge": "strip4"}}
    path = study_recipe(folder, arms=arms(bad=bad))
    return folder, run(path, folder / "out")


def test_a_bad_arm_is_named_and_the_others_finish(failed):
    folder, done = failed
    said = one_line(done)
    assert done.returncode == 2 and "bad-s0" in said and "merge='2x2', not 'strip4'" in said
    assert "3 of 4 tasks are finished and kept" in said
    out = folder / "out" / "tiny"
    tasks = ("base-s0", "pilot-s0", "two-s0", "bad-s0")
    states = {task: Run.open(out / "runs" / task).status() for task in tasks}
    assert [status.state for status in states.values()] == ["finished"] * 3 + ["failed"]
    assert "strip4" in (states["bad-s0"].error or "")
    state = json.loads((out / "study.json").read_text())
    assert state["finished"] is None and state["wall_s"] > 0 and state["peak_rss_bytes"] > 1e8
    ends = {task: events(out, task, "finish")[0]["time"] for task in ("base-s0", "pilot-s0")}
    assert ends["base-s0"] <= events(out, "pilot-s0", "start")[0]["time"]
    assert ends["pilot-s0"] <= events(out, "two-s0", "start")[0]["time"]
    assert (out / "runs" / "pilot-s0" / "losses.parquet").exists()
    scores = {p.name for p in (out / "runs" / "two-s0" / "scores").glob("*.parquet")}
    assert "image-000004-copies.parquet" in scores and "video-000004-own.parquet" in scores


def test_a_mended_study_goes_on_without_repeating_anything(failed):
    """A failed task is tried again; finished ones are not touched."""
    folder, _ = failed
    out = folder / "out" / "tiny"
    before = {p: p.stat().st_mtime_ns for p in (out / "runs" / "two-s0").rglob("*") if p.is_file()}
    done = run(folder / "recipe.yaml", folder / "out")
    assert "bad-s0" in one_line(done)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert len(events(out, "bad-s0", "finish")) == 2


def test_another_recipes_directory_is_refused(failed):
    folder, _ = failed
    other = load_recipe(folder / "recipe.yaml", {"stages.0.steps": 5})
    with pytest.raises(RecipeError, match="another recipe") as caught:
        open_study(other, folder / "out" / "tiny")
    assert "--out" in caught.value.todo
    again = load_recipe(folder / "recipe.yaml")
    with pytest.raises(RecipeError):
        open_study(again, folder / "out" / "tiny", seeds=[1])
    study = open_study(again, folder / "out" / "tiny")
    assert study.done == {"base-s0", "pilot-s0", "two-s0"} and not study.finished


def launch(path: Path, out: Path) -> subprocess.Popen[str]:
    """A study in a process group of its own, as a terminal gives it, once its first task is some steps in."""
    process = subprocess.Popen(
        [*PROGRAM, "study", str(path), "--out", str(out), "--no-report"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    base = out / "tiny" / "runs" / "base-s0"

    def some_steps_in() -> bool:
        if process.poll() is not None:
            return True
        if not (base / "events.jsonl").exists() or Run.open(base).status().state != "running":
            return False
        begun = [e["at"] for e in Run.open(base).events() if e["kind"] == "stage_start"]
        return bool(begun) and len(Run.open(base).metrics()) > begun[-1] + 3

    until(some_steps_in, 90)
    assert process.poll() is None, process.communicate()
    return process


def alive_after(process: psutil.Process, seconds: float = 20.0) -> bool:
    _, left = psutil.wait_procs([process], timeout=seconds)
    return bool(left)


def test_kills_and_ctrl_c(tmp_path):
    """A worker killed, the scheduler killed, Ctrl-C on the whole group, then the study runs to its end."""
    path, out = study_recipe(tmp_path, steps=500, arms={}), tmp_path / "out"
    base = out / "tiny" / "runs" / "base-s0"

    process = launch(path, out)
    pid = Run.open(base).status().pid
    assert pid is not None and pid != process.pid
    os.kill(pid, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=60)
    said = one_line(subprocess.CompletedProcess([], process.returncode, stdout, stderr))
    assert process.returncode == 128 + signal.SIGKILL and "base-s0" in said and "killed" in said
    assert "resume with: workbench study" in said
    assert Run.open(base).status().state == "lost"

    process = launch(path, out)
    worker = psutil.Process(Run.open(base).status().pid)
    process.kill()
    process.communicate(timeout=60)
    assert not alive_after(worker)  # nothing of a killed study goes on writing

    process = launch(path, out)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    said = one_line(subprocess.CompletedProcess([], process.returncode, stdout, stderr))
    assert process.returncode == 130 and "Resume with: workbench study" in said
    record = Run.open(base)
    last = int(record.metrics()["step"].max())
    newest = record.latest_checkpoint()
    assert record.status().state == "interrupted" and newest is not None and newest.name == f"step-{last:06d}"
    assert last < 500 and record.metrics()["step"].tolist() == list(range(1, last + 1))
    assert json.loads((out / "tiny" / "study.json").read_text())["finished"] is None
