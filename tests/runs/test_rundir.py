"""A run from creation to its end: who may make it, open it, write it and leave it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from tests.runs.made import META, RECIPE
from workbench.errors import DataError, Interrupted
from workbench.runs import Run, RunError, read_metrics


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
