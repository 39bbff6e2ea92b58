"""Training in a process that can be killed: children of a fork server that has torch loaded, so that each
starts at once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from functools import lru_cache
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tests.training.studies import world
from workbench.errors import Interrupted
from workbench.recipe import load_recipe
from workbench.study.scheduler import open_study
from workbench.study.tasks import Task


@lru_cache(maxsize=1)
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["workbench.study.worker"])
    return context


def prepare(recipe: Path, out: Path) -> tuple[Path, Task]:
    """The study directory of a recipe without arms, and its one task."""
    study = open_study(load_recipe(recipe), out)
    shared = world().with_name("tiny-cache")  # decoded frames, for all tests: no decoder has to start
    shared.mkdir(exist_ok=True)
    if not (out / "cache").exists():
        (out / "cache").symlink_to(shared)
    (task,) = study.tasks
    return out, task


def start(recipe: Path, out: Path, trap: Callable[[], None] | None = None) -> ForkServerProcess:
    """Train a recipe's stages in a process of its own. ``trap`` runs in it first (a picklable function)."""
    directory, task = prepare(recipe, out)
    child = _context().Process(target=_train, args=(directory, task, trap))
    child.start()
    return child


def run(recipe: Path, out: Path, trap: Callable[[], None] | None = None) -> int:
    """Train to the end and return the exit code; minus the signal's number when one killed it."""
    child = start(recipe, out, trap)
    child.join(120)
    assert child.exitcode is not None
    return child.exitcode


def run_ranks(*arguments: object, count: int = 2) -> list[int]:
    """The command line on ``count`` gloo ranks, as ``torchrun`` would set them up; their exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(word) for word in arguments]
    children = [_context().Process(target=_rank, args=(words, rank, count, port)) for rank in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    return [child.exitcode for child in children]


def _rank(arguments: list[str], rank: int, count: int, port: int) -> None:
    from workbench.cli import main

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os._exit(main(arguments))


def _train(directory: Path, task: Task, trap: Callable[[], None] | None) -> None:
    from workbench.study.worker import run_task

    signal.signal(signal.SIGINT, signal.default_int_handler)
    if trap is not None:
        trap()
    try:
        run_task(directory, task, "the same command")
    except Interrupted as error:
        with contextlib.suppress(OSError):
            (directory / "interrupted.txt").write_text(str(error))
        os._exit(error.exit_code)
