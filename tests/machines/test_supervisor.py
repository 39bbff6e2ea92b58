"""A supervisor and the processes it owns: how jobs end, restart, stop, and that nothing is left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.machines.toys import end_all, end_of, local, make_toy, start_toy, step_of, until
from workbench.errors import WorkbenchError
from workbench.machines import exits, launch
from workbench.machines.job import FOLDER, OUTPUT, drop, job_status
from workbench.machines.processes import members
from workbench.machines.submit import start
from workbench.runs import Run, read_events
from workbench.runs.files import RunError


def kinds(study: Path) -> list[str]:
    return [event["kind"] for event in read_events(study / FOLDER)]


def rows(study: Path) -> list[int]:
    return Run.open(study / "runs" / "base-s0").metrics()["step"].tolist()


def trainer(study: Path) -> psutil.Process:
    (process,) = members(study / FOLDER)
    return process


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path):
    yield
    end_all(tmp_path)


# -- ends ------------------------------------------------------------------------------------------------------


def test_a_job_is_started_watched_and_recorded(tmp_path):
    study = start_toy(tmp_path)
    supervisor = psutil.Process(job_status(study)["pid"])
    assert (
        os.getsid(supervisor.pid) == supervisor.pid and supervisor.ppid() != os.getpid()
    )  # a child of nobody
    assert os.getpgid(until(lambda: members(study / FOLDER))[0].pid) != os.getpgid(supervisor.pid)
    found = end_of(study)
    assert (found["state"], found["reason"], found["error"]) == ("finished", "finished", None)
    assert found["runs"]["base-s0"]["state"] == "finished" and found["step"] == found["total"] == 20
    assert kinds(study) == ["submitted", "launched", "exited", "finish"]
    assert [event["seq"] for event in read_events(study / FOLDER)] == [0, 1, 2, 3]
    until(lambda: not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize(
    ("mode", "reason", "says", "starts"),
    [
        ("crash", "failed", "ValueError: the seventh step went wrong", 3),
        ("once", "finished", None, 2),
        ("error", "failed", "cannot read the data: a row is broken. Mend the row.", 1),  # again says it again
        ("memory", "out_of_memory", "MemoryError", 3),
        ("segv", "killed", "SIGSEGV", 3),
    ],
)
def test_every_end_has_its_reason_and_a_crash_is_started_again(
    tmp_path, monkeypatch, mode, reason, says, starts
):
    study = start_toy(tmp_path, mode, restarts=2, name=mode)
    found = end_of(study)
    assert found["reason"] == reason
    assert found["error"] is None if says is None else says in found["error"]
    assert kinds(study).count("launched") == starts and kinds(study).count("restarted") == starts - 1
    if reason == "finished":
        assert rows(study) == list(range(1, 21))  # it went on from the checkpoint of step 5, nothing twice
    attempts = [e["attempt"] for e in read_events(study / FOLDER) if e["kind"] == "launched"]
    assert attempts == list(range(starts))


def test_kill_9_of_the_trainer_is_recorded_and_the_job_goes_on(tmp_path):
    study = start_toy(tmp_path, steps=40, restarts=1)
    until(lambda: step_of(study) >= 6)
    trainer(study).kill()
    assert end_of(study)["reason"] == "finished" and rows(study) == list(range(1, 41))
    exited = next(e for e in read_events(study / FOLDER) if e["kind"] == "exited")
    restarted = next(e for e in read_events(study / FOLDER) if e["kind"] == "restarted")
    assert exited["signal"] == signal.SIGKILL and restarted["after"] == "killed"


def test_kill_9_of_the_supervisor_lets_the_training_save_and_end(tmp_path):
    study = start_toy(tmp_path, steps=2000)
    until(lambda: step_of(study) >= 6)
    psutil.Process(job_status(study)["pid"]).kill()
    until(lambda: not members(study / FOLDER))
    found = job_status(study)
    assert (found["state"], found["reason"]) == ("lost", "lost") and "workbench resume toy" in found["error"]
    run = Run.open(study / "runs" / "base-s0")
    last = rows(study)[-1]
    assert run.status().state == "interrupted" and 6 <= last < 2000
    assert run.latest_checkpoint().name == f"step-{last:06d}"  # not a step was lost
    local(tmp_path).resume("toy")
    until(lambda: step_of(study) > last + 3)
    assert job_status(study)["state"] == "running"
    drop(study, "stop")
    assert end_of(study)["reason"] == "stopped"
    assert rows(study) == list(range(1, rows(study)[-1] + 1))
    assert kinds(study).count("submitted") == 1 and kinds(study).count("resumed") == 1


# -- stopping --------------------------------------------------------------------------------------------------


def test_stop_finishes_the_step_saves_and_leaves_nothing(tmp_path):
    study = start_toy(tmp_path, steps=2000)
    until(lambda: step_of(study) >= 6)
    made = Run.open(study / "runs" / "base-s0")

    def checkpoint_between_two() -> bool:
        """Asked for until one falls between the toy's own, every fifth step; events, as the next one replaces it."""
        local(tmp_path).signal("toy", "checkpoint")
        time.sleep(0.3)
        return any(int(e["name"][5:]) % 5 for e in made.events() if e["kind"] == "checkpoint")

    until(checkpoint_between_two, 20)
    local(tmp_path).signal("toy", "stop")
    assert job_status(study)["state"] in ("running", "stopping", "stopped")
    assert end_of(study, 20)["reason"] == "stopped"
    last = rows(study)[-1]
    assert made.latest_checkpoint().name == f"step-{last:06d}" and made.status().state == "interrupted"
    with pytest.raises(WorkbenchError, match=r"has ended \(stopped\).*workbench resume toy"):
        local(tmp_path).signal("toy", "stop")


