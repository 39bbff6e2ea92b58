"""What is installed, what is missing, and the exact line that mends it.

Every check *does* the thing it speaks of where that is cheap: a video backend decodes a clip, a browser
prints its version, a port is bound. Nothing here changes the machine. Extras are installed from the
repository (``-e '.[gpu]'``) because the project is used from a clone, not from a package index.
"""

from __future__ import annotations

import importlib
import importlib.metadata as metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["ok", "missing", "broken", "note"]
GIB = 1 << 30
OLDEST_PYTHON = (3, 11)
STUDY_MEMORY_GIB, STUDY_DISK_GIB = 4, 5
LAB_PORTS = range(8888, 8898)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CPU_TORCH = (
    "pip install 'torch>=2.11,<2.14' (without a GPU add --index-url https://download.pytorch.org/whl/cpu)"
)
CUDA_TORCH = "pip uninstall -y torch && pip install 'torch>=2.11,<2.14' (on Linux the CUDA build)"
PROJECT = "pip install -e ."


@dataclass(frozen=True)
class Check:
    """One line of the report. ``fix`` is a command or a sentence, empty when there is nothing to do.

    ``required`` marks what ``make study`` cannot do without; only those decide the exit code.
    """

    name: str
    state: State
    found: str
    fix: str = ""
    required: bool = False


def diagnose() -> list[Check]:
    """Every check, in reading order. Never raises: a check that fails unexpectedly is itself *broken*."""
    checks: list[Check] = []
    for group in (_python, _torch, _libraries, _training, _video, _notebook, _browser, _ports, _machine):
        try:
            checks.extend(group())
        except Exception as error:  # a broken installation may raise anything at import
            checks.append(Check(group.__name__.strip("_"), "broken", _short(error)))
    return checks


def healthy(checks: list[Check]) -> bool:
    """True unless something required is missing or broken."""
    return not any(check.required and check.state in ("missing", "broken") for check in checks)


