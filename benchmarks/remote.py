"""How soon is seen here what was written there, does a flood arrive whole, and what does supervision cost?

Run: python benchmarks/remote.py [--seconds 60] [--rate 1000] [--samples 200] [--overhead] [--repeats 8] [--steps 300]

    latency    a run on this computer, seen through a real token-protected Jupyter server on loopback: from just before
               an event is appended to when a follower has it, both by one clock. Events come at random moments, so
               the follower's pause between two looks (0.25 s) is part of it.
    flood      RATE events a second for SECONDS, followed through the same server; every number must arrive once, in
               order, and equal the file.
    overhead   (--overhead) bare `workbench train` beside a job under its supervisor, at the same time, a core each: two equal
               trainings one after the other differ by more than what is looked for. First nobody looks (asked: under 2%),
               then an observer follows it, with server and kernel on the job's own core. Seconds of training are
               those between the first and the last step, by the run's own clock: neither start-up nor loading counts.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import psutil
import yaml
from scipy import stats

from workbench.machines.address import Address
from workbench.machines.attached import EVERY_S, Attached
from workbench.machines.base import Machine
from workbench.machines.config import JupyterEntry
from workbench.machines.jupyter import JupyterTransport
from workbench.runs import Run, read_events
from workbench.runs.events import utc_now
from workbench.runs.files import pretty_json

TOKEN, ROOT = "WORKBENCH_BENCHMARK_TOKEN", Path(__file__).resolve().parents[1]
WORLD = "glyphworld --seed 0 --train-images 120 --train-video-questions 60 --calibration-questions 12 "
WORLD += "--test-images 30 --test-video-questions 24"


@contextmanager
def far_machine(folder: Path) -> Iterator[Machine]:
    """This computer as a kernel of a Jupyter server sees it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ[TOKEN] = secrets.token_hex(24)
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    argv = [
        sys.executable,
        "-m",
        "jupyter_server",
        "--no-browser",
        "--allow-root",
        "--ServerApp.port_retries=0",
    ]
    argv += [f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}"]
    environment = {**os.environ, "JUPYTER_TOKEN": os.environ[TOKEN], "PYTHONPATH": str(ROOT)}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log, env=environment)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if server.poll() is not None:
                raise SystemExit((folder / "server.log").read_text())
            time.sleep(0.1)
        entry = JupyterEntry(kind="jupyter", url=f"http://127.0.0.1:{port}", token_env=TOKEN)
        with Machine("far", JupyterTransport("far", entry), str(folder), str(folder)) as machine:
            machine.hello()  # the kernel is up
            yield machine
    finally:
        server.terminate()
        server.wait(30)


def job_without_training(folder: Path, name: str) -> Run:
    """A job's directory whose one run this process writes."""
    study = folder / name
    (study / "job" / "control").mkdir(parents=True)
    about = {"format": 1, "name": name, "submitted": utc_now(), "recipe_hash": "0", "workbench": "0"}
    (study / "job" / "job.json").write_bytes(pretty_json(about))
    beat = {"pid": os.getpid(), "epoch": time.time() + 1e6}
    (study / "job" / "heartbeat").write_bytes(pretty_json(beat))
    return Run.create(study / "runs" / "base-s0", f"name: {name}", {"arm": "base", "seed": 0})


class Observer(threading.Thread):
    """Follows a run until an event ``over``; keeps each event with the moment it was there."""

    def __init__(self, machine: Machine, job: str) -> None:
        super().__init__(daemon=True)
        self.attached, self.seen = Attached(machine, Address(machine.name, job, "base-s0")), []
        self.start()

    def run(self) -> None:
        for stream, data in self.attached.follow():
            if stream == "base-s0":
                self.seen.append((time.perf_counter(), data))
                if data["kind"] == "over":
                    return


def latency(machine: Machine, folder: Path, samples: int) -> None:
    run, draw, sent = job_without_training(folder, "latency"), Random(0), {}
    observer = Observer(machine, "latency")
    time.sleep(1)
    for _ in range(samples):
        time.sleep(draw.uniform(0.05, 0.25))
        now = time.perf_counter()
        sent[run.event("mark")] = now
    run.event("over")
    observer.join(60)
    took = sorted(1000 * (at - sent[e["seq"]]) for at, e in observer.seen if e["seq"] in sent)
    assert len(took) == samples, f"{len(took)} of {samples} events arrived"
    tenth = len(took) // 10
    print(f"latency, {samples} events: median {statistics.median(took):.0f} ms, 10% to 90%", end=" ")
    print(f"{took[tenth]:.0f} to {took[-1 - tenth]:.0f} ms, longest {took[-1]:.0f} ms (asked: median < 300)")
    print(f"  of it about {1000 * EVERY_S / 2:.0f} ms waiting for the follower's next look")


def flood(machine: Machine, folder: Path, seconds: float, rate: int) -> None:
    run = job_without_training(folder, "flood")
    observer = Observer(machine, "flood")
    time.sleep(1)
    began, total = time.perf_counter(), round(seconds * rate)
    for i in range(total):
        due = began + i / rate
        if (early := due - time.perf_counter()) > 0.002:
            time.sleep(early)
        run.event("flood", i=i, text="x" * 60)
    wrote = time.perf_counter() - began
    run.event("over")
    observer.join(seconds + 120)
    found = [event for _, event in observer.seen]
    same = found == read_events(run.directory)
    print(
        f"flood: {total} events written in {wrote:.1f} s ({total / wrote:.0f}/s); {len(found) - 2} arrived,",
        end=" ",
    )
    print(f"{'each once, in order, equal to the file' if same else 'NOT EQUAL TO THE FILE'};", end=" ")
    print(f"the last one {observer.seen[-1][0] - began - wrote:.2f} s after it was written")
    if not same:
        raise SystemExit(1)


