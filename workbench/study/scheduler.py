"""Run a study: tasks in parallel worker processes, each with few threads; resumable at any moment.

Two single-thread workers beat one two-thread worker on tiny models, and a task that is finished is never run
again: rerunning the same command after Ctrl-C, a crash or a kill goes on from each run's last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait as wait_for_processes
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from workbench.errors import DiskFullError, Interrupted, RecipeError, WorkbenchError
from workbench.recipe import Recipe, recipe_hash, to_yaml
from workbench.runs import Run, environment
from workbench.study.tasks import BASE, Task, make_tasks, work
from workbench.training.stopping import StopRequest

POLL_S = 1.0
MEMORY_EVERY = 5  # polls: reading every process's pages costs milliseconds
STOP_SIGNALS = (signal.SIGINT, signal.SIGUSR1)  # what makes a worker finish its step, save and return


class WorkerKilled(WorkbenchError):
    """A worker process died of a signal; ``exit_code`` is 128 + its number, as a shell would say it."""


@dataclass
class Study:
    """One recipe's place in the pool: its directory and tasks."""

    recipe: Recipe
    directory: Path
    seeds: tuple[int, ...]
    tasks: list[Task]
    quick: bool = False
    done: set[str] = field(default_factory=set)

    @property
    def finished(self) -> bool:
        return len(self.done) == len(self.tasks)


def open_study(
    recipe: Recipe,
    directory: Path,
    *,
    seeds: Sequence[int] | None = None,
    arms: Sequence[str] | None = None,
    quick: bool = False,
) -> Study:
    """Make the study directory, or go on with the one that is there.

    Raises:
        RecipeError: the directory belongs to another recipe.
    """
    tasks = make_tasks(recipe, seeds, arms)
    used = tuple(dict.fromkeys(t.seed for t in tasks if t.arm != BASE)) or tuple(t.seed for t in tasks)
    study = Study(recipe, directory, used, tasks, quick)
    state = directory / "study.json"
    if state.exists():
        before = json.loads(state.read_text())
        if before["recipe_hash"] != recipe_hash(recipe) or before["seeds"] != list(used):
            raise RecipeError(
                f"go on with the study in {directory}",
                "it was made by another recipe or with other seeds",
                f"choose another folder with --out, or remove {directory}",
            )
    else:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "recipe.yaml").write_text(to_yaml(recipe))
        names = dict.fromkeys(task.arm for task in tasks)
        _write_state(
            study,
            {
                "name": recipe.name,
                "title": recipe.title,
                "recipe_hash": recipe_hash(recipe),
                "seeds": list(used),
                "arms": {n: (recipe.arms[n].title or n) if n in recipe.arms else "base" for n in names},
                "hidden": [n for n in names if n in recipe.arms and not recipe.arms[n].shown],
                "tasks": [asdict(task) for task in tasks],
                "quick": quick,
                "started": _now(),
                "finished": None,
                "wall_s": 0.0,
                "peak_rss_bytes": 0,
                "versions": environment()["packages"],
            },
        )
    for task in tasks:
        run = directory / "runs" / task.id
        if (run / "run.json").exists() and Run.open(run).status().state == "finished":
            study.done.add(task.id)
    return study


def run_studies(
    studies: Sequence[Study],
    *,
    workers: int,
    command: str,
    progress: Callable[[float, float, str], None] | None = None,
) -> None:
    """Run every unfinished task of the studies in one pool of ``workers`` processes.

    Args:
        progress: called every second with (cost done, cost in all, what runs now).

    Raises:
        Interrupted: Ctrl-C; every running task finished its step and saved.
        WorkbenchError: a task failed; the others were finished first.
    """
    began, peak, polls = time.monotonic(), 0, 0
    waiting = [(study, task) for study in studies for task in study.tasks if task.id not in study.done]
    running: dict[Future, tuple[Study, Task]] = {}
    failures: list[tuple[Task, BaseException]] = []
    workers_seen: dict[int | None, BaseProcess] = {}
    stop = StopRequest()
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_worker_starts)
    try:
        with stop:
            told = False
            while waiting or running:
                hopeless = any(isinstance(error, BrokenProcessPool | DiskFullError) for _, error in failures)
                if not stop.asked and not hopeless:
                    for study, task in _ready(waiting, workers - len(running)):
                        waiting.remove((study, task))
                        # submitting starts processes, which inherit what is blocked
                        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
                        future = pool.submit(_work, study.directory, task, command)
                        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
                        running[future] = (study, task)
                        workers_seen |= {child.pid: child for child in active_children()}
                if not running:
                    break
                finished, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
                if stop.asked and not told:
                    told = _tell_workers(signal.SIGUSR1)
                polls += 1
                if polls % MEMORY_EVERY == 1:
                    peak = max(peak, memory_bytes())
                if progress is not None:
                    progress(*_progress(studies, list(running.values())))
                for future in finished:
                    study, task = running.pop(future)
                    error = future.exception()
                    if error is None:
                        study.done.add(task.id)
                    elif isinstance(error, Interrupted | KeyboardInterrupt):
                        stop.asked = True
                    else:
                        failures.append((task, error))
    except KeyboardInterrupt:  # a second Ctrl-C: nobody is waited for
        stop.asked = True
        _tell_workers(signal.SIGKILL)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for study in studies:
            close_study(study, time.monotonic() - began, peak)
    if failures:
        codes = [child.exitcode for child in workers_seen.values()]
        raise _explained(failures, studies, command, codes) from failures[0][1]
    if stop.asked and not all(study.finished for study in studies):
        raise Interrupted(
            "go on with the study",
            "it was interrupted; every finished step is saved",
            f"Resume with: {command}",
        )


