"""A study under ``torchrun``: every rank runs every task itself, one after the other, and rank 0 alone
writes.

``torchrun --nproc_per_node 2 -m workbench train RECIPE`` is ``workbench train RECIPE`` on two processes that
share each step's batch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from workbench.errors import Interrupted
from workbench.study.scheduler import Study, close_study, memory_bytes


def world_size() -> int:
    """Processes that train together, from the variables ``torchrun`` sets; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def meet() -> None:
    """Wait until every rank is here; the first call connects them (gloo where there is no GPU)."""
    import torch
    from accelerate import PartialState

    if not torch.cuda.is_available():
        os.environ.setdefault("ACCELERATE_USE_CPU", "1")
    PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()


def in_turn(first: Callable[[], Study]) -> Study:
    """Call ``first`` on rank 0, then on the others, which find what it made."""
    study = first() if rank() == 0 else None
    meet()
    return study if study is not None else first()


def run_here(study: Study, command: str) -> None:
    """Run every unfinished task of a study in this process, side by side with the other ranks.

    Raises:
        Interrupted: Ctrl-C, TERM or a stop request on any rank; the step was finished and saved.
        WorkbenchError: a task failed.
    """
    from workbench.study.worker import run_task

    began = time.monotonic()
    try:
        for task in study.tasks:
            if task.id not in study.done:
                run_task(study.directory, task, command, meet=meet, silent=rank() != 0)
                study.done.add(task.id)
                meet()
    except Interrupted:
        if rank() != 0:  # one message is enough
            raise SystemExit(Interrupted.exit_code) from None
        raise
    finally:
        if rank() == 0:
            close_study(study, time.monotonic() - began, memory_bytes())
