"""A job's directory read: what it is doing, from its files alone, and the requests dropped into it.

``ROOT/NAME/`` is a study directory; ``ROOT/NAME/job/`` says how it was started and who owns its processes
(``docs/formats.md``). Imports nothing heavy: a status over ssh starts a Python for each request.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.machines.base import Progress
from workbench.machines.processes import members
from workbench.runs import RunStatus, run_status
from workbench.runs.events import last_event
from workbench.runs.files import RunError, check_name, write_atomic
from workbench.runs.status import is_gone, read_heartbeat

FORMAT = 1
FOLDER, META, RECIPE, OUTPUT, CONTROL = "job", "job.json", "recipe.yaml", "output.log", "control"
SIGNALS = ("stop", "checkpoint", "kill")
LOST_AFTER_S = 60.0  # without a heartbeat, where the supervisor's process cannot be looked up


def need(request: dict[str, Any], key: str) -> Any:
    """A key that the verb cannot do without. Raises ``WorkbenchError``."""
    if key not in request:
        verb = request.get("verb")
        raise WorkbenchError(
            f"answer {verb!r}", f"the request has no {key!r}", "Update workbench on both sides"
        )
    return request[key]


def root_of(request: dict[str, Any]) -> Path:
    """The folder of the jobs on this machine, absolute."""
    return Path(need(request, "root")).expanduser().absolute()


def job_folder(request: dict[str, Any]) -> Path:
    """``ROOT/NAME`` of the job that a request names.

    Raises:
        WorkbenchError: no job of that name, or one written by a newer workbench.
    """
    root, name = root_of(request), check_name("job", str(need(request, "job")))
    meta(root / name)
    return root / name


def meta(study: Path) -> dict[str, Any]:
    """``job.json``. Raises ``WorkbenchError``: none, unreadable, or of a newer format."""
    path = study / FOLDER / META
    try:
        found = json.loads(path.read_bytes())
        version = int(found["format"])
    except FileNotFoundError:
        there = "is a folder without one" if study.is_dir() else f"holds no {study.name}"
        place = study if study.is_dir() else study.parent
        raise RunError(
            f"find the job {study.name!r}", f"{place} {there}", "List what is there: workbench jobs MACHINE"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            "read a job", f"its {META} is not readable ({error})", "Restore the file", str(path)
        ) from error
    if version > FORMAT:
        found_text = f"it has format {version}, this workbench knows up to {FORMAT}"
        raise RunError("read a job", found_text, "Update workbench", str(path))
    return found


# -- status ------------------------------------------------------------------------------------------------


def run_names(study: Path) -> list[str]:
    """Runs of a study that have begun, sorted."""
    return sorted(path.parent.name for path in (study / "runs").glob("*/run.json"))


def job_status(study: Path) -> dict[str, Any]:
    """What a job is doing (``status`` below says the keys), without disturbing it."""
    about = meta(study)
    beat = read_heartbeat(study / FOLDER)
    runs = {name: run_status(study / "runs" / name) for name in run_names(study)}
    # read after the runs: a job that has ended by then has runs at least as old as its end
    end = last_event(study / FOLDER, ("launched", "restarted", "stop_asked", "finish", "resumed"))
    kind = None if end is None else end["kind"]
    state, reason, error = "running", None, None
    alive: list[int] = []
    if end is not None and kind == "finish":
        state = reason = end["reason"]
        error = end.get("error")
    elif not beat or is_gone(beat, LOST_AFTER_S):
        alive = [process.pid for process in members(study / FOLDER)]
        state = "stopping" if alive else "lost"
        reason = None if alive else "lost"
        error = "its supervisor died; its processes save and end" if alive else "its supervisor died"
        error += f" (go on with: workbench resume {study.name})" if not alive else ""
    elif kind == "stop_asked":
        state = "stopping"
    elif kind not in ("launched", "restarted"):
        state = "starting"
    tasks = planned_runs(study)
    live = state in ("running", "stopping")
    return {
        "name": study.name,
        "state": state,
        "reason": reason,
        "error": error,
        "submitted": about["submitted"],
        "age_s": max(0.0, time.time() - beat["epoch"]) if "epoch" in beat else None,
        "pid": beat.get("pid"),
        "processes": alive,
        "runs": {name: _run_row(found) for name, found in runs.items()},
        "tasks": {
            "done": sum(found.state == "finished" for found in runs.values()),
            "total": len(tasks) or None,
        },
        "step": sum(found.step or 0 for found in runs.values()),
        "total": sum(found.total or 0 for found in runs.values()) or None,
        "eta_s": _eta(study, tasks, runs) if live else None,
    }


def _run_row(status: RunStatus) -> dict[str, Any]:
    loss = status.loss if status.loss is None or math.isfinite(status.loss) else str(status.loss)
    return {
        "state": status.state,
        "step": status.step,
        "total": status.total,
        "loss": loss,
        "eta_s": status.eta_s,
        "age_s": status.age_s,
        "error": status.error,
    }


def planned_runs(study: Path) -> dict[str, float]:
    """Every run the study will have, with its relative cost; empty before the study has begun."""
    try:
        return {task["id"]: task["cost"] for task in json.loads((study / "study.json").read_bytes())["tasks"]}
    except (OSError, ValueError, KeyError):
        return {}


def _eta(study: Path, tasks: dict[str, float], runs: dict[str, RunStatus]) -> float | None:
    """Seconds to the end, an estimate: what is left of every task at the speed of those that run now."""
    speeds = [  # seconds a unit of cost
        status.eta_s / (tasks[name] * (1 - status.step / status.total))
        for name, status in runs.items()
        if status.eta_s and status.step and status.total and status.step < status.total and name in tasks
    ]
    running = [status.eta_s for status in runs.values() if status.eta_s is not None]
    if not running:
        return None
    waiting = sum(cost for name, cost in tasks.items() if name not in runs or runs[name].state != "finished")
    waiting -= sum(tasks.get(name, 0.0) for name, status in runs.items() if status.state == "running")
    pace = sum(speeds) / len(speeds) if speeds else 0.0
    return max(max(running), (sum(running) + waiting * pace) / max(1, len(running)))


def status(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Verb: {root, job} -> state, reason, error, step, total, eta_s, runs {id: state, step, total, loss, ...}.

    ``state``: starting, running, stopping, then the reason of the end: finished, stopped, failed, killed,
    out_of_memory, lost.
    """
    return job_status(job_folder(request))


