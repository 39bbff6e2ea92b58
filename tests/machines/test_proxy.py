"""A bad line to a real server during a real run: nothing is lost, nothing comes twice, the run does not notice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from tests.machines.jobs import endless, lines, wait_until
from tests.machines.servers import ROOT, JupyterServer, Proxy, running
from tests.machines.toys import start_toy
from workbench import __version__
from workbench.errors import WorkbenchError
from workbench.machines.attached import attach
from workbench.machines.base import Machine
from workbench.machines.config import JupyterEntry
from workbench.machines.jupyter import JupyterTransport
from workbench.machines.local import LocalTransport
from workbench.runs import read_metrics

VARIABLE = "WB_TEST_TOKEN"


def machine(url: str, root: Path, name: str = "gpu") -> Machine:
    entry = JupyterEntry(kind="jupyter", url=url, token_env=VARIABLE, root=str(root))
    return Machine(name, JupyterTransport(name, entry, lambda message: None), str(root))


def follow(there: Machine, job: str, into: dict[str, list[dict]]) -> threading.Thread:
    def run() -> None:
        for item in attach(f"{there.name}:{job}", there).follow(every_s=0.05):
            into.setdefault(item.stream, []).append(item.data)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def same_as_files(seen: dict[str, list[dict]], study: Path) -> None:
    """The observer has every event of job and runs, in order and once, and the same table of metrics."""
    assert seen[""] == lines(study / "job" / "events.jsonl")
    runs = sorted(path.name for path in (study / "runs").iterdir())
    assert runs
    for run in runs:
        assert seen[run] == lines(study / "runs" / run / "events.jsonl")
        table = read_metrics(study / "runs" / run)
        assert [row["step"] for row in seen[f"{run}#metrics"]] == list(table["step"])
        assert [row["_row"] for row in seen[f"{run}#metrics"]] == list(range(len(table)))


def undisturbed(study: Path) -> None:
    """One attempt, never resumed, steps without a gap."""
    kinds = Counter(event["kind"] for event in lines(study / "job" / "events.jsonl"))
    assert kinds["launched"] == 1 and kinds["restarted"] == 0
    for run in (study / "runs").iterdir():
        kinds = Counter(event["kind"] for event in lines(run / "events.jsonl"))
        assert kinds["start"] == 1 and kinds["reopen"] == kinds["resume"] == 0
        steps = list(read_metrics(run)["step"])
        assert steps == list(range(1, len(steps) + 1)) and steps


@pytest.mark.parametrize("seed", [0])
def test_fifty_cuts_stalls_and_resets(server, home, monkeypatch, seed):
    monkeypatch.setenv(VARIABLE, server.token)
    random, proxy, root = Random(seed), Proxy(server.port), home / "jobs"
    url = f"http://127.0.0.1:{proxy.port}"
    kernels = set(server.kernels())
    first, second = machine(url, root), machine(url, root)
    done: Counter[str] = Counter()
    try:
        breaking = threading.Event()

        def break_it() -> None:  # from the very first request on, submit included
            while sum(done.values()) < 50:
                done[proxy.misbehave(random)] += 1
            breaking.set()

        trouble = threading.Thread(target=break_it, daemon=True)
        trouble.start()
        job = first.submit(endless(home / "recipe"), "trouble")
        seen: list[dict[str, list[dict]]] = [{}, {}]
        observers = [follow(there, job.name, into) for there, into in zip((first, second), seen, strict=True)]
        assert breaking.wait(120)
        wait_until(lambda: any("#metrics" in stream for stream in seen[0]), "the first step")
        assert first.status(job.name)["state"] == "running"
        first.signal(job.name, "stop")
        for observer in observers:
            observer.join(60)
            assert not observer.is_alive()
    finally:
        first.close()
        second.close()
        proxy.close()
    assert sum(done.values()) == 50 and len(done) == 3 and proxy.connections > 50
    for one in seen:
        same_as_files(one, root / "trouble")
    undisturbed(root / "trouble")
    end = lines(root / "trouble" / "job" / "events.jsonl")[-1]
    assert end["kind"] == "finish" and end["reason"] == "stopped"
    assert len(set(server.kernels()) - kernels) == 1, (
        "requests to start a kernel were cut, and one was started"
    )


def test_a_request_sent_again_finds_the_job_it_made(home):
    """Also when both are answered at once, as after a line that stalled; another request finds the name taken."""
    there = Machine("local", LocalTransport(), str(home / "jobs"))
    text = endless(home / "recipe").read_text()
    request = {"verb": "submit", "protocol": 1, "workbench": __version__, "root": str(home / "jobs")}
    request |= {"name": "once", "recipe_yaml": text}
    with ThreadPoolExecutor(2) as pool:
        pids = {answer["pid"] for answer in pool.map(there.transport.call, [{**request, "id": "a"}] * 2)}
    assert {there.transport.call({**request, "id": "a"})["pid"]} == pids and len(pids) == 1
    for other in ({**request, "id": "b"}, request):
        with pytest.raises(WorkbenchError, match="a job of that name is there"):
            there.transport.call(other)
    there.signal("once", "kill")
    wait_until(lambda: there.status("once")["reason"], "the end")
    resume = {
        "verb": "resume",
        "protocol": 1,
        "workbench": __version__,
        "root": str(home / "jobs"),
        "job": "once",
    }
    pid = there.transport.call({**resume, "id": "c"})["pid"]
    assert there.transport.call({**resume, "id": "c"})["pid"] == pid
    with pytest.raises(WorkbenchError, match="has not ended"):
        there.transport.call({**resume, "id": "d"})
    there.signal("once", "kill")
    wait_until(lambda: there.status("once")["reason"], "the end")


def test_two_machines_four_runs_eight_observers(server, home, monkeypatch):
    """Two servers on two ports with a token each; names of jobs are the same on both and are not mixed up."""
    with running(JupyterServer(home / "second")) as second:
        machines, observers, seen = [], [], {}
        for name, one in (("gpu", server), ("other", second)):
            variable = f"{VARIABLE}_{name.upper()}"
            monkeypatch.setenv(variable, one.token)
            entry = JupyterEntry(kind="jupyter", url=one.url, token_env=variable)
            for job in ("a", "b"):
                start_toy(home / name, steps=150, name=job)
                for i in range(2):
                    there = Machine(name, JupyterTransport(name, entry), str(home / name))
                    into = seen.setdefault((name, job, i), {})
                    observers.append(follow(there, job, into))
                    machines.append(there)
        for observer in observers:
            observer.join(90)
            assert not observer.is_alive()
        for (name, job, _), one in seen.items():
            same_as_files(one, home / name / job)
            undisturbed(home / name / job)
            assert one[""][-1]["reason"] == "finished" and len(one["base-s0#metrics"]) == 150
        for there in machines:
            there.close()


FOLLOWER = """
import sys, pathlib
from tests.machines.test_proxy import machine
from workbench import __version__
from workbench.errors import WorkbenchError
from workbench.machines.attached import attach
there = machine(sys.argv[1], pathlib.Path(sys.argv[2]))
for item in attach("gpu:lasting", there).follow(every_s=0.05):
    print(item.stream, item.data.get("seq", item.data.get("_row")), flush=True)
