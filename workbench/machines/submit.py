"""``submit`` and ``resume``: look at everything the job will need on this machine, then start its supervisor."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.errors import CheckpointError, DataError, DiskFullError, WorkbenchError
from workbench.machines import launch
from workbench.machines.base import Progress
from workbench.machines.exits import last_error
from workbench.machines.job import (
    CONTROL,
    FOLDER,
    FORMAT,
    META,
    OUTPUT,
    RECIPE,
    drop_none,
    job_folder,
    job_status,
    meta,
    need,
    root_of,
)
from workbench.machines.processes import MARK
from workbench.models import model_folder
from workbench.recipe import Recipe, load_recipe, recipe_hash, to_yaml
from workbench.runs.events import utc_now
from workbench.runs.files import RunError, check_name, disk_guard, is_disk_full, pretty_json, write_atomic
from workbench.runs.status import read_heartbeat
from workbench.runs.supervised import ATTEMPT

ROOM = 64 << 20  # bytes that must be free beside what the weights need
MAKING_S = 30.0  # a job's directory takes far less; the maker of one that takes longer was killed
STARTING = "start.lock"  # held while a supervisor is being started
COPIES = 3  # of the weights a checkpoint needs room for: themselves and Adam's two moments


def submit(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Verb: {root, name, recipe_yaml, overrides?, quick?, seeds?, arms?, workdir?} -> {job, pid, notes}.

    The job is ``ROOT/NAME``. Relative paths of the recipe start from ``workdir`` (default: where the agent
    works). Returns when the supervisor has given its first sign of life.

    Raises:
        RecipeError: the recipe does not validate here.
        WorkbenchError: the name is taken, data, weights or launcher are not here, the disk is full.
    """
    root, name = root_of(request), check_name("job", str(need(request, "name")))
    workdir = Path(request.get("workdir") or Path.cwd()).expanduser().absolute()
    study = root / name
    if (answered := _answered_before(study, request)) is not None:
        return answered
    _name_is_free(study)
    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(str(need(request, "recipe_yaml")), encoding="utf-8")
        recipe = load_recipe(path, request.get("overrides"))
    launch.check_launcher(recipe.machine)
    notes = check_inputs(recipe, workdir)
    choices = drop_none({key: request.get(key) for key in ("quick", "seeds", "arms")})
    try:
        _make(study, recipe, workdir, choices, notes, request.get("id"))
    except RunError:  # the same request, sent twice over a line that stalled, is being answered beside us
        if (answered := _answered_before(study, request)) is None:
            raise
        return answered
    # the same request beside us may find the job made and start it before we do
    return {"job": name, "pid": _start_once(study), "notes": notes}