def test_what_does_not_hear_is_ended_after_the_grace_with_its_children(tmp_path):
    study = start_toy(tmp_path, "deaf", steps=100000, grace_s=0.5)
    until(lambda: step_of(study) >= 1 and len(members(study / FOLDER)) == 2)
    drop(study, "stop")
    found = end_of(study, 30)
    assert found["reason"] == "stopped" and "had not stopped after 0.5 s" in found["error"]
    assert found["runs"]["base-s0"]["state"] == "lost"


def test_kill_is_at_once(tmp_path):
    study = start_toy(tmp_path, "deaf", steps=100000)
    until(lambda: step_of(study) >= 1)
    local(tmp_path).signal("toy", "kill")
    found = end_of(study, 10)
    assert (found["reason"], found["error"]) == ("killed", "by request")


def test_a_machine_that_goes_down_stops_the_job(tmp_path):
    """TERM to the supervisor, as a shutdown sends it."""
    study = start_toy(tmp_path, steps=2000, restarts=3)
    until(lambda: step_of(study) >= 2)
    psutil.Process(job_status(study)["pid"]).terminate()
    assert end_of(study, 20)["reason"] == "stopped" and kinds(study).count("launched") == 1


def test_there_is_one_supervisor(tmp_path):
    study = start_toy(tmp_path, steps=2000)
    with pytest.raises(WorkbenchError, match=r"did not come up.*is writing it"):
        start(study)
    with pytest.raises(WorkbenchError, match="it has not ended"):
        local(tmp_path).resume("toy")
    drop(study, "kill")
    end_of(study, 10)


def test_a_supervisor_that_finds_leftovers_ends_them_first(tmp_path):
    """Both the supervisor and the watch inside the trainer were stopped before they could act."""
    study = start_toy(tmp_path, "deaf", steps=100000)
    until(lambda: step_of(study) >= 1)
    old = members(study / FOLDER)
    supervisor = psutil.Process(job_status(study)["pid"])
    supervisor.kill()
    supervisor.wait(10)
    assert job_status(study)["state"] == "stopping" and len(job_status(study)["processes"]) == len(old)
    with pytest.raises(WorkbenchError, match="has not ended"):
        local(tmp_path).resume("toy")
    start(study)
    until(lambda: step_of(study) >= 1)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in old)
    drop(study, "kill")
    end_of(study, 10)


