"""Attach and tail: what observers see is what the files hold; nothing missing, nothing twice, in order."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.machines.toys import end_all, end_of, local, make_toy, start_toy, until
from workbench.errors import WorkbenchError
from workbench.machines import Attached, attach, tail
from workbench.machines.address import Address, parse_address
from workbench.machines.base import Machine, Unreachable
from workbench.machines.job import FOLDER
from workbench.machines.local import LocalTransport
from workbench.runs import Run, read_events
from workbench.runs.events import EventLog


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path):
    yield
    end_all(tmp_path)


def raw(path: Path) -> list[dict]:
    """The oracle: every line of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


class Restless:
    """A transport whose connection is away at random, before a request arrives or before its answer does."""

    def __init__(self, seed: int) -> None:
        self.inner, self.draw, self.cuts = LocalTransport(), random.Random(seed), 0

    def call(self, request, on_progress=None):
        fate = self.draw.random()
        if fate < 0.2:
            self.cuts += 1
            raise Unreachable("reach the machine", "cut on the way there", "Wait")
        answer = json.loads(json.dumps(self.inner.call(request, on_progress)))
        if fate < 0.4:
            self.cuts += 1
            raise Unreachable("reach the machine", "cut on the way back", "Wait")
        return answer

    def close(self) -> None:
        return None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("gpu:trap/hybrid-s0", ("gpu", "trap", "hybrid-s0")),
        ("gpu:trap", ("gpu", "trap", None)),
        ("trap", ("local", "trap", None)),
        ("trap/base-s0", ("local", "trap", "base-s0")),
    ],
)
def test_addresses(text, parts):
    assert parse_address(text) == Address(*parts)
    assert parse_address(str(parse_address(text))) == parse_address(text)


@pytest.mark.parametrize("text", ["", ":", "a:b:c", "a/b/c", "a:", "../x", "a b", "gpu:/run"])
def test_bad_addresses(text):
    with pytest.raises(WorkbenchError, match="MACHINE:JOB"):
        parse_address(text)


def test_two_observers_through_cuts_see_the_files_exactly(tmp_path):
    """One from the beginning, one that comes later; the trainer is killed and started again meanwhile."""
    study = start_toy(tmp_path, "once", steps=150, restarts=1)
    seen: list[dict[str, list]] = [{}, {}]
    transports = [Restless(1), Restless(2)]

    def watch(index: int) -> None:
        machine = Machine("far", transports[index], str(tmp_path))
        attached = Attached(machine, Address("far", "toy"))
        for stream, data in attached.follow(every_s=0.02):
            seen[index].setdefault(stream, []).append(data)

    threads = [threading.Thread(target=watch, args=(i,)) for i in range(2)]
    threads[0].start()
    run = study / "runs" / "base-s0"
    until(lambda: (run / "metrics" / "drops.jsonl").exists())
    threads[1].start()
    for thread in threads:
        thread.join(120)
    assert end_of(study)["reason"] == "finished"
    for found, transport in zip(seen, transports, strict=True):
        assert transport.cuts > 5
        assert found[""] == raw(study / FOLDER / "events.jsonl")
        assert found["base-s0"] == raw(run / "events.jsonl")
        assert [row["_row"] for row in found["base-s0#metrics"]] == list(range(len(found["base-s0#metrics"])))
        assert found["base-s0#drops"] == raw(run / "metrics" / "drops.jsonl")
    table = attach("toy/base-s0", local(tmp_path)).metrics()
    pd.testing.assert_frame_equal(table, Run.open(run).metrics())
    assert table["step"].tolist() == list(range(1, 151))


@pytest.mark.parametrize("limit", [1, 900, 1 << 20])
def test_any_limit_gives_the_same_in_the_end(tmp_path, limit):
    study, draw = make_toy(tmp_path), random.Random(limit)
    run = Run.create(study / "runs" / "base-s0", "name: toy", {})
    job, machine = EventLog(study / FOLDER), local(tmp_path)
    cursors: dict[str, int] = {}
    got: dict[str, list[dict]] = {}

    def look() -> bool:
        answer = machine.tail("toy", cursors, limit=limit)
        for stream, items in answer["events"].items():
            got.setdefault(stream, []).extend(items)
        cursors.update(answer["cursors"])
        return answer["more"]

    for step in range(1, 61):
        run.metric(step, loss=float("nan") if step == 7 else 1 / step, stage="a")
        run.event("thing", step=step, text="é" * draw.randrange(40))
        if step % 20 == 0:
            job.append("launched", {"pid": step})
            run._metrics.seal()
            run.drop_after(step - 5)
        if draw.random() < 0.3:
            look()
    while look():
        pass
    assert got["base-s0"] == read_events(run.directory) and got[""] == read_events(study / FOLDER)
    rows = got["base-s0#metrics"]
    assert [row["_row"] for row in rows] == list(range(60)) and [r["step"] for r in rows] == list(
        range(1, 61)
    )
    assert rows[6]["loss"] == "NaN" and len(got["base-s0#drops"]) == 3
    table = attach("toy/base-s0", machine).metrics()
    pd.testing.assert_frame_equal(table, run.metrics())
    assert np.isnan(table["loss"][6])
    run.close()


