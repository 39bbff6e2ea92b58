"""Where training happens: this machine, a kernel of a Jupyter server, a machine behind ssh.

Everything a machine does happens on it, in ``agent.handle``; a ``Machine`` is the same five verbs (submit,
status, tail, signal, fetch) over a transport that carries its JSON. Training is owned by a detached supervisor
there, so the notebook, the connection and this computer may go away and come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.machines.attached import Attached, attach
    from workbench.machines.base import Job, Machine, Transport
    from workbench.machines.connect import machine
    from workbench.machines.watching import watch

__all__ = ["Attached", "Job", "Machine", "Transport", "attach", "machine", "watch"]
_HOMES = {"Attached": "attached", "attach": "attached", "machine": "connect", "watch": "watching"}


def __getattr__(name: str) -> Any:
    """Loaded when asked for: the agent is started once a request over ssh and needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'base')}"), name)
