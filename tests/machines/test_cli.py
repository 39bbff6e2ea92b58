"""The commands for jobs, as processes, on a real job of the toy program and a real submit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.machines.toys import end_all, end_of, start_toy, step_of
from tests.machines.toys import until as wait_until
from tests.training.studies import environment, one_line, recipe, workbench
from workbench.machines.job import FOLDER
from workbench.runs import Run, read_events


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path):
    yield
    end_all(tmp_path)


def command(tmp_path: Path, *words: object):
    more = {"WORKBENCH_RUNS": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    return workbench(*words, env=environment(**more))


def test_a_job_from_the_terminal(tmp_path):
    study = start_toy(tmp_path, steps=5000)
    wait_until(lambda: step_of(study) >= 3)
    listed = command(tmp_path, "jobs").stdout.splitlines()
    assert listed[0].split()[:2] == ["JOB", "STATE"] and listed[1].split()[:2] == ["local:toy", "running"]
    shown = command(tmp_path, "status", "toy").stdout
    assert "state        running" in shown and "base-s0  running" in shown
    assert "job          running" in command(tmp_path, "status", "local:toy/base-s0").stdout
    assert command(tmp_path, "checkpoint", "toy/base-s0").returncode == 0
    assert "saves after its step" in command(tmp_path, "stop", "toy").stdout
    followed = command(tmp_path, "tail", "toy", "--follow", "--json")
    items = [json.loads(line) for line in followed.stdout.splitlines()]
    assert [i["data"] for i in items if i["stream"] == ""] == read_events(study / FOLDER)
    assert [i["data"] for i in items if i["stream"] == "base-s0"] == read_events(study / "runs" / "base-s0")
    steps = [i["data"]["step"] for i in items if i["stream"] == "base-s0#metrics"]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 3
    assert end_of(study)["reason"] == "stopped"
    plain = command(tmp_path, "tail", "toy/base-s0").stdout
    assert "job: finish  reason=stopped" in plain and "base-s0: step 1 " in plain
    assert "goes on from its last checkpoints" in command(tmp_path, "resume", "toy").stdout
    assert "processes are killed" in command(tmp_path, "stop", "toy", "--now").stdout
    assert end_of(study)["reason"] == "killed"
    assert "killed" in command(tmp_path, "jobs").stdout
    fetched = command(tmp_path, "fetch", "toy/base-s0", tmp_path / "here")
    assert fetched.stdout.strip() == str(tmp_path / "here" / "toy" / "runs" / "base-s0")
    assert Run.open(fetched.stdout.strip()).events() == read_events(study / "runs" / "base-s0")
    assert command(tmp_path, "status", study / "runs" / "base-s0").stdout.startswith("run ")


def test_submit_starts_and_returns(tmp_path):
    path = recipe(tmp_path)
    done = command(
        tmp_path, "submit", path, "--name", "mine", "--set", "stages.0.steps=2", "stages.1.steps=2"
    )
    assert done.returncode == 0 and "local:mine started" in done.stdout, done.stderr
    assert one_line(command(tmp_path, "submit", path, "--name", "mine")).startswith(
        "cannot start a job called 'mine': a job of that name is there ("
    )
    assert end_of(tmp_path / "mine")["reason"] == "finished"
    assert Run.open(tmp_path / "mine" / "runs" / "base-s0").metrics()["step"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["status", "a:b:c"], "it is not MACHINE:JOB"),
        (["status", "none"], "holds no none"),
        (["jobs", "nowhere"], "none of this name"),
        (["tail", "nowhere:job"], "none of this name"),
        (["stop", "none"], "holds no none"),
        (["submit", "missing.yaml"], "there is no file"),
    ],
)
def test_mistakes_are_one_line(tmp_path, words, says):
    assert says in one_line(command(tmp_path, *words))


def test_no_jobs(tmp_path):
    assert "no jobs on local below" in command(tmp_path, "jobs").stdout
