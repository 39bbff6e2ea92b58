"""One expression, evaluated in a remote kernel over its websocket, its value brought back whole.

Our own few lines on ``websocket-client`` instead of jupyter-kernel-client 1.0.2, which (read in its source)
puts the token into the websocket's URL, where servers log it; cannot be given a CA; waits for ever on a
connection that stalls; and starts another kernel when the one it was given is gone.

The value comes back in ``execute_reply`` (``user_expressions``), not as printed output: servers limit the
rate of output and drop what is above it without telling the program. Liveness is that of the server: a
websocket ping every `PING_S` while waiting, answered even when the kernel is busy for hours.
"""

from __future__ import annotations

import ast
import json
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from workbench.errors import WorkbenchError
from workbench.machines.jupyter_api import Cut, Server

OPEN_S = 15.0  # TCP, TLS, HTTP and the server's own look at the kernel
PING_S = 2.0
STALL_S = 6.0  # nothing from the server, not even a pong: the connection is dead
TICK_S = 0.5
QUICK_ACK = getattr(socket, "TCP_QUICKACK", None)  # Linux
FIRST_LOOK_S, LOOK_S = 1.0, 5.0  # waiting for so long, ask the server whether the kernel still exists
IDLE_S = 20.0  # unread for longer, a connection is opened anew: servers drop clients that answer no ping


class KernelDied(Exception):
    """The kernel's process is gone; the server may have started another one under the same id."""


class KernelBusy(Exception):
    """The server is alive and the kernel has not answered in the time given."""


class KernelRaised(Exception):
    """The expression raised; ``name`` is the exception's class there."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}" if text else name)
        self.name, self.text = name, text


class KernelConnection:
    """A websocket to one kernel. Not for several threads at once."""

    def __init__(self, server: Server, kernel_id: str, session: str, stall_s: float = STALL_S) -> None:
        self._server, self.kernel_id, self._session, self._stall = server, kernel_id, session, stall_s
        self._socket: Any = None
        self._used = 0.0
        self.opened = False  # the last cut hit an open connection: opening it again is worth a try

    def close(self) -> None:
        if self._socket is not None:
            # shutdown, not close: the closing handshake would wait for a peer that may be gone
            self._socket.shutdown()
            self._socket = None

    def evaluate(
        self,
        code: str,
        expression: str,
        on_text: Callable[[str], None] | None = None,
        deadline_s: float | None = None,
    ) -> str:
        """Run ``code``, then give the value of ``expression``, a ``str``.

        Args:
            on_text: gets what is printed, piece by piece, by whichever request of the kernel.
            deadline_s: longest wait for a kernel whose server is alive; None: as long as it takes.

        Raises:
            Cut: the connection broke; the code may or may not have run.
            KernelDied, KernelRaised
            KernelBusy: ``deadline_s`` is over.
            WorkbenchError: the server refuses.
        """
        try:
            self._open()
            self.opened = True
            return self._ask(code, expression, on_text, deadline_s)
        except BaseException:
            self.close()  # also after an interrupt: the answer still to come belongs to nobody
            raise

    def _open(self) -> None:
        if self._socket is not None and time.monotonic() - self._used > IDLE_S:
            self.close()
        if self._socket is None:
            self.opened = False
            self._socket = self._server.websocket(self.kernel_id, self._session, OPEN_S)

    def _ask(
        self, code: str, expression: str, on_text: Callable[[str], None] | None, deadline_s: float | None
    ) -> str:
        import websocket

        message = _execute_request(self._session, code, expression)
        key = message["header"]["msg_id"]
        start = heard = pinged = time.monotonic()
        look_at = start + FIRST_LOOK_S
        try:
            self._socket.settimeout(self._stall)
            self._socket.send(json.dumps(message))
            self._socket.settimeout(TICK_S)
            while True:
                now = self._used = time.monotonic()
                if now - heard > self._stall:
                    raise Cut(f"nothing heard for {self._stall:.0f} s")
                if now - heard > PING_S and now - pinged > PING_S:
                    pinged = now
                    self._socket.ping()
                if now > look_at:
                    look_at = now + LOOK_S
                    self._look()
                if deadline_s is not None and now - start > deadline_s:
                    raise KernelBusy
                _acknowledge_at_once(self._socket.sock)
                try:
                    opcode, data = self._socket.recv_data(control_frame=True)
                except websocket.WebSocketTimeoutException:
                    continue
                heard = time.monotonic()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    raise Cut("the server closed the connection")
                if opcode != websocket.ABNF.OPCODE_TEXT:
                    continue
                value = _read(json.loads(data), key, on_text)
                if value is not None:
                    return value
        except (websocket.WebSocketException, OSError, EOFError, ValueError) as error:
            raise Cut(str(error) or type(error).__name__) from None

    def _look(self) -> None:
        """A server that culls or deletes a kernel leaves its websockets open: nobody would ever answer."""
        try:
            model = self._server.kernel(self.kernel_id)
        except (Cut, WorkbenchError):
            return  # the websocket will show what is wrong with the line
        if model is None or model.get("execution_state") == "dead":
            raise Cut("the kernel is gone")


def _acknowledge_at_once(sock: socket.socket) -> None:
    """Servers write 'busy' and the answer in two packets and, with Nagle's algorithm on, hold the second until
    the first is acknowledged, which Linux delays by 40 ms. The option lasts until the next packet only.
    """
    if QUICK_ACK is not None:
        sock.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)


def _read(message: dict[str, Any], key: str, on_text: Callable[[str], None] | None) -> str | None:
    """The value when this message is the answer to ``key``, else None."""
    kind, content = message["header"]["msg_type"], message.get("content", {})
    if kind == "stream" and on_text is not None and content.get("name") == "stdout":
        on_text(content["text"])
    elif kind == "status" and content.get("execution_state") in ("restarting", "autorestarting", "dead"):
        raise KernelDied(content["execution_state"])
    if kind != "execute_reply" or message.get("parent_header", {}).get("msg_id") != key:
        return None
    if content.get("status") == "aborted":  # something queued before ours failed
        raise Cut("the kernel dropped the request")
    if content.get("status") != "ok":
        raise KernelRaised(content.get("ename", "error"), content.get("evalue", ""))
    answer = content["user_expressions"]["value"]
    if answer["status"] != "ok":
        raise KernelRaised(answer.get("ename", "error"), answer.get("evalue", ""))
    value = ast.literal_eval(answer["data"]["text/plain"])
    assert isinstance(value, str)
    return value


def _execute_request(session: str, code: str, expression: str) -> dict[str, Any]:
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "username": "workbench",
        "session": session,
        "date": datetime.now(UTC).isoformat(),
        "version": "5.3",
    }
    content = {
        "code": code,
        "silent": True,
        "store_history": False,
        "user_expressions": {"value": expression},
        "allow_stdin": False,
        "stop_on_error": False,
    }
    return {
        "channel": "shell",
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "buffers": [],
    }
