"""Train video MLLMs, see the temporal trap, escape it, look inside.

``workbench.machine("gpu")`` and ``workbench.attach("gpu:trap")`` are the way to jobs from Python; importing the
package itself loads nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in ("attach", "machine"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("workbench.machines"), name)