def _explained(
    failures: list[tuple[Task, BaseException]],
    studies: Sequence[Study],
    command: str,
    codes: Sequence[int | None],
) -> WorkbenchError:
    """The first failure as one message that names its task and says what became of the others."""
    task, error = failures[0]
    others = [other.id for other, _ in failures[1:]]
    if isinstance(error, BrokenProcessPool):
        ran = " or ".join([task.id, *others])
        signals = [-code for code in codes if code is not None and code < 0]
        # the pool ends the other workers with TERM when one has died
        number = next((n for n in signals if n != signal.SIGTERM), signals[0] if signals else signal.SIGKILL)
        found = f"a worker process died while it ran {ran} ({_cause(number)})"
        killed = WorkerKilled("finish the study", found, f"Nothing saved is lost; resume with: {command}")
        killed.exit_code = 128 + number
        return killed
    done, total = sum(len(s.done) for s in studies), sum(len(s.tasks) for s in studies)
    rest = f"{done} of {total} tasks are finished and kept" + (
        f"; also failed: {', '.join(others)}" if others else ""
    )
    if isinstance(error, WorkbenchError):
        error.asked = f"finish task {task.id} ({rest}), which had to {error.asked}"
        return error
    name = f"finish task {task.id} ({rest})"
    text = " ".join(str(error).split())
    return WorkbenchError(name, f"{type(error).__name__}: {text}", f"Resume with: {command}")


def _cause(number: int) -> str:
    """What a signal says about a death that nobody here asked for."""
    if number == signal.SIGKILL:
        return "SIGKILL: somebody killed it, or the system for lack of memory"
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _ready(waiting: list[tuple[Study, Task]], places: int) -> list[tuple[Study, Task]]:
    """Tasks that may start now, the ones that most work waits for first."""
    ready = [(s, t) for s, t in waiting if all(need in s.done for need in t.needs)]

    def weight(pair: tuple[Study, Task]) -> float:
        study, task = pair
        after = [t.cost for s, t in waiting if s is study and task.id in t.needs]
        return task.cost + sum(after)

    return sorted(ready, key=weight, reverse=True)[: max(0, places)]


def _worker_starts() -> None:
    """In a new worker: stop signals stay blocked but while a task runs, also those that come during
    start-up.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    threading.Thread(target=_die_with_parent, name="parent", daemon=True).start()


def _die_with_parent() -> None:
    """Do not outlive a killed scheduler: it could not be resumed while this process still writes."""
    parent = parent_process()
    if parent is not None:
        wait_for_processes([parent.sentinel])
        os._exit(1)


def _work(directory: Path, task: Task, command: str) -> None:
    with StopRequest(STOP_SIGNALS):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        try:
            from workbench.study.worker import run_task  # heavy imports only inside workers

            run_task(directory, task, command)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def _tell_workers(number: int) -> bool:
    """Send a signal to every worker process (not to other children, such as multiprocessing's tracker)."""
    for child in active_children():
        with contextlib.suppress(ProcessLookupError):
            if child.pid is not None:
                os.kill(child.pid, number)
    return True


def memory_bytes() -> int:
    """Resident memory of this process and all its descendants, shared pages counted once (PSS) where the
    system says.
    """
    total = 0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            info = process.memory_full_info()
            total += getattr(info, "pss", info.rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return total


def _progress(studies: Sequence[Study], running: list[tuple[Study, Task]]) -> tuple[float, float, str]:
    done = sum(t.cost for s in studies for t in s.tasks if t.id in s.done)
    total = sum(t.cost for s in studies for t in s.tasks)
    names = []
    for study, task in running:
        share = 0.0
        directory = study.directory / "runs" / task.id
        if (directory / "heartbeat").exists():
            status = Run.open(directory).status()
            # by work, not by steps: those of another stage take another time
            share = work(study.recipe, task.arm).done(status.step or 0, status.total) if status.total else 0.0
        done += task.cost * share
        names.append(f"{task.id} {share:.0%}")
    return done, total, ", ".join(names)


def close_study(study: Study, seconds: float, peak: int) -> None:
    """Add a session to ``study.json``: its time, its memory, and the end if every task is finished."""
    state = json.loads((study.directory / "study.json").read_text())
    state["wall_s"] += seconds
    state["peak_rss_bytes"] = max(state["peak_rss_bytes"], peak)
    if study.finished and state["finished"] is None:
        state["finished"] = _now()
    with contextlib.suppress(OSError):  # a full disk: the error that stopped the study is the one to show
        _write_state(study, state)


def _write_state(study: Study, state: dict[str, Any]) -> None:
    temporary = study.directory / "study.json.tmp"
    temporary.write_text(json.dumps(state, indent=1) + "\n")
    temporary.replace(study.directory / "study.json")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class TerminalProgress:
    """One line with a bar, the remaining time and what runs now (tqdm: terminal and notebook)."""

    def __init__(self) -> None:
        from tqdm.auto import tqdm

        layout = "{desc} {percentage:3.0f}% |{bar:24}| {elapsed} < {remaining}  {postfix}"
        self.bar = tqdm(total=100.0, unit="%", file=sys.stderr, bar_format=layout)
        self.bar.set_description("study")

    def __call__(self, done: float, total: float, now: str) -> None:
        self.bar.set_postfix_str(now, refresh=False)
        self.bar.update(100.0 * done / total - self.bar.n)

    def close(self) -> None:
        self.bar.close()
