"""The token of a machine is nowhere but in memory and in the Authorization header."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import psutil
import pytest

from tests.machines.jobs import endless, wait_until
from tests.machines.servers import ROOT, JupyterServer, running
from workbench.errors import WorkbenchError
from workbench.machines.base import Machine
from workbench.machines.config import JupyterEntry
from workbench.machines.jupyter import JupyterTransport
from workbench.machines.jupyter_api import Server, Token


class Watch:
    """Looks at the command lines of all processes, again and again."""

    def __init__(self, secret: str) -> None:
        self.secret, self.looks, self.found = secret, 0, []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self.looks += 1
            for process in psutil.process_iter(["cmdline"]):
                if any(self.secret in word for word in process.info["cmdline"] or ()):
                    self.found.append(process.info["cmdline"])

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


def files_with(secret: str, folder: Path) -> list[Path]:
    found = []
    for path in folder.rglob("*"):
        # the server's own note about itself, which `jupyter server list` reads, holds its token
        if path.is_file() and "runtime" not in path.parts and secret.encode() in path.read_bytes():
            found.append(path)
    return found


def test_nowhere_after_a_job(home):
    """Submit, look, stop and fetch by command line, with the token right and wrong, with --debug and without."""
    with running(JupyterServer(home / "server", debug=True)) as server:
        config = home / "config" / "workbench" / "machines.toml"
        config.parent.mkdir(parents=True)
        config.write_text(
            f'[gpu]\nkind = "jupyter"\nurl = "{server.url}"\ntoken_env = "GPU_TOKEN"\nroot = "{home}/jobs"\n'
            f'[bad]\nkind = "jupyter"\nurl = "{server.url}/elsewhere"\ntoken_env = "GPU_TOKEN"\n'
            f'[tls]\nkind = "jupyter"\nurl = "{server.url.replace("http", "https")}"\ntoken_env = "GPU_TOKEN"\n'
        )
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "GPU_TOKEN": server.token,
            "OMP_NUM_THREADS": "1",
        }
        said = []

        def workbench(*words: object, **more: str) -> int:
            argv = [sys.executable, "-m", "workbench", *map(str, words)]
            done = subprocess.run(argv, env={**environment, **more}, cwd=home, capture_output=True, text=True)
            said.append(done.stdout + done.stderr)
            return done.returncode

        with Watch(server.token) as watch:
            assert workbench("submit", endless(home / "recipe"), "--machine", "gpu", "--name", "one") == 0, (
                said
            )
            metrics = home / "jobs" / "one" / "runs"
            wait_until(lambda: list(metrics.glob("*/metrics/*")), "the first step")
            assert workbench("jobs", "gpu") == 0 and "one" in said[-1]
            assert workbench("stop", "gpu:one") == 0
            assert workbench("tail", "gpu:one", "--json", "--follow") == 0
            assert workbench("fetch", "gpu:one", home / "here", "--checkpoints") == 0
            assert workbench("--debug", "jobs", "bad") == 2
            assert workbench("--debug", "jobs", "tls") == 2
            half = server.token[: len(server.token) // 2]
            assert workbench("--debug", "jobs", "gpu", GPU_TOKEN=half) == 2 and half not in said[-1]
        assert watch.looks > 5 and not watch.found
        assert "Traceback" in said[-1] and "refuses the token" in said[-1]
        assert not [text for text in said if server.token in text]
        assert server.log.stat().st_size > 1000 and not files_with(server.token, home)


def test_not_in_objects_or_tracebacks(home, monkeypatch):
    secret = "s3cr3t-0123456789"
    monkeypatch.setenv("WB_TEST_TOKEN", secret)
    entry = JupyterEntry(kind="jupyter", url="http://127.0.0.1:9", token_env="WB_TEST_TOKEN")
    token = Token(secret)
    assert token.header() == {"Authorization": f"token {secret}"}
    server, transport = Server("gpu", entry, token), JupyterTransport("gpu", entry)
    for thing in (token, server, transport, Machine("gpu", transport), entry, vars(server), vars(transport)):
        assert secret not in repr(thing) and secret not in str(thing)
    with pytest.raises(TypeError):
        pickle.dumps(token)
    with pytest.raises(TypeError):
        copy.deepcopy(token)
    with pytest.raises(WorkbenchError) as error:
        transport.call({"verb": "hello", "protocol": 1, "workbench": "0.1.0", "root": "~"})
    assert secret not in "".join(traceback.format_exception(error.value))
