"""Which kernels of a machine are ours: a small file a machine under ``XDG_STATE_HOME/workbench/machines``.

Another process finds the same kernels there instead of starting more. It holds kernel ids and the server's
URL, never a token. A lock keeps two processes from starting a kernel at the same time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.machines.config import JupyterEntry
from workbench.runs.files import write_atomic


def state_folder() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(home).expanduser() / "workbench" / "machines"


class KernelState:
    """The kernel that plays ``role`` on a machine. One of another URL or kernel name does not count."""

    def __init__(self, name: str, role: str, entry: JupyterEntry) -> None:
        self._file = state_folder() / f"{name}.json"
        self._role = role
        self._server = {"url": entry.url, "tunnel": entry.tunnel, "kernel_name": entry.kernel_name}

    @contextlib.contextmanager
    def locked(self) -> Iterator[str | None]:
        """The kernel's id, if one is known, while no other process looks for one."""
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._read().get(self._role)

    def remember(self, kernel_id: str) -> None:
        """Call it while ``locked``."""
        self._write({**self._read(), self._role: kernel_id})

    def forget(self, kernel_id: str) -> None:
        with self.locked() as known:
            if known == kernel_id:
                self._write({role: other for role, other in self._read().items() if role != self._role})

    def _read(self) -> dict[str, str]:
        try:
            state: Any = json.loads(self._file.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        same = isinstance(state, dict) and state.get("server") == self._server
        return dict(state["kernels"]) if same else {}

    def _write(self, kernels: dict[str, str]) -> None:
        text = json.dumps({"server": self._server, "kernels": kernels}, indent=1) + "\n"
        write_atomic(self._file, text.encode(), sync=False)
