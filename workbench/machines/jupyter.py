"""``JupyterTransport``: the agent of a machine, inside a kernel of its Jupyter Server or Kernel Gateway.

Two kernels a machine: one answers the quick verbs, one works (evaluation, probes, the smoke step), so that
curves keep coming meanwhile. Their ids are kept in a small state file, so that other processes use the same
ones. A kernel that is gone (culled, killed, the server started anew) is replaced, with a notice; one that the
user named is an error. Every request has an id and is sent again after a cut: the kernel answers a known id
from memory, and a job remembers the id that submitted it.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
import weakref
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.machines.base import Progress, Unreachable, raise_error
from workbench.machines.config import JupyterEntry, read_token
from workbench.machines.hello import LIGHT_VERBS, Notify, notify_stderr, say_hello
from workbench.machines.in_kernel import MARK
from workbench.machines.jupyter_api import Cut, Server, Token
from workbench.machines.kernel_call import KernelBusy, KernelConnection, KernelDied, KernelRaised
from workbench.machines.state import KernelState
from workbench.machines.tunnel import Tunnel

SOURCE = Path(__file__).with_name("in_kernel.py").read_text(encoding="utf-8")
MODULE = f"_workbench_{hashlib.sha256(SOURCE.encode()).hexdigest()[:12]}"  # another version lives beside it
# run in an empty namespace: a person may be using this kernel too
LOADER = (
    f"import sys, types\nm = types.ModuleType({MODULE!r})\n"
    f"exec(compile({SOURCE!r}, {MODULE!r}, 'exec'), m.__dict__)\nsys.modules[{MODULE!r}] = m\n"
)
FIRST_PATIENCE_S = 5.0  # a wrong address should be said soon
PATIENCE_S = 60.0  # a server may be starting again
LONGEST_PAUSE_S = 2.0
BUSY_S = 300.0  # quick verbs; checksums of big checkpoints are the slowest
MOST_CUTS = 100  # of one request, each after a good connection: something on the way dislikes this request
MOST_DEATHS = 5


class JupyterTransport:
    """Carries requests to the agent in a kernel.

    Args:
        name: of the machine, for messages and the state file.
        entry: as in the machines file.
        notify: told, in one line, what the user should know and need not act on.
        patience_s: longest time without any connection before a call gives up.
    """

    def __init__(
        self,
        name: str,
        entry: JupyterEntry,
        notify: Notify = notify_stderr,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name, self.entry, self.notify, self._patience = name, entry, notify, patience_s
        self._server: Server | None = None
        self._tunnel: Tunnel | None = None
        self._connecting = threading.Lock()
        self._roles = {role: _Role(self, role) for role in ("calls", "work")}

    def __repr__(self) -> str:
        return f"JupyterTransport({self.name!r}, {self.entry.url!r})"

    def call(self, request: dict[str, Any], on_progress: Progress | None = None) -> dict[str, Any]:
        """As `Transport.call`. Ctrl-C interrupts the work there too.

        Raises:
            Unreachable: no connection for ``patience_s``.
            WorkbenchError: what the agent raised, or what is wrong with server, token or kernel.
        """
        role = self._roles["calls" if request.get("verb") in LIGHT_VERBS else "work"]
        return role.call({"id": uuid.uuid4().hex, **request}, on_progress)

    def close(self) -> None:
        """Let go of connection and tunnel. The kernel for quick verbs stays for the next process; the one for
        work, with what it holds on the GPU, is ended by the transport that started it.
        """
        for role in self._roles.values():
            role.close()
        with self._connecting:
            self._server = None
            if self._tunnel is not None:
                self._tunnel.close()
                self._tunnel = None

    def server(self) -> Server:
        """The server, with its tunnel, after it answered once and let us in.

        Raises:
            Cut, WorkbenchError
        """
        with self._connecting:
            if self._tunnel is not None and not self._tunnel.alive():
                self._tunnel = self._server = None
            if self._server is None:
                token = Token(read_token(self.name, self.entry))
                if self.entry.tunnel is not None:
                    self._tunnel = Tunnel(self.name, self.entry)
                    weakref.finalize(self, self._tunnel.close)
                server = Server(self.name, self.entry, token, self._tunnel.at if self._tunnel else None)
                server.knock()
                self._server = server
            return self._server

    def forget_server(self) -> None:
        """After a cut: knock again, which tells a refused token or a wrong address from a bad line."""
        with self._connecting:
            self._server = None


class _Role:
    """One of the two kernels: requests go to it one at a time."""

    def __init__(self, transport: JupyterTransport, role: str) -> None:
        self._transport, self._role = transport, role
        self._state = KernelState(transport.name, role, transport.entry)
        self._session = uuid.uuid4().hex  # kept over reconnections: the server replays what was missed
        self._label = ""
        self._kernel_id: str | None = None
        self._lock = threading.Lock()
        self._connection: KernelConnection | None = None
        self._greeted = self._started = self._met = False
        self._lost_at: float | None = None

    # -- one request, whatever the line does -----------------------------------------------------------------

    def call(self, request: dict[str, Any], on_progress: Progress | None) -> dict[str, Any]:
        cuts = deaths = 0
        pause = 0.05
        with self._lock:
            self._lost_at = None
            while True:
                try:
                    self._greet()
                    return self._request(request, on_progress)
                except Cut as cut:
                    cuts += 1
                    pause = pause * 2 if self._lost_at is not None else 0.05
                    self._after_cut(cut, cuts)
                except KernelDied:
                    deaths += 1
                    self._after_death(request, deaths)
                except KernelBusy:
                    found = f"its kernel {self._kernel_id} has been busy for {BUSY_S:.0f} s"
                    todo = "Interrupt or restart that kernel on the server, then try again"
                    raise WorkbenchError(self._asked(request), found, todo) from None
                except KeyboardInterrupt:
                    self._interrupt()
                    raise
                time.sleep(min(pause, LONGEST_PAUSE_S))

    def close(self) -> None:
        with self._lock:
            kernel_id = self._kernel_id
            self._drop()
            server = self._transport._server
            if self._role == "work" and self._started and kernel_id and server is not None:
                try:
                    server.stop_kernel(kernel_id)
                except (Cut, WorkbenchError):
                    return  # the server is away: the state file still knows the kernel
                self._state.forget(kernel_id)
                self._started = False

    def _asked(self, request: dict[str, Any]) -> str:
        return f"{request.get('verb')} on the machine {self._transport.name!r}"

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _after_cut(self, cut: Cut, cuts: int) -> None:
        """Prepare the next try, or give up."""
        now = time.monotonic()
        self._lost_at = self._lost_at or now
        if self._connection is None or not self._connection.opened:
            self._drop()
            self._transport.forget_server()
        waited, patience = now - self._lost_at, self._transport._patience
        if not self._met:
            patience = min(FIRST_PATIENCE_S, patience)
        if waited < patience and cuts < MOST_CUTS:
            return
        url = self._transport.entry.url
        found = f"{url} has not answered for {waited:.0f} s ({cut})"
        todo = "Look whether the server runs and the network is up; jobs there go on, call again later"
        if not self._met:
            found = f"nothing answers at {url} ({cut})"
            todo = "Correct url, or start the server (there: jupyter server list shows those that run)"
        elif cuts >= MOST_CUTS:
            found = f"the connection to {url} was cut {cuts} times during this one request ({cut})"
        raise Unreachable(f"reach the machine {self._transport.name!r}", found, todo)

    def _after_death(self, request: dict[str, Any], deaths: int) -> None:
        self._greeted = False
        kernel_id = self._kernel_id
        self._drop()
        if self._role == "work":
            # never repeated by itself: what killed it (memory, most often) would do so again
            found, todo = (
                f"the kernel {kernel_id} died while it worked",
                "Look for memory there, then try again",
            )
            raise WorkbenchError(self._asked(request), found, todo)
        if deaths >= MOST_DEATHS:
            found, todo = f"the kernel died {deaths} times on this request", "Look into the server's log"
            raise WorkbenchError(self._asked(request), found, todo)
        self._transport.notify(
            f"the kernel {kernel_id} on {self._transport.name} died; jobs are not affected"
        )

    def _interrupt(self) -> None:
        if self._role == "work" and self._connection is not None:
            try:
                self._transport.server().interrupt(self._connection.kernel_id)
            except (Cut, WorkbenchError) as error:
                self._transport.notify(f"could not interrupt the kernel on {self._transport.name}: {error}")
        self._drop()

    # -- the kernel ----------------------------------------------------------------------------------------

    def _greet(self) -> None:
        self._connect()
        if not self._greeted:
            say_hello(
                self._transport.name,
                lambda request: self._request({"id": uuid.uuid4().hex, **request}, None),
                self._transport.notify,
            )
            self._greeted = True

    def _connect(self) -> KernelConnection:
        server = self._transport.server()
        if self._connection is None:
            kernel_id = self._find_kernel(server)
            self._connection, self._kernel_id = KernelConnection(server, kernel_id, self._session), kernel_id
        self._met = True
        return self._connection

    def _find_kernel(self, server: Server) -> str:
        """A kernel that lives: the one the user named, the one of the state file, or a new one."""
        named = self._transport.entry.kernel_id
        if named is not None:
            if _lives(server.kernel(named)):
                return named
            ids = server.kernel_ids()
            found = f"the server has no living kernel {named}" + (f", it has {', '.join(ids)}" if ids else "")
            todo = "Correct kernel_id in the machines file, or take it out to have kernels started"
            raise WorkbenchError(f"use the kernel of the machine {self._transport.name!r}", found, todo)
        with self._state.locked() as known:
            if known is not None:
                if _lives(server.kernel(known)):
                    return known
                self._transport.notify(
                    f"the kernel {known} on {self._transport.name} is gone (culled, or the server was restarted); "
                    "starting another one. Jobs are not affected"
                )
            self._label = self._label or f"workbench-{self._role}-{uuid.uuid4().hex[:12]}"
            kernel_id = server.start_kernel(self._label)
            self._state.remember(kernel_id)
        self._label, self._started, self._greeted = "", True, False
        return kernel_id

    def _request(self, request: dict[str, Any], on_progress: Progress | None) -> dict[str, Any]:
        connection = self._connection
        assert connection is not None
        envelope = json.dumps(
            {"id": request["id"], "request": request, "python": self._transport.entry.python}
        )
        expression = f"__import__('sys').modules[{MODULE!r}].answer({envelope!r})"
        on_text = _progress_reader(request["id"], on_progress) if on_progress is not None else None
        deadline = BUSY_S if self._role == "calls" else None
        try:
            try:
                text = connection.evaluate("", expression, on_text, deadline)
            except KernelRaised as error:
                if error.name != "KeyError" or MODULE not in error.text:
                    raise
                # a fresh process: new, or started again by the server under the same id
                text = connection.evaluate(f"exec({LOADER!r}, {{}})", expression, on_text, deadline)
        except KernelRaised as error:
            found = (
                "it was interrupted there"
                if error.name == "KeyboardInterrupt"
                else f"the kernel says {error}"
            )
            todo = "Try again, or look into the kernel on the server"
            raise WorkbenchError(self._asked(request), found, todo) from None
        self._lost_at = None
        reply = json.loads(text)
        if "error" in reply:
            raise_error(reply["error"])
        return reply["result"]


def _lives(model: dict[str, Any] | None) -> bool:
    return model is not None and model.get("execution_state") != "dead"


def _progress_reader(request_id: str, on_progress: Progress) -> Any:
    """Takes printed text as it comes, in any pieces; hands on the lines of progress of this request."""
    rest = ""

    def read(text: str) -> None:
        nonlocal rest
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            _, mark, told = line.partition(MARK)
            if mark:
                try:
                    message = json.loads(told)
                except ValueError:
                    continue  # its beginning went missing with a cut connection
                if message.get("id") == request_id:
                    on_progress(message["progress"])

    return read
