"""``kill -9`` loses nothing that was acknowledged; a copy taken at any moment (a power cut) always opens."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from workbench.runs import Run, read_events, read_metrics, read_scores

ROOT = Path(__file__).parents[2]


def start(directory: Path, seed: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.runs.writer", str(directory), str(seed)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and "resumed" in process.stdout.readline()
    return process


def consistent(directory: Path) -> None:
    """What must hold in any state: no gap in numbers, no step twice, whole tables, whole checkpoints."""
    assert [event["seq"] for event in read_events(directory)] == list(range(len(read_events(directory))))
    steps = read_metrics(directory)["step"].tolist()
    assert steps == sorted(set(steps)) and steps == list(range(1, len(steps) + 1))
    scores = read_scores(directory)
    for name in set(scores["table"]):
        table = scores[scores["table"] == name]
        assert table["value"].tolist() == list(range(5)) and table["step"].nunique() == 1
    for path in Run.open(directory).checkpoints():
        step = int((path / "step").read_text())
        assert path.name == f"step-{step:06d}" and set((path / "weights").read_bytes()) == {step % 256}
    Run.open(directory).latest_checkpoint()  # verifies sizes


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    directory, rng = tmp_path / "run", random.Random(0)
    for session in range(3):
        process = start(directory, session)
        time.sleep(rng.uniform(0.1, 0.5))
        process.send_signal(signal.SIGKILL)
        assert process.stdout is not None
        facts = [json.loads(line) for line in process.stdout if line.endswith("}\n")]
        process.wait()
        run = Run.open(directory)
        assert run.status().state == "lost"
        consistent(directory)
        last = {key: fact[key] for fact in facts for key in fact}
        assert last["step"] > 0 and read_metrics(directory)["step"].max() >= last["step"]
        assert len(read_events(directory)) > last.get("seq", 0)
        scores = read_scores(directory)
        for fact in facts:
            if "scores" in fact:
                assert scores.loc[scores["table"] == fact["scores"], "step"].min() >= fact["at"]
        if "checkpoint" in last:
            latest = run.latest_checkpoint()
            assert latest is not None and int((latest / "step").read_text()) >= last["checkpoint"]
    run = Run.create(directory, "name: crash\n")
    run.event("note")
    assert not list(directory.rglob("*.tmp")) and not list(directory.rglob("*.partial"))
    run.finish("finished")
    consistent(directory)


def test_a_frozen_copy_at_any_moment_opens_and_can_be_resumed(tmp_path):
    """The writer is stopped (SIGSTOP) in whatever it is doing: the copy is what a power cut leaves."""
    directory, rng = tmp_path / "run", random.Random(3)
    process = start(directory, 3)
    try:
        for i in range(25):
            time.sleep(rng.uniform(0.0, 0.06))
            process.send_signal(signal.SIGSTOP)
            shutil.copytree(directory, tmp_path / f"copy-{i}")
            process.send_signal(signal.SIGCONT)
    finally:
        process.kill()
        process.communicate()
    for i in range(25):
        consistent(tmp_path / f"copy-{i}")
    for i in range(0, 25, 5):
        run = Run.create(tmp_path / f"copy-{i}", "name: crash\n")
        before = len(run.events())
        run.event("note")
        assert len(run.events()) == before + 2  # with `reopen`
        run.finish("finished")
        consistent(tmp_path / f"copy-{i}")


def test_a_lost_tail_of_any_length_still_opens(tmp_path):
    """A power cut may also lose the unsynced end of every append-only file: cut them anywhere."""
    directory = tmp_path / "run"
    command = [sys.executable, "-m", "tests.runs.writer", str(directory), "5", "60"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rng = random.Random(5)
    for i in range(20):
        cut = tmp_path / f"cut-{i}"
        shutil.copytree(directory, cut)
        for name in ("events.jsonl", "metrics/tail.jsonl", "metrics/drops.jsonl", "heartbeat"):
            size = (cut / name).stat().st_size
            with (cut / name).open("r+b") as file:
                file.truncate(rng.randrange(size + 1))
        consistent(cut)
        run = Run.open(cut)
        assert run.status().state in ("finished", "lost", "running")
        run.metric(10_000)
        run.finish("finished")
        assert run.metrics()["step"].max() == 10_000


def test_reading_while_another_process_writes_is_always_consistent(tmp_path):
    directory = tmp_path / "run"
    process = start(directory, 7)
    try:
        seen = read_events(directory)
        steps = 0
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            seen += read_events(directory, len(seen))  # following: what a live view does
            found = read_metrics(directory)["step"].tolist()
            assert found == list(range(1, len(found) + 1)) and len(found) >= steps
            steps = len(found)
    finally:
        process.kill()
        process.communicate()
    seen += read_events(directory, len(seen))
    assert seen == read_events(directory) and steps > 10