"""


def test_kernel_server_and_client_killed(home, monkeypatch):
    """``kill -9`` of each in turn; whoever attaches afterwards sees all of it."""
    root = home / "jobs"
    with running(JupyterServer(home / "server")) as server:
        monkeypatch.setenv(VARIABLE, server.token)
        there = machine(server.url, root)
        study = start_toy(root, steps=100_000, name="lasting")
        seen: dict[str, list[dict]] = {}
        observer = follow(there, study.name, seen)
        argv = [sys.executable, "-c", FOLLOWER, server.url, str(root)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        client = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
        assert client.stdout is not None and client.stdout.readline()
        os.kill(next(iter(server.kernels().values())), signal.SIGKILL)
        client.kill()
        client.wait()
        client.stdout.close()
        wait_until(lambda: any("#metrics" in stream for stream in seen), "steps after the kernel's death")
        server.kill()
        rows = len(next(rows for stream, rows in seen.items() if "#metrics" in stream))
        run = next((study / "runs").iterdir())
        wait_until(lambda: len(read_metrics(run)) > rows + 20, "training goes on without a server")
        server.start()
        wait_until(lambda: len(seen[f"{run.name}#metrics"]) > rows + 20, "the observer catches up", 60)
        there.signal(study.name, "stop")
        observer.join(60)
        assert not observer.is_alive()
        same_as_files(seen, study)
        undisturbed(study)
        late = attach(f"gpu:{study.name}/{run.name}", machine(server.url, root))
        assert late.events() == lines(run / "events.jsonl")
        assert late.status()["job"] == "stopped"
