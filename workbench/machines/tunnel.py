"""A Jupyter server behind OpenSSH: ``ssh -N -L`` from a free loopback port to the host of the URL."""

from __future__ import annotations

import socket
import subprocess
import time
from urllib.parse import urlsplit

from workbench.errors import WorkbenchError
from workbench.machines.config import JupyterEntry
from workbench.machines.openssh import command, explain

OPEN_S = 20.0


class Tunnel:
    """Open on return. ``at``: its loopback end. The user's ssh config, keys and known_hosts are used as they are.

    Raises:
        WorkbenchError: ssh is missing, refuses, or does not forward.
    """

    def __init__(self, name: str, entry: JupyterEntry) -> None:
        assert entry.tunnel is not None
        parts = urlsplit(entry.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        self._asked = f"open the tunnel of the machine {name!r}"
        self.at = ("127.0.0.1", _free_port())
        forward = f"{self.at[0]}:{self.at[1]}:{host}:{port}"
        options = ["-N", "-L", forward, "-o", "ExitOnForwardFailure=yes"]
        argv = command(self._asked, entry.tunnel, entry.ssh_config, options)
        # its own group: Ctrl-C in the terminal interrupts a call, not the tunnel
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self._wait(entry.tunnel)
        except BaseException:
            self.close()
            raise

    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _wait(self, host: str) -> None:
        until = time.monotonic() + OPEN_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise explain(self._asked, host, self._process.returncode, self._process.communicate()[1])
            try:
                socket.create_connection(self.at, timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        found = f"ssh to {host} has not opened it within {OPEN_S:.0f} s"
        raise WorkbenchError(self._asked, found, f"Try by hand: ssh {host} true")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