def test_a_full_disk_is_the_reason_and_not_the_end_of_the_record(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], check=False).returncode:
        pytest.skip("mounting a tmpfs needs rights that this machine does not give")
    try:
        study = start_toy(place, steps=100000, restarts=3)
        until(lambda: step_of(study) >= 6)
        with (place / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 512):
                pass
        found = end_of(study, 60)
        assert found["reason"] == "failed" and "no space is left" in found["error"]
        assert kinds(study)[-1] == "finish" and kinds(study).count("launched") == 1
        (place / "ballast").unlink()
        local(place).resume("toy")
        until(lambda: step_of(study) > len(rows(study)) - 2 and job_status(study)["state"] == "running")
        drop(study, "stop")
        assert end_of(study, 30)["reason"] == "stopped"
        assert rows(study) == list(range(1, rows(study)[-1] + 1))
    finally:
        end_all(place)
        subprocess.run(["umount", "-l", str(place)], check=True)


# -- launchers -------------------------------------------------------------------------------------------------


def test_every_launcher_starts_the_same_program():
    words = launch.program(Path("r.yaml"), Path("/out"), "n", quick=True, seeds=[1, 2], arms=["a"])
    assert words[:3] == ["workbench", "study", "r.yaml"] and words[-6:] == [
        "--quick",
        "--seeds",
        "1",
        "2",
        "--arms",
        "a",
    ]
    for launcher in ("python", "torchrun", "accelerate", "deepspeed"):
        argv = launch.command(launcher, 2, words)
        assert argv[-len(words) :] == words and argv[1] == "-m"
        assert launcher == "python" or "2" in argv


def test_fewer_processes_than_asked_for_is_an_error(tmp_path):
    """What `accelerate launch --cpu --num_processes 2` does without a word."""
    study = start_toy(tmp_path, processes=2, launcher="python")
    found = end_of(study)
    assert (
        found["reason"] == "failed" and "train on 2 processes: python started a group of 1" in found["error"]
    )
    assert kinds(study).count("launched") == 1 and not (study / "runs").exists()


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_kill_9_of_a_rank(tmp_path, launcher):
    study = start_toy_ranks(tmp_path, launcher)
    until(lambda: step_of(study) >= 2)
    assert len(exits.codes(study / FOLDER, 0)) == 2
    psutil.Process(next(r["pid"] for r in exits.records(study / FOLDER, 0) if r["rank"] == 1)).kill()
    found = end_of(study)
    assert found["reason"] == "killed" and "rank 1 died of SIGKILL" in found["error"], found


def start_toy_ranks(root: Path, launcher: str) -> Path:
    study = make_toy(root, launcher=launcher, processes=2)
    about = (
        (study / FOLDER / "job.json").read_text().replace("tests.machines.toy", "tests.machines.toy_ranks")
    )
    (study / FOLDER / "job.json").write_text(about.replace('"20"', '"2000"'))
    start(study)
    return study


def test_the_last_error_of_an_output():
    said = "step 1\nTraceback (most recent call last):\n  File x\ntorch.OutOfMemoryError: CUDA out of memory\nbye\n"
    assert exits.last_error(said) == "torch.OutOfMemoryError: CUDA out of memory"
    assert (
        exits.last_error("a\r50%\r100%\nworkbench: cannot do it: no. Try.\nmore") == "cannot do it: no. Try."
    )
    assert exits.last_error("") is None and exits.last_error("only this\n\n") == "only this"


def test_kernel_reports_of_memory_are_counted(tmp_path):
    file = tmp_path / "memory.events"
    file.write_text("low 0\nhigh 12\nmax 40\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert exits._oom_count(file) == 2 and exits._oom_count(tmp_path / "none") == 0
    assert exits.oom_kills() >= 0


def test_a_supervisor_that_cannot_start_says_why(tmp_path):
    study = make_toy(tmp_path, format=99)
    with pytest.raises(RunError, match="format 99"):
        job_status(study)
    with pytest.raises(WorkbenchError, match=r"did not come up.*format 99"):
        start(study)
    assert "Traceback" in (study / FOLDER / OUTPUT).read_text()
