"""Real trainings as jobs on this machine: killed anywhere, copied at any moment, they go on exactly."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from tests.machines.toys import end_all, end_of, local, start_toy, step_of, until
from tests.training.processes import run as train
from tests.training.studies import RECIPE, recipe, rows
from workbench.machines import attach, exits
from workbench.machines.job import FOLDER, job_status
from workbench.machines.processes import members
from workbench.runs import Run, read_events, read_metrics, read_scores
from workbench.runs.checkpoints import verify
from workbench.runs.status import read_heartbeat

ALIGN, SFT = RECIPE["stages"]
STAGES = [{**ALIGN, "steps": 6}, {**SFT, "steps": 60, "checkpoint_every": 7}]
LAST = sum(stage["steps"] for stage in STAGES)


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> pd.DataFrame:
    """What an undisturbed training of the recipe writes."""
    folder = tmp_path_factory.mktemp("straight")
    assert train(recipe(folder, stages=STAGES), folder / "out") == 0
    return rows(folder / "out" / "runs" / "base-s0")


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path):
    yield
    end_all(tmp_path)


def freeze(job: Path) -> list[psutil.Process]:
    """Stop supervisor and trainers where they are: what is on the disk now is what a power cut would leave."""
    found = members(job)
    with contextlib.suppress(psutil.Error):
        if pid := read_heartbeat(job).get("pid"):
            found.append(psutil.Process(pid))
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGSTOP)
    return found


def open_everything(study: Path) -> None:
    """Read all that a reader can read; anything unreadable raises."""
    status = job_status(study)
    assert status["state"] in ("starting", "running", "stopping", "finished", "lost")
    events = read_events(study / FOLDER)
    assert [event["seq"] for event in events] == list(range(len(events)))
    for run in (study / "runs").glob("*/run.json"):
        opened = Run.open(run.parent)
        events = opened.events()
        assert [event["seq"] for event in events] == list(range(len(events)))
        steps = read_metrics(run.parent)["step"].tolist()
        assert steps == list(range(1, len(steps) + 1))
        read_scores(run.parent)
        for checkpoint in opened.checkpoints():
            verify(checkpoint)
        opened.status()


def lose_what_was_not_flushed(run: Path, draw: random.Random) -> None:
    """What the system had not yet written is gone: of events after the last one that was flushed (a checkpoint),
    and of metric rows after the newest checkpoint, some bytes.
    """
    events = (run / "events.jsonl").read_bytes()
    kept = max(i for kind in ("start", "reopen", "checkpoint") for i in [events.rfind(f'"{kind}"'.encode())])
    flushed = events.index(b"\n", kept) + 1
    os.truncate(run / "events.jsonl", draw.randint(flushed, len(events)))
    newest = Run.open(run).latest_checkpoint()
    step = 0 if newest is None else json.loads((newest / "trainer.json").read_text())["position"]["step"]
    lines = (run / "metrics" / "tail.jsonl").read_bytes().splitlines(keepends=True)
    flushed = sum(len(line) for line in lines if json.loads(line)["step"] <= step)
    os.truncate(run / "metrics" / "tail.jsonl", draw.randint(flushed, sum(map(len, lines))))


def test_a_training_whose_worker_is_killed_and_that_is_copied_at_50_moments(tmp_path, straight):
    """Every copy opens; the job itself, restarted by its supervisor, and a copy, resumed, give the same steps."""
    root, draw = tmp_path / "root", random.Random(11)
    made = recipe(tmp_path, stages=STAGES, machine={**RECIPE["machine"], "restarts": 2})
    local(root).submit(made)
    study, killed, copies = root / "tiny", False, []
    until(lambda: (study / "runs" / "base-s0" / "run.json").exists(), 200)
    while len(copies) < 50:
        if len(copies) == 20:  # however long the first steps take, the rest is of a training that works
            until(lambda: step_of(study) >= 15, 100)
        time.sleep(draw.uniform(0, 0.06))
        frozen = freeze(study / FOLDER)
        copy = tmp_path / "copies" / str(len(copies)) / "tiny"
        shutil.copytree(study, copy, symlinks=True, ignore=shutil.ignore_patterns("cache"))
        for process in frozen:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
        copies.append(copy)
        if not killed and step_of(study) >= 15:
            os.kill(Run.open(study / "runs" / "base-s0").status().pid, signal.SIGKILL)
            killed = True
    found = end_of(study)
    assert found["reason"] == "finished" and killed
    restarted = [event for event in read_events(study / FOLDER) if event["kind"] == "restarted"]
    assert len(restarted) == 1 and restarted[0]["after"] == "killed" and "SIGKILL" in restarted[0]["error"]
    pd.testing.assert_frame_equal(rows(study / "runs" / "base-s0"), straight, check_exact=True)
    for copy in copies:
        open_everything(copy)
    torn = copies[len(copies) // 2]
    lose_what_was_not_flushed(torn / "runs" / "base-s0", draw)
    open_everything(torn)
    out = tmp_path / "resumed"
    shutil.copytree(torn, out, symlinks=True)
    shutil.rmtree(out / "job")
    assert train(recipe(tmp_path, stages=STAGES), out) == 0
    pd.testing.assert_frame_equal(rows(out / "runs" / "base-s0"), straight, check_exact=True)


def test_a_training_whose_supervisor_is_killed(tmp_path, straight):
    root = tmp_path / "root"
    machine = local(root)
    job = attach(machine.submit(recipe(tmp_path, stages=STAGES)).address, machine)
    study = root / "tiny"
    until(lambda: step_of(study) >= 10, 200)
    psutil.Process(job_status(study)["pid"]).kill()
    until(lambda: not members(study / FOLDER), 60)
    run = Run.open(study / "runs" / "base-s0")
    last = int(run.metrics()["step"].max())
    assert job.status()["reason"] == "lost" and run.status().state == "interrupted" and last < LAST
    assert run.latest_checkpoint().name == f"step-{last:06d}"
    job.resume()
    assert job.wait(240)["reason"] == "finished"
    pd.testing.assert_frame_equal(rows(study / "runs" / "base-s0"), straight, check_exact=True)
    assert members(study / FOLDER) == []
    scores = attach("tiny/base-s0", machine).evaluate(source="image_test", limit=6)
    table = Run.open(study / "runs" / "base-s0").scores()
    assert scores["questions"] == 6 == len(table) and set(table["table"]) == {scores["table"]}
    assert scores["accuracy"] == table["correct"].astype(float).mean()


@pytest.mark.slow
def test_two_ranks_of_which_one_is_killed_and_then_the_supervisor(tmp_path, straight):
    """torchrun, gloo; the losses are those of one process but for rounding."""
    root, machine = tmp_path / "root", local(tmp_path / "root")
    more = {"launcher": "torchrun", "processes": 2, "restarts": 1}
    machine.submit(recipe(tmp_path, stages=STAGES, machine={**RECIPE["machine"], **more}))
    study = root / "tiny"
    until(lambda: step_of(study) >= 8, 200)
    ranks = exits.records(study / FOLDER, 0)
    assert [(rank["rank"], rank["world"]) for rank in ranks] == [(0, 2), (1, 2)]
    os.kill(ranks[1]["pid"], signal.SIGKILL)
    until(lambda: len(exits.records(study / FOLDER, 1)) == 2, 200)
    restarted = next(event for event in read_events(study / FOLDER) if event["kind"] == "restarted")
    assert (restarted["after"], restarted["error"]) == ("killed", "rank 1 died of SIGKILL")
    until(lambda: step_of(study) >= 20 and job_status(study)["runs"]["base-s0"]["state"] == "running", 200)
    psutil.Process(job_status(study)["pid"]).kill()
    until(lambda: not members(study / FOLDER), 60)
    run = Run.open(study / "runs" / "base-s0")
    last = int(run.metrics()["step"].max())
    assert job_status(study)["reason"] == "lost" and run.latest_checkpoint().name == f"step-{last:06d}"
    machine.resume("tiny")
    assert end_of(study)["reason"] == "finished"
    found = rows(study / "runs" / "base-s0")
    assert found["batch"].tolist() == straight["batch"].tolist()
    np.testing.assert_allclose(found["loss"], straight["loss"], rtol=1e-3)


def test_four_jobs_at_once_with_two_observers_each(tmp_path):
    studies = [start_toy(tmp_path, steps=80, name=f"job{i}") for i in range(4)]
    seen: dict[tuple[int, int], list] = {}

    def watch(i: int, observer: int) -> None:
        attached = attach(f"job{i}", local(tmp_path))
        seen[i, observer] = [(stream, data) for stream, data in attached.follow(every_s=0.05)]

    threads = [threading.Thread(target=watch, args=(i, o)) for i in range(4) for o in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [end_of(study)["reason"] for study in studies] == ["finished"] * 4
    assert len(local(tmp_path).jobs()) == 4
    for i, study in enumerate(studies):
        for observer in range(2):
            for stream, folder in (("", study / FOLDER), ("base-s0", study / "runs" / "base-s0")):
                assert [d for s, d in seen[i, observer] if s == stream] == read_events(folder)
            steps = [d["step"] for s, d in seen[i, observer] if s == "base-s0#metrics"]
            assert steps == list(range(1, 81))
