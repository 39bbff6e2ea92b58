"""``SshTransport``: the agent of a machine, as a program at the other end of ``ssh HOST``.

One ssh stays open a role (quick verbs, work), with an agent behind it that answers one JSON line after the
other. When the line breaks, ssh itself notices within 15 s (ServerAliveInterval), a new one is opened and the
request is sent again, with the same id.
"""

from __future__ import annotations

import json
import queue
import shlex
import subprocess
import threading
import time
import uuid
from typing import Any

from workbench.errors import WorkbenchError
from workbench.machines.base import Progress, Unreachable, raise_error
from workbench.machines.config import SshEntry
from workbench.machines.hello import LIGHT_VERBS, Notify, notify_stderr, say_hello
from workbench.machines.jupyter_api import Cut
from workbench.machines.openssh import command, explain, is_cut

FIRST_PATIENCE_S, PATIENCE_S, LONGEST_PAUSE_S = 5.0, 60.0, 2.0
BUSY_S = 300.0  # quick verbs
KEPT_STDERR = 16_384  # characters
END_S = 5.0


class SshTransport:
    """Carries requests over ssh, to which host, user, keys and known_hosts are left.

    Args:
        name: of the machine, for messages.
        entry: as in the machines file.
        notify: told, in one line, what the user should know and need not act on.
        patience_s: longest time without a connection before a call gives up.
    """

    def __init__(
        self, name: str, entry: SshEntry, notify: Notify = notify_stderr, patience_s: float = PATIENCE_S
    ) -> None:
        self.name, self.entry, self.notify, self.patience = name, entry, notify, patience_s
        self._roles = {role: _Role(self) for role in ("calls", "work")}

    def __repr__(self) -> str:
        return f"SshTransport({self.name!r}, {self.entry.host!r})"

    def call(self, request: dict[str, Any], on_progress: Progress | None = None) -> dict[str, Any]:
        """As `Transport.call`. Ctrl-C ends the agent's process at its next word of progress.

        Raises:
            Unreachable: no connection for ``patience_s``.
            WorkbenchError: what the agent raised, or what ssh says.
        """
        light = request.get("verb") in LIGHT_VERBS
        role = self._roles["calls" if light else "work"]
        return role.call({"id": uuid.uuid4().hex, **request}, on_progress, BUSY_S if light else None)

    def close(self) -> None:
        for role in self._roles.values():
            role.close()


class _Role:
    def __init__(self, transport: SshTransport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._met = False

    def call(
        self, request: dict[str, Any], on_progress: Progress | None, deadline_s: float | None
    ) -> dict[str, Any]:
        lost_at: float | None = None
        pause = 0.1
        asked = f"{request.get('verb')} on the machine {self._transport.name!r}"
        with self._lock:
            while True:
                try:
                    reply = self._open().ask(request, on_progress, deadline_s)
                    break
                except Cut as cut:
                    error = self._drop(asked) or Unreachable(asked, str(cut), "Try again")
                    now = time.monotonic()
                    lost_at = lost_at or now
                    patience = self._transport.patience if self._met else FIRST_PATIENCE_S
                    if not isinstance(error, Unreachable) or now - lost_at > patience:
                        raise error from None
                except TimeoutError:
                    self._drop(asked)
                    found, todo = f"no answer for {deadline_s:.0f} s", "Look what the machine is busy with"
                    raise WorkbenchError(asked, found, todo) from None
                except BaseException:  # an interrupt: the answer still to come belongs to nobody
                    self._drop(asked)
                    raise
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
        if "error" in reply:
            raise_error(reply["error"])
        return reply["result"]

    def close(self) -> None:
        with self._lock:
            self._drop("close")

    def _open(self) -> _Line:
        if self._line is None:
            self._line = line = _Line(self._transport.entry)

            def ask(request: dict[str, Any]) -> dict[str, Any]:
                reply = line.ask(request, None, BUSY_S)
                if "error" in reply:
                    raise_error(reply["error"])
                return reply["result"]

            say_hello(self._transport.name, ask, self._transport.notify if not self._met else _silent)
            self._met = True
        return self._line

    def _drop(self, asked: str) -> WorkbenchError | None:
        line, self._line = self._line, None
        if line is None:
            return None
        code, said = line.end()
        entry = self._transport.entry
        error = explain(asked, entry.host, code, said, entry.python)
        if code > 0 and not is_cut(code, said):
            return error
        return Unreachable(error.asked, error.found, error.todo)


class _Line:
    """One ssh with an agent behind it."""

    def __init__(self, entry: SshEntry) -> None:
        remote = f"exec {quote_program(entry.python)} -m workbench.machines.agent"
        argv = command(f"connect to {entry.host}", entry.host, entry.ssh_config, [], [remote])
        # its own group: Ctrl-C in the terminal must not cut the line under a call that another thread makes
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._said = ""
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._listen, self._note)]
        for reader in self._readers:
            reader.start()

    def ask(
        self, request: dict[str, Any], on_progress: Progress | None, deadline_s: float | None
    ) -> dict[str, Any]:
        """The agent's last line for this request.

        Raises:
            Cut: ssh ended. TimeoutError: no line for ``deadline_s``.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Cut(str(error)) from None
        while True:
            try:
                line = self._answers.get(timeout=deadline_s)
            except queue.Empty:
                raise TimeoutError from None
            if line is None:
                raise Cut("ssh ended")
            try:
                message = json.loads(line)
            except ValueError:
                continue  # a login script printed something
            if not isinstance(message, dict):
                continue
            if "progress" in message:
                if on_progress is not None:
                    on_progress(message["progress"])
            elif "result" in message or "error" in message:
                return message

    def end(self) -> tuple[int, str]:
        """Close the line; the exit code and what ssh said. An idle agent ends by itself when its input does."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for reader in self._readers:
            reader.join(END_S)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        return self._process.returncode, self._said

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def _note(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said = (self._said + line)[-KEPT_STDERR:]


def quote_program(path: str) -> str:
    """For the shell there: spaces and the like are quoted, a leading ``~/`` still means that home."""
    if path.startswith("~/"):
        return "~/" + shlex.quote(path[2:])
    return shlex.quote(path)


def _silent(message: str) -> None:
    return None
