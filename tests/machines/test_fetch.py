"""Fetching: whole files with the right checksum, continued after any cut, and only what was asked for."""

from __future__ import annotations

import json
import random
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.machines.toys import local, make_toy
from workbench.errors import DiskFullError, WorkbenchError
from workbench.machines import fetch as fetching
from workbench.machines.base import Machine, Unreachable
from workbench.machines.fetch import fetch
from workbench.machines.local import LocalTransport
from workbench.runs import Run
from workbench.runs.files import RunError


class Cuts:
    """A transport that breaks after so many requests, counts what was read, and may damage an answer."""

    def __init__(self, calls: int = 10**9, damage=None) -> None:
        self.inner, self.left, self.read, self.damage = LocalTransport(), calls, [], damage

    def call(self, request, on_progress=None):
        if self.left == 0:
            raise Unreachable("reach the machine", "cut", "Wait")
        self.left -= 1
        answer = json.loads(json.dumps(self.inner.call(request, on_progress)))
        if request["verb"] == "read":
            self.read.append((request["path"], request["offset"]))
        return self.damage(request, answer) if self.damage else answer

    def close(self) -> None:
        return None


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(fetching, "PIECE", 20_000)
    made = make_toy(tmp_path / "there")
    run = Run.create(made / "runs" / "base-s0", "name: toy", {"arm": "base"})
    for step in range(1, 1501):
        run.metric(step, loss=1 / step)
        run.event("thing", step=step)
    with run.checkpoint_dir("one") as folder:
        (folder / "weights").write_bytes(np.random.default_rng(0).bytes(150_000))
    run.finish("finished")
    return made


def machine(study: Path, transport: Cuts) -> Machine:
    return Machine("far", transport, str(study.parent))


def same(study: Path, copy: Path, checkpoints: bool) -> None:
    names = {p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()}
    assert not any(name.endswith(".partial") for name in names)
    assert any("checkpoints" in name for name in names) == checkpoints
    for name in names:
        assert (copy / name).read_bytes() == (study / name).read_bytes(), name
    assert {"job/job.json", "runs/base-s0/events.jsonl", "runs/base-s0/run.json"} <= names


@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_fetched_job_is_the_job(study, tmp_path, checkpoints):
    progress = []
    copy = fetch(machine(study, Cuts()), "toy", tmp_path / "here", checkpoints, progress.append)
    same(study, copy, checkpoints)
    assert progress[-1]["done"] == progress[-1]["total"] > 100_000
    run = Run.open(copy / "runs" / "base-s0")
    assert run.status().state == "finished" and len(run.metrics()) == 1500
    again = Cuts()
    fetch(machine(study, again), "toy", tmp_path / "here", checkpoints)
    assert again.read == []  # what is here and right is not fetched again


def test_cut_anywhere_it_goes_on_where_it_was(study, tmp_path):
    draw, reads, attempts = random.Random(3), [], 0
    while True:
        transport = Cuts(draw.randrange(2, 6))
        attempts += 1
        try:
            copy = fetch(machine(study, transport), "toy", tmp_path / "here", checkpoints=True)
            reads += transport.read
            break
        except Unreachable:
            reads += transport.read
    same(study, copy, checkpoints=True)
    assert attempts > 5 and len(reads) == len(set(reads))  # no piece came twice


def test_a_log_that_has_grown_is_only_continued(study, tmp_path):
    copy = fetch(machine(study, Cuts()), "toy", tmp_path / "here")
    before = (copy / "runs" / "base-s0" / "events.jsonl").stat().st_size
    run = Run.open(study / "runs" / "base-s0")
    for step in range(500):
        run.event("later", step=step)
    run.close()
    transport = Cuts()
    fetch(machine(study, transport), "toy", tmp_path / "here")
    offsets = [offset for path, offset in transport.read if path.endswith("base-s0/events.jsonl")]
    assert min(offsets) == before
    same(study, copy, checkpoints=False)


def test_what_lies_here_and_does_not_belong_is_replaced(study, tmp_path):
    copy = tmp_path / "here" / "toy"
    (copy / "runs" / "base-s0").mkdir(parents=True)
    (copy / "runs" / "base-s0" / "events.jsonl").write_bytes(b"x" * 1000)
    (copy / "runs" / "base-s0" / "run.json.partial").write_bytes(b"y" * 10)
    same(study, fetch(machine(study, Cuts()), "toy", tmp_path / "here"), checkpoints=False)


def test_files_that_are_replaced_while_they_are_fetched(study, tmp_path):
    """A heartbeat changes every second: between the list and the read it is another file."""
    beat, count = study / "runs" / "base-s0" / "heartbeat", 0

    def beating(request, answer):
        nonlocal count
        count += 1
        beat.write_text(json.dumps({"n": count}))
        return answer

    copy = fetch(machine(study, Cuts(damage=beating)), "toy", tmp_path / "here")
    assert "n" in json.loads((copy / "runs" / "base-s0" / "heartbeat").read_text())


def test_damage_on_the_way_is_not_kept(study, tmp_path):
    def flip(request, answer):
        if request["verb"] == "files":
            for entry in answer["files"]:
                if entry["path"].endswith("weights"):
                    entry["sha256"] = "0" * 64
        return answer

    with pytest.raises(WorkbenchError, match=r"weights arrive with another checksum"):
        fetch(machine(study, Cuts(damage=flip)), "toy", tmp_path / "here", checkpoints=True)
    assert not (tmp_path / "here" / "toy" / "runs" / "base-s0" / "checkpoints" / "one" / "weights").exists()


@pytest.mark.parametrize("path", ["../../evil", "/tmp/evil", "a/../../../evil"])
def test_a_machine_cannot_write_elsewhere(study, tmp_path, path):
    def lie(request, answer):
        if request["verb"] == "files":
            answer["files"] = [{"path": path, "size": 1, "sha256": "0" * 64}]
        return answer

    with pytest.raises(RunError, match="outside of it"):
        fetch(machine(study, Cuts(damage=lie)), "toy", tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("evil*"))


def test_a_full_disk_here(study, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    try:
        with pytest.raises(DiskFullError, match="fetch runs/base-s0"):
            fetch(local(study.parent), "toy", tmp_path / "here", checkpoints=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    same(study, fetch(local(study.parent), "toy", tmp_path / "here", checkpoints=True), checkpoints=True)
