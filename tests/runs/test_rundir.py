"""One run from creation to its end and back: what was written is what is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workbench.errors import CheckpointError, DataError, Interrupted
from workbench.runs import Run, RunError, read_events, read_metrics, read_scores

RECIPE = "name: x\n"
META = {"arm": "fixed-2", "seed": 0, "study": "trap"}


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", RECIPE, META)


def fill(path: Path, text: str = "weights") -> None:
    (path / "model").mkdir()
    (path / "model" / "w.bin").write_text(text)


def test_a_new_run_has_its_files(run):
    names = {path.name for path in run.directory.iterdir()}
    assert {"run.json", "recipe.yaml", "environment.json", "events.jsonl", "heartbeat", "control"} <= names
    meta = json.loads((run.directory / "run.json").read_text())
    assert meta.items() >= META.items() and meta["format"] == 1
    assert (run.directory / "recipe.yaml").read_text() == RECIPE
    found = json.loads((run.directory / "environment.json").read_text())
    assert found["packages"]["torch"] and found["python"].startswith("3.") and found["cpus"] == os.cpu_count()
    text = json.dumps(found)
    private = [os.environ.get(name, "") for name in ("USER", "LOGNAME", "HOME", "HOSTNAME", "PATH")]
    assert not [value for value in private if len(value) > 4 and value in text]


def test_events_are_numbered_without_gaps_from_several_threads(run):
    def work(name: int) -> None:
        for i in range(100):
            run.event("note", name=name, i=i)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = read_events(run.directory)
    assert [event["seq"] for event in events] == list(range(401))
    for name in range(4):
        assert [event["i"] for event in events if event.get("name") == name] == list(range(100))
    assert read_events(run.directory, 399) == events[399:] and read_events(run.directory, 9999) == []
    times = [event["time"] for event in events]
    assert times == sorted(times) and times[0].endswith("+00:00")


def test_reserved_keys_and_damaged_logs_are_refused(run):
    with pytest.raises(ValueError, match="seq"):
        run.event("note", seq=3)
    run.event("note")
    path = run.directory / "events.jsonl"
    lines = path.read_text().splitlines()
    path.write_text(lines[1] + "\n")
    with pytest.raises(RunError, match="seq 1 where 0") as caught:
        read_events(run.directory)
    assert caught.value.where == f"{path}:1"
    path.write_text("not json\n" + lines[1] + "\n")
    with pytest.raises(RunError, match="not an event"):
        read_events(run.directory)


def test_metrics_come_back_over_parts_and_tail(run):
    rows = [{"step": i, "stage": "a" if i < 1500 else "b", "loss": 1 / i} for i in range(1, 2301)]
    for row in rows:
        run.metric(**row, **({"extra": row["step"]} if row["step"] > 2000 else {}))
    assert len(list((run.directory / "metrics").glob("part-*.parquet"))) == 2
    table = read_metrics(run.directory)
    assert table["step"].tolist() == list(range(1, 2301)) and list(table.columns) == [
        "step",
        "stage",
        "loss",
        "extra",
    ]
    assert np.allclose(table["loss"], [row["loss"] for row in rows]) and table["extra"].notna().sum() == 300
    run.finish("finished")
    pd.testing.assert_frame_equal(read_metrics(run.directory), table, check_dtype=False)
    assert (run.directory / "metrics" / "tail.jsonl").read_bytes() == b""


def test_non_finite_metrics_stay_what_they_are(run):
    values = [1.0, float("nan"), float("inf"), float("-inf")]
    for step, value in enumerate(values):
        run.metric(step, loss=value)
    assert np.array_equal(read_metrics(run.directory)["loss"], values, equal_nan=True)
    run.beat(4, 4)
    assert run.status().loss == float("-inf")
    run.finish("finished")
    assert np.array_equal(read_metrics(run.directory)["loss"], values, equal_nan=True)


def test_an_empty_run_reads_as_empty_tables(run):
    assert len(read_metrics(run.directory)) == 0 and "step" in read_metrics(run.directory)
    assert len(read_scores(run.directory)) == 0


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("sealed", [False, True])
def test_after_a_resume_no_step_is_read_twice(run, first, sealed):
    """Loops count steps from ``first`` = 0 or 1; the checkpoint says how many are done."""
    for step in range(first, 10 + first):
        run.metric(step, session=1)
    if sealed:
        run.finish("interrupted")
    again = Run.create(run.directory, RECIPE, META)
    done = 6
    again.drop_after(done)
    assert read_metrics(run.directory)["step"].max() == done
    for step in range(done + first, 12 + first):
        again.metric(step, session=2)
    again.finish("interrupted")
    third = Run.open(run.directory)
    third.drop_after(11 + first)
    third.metric(12 + first, session=3)
    table = read_metrics(run.directory)
    assert table["step"].tolist() == list(range(first, 13 + first))
    assert table["session"].tolist() == [1] * done + [2] * 6 + [3]


def test_scores_are_tables_by_name(run):
    one = pd.DataFrame({"sample_id": ["a", "b"], "correct": [True, False]})
    run.write_scores("image-000010-own", one)
    run.write_scores("image-000020-own", one.iloc[:1])
    run.write_scores("image-000020-own", one.iloc[1:])
    table = read_scores(run.directory)
    assert table["table"].tolist() == ["image-000010-own"] * 2 + ["image-000020-own"]
    assert table["sample_id"].tolist() == ["a", "b", "b"]
    with pytest.raises(RunError):
        run.write_scores("../x", one)


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


def test_requests_are_taken_once_and_a_stop_for_a_dead_session_is_forgotten(run):
    assert run.requests() == frozenset()
    Run.open(run.directory).ask("stop")
    (run.directory / "control" / "checkpoint").touch()
    assert run.requests() == {"stop", "checkpoint"} and run.requests() == frozenset()
    with pytest.raises(RunError):
        run.ask("dance")
    run.finish("interrupted")
    run.ask("stop")
    again = Run.open(run.directory)
    time.sleep(0.02)
    again.ask("checkpoint")  # asked while the new session was starting: meant for it
    again.event("note")
    assert again.requests() == {"checkpoint"}


def test_create_resumes_the_same_recipe_and_refuses_others(run, tmp_path):
    assert Run.create(run.directory, RECIPE, META).meta == run.meta
    with pytest.raises(RunError, match="another recipe"):
        Run.create(run.directory, "name: y\n", META)
    with pytest.raises(RunError, match="already"):
        Run.create(run.directory, RECIPE, META, resume=False)
    hashed = Run.create(tmp_path / "h", "a: 1\n", {"recipe_hash": "1"})
    assert (
        Run.create(hashed.directory, "a: 2 # other machine\n", {"recipe_hash": "1"}).meta["recipe_hash"]
        == "1"
    )
    with pytest.raises(RunError, match="recipe diff"):
        Run.create(hashed.directory, "a: 1\n", {"recipe_hash": "2"})
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("x")
    with pytest.raises(RunError, match="other files"):
        Run.create(other, RECIPE)
    with pytest.raises(RunError, match=r"run\.json"):
        Run.open(other)
    (run.directory / "run.json").write_text('{"format": 99}')
    with pytest.raises(RunError, match="format 99"):
        Run.open(run.directory)


def test_a_creation_that_was_cut_can_be_repeated(run):
    (run.directory / "run.json").unlink()
    (run.directory / "events.jsonl").unlink()
    (run.directory / "heartbeat").unlink()
    assert Run.create(run.directory, RECIPE, META).status().state == "running"


def test_states(run):
    assert run.status().state == "running" and run.status().step is None
    run.beat(0, 10)
    time.sleep(0.05)
    run.metric(5, loss=0.5)
    run.beat(5, 10)
    run.beat(10, 10)
    status = run.status()
    assert (status.step, status.total, status.loss, status.pid) == (10, 10, 0.5, os.getpid())
    for reason in ("interrupted", "failed", "finished"):
        run.finish(reason, "because" if reason == "failed" else None)
        assert run.status().state == reason
        assert run.status().error == ("because" if reason == "failed" else None)
        assert Run.create(run.directory, RECIPE, META).status().state == reason, "opening is not resuming"
        if reason != "finished":
            run.event("note")
            assert run.status().state == "running"
    run.write_scores("late", pd.DataFrame({"a": [1]}))
    assert run.status().state == "finished", "scores may be added to a finished run"


def test_time_left_is_this_sessions_speed(run):
    run.beat(100, 1000)
    time.sleep(0.3)
    run._heart._written = -10.0  # the next beat is written at once
    run.beat(400, 1000)
    assert run.status().eta_s == pytest.approx(0.6, rel=0.3)


def test_a_process_that_died_without_a_word_is_lost(tmp_path):
    code = "import os, sys; from workbench.runs import Run; r = Run.create(sys.argv[1], 'a: 1'); "
    code += "r.beat(3, 9); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "r")], check=False)
    status = Run.open(tmp_path / "r").status()
    assert status.state == "lost" and (status.step, status.total, status.eta_s) == (3, 9, None)
    beat = tmp_path / "r" / "heartbeat"
    elsewhere = json.loads(beat.read_text()) | {"host": "another"}
    beat.write_text(json.dumps(elsewhere))
    assert Run.open(tmp_path / "r").status().state == "running", "on another machine only silence tells"
    beat.write_text(json.dumps(elsewhere | {"epoch": time.time() - 3600}))
    assert Run.open(tmp_path / "r").status().state == "lost"
    beat.write_text(json.dumps(elsewhere | {"host": json.loads(json.dumps(elsewhere))["host"], "epoch": 0}))
    assert Run.open(tmp_path / "r").status(lost_after_s=1e12).state == "running"


def test_a_second_process_cannot_write_the_same_run(run):
    code = "import sys; from workbench.runs import Run; Run.open(sys.argv[1]).event('note')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.directory)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and f"process {os.getpid()} is writing it" in done.stderr
    assert len(run.events()) == 1
    run.close()
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.directory)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [event["kind"] for event in run.events()] == ["start", "reopen", "note"]


def test_the_newest_object_of_a_process_takes_over(run):
    run.metric(1, loss=1.0)
    newer = Run.create(run.directory, RECIPE, META)
    newer.metric(2, loss=2.0)
    run.metric(3, loss=3.0)  # and back: still no number twice
    newer.finish("finished")
    assert read_metrics(run.directory)["step"].tolist() == [1, 2, 3]
    assert [event["seq"] for event in run.events()] == list(range(len(run.events())))


def test_leaving_with_an_error_says_so(tmp_path):
    for error, state in (
        (ValueError("bad"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (Interrupted("a", "b", "c"), "interrupted"),
        (DataError("a", "b", "c"), "failed"),
    ):
        directory = tmp_path / type(error).__name__
        with pytest.raises(type(error)), Run.create(directory, RECIPE):
            raise error
        assert Run.open(directory).status().state == state
    with Run.create(tmp_path / "fine", RECIPE) as fine:
        fine.metric(1)
        fine.finish("finished")
    assert fine.status().state == "finished" and len(fine.metrics()) == 1


def test_a_changed_environment_is_noted_on_reopening(run):
    run.finish("interrupted")
    path = run.directory / "environment.json"
    before = json.loads(path.read_text())
    before["packages"]["torch"] = "0.0.1"
    path.write_text(json.dumps(before))
    run.event("note")
    changed = next(event for event in run.events() if event["kind"] == "reopen")["environment_changed"]
    assert changed["torch"][0] == "0.0.1" and set(changed) == {"torch"}


def test_a_finished_run_of_100_000_events_opens_in_a_second_without_torch(tmp_path):
    directory = tmp_path / "big"
    run = Run.create(directory, RECIPE)
    run._log()
    line = '{"seq":%d,"time":"2026-01-01T00:00:00.000000+00:00","kind":"note","text":"%s","step":%d}\n'
    with (directory / "events.jsonl").open("a") as file:
        file.writelines(line % (seq, "x" * 60, seq) for seq in range(1, 100_000))
    run._close_files()
    run.finish("finished")
    code = """
