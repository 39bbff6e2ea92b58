"""The command line that starts a job's training: plain Python, torchrun, accelerate or DeepSpeed's launcher.

All four start the same program, ``workbench study``, on as many processes as the recipe's machine section says;
on several processes it trains data-parallel through torch.distributed (gradients are reduced by
DistributedDataParallel whichever launcher brought the processes up). Lists of words, never a shell.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.recipe.schema import MachineSection

DEEPSPEED_INSTALL = "pip install 'deepspeed>=0.19,<0.20'"


def program(
    recipe: Path,
    out: Path,
    name: str,
    *,
    quick: bool = False,
    seeds: Sequence[int] | None = None,
    arms: Sequence[str] | None = None,
) -> list[str]:
    """What every launcher runs, after ``-m``."""
    words = ["workbench", "study", str(recipe), "--out", str(out), "--name", name]
    words += ["--quick"] if quick else []
    words += ["--seeds", *map(str, seeds)] if seeds is not None else []
    words += ["--arms", *arms] if arms is not None else []
    return words


def check_launcher(machine: MachineSection) -> None:
    """Raise ``WorkbenchError`` when the launcher is not installed on this machine."""
    if machine.launcher == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        raise WorkbenchError(
            "start training with launcher: deepspeed",
            "deepspeed is not installed on this machine",
            f"Install it there: {DEEPSPEED_INSTALL}. Or use launcher: torchrun, which starts the same "
            "data-parallel training",
            "machine.launcher",
        )


def command(launcher: str, processes: int, words: Sequence[str]) -> list[str]:
    """The argv for ``program`` words under a launcher."""
    count, python = str(processes), sys.executable
    match launcher:
        case "python":
            return [python, "-m", *words]
        case "torchrun":  # standalone: it finds itself a free port, so jobs do not meet
            return [
                python,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc_per_node",
                count,
                "-m",
                *words,
            ]
        case "accelerate":
            options = ["--num_processes", count, "--num_machines", "1", "--mixed_precision", "no"]
            options += ["--dynamo_backend", "no", "--main_process_port", str(free_port())]
            options += (
                ["--multi_gpu"] if processes > 1 else []
            )  # without it, one process starts and nothing is said
            return [python, "-m", "accelerate.commands.launch", *options, "-m", *words]
        case "deepspeed":
            options = ["--num_gpus", count, "--master_addr", "127.0.0.1", "--master_port", str(free_port())]
            return [
                python,
                "-m",
                "deepspeed.launcher.runner",
                *options,
                "--no_local_rank",
                "--module",
                *words,
            ]
    raise ValueError(f"no launcher {launcher!r}")


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