def table(checks: list[Check]) -> str:
    """Aligned plain text, the fix under the line it belongs to."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.name:<{width}}  {check.state:<7}  {check.found}")
        if check.fix:
            lines.append(f"{'':<{width}}  {'':<7}  -> {check.fix}")
    broken = [check.name for check in checks if check.required and check.state in ("missing", "broken")]
    lines.append("")
    lines.append(f"Not ready: {', '.join(broken)}." if broken else "Ready for: make study, make test.")
    return "\n".join(lines)


def as_rows(checks: list[Check]) -> list[dict[str, str | bool]]:
    return [asdict(check) for check in checks]


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] >= OLDEST_PYTHON:
        yield Check("python", "ok", found, required=True)
    else:
        fix = "Install Python 3.11 or newer, then: make study"
        yield Check("python", "broken", found, fix, required=True)


def _torch() -> Iterator[Check]:
    check = _library("torch", "torch", CPU_TORCH, required=True)
    yield check
    if check.state != "ok":
        return
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            name, memory = torch.cuda.get_device_name(i), torch.cuda.get_device_properties(i).total_memory
            yield Check(f"cuda:{i}", "ok", f"{name}, {memory / GIB:.0f} GiB, CUDA {torch.version.cuda}")
    elif torch.version.cuda:
        found = f"torch is built for CUDA {torch.version.cuda} and sees no device"
        yield Check("cuda", "note", found, "With an NVIDIA GPU: update its driver (nvidia-smi must work)")
    else:
        fix = f"With an NVIDIA GPU: {CUDA_TORCH}"
        yield Check("cuda", "note", "torch is built for the CPU; the laptop study needs no GPU", fix)


def _libraries() -> Iterator[Check]:
    for module, distribution in (
        ("transformers", "transformers"),
        ("accelerate", "accelerate"),
        ("sklearn", "scikit-learn"),
        ("pyarrow", "pyarrow"),
        ("plotly", "plotly"),
    ):
        yield _library(module, distribution, PROJECT, required=True)


def _training() -> Iterator[Check]:
    gpu = "On a machine with an NVIDIA GPU and nvcc (it is compiled): pip install --no-build-isolation -e '.[gpu]'"
    yield _library("deepspeed", "deepspeed", "pip install 'deepspeed>=0.19,<0.20' (CPU or GPU)")
    for tool, why in (("g++", "DeepSpeed compiles its operators"), ("ninja", "DeepSpeed builds with it")):
        path = shutil.which(tool)
        # pip puts ninja beside the interpreter, which is on PATH only in an activated environment
        beside = os.path.join(os.path.dirname(sys.executable), tool)
        if path:
            yield Check(tool, "ok", path)
        elif os.path.exists(beside):
            yield Check(tool, "note", f"{beside} is not on PATH", "Activate the environment before training")
        else:
            fix = "apt install g++" if tool == "g++" else "pip install ninja"
            yield Check(tool, "missing", f"not on PATH ({why})", fix)
    if _version("flash-attn") is None and not _has_cuda():
        yield Check("flash-attn", "note", "not installed; it needs CUDA, and without it sdpa is used", gpu)
    else:
        yield _library("flash_attn", "flash-attn", gpu)


def _video() -> Iterator[Check]:
    from workbench.samples.reader.backends import CLASH, DISTRIBUTION, INSTALL, PREFERENCE, unusable
    from workbench.samples.reader.process import DecodeProcess, WorkerDied, WorkerTimeout

    working = []
    for name in PREFERENCE:
        label, distribution = f"video: {name}", DISTRIBUTION[name]
        if (reason := unusable(name)) is not None:
            installed = _version(distribution) is not None or (
                name == "decord" and _version("decord") is not None
            )
            fix = CLASH if installed else INSTALL[name]
            yield Check(label, "broken" if installed else "missing", reason[0], fix)
            continue
        try:
            process = DecodeProcess(name)
        except (WorkerDied, WorkerTimeout) as error:
            found = f"{distribution} {_version(distribution)}: {error or 'no answer in time'}"
            yield Check(label, "broken", found, INSTALL[name])
            continue
        process.kill()
        working.append(name)
        yield Check(label, "ok", f"{distribution} {process.version} decodes the probe clip exactly")
    if working:
        yield Check("video", "ok", f"{working[0]} will be used", required=True)
    else:
        yield Check("video", "broken", "no backend decodes video", INSTALL["pyav"], required=True)


def _notebook() -> Iterator[Check]:
    for module in ("jupyterlab", "ipywidgets", "anywidget", "matplotlib"):
        yield _library(module, module, "pip install -e '.[notebook]'")


def _browser() -> Iterator[Check]:
    fix = "apt install chromium (only the browser tests use it)"
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        yield Check("chromium", "missing", "no Chromium or Chrome on PATH", fix)
        return
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Check("chromium", "broken", f"{path}: {_short(error)}", fix)
        return
    if done.returncode:
        yield Check("chromium", "broken", f"{path} ends with exit code {done.returncode}", fix)
    else:
        yield Check("chromium", "ok", f"{done.stdout.strip()} ({path})")


def _ports() -> Iterator[Check]:
    free = [port for port in LAB_PORTS if _is_free(port)]
    first, last = LAB_PORTS[0], LAB_PORTS[-1]
    if first in free:
        yield Check("ports", "ok", f"127.0.0.1:{first} is free")
    elif free:
        fix = f"JupyterLab moves to {free[0]} by itself, or: make lab PORT={free[0]}"
        yield Check("ports", "note", f"127.0.0.1:{first} is taken, {free[0]} is free", fix)
    else:
        fix = "Stop a server (jupyter server list) or choose another port: jupyter lab --port 9000"
        yield Check("ports", "missing", f"no free port of 127.0.0.1:{first}..{last}", fix)


def _machine() -> Iterator[Check]:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slow = cores < 2
    yield Check(
        "cores",
        "note" if slow else "ok",
        f"{cores} usable",
        "The study runs two seeds at once; on one core it takes about twice as long" if slow else "",
    )
    memory = psutil.virtual_memory()
    tight = memory.available < STUDY_MEMORY_GIB * GIB
    yield Check(
        "memory",
        "note" if tight else "ok",
        f"{memory.available / GIB:.1f} GiB available of {memory.total / GIB:.1f}",
        f"The study uses up to {STUDY_MEMORY_GIB} GiB: close programs, or machine.workers: 1"
        if tight
        else "",
    )
    free = shutil.disk_usage(os.getcwd()).free
    full = free < STUDY_DISK_GIB * GIB
    yield Check(
        "disk",
        "note" if full else "ok",
        f"{free / GIB:.1f} GiB free in {os.getcwd()}",
        f"Environment and study take up to {STUDY_DISK_GIB} GiB: free some, or work elsewhere"
        if full
        else "",
    )


def _library(module: str, distribution: str, fix: str, required: bool = False) -> Check:
    """Is it installed, and does it import? A package that is there and does not load is *broken*."""
    version = _version(distribution)
    if version is None:
        return Check(distribution, "missing", "not installed", fix, required)
    try:
        importlib.import_module(module)
    except Exception as error:  # native libraries raise OSError, RuntimeError and their own kinds
        return Check(distribution, "broken", f"{version} does not load: {_short(error)}", fix, required)
    return Check(distribution, "ok", version, required=required)


def _has_cuda() -> bool:
    try:
        return bool(importlib.import_module("torch").cuda.is_available())
    except Exception:  # reported by its own check
        return False


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _is_free(port: int) -> bool:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
