"""What really went over a page's kernel connections: binary buffers, which break a notebook behind a gateway."""

from __future__ import annotations

import json
from typing import Any

V1_PARTS = 6  # offsets of channel, header, parent, metadata and content, and of the end


class Wire:
    """Every message of a page's WebSockets to kernels, both ways."""

    def __init__(self, page: Any) -> None:
        self.messages = 0
        self.comms = 0
        self.binary: list[str] = []
        page.on("websocket", self._opened)

    def _opened(self, socket: Any) -> None:
        if "/channels" in socket.url:
            socket.on("framereceived", lambda frame: self._seen("received", frame))
            socket.on("framesent", lambda frame: self._seen("sent", frame))

    def _seen(self, way: str, frame: str | bytes) -> None:
        count, kind = buffers(frame)
        self.messages += 1
        self.comms += kind.startswith("comm")
        if count:
            self.binary.append(f"{way} {kind} with {count} buffers")


def buffers(frame: str | bytes) -> tuple[int, str]:
    """How many buffers a message has, and its type.

    Text frames are JSON. Binary ones are either the protocol ``v1.kernel.websocket.jupyter.org``, where every message
    is one (offsets as 64-bit numbers first), or the older one, where only messages with buffers are.
    """
    if isinstance(frame, str):
        message = json.loads(frame)
        return len(message.get("buffers") or ()), str(message.get("header", {}).get("msg_type"))
    parts, first = (int.from_bytes(frame[i : i + 8], "little") for i in (0, 8))
    if parts < 1000 and first == 8 * (parts + 1):
        offsets = [int.from_bytes(frame[8 * (i + 1) : 8 * (i + 2)], "little") for i in range(parts)]
        header = json.loads(frame[offsets[1] : offsets[2]])
        return parts - V1_PARTS, str(header.get("msg_type"))
    return int.from_bytes(frame[:4], "big") - 1, "message of the older protocol"