def test_a_line_that_is_being_written_is_not_given_and_a_replaced_file_is_noticed(tmp_path):
    study, machine = make_toy(tmp_path), local(tmp_path)
    path = study / FOLDER / "events.jsonl"
    line = '{{"seq":{0},"time":"t","kind":"k","n":"{1}"}}\n'
    path.write_text(line.format(0, "a") + line.format(1, "b")[:10])
    assert [e["seq"] for e in machine.tail("toy")["events"][""]] == [0]
    path.write_text(line.format(0, "a") + line.format(1, "b"))
    answer = machine.tail("toy", {"": 1})
    assert [e["seq"] for e in answer["events"][""]] == [1] and answer["cursors"][""] == 2
    # the crash took the torn line away and other, longer lines came: the place remembered is wrong now
    path.write_text(line.format(0, "a") + line.format(1, "longer") + line.format(2, "c"))
    assert [e["seq"] for e in machine.tail("toy", {"": 2})["events"][""]] == [2]
    path.write_text(line.format(5, "a"))
    with pytest.raises(WorkbenchError, match="changed from outside"):
        machine.tail("toy", {"": 0})


def test_a_long_log_is_not_read_again(tmp_path):
    study, machine = make_toy(tmp_path), local(tmp_path)
    log = EventLog(study / FOLDER)
    for _ in range(3000):
        log.append("k", {})
    cursors = machine.tail("toy", limit=1 << 24)["cursors"]
    log.append("last", {})
    (place, *_) = tail._places[study / FOLDER / "events.jsonl"]
    assert place.number == 3000 and place.offset > 100000
    assert [e["kind"] for e in machine.tail("toy", cursors)["events"][""]] == ["last"]


def test_following_a_run_and_asking_it(tmp_path):
    study = start_toy(tmp_path, steps=5000)
    job = attach("toy", local(tmp_path))
    until(lambda: job.status()["step"] >= 3)
    run = attach("toy/base-s0", local(tmp_path))
    assert run.status()["job"] == "running" and run.status()["state"] == "running"
    first = next(item for item in run.follow(from_start=False) if item.stream == "base-s0#metrics")
    assert first.data["_row"] >= 3
    run.checkpoint()
    run.stop()
    assert job.wait(30)["reason"] == "stopped"
    assert run.events()[-1]["kind"] == "finish" and job.events()[-1]["reason"] == "stopped"
    assert run.events(from_seq=2) == read_events(study / "runs" / "base-s0")[2:]
    with pytest.raises(WorkbenchError, match="the address names a job"):
        job.evaluate(suite="image")
    with pytest.raises(WorkbenchError, match="find the run 'none'"):
        attach("toy/none", local(tmp_path))
    job.resume()
    with pytest.raises(WorkbenchError, match=r"after 0\.1 s"):
        job.wait(0.1)
    job.kill()
    assert job.wait(30)["reason"] == "killed"


def test_a_follower_gives_up_after_its_patience(tmp_path):
    make_toy(tmp_path)

    class Away(Restless):
        def call(self, request, on_progress=None):
            raise Unreachable("reach the machine", "it is away", "Wait")

    attached = Attached(Machine("far", Away(0), str(tmp_path)), Address("far", "toy"))
    with pytest.raises(Unreachable, match="it is away"):
        list(attached.follow(every_s=0.01, patience_s=0.1))


def test_stop_by_hand_in_a_run_is_a_stop_of_the_job(tmp_path):
    study = start_toy(tmp_path, steps=5000)
    until(lambda: (study / "runs" / "base-s0" / "control").is_dir())
    until(lambda: attach("toy", local(tmp_path)).status()["step"] > 1)
    Run.open(study / "runs" / "base-s0").ask("stop")
    assert end_of(study, 30)["reason"] == "stopped"
    with pytest.raises(WorkbenchError):
        attach("nowhere", local(tmp_path))