def recipe(folder: Path, steps: int) -> Path:
    """The laptop study's last stage of the base, alone."""
    stage = {
        "name": "instruct",
        "train": {"encoder": 1e-4, "merger": 1.5e-3, "llm": 1.5e-3},
        "data": {"images": 1},
    }
    stage |= {"frames": {"policy": "fixed", "frames": 1}, "steps": steps, "batch": 32, "turns": 1}
    stage |= {"tokens_per_row": 256, "rows_per_micro_batch": 16}
    sources = {"images": {"path": "train/images.jsonl", "skills": ["ocr", "colour", "where", "count"]}}
    content = {"name": "overhead", "model": {"preset": "tiny", "fusion_layers": 0}, "stages": [stage]}
    content |= {"data": {"root": str(folder / "world"), "make": WORLD, "sources": sources}}
    content |= {"machine": {"workers": 1, "threads": 1}}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def training_seconds(run: Path) -> float:
    """Between the starts of the first and the end of the last step, by the events of the run."""
    events = {event["kind"]: event for event in read_events(run)}
    return float(events["stage_end"]["seconds"])


def bare(path: Path, folder: Path, name: str, core: int) -> subprocess.Popen[bytes]:
    """A training that nobody owns or follows, on one core."""
    argv = [sys.executable, "-m", "workbench", "train", str(path), "--out", str(folder / name), "--no-report"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(argv, cwd=ROOT, stdout=quiet, stderr=quiet, stdin=quiet)
    os.sched_setaffinity(process.pid, {core})
    return process


def supervised(machine: Machine, path: Path, folder: Path, name: str, observed: bool) -> float:
    """As a job; ``observed``: followed through the server while it trains."""
    machine.submit(path, name)
    run = folder / name / "runs" / "base-s0"
    if observed:
        steps = sum(
            stream == "base-s0#metrics"
            for stream, _ in Attached(machine, Address(machine.name, name)).follow()
        )
        total = machine.status(name)["total"]
        assert steps == total, f"{steps} of {total} steps seen"
    while machine_end(folder / name) is None:
        time.sleep(0.5)
    assert machine_end(folder / name) == "finished"
    return training_seconds(run)


def machine_end(job: Path) -> str | None:
    """The reason of a job's end, from its file: asking the machine would cost what is measured."""
    events = [json.loads(line) for line in (job / "job" / "events.jsonl").read_text().splitlines()]
    return next((event["reason"] for event in events if event["kind"] == "finish"), None)


def stay_on(core: int) -> None:
    """This process with its observer, the server and its kernels; what they start inherits it."""
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        for thread in process.threads():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, {core})


def overhead(machine: Machine, folder: Path, repeats: int, steps: int) -> None:
    """The same training twice at the same time, a core each; the cores change places from pair to pair.

    Trainer, supervisor, server, kernel and observer share one core, so everything they cost comes out of the training: an
    upper bound. Run one after the other, two equal trainings differ here by more than what is looked for.
    """
    path = recipe(folder, steps)
    assert bare(path, folder, "warm", 0).wait() == 0  # makes the data
    for observed, times in ((False, repeats), (True, repeats // 4 * 2)):
        ratios = []
        for i in range(times):
            stay_on(i % 2)
            name = f"{'seen' if observed else 'alone'}-{i}"
            other = bare(path, folder, f"bare-{name}", 1 - i % 2)
            job = supervised(machine, path, folder, name, observed)
            assert other.wait() == 0
            (run,) = (folder / f"bare-{name}").glob("*/runs/base-s0")
            ratios.append(job / training_seconds(run))
            print(f"  pair {i}: job {job:.2f} s, ratio {ratios[-1]:.4f}", flush=True)
        report(
            ratios,
            f"overhead of supervision and events{' and an observer on the same core' if observed else ''}",
        )


def report(ratios: list[float], what: str) -> None:
    """The mean with its interval over neighbouring pairs, in which each core was the job's once."""
    pairs = [(a * b) ** 0.5 for a, b in zip(ratios[::2], ratios[1::2], strict=True)]
    mean, half = statistics.fmean(pairs), float("inf")
    if len(pairs) > 1:
        half = float(stats.t.ppf(0.975, len(pairs) - 1)) * statistics.stdev(pairs) / len(pairs) ** 0.5
    print(
        f"{what}, {len(ratios)} pairs: mean {mean - 1:+.1%} [{mean - half - 1:+.1%}, {mean + half - 1:+.1%}] (95%)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--repeats", type=int, default=8, help="an even number")
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    print(json.dumps({"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}))
    with tempfile.TemporaryDirectory() as name, far_machine(Path(name)) as machine:
        latency(machine, Path(name), args.samples)
        flood(machine, Path(name), args.seconds, args.rate)
        if args.overhead:
            overhead(machine, Path(name), args.repeats, args.steps)


if __name__ == "__main__":
    main()
