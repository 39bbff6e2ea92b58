"""The machine this Python runs on: the agent is called as a function."""

from __future__ import annotations

from typing import Any

from workbench.machines import agent
from workbench.machines.base import Progress


class LocalTransport:
    """Calls the agent in this process. The supervisor it starts is a process of its own all the same."""

    def call(self, request: dict[str, Any], on_progress: Progress | None = None) -> dict[str, Any]:
        return agent.handle(request, on_progress)

    def close(self) -> None:
        return None
