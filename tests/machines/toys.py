"""Jobs of the toy program on this machine: made, started, waited for, and nothing left behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.machines import toy
from workbench import __version__
from workbench.machines.base import Machine
from workbench.machines.job import FOLDER, FORMAT, META, RECIPE, job_status
from workbench.machines.local import LocalTransport
from workbench.machines.processes import members
from workbench.machines.submit import start
from workbench.runs.events import utc_now
from workbench.runs.files import pretty_json
from workbench.runs.status import read_heartbeat

ROOT = Path(__file__).parents[2]


def local(root: Path) -> Machine:
    """This machine with its jobs in ``root``; relative paths of recipes start at the project's folder."""
    return Machine("local", LocalTransport(), str(root), str(ROOT))


def make_toy(root: Path, mode: str = "train", steps: int = 20, name: str = "toy", **about: Any) -> Path:
    """The directory of a toy job, not started."""
    study = root / name
    (study / FOLDER / "control").mkdir(parents=True)
    meta = {
        "format": FORMAT,
        "name": name,
        "submitted": utc_now(),
        "recipe_hash": "0",
        "workbench": __version__,
    }
    meta |= {"launcher": "python", "processes": 1, "restarts": 0, "grace_s": 60.0, "workdir": str(ROOT)}
    meta |= {"argv": [toy.__name__, str(study), mode, str(steps)]}
    # what a resume looks at: nothing in it is trained
    recipe: dict[str, Any] = {
        "name": name,
        "model": {"preset": "tiny"},
        "data": {"root": str(root), "sources": {}},
        "arms": {},
    }
    recipe["stages"] = [{"name": "toy", "train": {"llm": 1.0}, "data": {"none": 1}, "steps": 1}]
    recipe["data"]["sources"] = {"none": {"path": f"{name}/{FOLDER}/{META}"}}
    (study / FOLDER / RECIPE).write_text(yaml.safe_dump(recipe))
    (study / FOLDER / META).write_bytes(pretty_json(meta | about))
    return study


def start_toy(root: Path, mode: str = "train", steps: int = 20, name: str = "toy", **about: Any) -> Path:
    study = make_toy(root, mode, steps, name, **about)
    start(study)
    return study


def until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Wait for something that other processes do; returns what it is."""
    began = time.monotonic()
    while not (found := condition()):
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.005)
    return found


def end_of(study: Path, seconds: float = 240.0) -> dict[str, Any]:
    """Wait until a job has ended; its status. Nothing of it may be left."""
    until(lambda: job_status(study)["reason"] is not None, seconds)
    assert members(study / FOLDER) == []
    return job_status(study)


def step_of(study: Path, run: str = "base-s0") -> int:
    row = job_status(study)["runs"].get(run)
    return (row or {}).get("step") or 0


def end_all(folder: Path) -> None:
    """KILL supervisors and processes of every job below ``folder``; for the end of a test that failed."""
    for job in folder.glob(f"**/{FOLDER}"):
        pid = read_heartbeat(job).get("pid")
        if pid and psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            psutil.Process(pid).kill()
        for process in members(job):
            process.kill()
