"""Sinks read back by the tools' own readers: what the run holds, each step and event once, after any interruption."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.toys import end_all, end_of, local, make_toy, start_toy
from workbench.cli.main import main
from workbench.errors import WorkbenchError
from workbench.machines import attach
from workbench.runs import Run, read_events
from workbench.sinks.base import need, said
from workbench.sinks.feed import feed, numbers

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("WORKBENCH_MACHINES", raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    end_all(tmp_path)


def written(root: Path, steps: int = 40) -> Run:
    """A job with one run whose training was resumed once (steps 31 .. 35 twice) and saw a NaN."""
    run = Run.create(make_toy(root) / "runs" / "base-s0", "name: toy", {"arm": "base", "seed": 0})
    for step in range(1, 36):
        run.metric(step, loss=math.nan if step == 7 else 1 / step, stage="a", lr_llm=0.5)
    run._metrics.seal()
    run.event("resume", step=30, checkpoint="step-000030", stage="a", stage_step=30)
    run.drop_after(30)
    for step in range(31, steps + 1):
        run.metric(step, loss=1 / step, stage="a", lr_llm=0.5)
    run.event("evaluated", step=steps, final=True)
    return run


def tensorboard(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], list[str]]:
    """Curves and event texts as TensorBoard reads them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    read.Reload()
    tags = read.Tags()
    curves = {tag: [(item.step, item.value) for item in read.Scalars(tag)] for tag in tags["scalars"]}
    texts = [
        item.tensor_proto.string_val[0].decode() for tag in tags["tensors"] for item in read.Tensors(tag)
    ]
    return curves, sorted(texts)


def steps_of(curve: list[tuple[int, float]]) -> list[int]:
    return [step for step, _ in curve]


def test_tensorboard_reads_every_step_once_and_every_event(tmp_path, capsys):
    run, out = written(tmp_path), tmp_path / "tb"
    for _ in range(2):
        assert main(["sink", "tensorboard", "toy", "--out", str(out)]) == 0
    assert f"tensorboard --logdir {out}" in capsys.readouterr().out
    run.metric(41, loss=0.25, stage="a", lr_llm=0.5)
    run.finish("finished")
    assert main(["sink", "tensorboard", "toy/base-s0", "--out", str(out)]) == 0
    curves, texts = tensorboard(out / "toy" / "base-s0")
    assert set(curves) == {"loss", "lr_llm"}
    assert steps_of(curves["loss"]) == list(range(1, 42)) == steps_of(curves["lr_llm"])
    table = run.metrics().set_index("step")["loss"]
    for step, value in curves["loss"]:
        assert math.isnan(value) if step == 7 else value == pytest.approx(table[step], rel=1e-6)
    assert texts == sorted(said(event) for event in read_events(run.directory))


