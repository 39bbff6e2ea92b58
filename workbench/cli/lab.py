"""`workbench lab`: the app in a JupyterLab on this computer, or alone through Voila; Ctrl-C ends it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from workbench.errors import WorkbenchError

NOTEBOOK = "workbench.ipynb"
HOST = "127.0.0.1"
FIRST_PORT, PORTS = 8888, 50
START_S, END_S = 60.0, 15.0
INSTALL = {"jupyterlab": "pip install -e '.[notebook]'", "voila": "pip install -e '.[notebook,voila]'"}


def register(subparsers: argparse._SubParsersAction) -> None:
    lab = subparsers.add_parser(
        "lab",
        help="the app: runs, launcher, monitor and views, in JupyterLab or alone",
        description="Starts JupyterLab on a small notebook with Workbench(); it is written to ROOT once and then yours. "
        "Reachable from this computer only, with a token. From elsewhere: ssh -L.",
    )
    lab.add_argument("--root", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
    lab.add_argument(
        "--recipes", type=Path, default=Path("recipes"), help="folder of recipes (default: recipes)"
    )
    lab.add_argument("--port", type=int, help=f"default: the first free one from {FIRST_PORT} on")
    lab.add_argument("--voila", action="store_true", help="only the app, without JupyterLab around it")
    lab.add_argument("--no-browser", action="store_true", help="only print the address")
    lab.set_defaults(func=run_lab)


def run_lab(args: argparse.Namespace) -> int:
    package = "voila" if args.voila else "jupyterlab"
    if importlib.util.find_spec(package) is None:
        raise WorkbenchError(
            f"start the app{' alone' if args.voila else ''}", f"{package} is not installed", INSTALL[package]
        )
    notebook = write_notebook(args.root.absolute(), args.recipes.absolute())
    port = args.port if args.port is not None else free_port()
    if args.port is not None and not _free(port):
        raise WorkbenchError(
            "start the app", f"something uses port {port} of this computer already", "Choose another --port"
        )
    token = secrets.token_hex(24)
    # in a session of its own: Ctrl-C in the terminal reaches this process, which ends that one without a question
    server = subprocess.Popen(
        command(notebook, port, args.voila, args.no_browser),
        env={**os.environ, "JUPYTER_TOKEN": token},
        start_new_session=True,
    )
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        _wait(server, port)
        page = "" if args.voila else f"lab/tree/{notebook.name}"
        print(f"\nWorkbench: http://{HOST}:{port}/{page}?token={token}\nCtrl-C ends it.\n", flush=True)
        code = server.wait()
        if code:
            raise WorkbenchError(
                "run the app", f"its server ended with code {code}", "Read what it said above"
            )
    except KeyboardInterrupt:
        print("\nThe app is ended. Jobs are not touched.", flush=True)
    finally:
        signal.signal(signal.SIGTERM, before)
        _end(server)
    return 0


def write_notebook(root: Path, recipes: Path) -> Path:
    """``ROOT/workbench.ipynb``; one that is there is left as it is."""
    path = root / NOTEBOOK
    if path.is_file():
        return path
    source = f"import workbench\n\nworkbench.Workbench(root={str(root)!r}, recipes={str(recipes)!r})"
    cell = {"cell_type": "code", "id": "app", "metadata": {}, "source": source, "outputs": []}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": kernel},
        "cells": [cell | {"execution_count": None}],
    }
    try:
        root.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(book, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        todo = "Name a folder you may write to with --root"
        raise WorkbenchError("start the app", f"{path}: {error.strerror}", todo) from error
    return path


def command(notebook: Path, port: int, voila: bool, no_browser: bool) -> list[str]:
    """What starts the server; its token is in the environment, never on the command line."""
    if voila:
        argv = [sys.executable, "-m", "voila", str(notebook), f"--port={port}", f"--Voila.ip={HOST}"]
        argv += ["--Voila.auto_token=True", "--Voila.port_retries=0", "--show_tracebacks=True"]
    else:
        argv = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={notebook.parent}"]
        argv += [f"--ServerApp.port={port}", f"--ServerApp.ip={HOST}", "--ServerApp.port_retries=0"]
        argv += [f"--LabApp.default_url=/lab/tree/{notebook.name}"]
        argv += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return argv + (["--no-browser"] if no_browser else [])


def free_port() -> int:
    """The first free port from ``FIRST_PORT`` on. Raises WorkbenchError: none of ``PORTS``."""
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        if _free(port):
            return port
    last = FIRST_PORT + PORTS - 1
    raise WorkbenchError("start the app", f"ports {FIRST_PORT} to {last} are all in use", "Name one: --port")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and server.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.1)
    found = "it did not answer" if server.poll() is None else f"it ended with code {server.returncode}"
    raise WorkbenchError("start the app's server", found, "Read what it said above")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _end(server: subprocess.Popen[bytes]) -> None:
    """Let the server end its kernels; after a while end it at once."""
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