def resume(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Verb: {root, job} -> {job, pid}: a new supervisor for a job that has ended before its recipe was done.

    Raises:
        WorkbenchError: the job works still, or is finished.
    """
    study = job_folder(request)
    state = job_status(study)["state"]
    key, known = request.get("id"), meta(study)
    if state in ("starting", "running", "stopping"):
        if key is not None and known.get("resume_request") == key:  # its answer was lost on the way
            return {"job": study.name, "pid": _start_once(study)}
        raise WorkbenchError(
            f"resume the job {study.name!r}", f"it has not ended ({state})", "Wait, or stop it first"
        )
    if state == "finished":
        raise WorkbenchError(
            f"resume the job {study.name!r}", "it is finished", "Submit it under another name"
        )
    recipe = load_recipe(study / FOLDER / RECIPE)
    launch.check_launcher(recipe.machine)
    check_inputs(recipe, Path(known["workdir"]))
    if key is not None:
        write_atomic(study / FOLDER / META, pretty_json({**known, "resume_request": key}))
    return {"job": study.name, "pid": start(study)}


def _answered_before(study: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The answer when this very request made the job already: a connection broke, and it was sent again."""
    key = request.get("id")
    until = time.monotonic() + MAKING_S
    while key is not None and (study / FOLDER).is_dir():
        if (study / FOLDER / META).is_file():
            about = meta(study)
            if about.get("request") != key:
                return None
            return {"job": study.name, "pid": _start_once(study), "notes": about["notes"]}
        if time.monotonic() > until:
            return None
        time.sleep(0.05)
    return None


def _start_once(study: Path) -> int:
    """The pid of the job's supervisor, started unless the first of two equal requests did, or does, that."""
    with (study / FOLDER / STARTING).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the other one's supervisor has given its first sign of life
        beat = read_heartbeat(study / FOLDER)
        return int(beat["pid"]) if "pid" in beat else start(study)


# -- before anything starts --------------------------------------------------------------------------------


def _name_is_free(study: Path) -> None:
    if not study.exists():
        return
    todo = "Choose another name (--name)"
    found = f"{study} is there already"
    if (study / FOLDER / META).is_file():
        state = job_status(study)["state"]
        found = f"a job of that name is there ({state})"
        if state not in ("starting", "running", "stopping", "finished"):
            todo += f", or go on with it: workbench resume {study.name}"
    raise RunError(f"start a job called {study.name!r}", found, todo)


def check_inputs(recipe: Recipe, workdir: Path) -> list[str]:
    """That the data and weights a recipe names are on this machine. Rows are read by the job itself.

    Returns:
        What the user should know: data that will be made, weights that may be downloaded.

    Raises:
        DataError, CheckpointError: something is not here.
    """
    notes = []
    data = workdir / recipe.data.root
    asked = f"start {recipe.name} on this machine"
    if not workdir.is_dir():
        raise WorkbenchError(
            asked, f"its working directory {workdir} does not exist", "Set workdir of the machine"
        )
    if not data.is_dir():
        if recipe.data.make is None:
            todo = "Copy the data there, or set data.root to where it lies on that machine"
            raise DataError(asked, f"its data folder {data} does not exist here", todo, "data.root")
        notes.append(f"the data is made first: workbench data make {recipe.data.make}")
    else:
        for name, source in recipe.data.sources.items():
            if not (data / source.path).is_file():
                todo = "Copy it there, or correct the path"
                found = f"{data / source.path} does not exist here"
                raise DataError(asked, found, todo, f"data.sources.{name}")
    for key in ("checkpoint", "encoder_weights", "llm_weights"):
        value = getattr(recipe.model, key)
        if value is None:
            continue
        path = workdir / Path(value).expanduser()
        if (model_folder(path) / "config.json").is_file():
            continue
        if path.exists() or value.startswith((".", "/", "~")) or value.count("/") != 1:
            found = f"{path} {'has no config.json' if path.is_dir() else 'does not exist here'}"
            todo = "Copy the weights there, or correct the path"
            raise CheckpointError(asked, found, todo, f"model.{key}")
        if not _in_hub_cache(value):
            notes.append(f"{value} is not in this machine's Hugging Face cache: it will be downloaded")
    return notes


def _in_hub_cache(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def _weights_bytes(recipe: Recipe, workdir: Path) -> int:
    total = 0
    for value in (recipe.model.checkpoint, recipe.model.encoder_weights, recipe.model.llm_weights):
        folder = None if value is None else workdir / Path(value).expanduser()
        if folder is not None and folder.is_dir():
            total += sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return total


# -- starting ----------------------------------------------------------------------------------------------


def _make(
    study: Path,
    recipe: Recipe,
    workdir: Path,
    choices: dict[str, Any],
    notes: list[str],
    request_id: str | None,
) -> None:
    """Write the job's directory; ``job.json`` comes last and makes it a job. It remembers which request made
    it, so that the same one, sent again after a cut connection, finds its job.
    """
    job = study / FOLDER
    with disk_guard("start a job", study):
        try:
            study.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if is_disk_full(error):
                raise
            todo = "Set `root` of the machine to a folder you may write to"
            raise WorkbenchError("start a job", f"{study.parent}: {error.strerror}", todo) from None
        free, needed = shutil.disk_usage(study.parent).free, ROOM + COPIES * _weights_bytes(recipe, workdir)
        if free < needed:
            found = f"{free >> 20} MiB are free in {study.parent}, a checkpoint needs {needed >> 20}"
            raise DiskFullError(f"start {recipe.name}", found, "Free some space, or set another root")
        try:
            study.mkdir()
        except FileExistsError:
            _name_is_free(study)
        (job / CONTROL).mkdir(parents=True)
        write_atomic(job / RECIPE, to_yaml(recipe).encode())
        machine = recipe.machine
        about = {
            "format": FORMAT,
            "name": study.name,
            "submitted": utc_now(),
            "recipe_hash": recipe_hash(recipe),
            "workbench": __version__,
            "launcher": machine.launcher,
            "processes": machine.processes,
            "restarts": machine.restarts,
            "grace_s": machine.grace_s,
            "workdir": str(workdir),
            "argv": launch.program(job / RECIPE, study.parent, study.name, **choices),
            "notes": notes,
            "request": request_id,
        }
        write_atomic(job / META, pretty_json(about))


def start(study: Path) -> int:
    """Start the supervisor of a job, detached; returns its pid once it lives.

    Raises:
        WorkbenchError: it did not come up; with what it said.
    """
    job = study / FOLDER
    # a kernel that is itself inside a job must not lend the supervisor that job's mark, nor torchrun's ranks
    rank_of_other = (MARK, ATTEMPT, "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
    environment = {key: value for key, value in os.environ.items() if key not in rank_of_other}
    with (job / OUTPUT).open("ab") as output:
        done = subprocess.run(  # ends as soon as the supervisor has given its first sign of life
            [sys.executable, "-m", "workbench.machines.supervisor", str(study)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
            check=False,
        )
    if done.returncode == 0:
        return int(read_heartbeat(job)["pid"])
    said = last_error((job / OUTPUT).read_text(errors="replace")) or "it said nothing"
    found = f"its supervisor did not come up: {said}"
    raise WorkbenchError(f"start the job {study.name!r}", found, "See the log", str(job / OUTPUT))