def jobs(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Verb: {root} -> {jobs: [...]}; a job that cannot be read is one in state ``damaged``."""
    root, found = root_of(request), []
    for path in sorted(root.glob(f"*/{FOLDER}/{META}")):
        study = path.parents[1]
        try:
            found.append(job_status(study))
        except WorkbenchError as error:
            found.append({"name": study.name, "state": "damaged", "error": str(error), "runs": {}})
    return {"jobs": found}


# -- signals -----------------------------------------------------------------------------------------------


def signal(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Verb: {root, job, what: stop|checkpoint|kill, run?} -> {}; a job that has ended takes nothing.

    Raises:
        WorkbenchError: unknown signal or run, or nobody is there to answer it.
    """
    study, what = job_folder(request), str(need(request, "what"))
    if what not in SIGNALS:
        raise WorkbenchError(
            f"send {what!r} to a job", "it does not know that", f"Use one of {', '.join(SIGNALS)}"
        )
    state = job_status(study)["state"]
    if state not in ("starting", "running", "stopping"):
        todo = (
            "Nothing is left to do" if state == "finished" else f"Go on with: workbench resume {study.name}"
        )
        raise WorkbenchError(f"ask the job {study.name!r} to {what}", f"it has ended ({state})", todo)
    run = request.get("run")
    if run is not None and what == "checkpoint":
        if run not in run_names(study):
            raise no_run(study, run)
        from workbench.runs.control import ask

        ask(study / "runs" / run, "checkpoint")
        return {}
    drop(study, what)
    return {}


def drop(study: Path, what: str) -> None:
    """Put a request into the job's control box; its supervisor takes it within a second."""
    box = study / FOLDER / CONTROL
    box.mkdir(exist_ok=True)
    write_atomic(box / what, b"", sync=False)


def no_run(study: Path, run: str) -> WorkbenchError:
    known = ", ".join(planned_runs(study)) or "none yet"
    return RunError(f"find the run {run!r} of {study.name}", f"it has {known}", "Name one of them")


def drop_none(values: dict[str, Any]) -> dict[str, Any]:
    """The entries that say something: neither None nor False."""
    return {key: value for key, value in values.items() if value is not None and value is not False}