import sys, time
began = time.perf_counter()
from workbench.runs import Run
run = Run.open(sys.argv[1])
status, events = run.status(), run.events()
seconds = time.perf_counter() - began
assert status.state == "finished" and len(events) == 100_002, len(events)
assert "torch" not in sys.modules and "pandas" not in sys.modules
print(seconds)
"""
    best = min(
        float(
            subprocess.run(
                [sys.executable, "-c", code, str(directory)], capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(3)
    )
    assert best < 1.0


def test_files_changed_from_outside_are_named(run):
    for step in range(3):
        run.metric(step)
    run.write_scores("suite", pd.DataFrame({"value": [1]}))
    run.finish("interrupted")
    part = next((run.directory / "metrics").glob("part-*"))
    table = run.directory / "scores" / "suite.parquet"
    for path, read in ((part, read_metrics), (table, read_scores)):
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(RunError, match="Parquet") as caught:
            read(run.directory)
        assert caught.value.where == str(path)
        path.unlink()
    (run.directory / "metrics" / "drops.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match="resume"):
        read_metrics(run.directory)
    (run.directory / "metrics" / "tail.jsonl").write_text("[1]\n")
    (run.directory / "metrics" / "drops.jsonl").unlink()
    with pytest.raises(RunError, match="metrics row") as caught:
        read_metrics(run.directory)
    assert caught.value.where.endswith("tail.jsonl:1")
    (run.directory / "environment.json").unlink()
    (run.directory / "metrics" / "tail.jsonl").unlink()
    run.event("note")
    (run.directory / "recipe.yaml").unlink()
    with pytest.raises(RunError, match="another recipe"):
        Run.create(run.directory, RECIPE)