def test_killed_at_random_while_following_it_has_each_step_once(tmp_path):
    """kill -9 of the sink, again and again, while the training works, is killed itself and resumes."""
    pytest.importorskip("tensorboardX")
    study, out, draw = start_toy(tmp_path, "once", steps=400, restarts=1), tmp_path / "tb", random.Random(0)
    argv = [sys.executable, "-m", "workbench", "sink", "tensorboard", "toy", "--out", str(out)]
    note, kills = out / "toy" / "base-s0" / "workbench.json", 0
    for _ in range(4):
        before = note.read_bytes() if note.exists() else b""
        process = subprocess.Popen([*argv, "--follow"], cwd=ROOT, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while process.poll() is None and (not note.exists() or note.read_bytes() == before):
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.8))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert end_of(study)["reason"] == "finished" and kills
    subprocess.run([*argv], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    curves, texts = tensorboard(out / "toy" / "base-s0")
    assert steps_of(curves["loss"]) == list(range(1, 401))
    assert texts == sorted(said(event) for event in read_events(study / "runs" / "base-s0"))
    _, texts = tensorboard(out / "toy" / "job")
    assert texts == sorted(said(event) for event in read_events(study / "job"))


def test_bytes_beyond_what_was_noted_are_cut_off(tmp_path):
    pytest.importorskip("tensorboardX")
    run, out = written(tmp_path), tmp_path / "tb"
    argv = ["sink", "tensorboard", "toy", "--out", str(out)]
    assert main(argv) == 0
    folder = out / "toy" / "base-s0"
    (file,) = folder.glob("events.out*")
    file.write_bytes(file.read_bytes() + file.read_bytes()[-40:])
    (folder / "events.out.tfevents.9.unknown").write_bytes(b"torn")
    run.finish("finished")
    assert main(argv) == 0
    curves, texts = tensorboard(folder)
    assert steps_of(curves["loss"]) == list(range(1, 41)) and len(texts) == 4
    (folder / "workbench.json").write_text("{")
    with pytest.raises(WorkbenchError, match="not readable"):
        feed_tensorboard(tmp_path, out)


def feed_tensorboard(root: Path, out: Path) -> None:
    from workbench.sinks.tensorboard import TensorBoardSink

    attached = attach("toy", local(root))
    feed(attached, lambda run: TensorBoardSink(out / "toy" / run))


def test_trackio_holds_every_step_and_event_once(tmp_path):
    """In a process of its own: trackio reads its folder when it is imported."""
    pytest.importorskip("trackio")
    run = written(tmp_path)
    argv = [sys.executable, "-m", "workbench", "sink", "trackio", "toy"]
    subprocess.run(argv, cwd=ROOT, check=True)
    run.metric(41, loss=0.25, stage="a", lr_llm=0.5)
    run.finish("finished")
    for _ in range(2):
        subprocess.run(argv, cwd=ROOT, check=True)
    code = """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
print([run.name for run in trackio.Api().runs("toy")])
print(json.dumps(SQLiteStorage.get_logs("toy", "base-s0"), default=str))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, logs = done.stdout.splitlines()[-2:]
    rows = json.loads(logs)
    assert "base-s0" in names
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert sorted(row["step"] for row in rows if "loss" in row) == list(range(1, 42))
    assert losses[40] == 1 / 40 and losses[41] == 0.25 and "nan" in str(losses[7]).lower()
    assert sorted(r["event"] for r in rows if "event" in r) == sorted(
        said(e) for e in read_events(run.directory)
    )


def records(path: Path) -> Iterator[bytes]:
    """The records of wandb's own file: blocks of 32 KiB, in them fragments of checksum, length and type."""
    data, part, at = path.read_bytes(), b"", 7  # after the file's own header
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # too little of the block is left for a fragment
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        if kind == 0:
            return
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the whole, or the last fragment of a record
            yield part
            part = b""


def test_wandb_offline_holds_every_step_once(tmp_path):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    run, out = written(tmp_path), tmp_path / "wandb"
    argv = [sys.executable, "-m", "workbench", "sink", "wandb", "toy", "--out", str(out)]
    subprocess.run(argv, cwd=ROOT, check=True)
    run.metric(41, loss=0.25, stage="a", lr_llm=0.5)
    run.finish("finished")
    subprocess.run(argv, cwd=ROOT, check=True)
    steps, texts, ids = [], "", set()
    for path in sorted(out.rglob("*.wandb")):
        for data in records(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                ids.add(record.run.run_id)
            if record.HasField("history"):
                found = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
                if "loss" in found:
                    steps.append((int(record.history.step.num), found["loss"]))
            if record.HasField("output_logger"):
                texts += record.output_logger.line
    assert ids == {"local-toy-base-s0", "local-toy-job"}
    assert [step for step, _ in steps] == list(range(1, 42)) and float(steps[39][1]) == 1 / 40
    for event in read_events(run.directory):
        assert texts.count(said(event)) == 1


@pytest.mark.parametrize(
    ("package", "extra"), [("tensorboardX", "tensorboard"), ("trackio", "trackio"), ("wandb", "wandb")]
)
def test_what_is_not_installed_says_how(package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(WorkbenchError, match=rf"pip install -e '\.\[{extra}\]'"):
        need(package, extra)


def test_sinks_load_their_package_only_when_opened():
    code = "import sys, workbench.cli.sink, workbench.sinks.feed, workbench.sinks.tensorboard, workbench.sinks.wandb\n"
    code += "import workbench.sinks.trackio; print({'tensorboardX', 'trackio', 'wandb', 'torch'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert done.stdout.strip() == "set()", done.stderr


def test_numbers_are_what_a_curve_can_show():
    row = {
        "_row": 3,
        "step": 4,
        "loss": "-Infinity",
        "stage": "NaN-free",
        "batch": "ab",
        "n": 2,
        "b": True,
        "x": None,
    }
    assert numbers(row) == {"loss": -math.inf, "n": 2.0}
