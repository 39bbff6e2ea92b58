"""A JupyterLab of its own for one test: own port and settings, no news, its files in the test's folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.notebooks.small import ROOT

PANEL = "window.jupyterapp.shell.currentWidget"


@contextlib.contextmanager
def lab(folder: Path, notebook: Path, gateway: tuple[str, str] | None = None) -> Iterator[str]:
    """Yield the address of a copy of ``notebook`` in ``folder``, beside the project's recipes.

    Its kernels run at ``gateway`` (url, token), where one is given.
    """
    work = folder / "project"
    (work / "notebooks").mkdir(parents=True)
    (work / "recipes").symlink_to(ROOT / "recipes")
    shutil.copy(notebook, work / "notebooks")
    quiet = folder / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    news = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
    (quiet / "notification.jupyterlab-settings").write_text(json.dumps(news))
    own = {
        "JUPYTER_CONFIG_DIR": folder / "config",
        "JUPYTER_RUNTIME_DIR": folder / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": folder / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
    }
    port = _free_port()
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        f"--ServerApp.root_dir={work}",
    ]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=test"]
    command += ["--LabApp.expose_app_in_browser=True"]
    with (folder / "lab.log").open("wb") as log:
        environment = {**os.environ, **{key: str(value) for key, value in own.items()}}
        if gateway is not None:
            command.append(f"--gateway-url={gateway[0]}")
            environment["JUPYTER_GATEWAY_AUTH_TOKEN"] = gateway[1]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(f"http://127.0.0.1:{port}/api?token=test", process, folder / "lab.log")
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{notebook.name}?token=test"
    finally:
        process.terminate()
        process.wait(30)


def run_all(page: Any, address: str) -> None:
    """Open a notebook and run its cells."""
    page.goto(address)
    ready(page)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")


def ready(page: Any) -> None:
    """Wait until the notebook that is shown has its kernel."""
    page.wait_for_function(f"window.jupyterapp && {PANEL} && {PANEL}.sessionContext", timeout=60_000)
    page.evaluate(
        f"async () => {{ const s = {PANEL}.sessionContext; await s.ready; await s.session.kernel.info }}"
    )


def note(url: str, outside: list[str]) -> None:
    """Remember a request that leaves this machine."""
    if not url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")):
        outside.append(url)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
