"""Train video MLLMs, see the temporal trap, escape it, look inside.

``workbench.Workbench()`` is everything as one app; ``workbench.machine("gpu")`` and ``workbench.attach("gpu:trap")`` are
the way to jobs from Python. Importing the package itself loads nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "attach": "machines",
    "machine": "machines",
    "AtlasView": "views.atlas",
    "AttentionView": "views.attention",
    "EffectView": "views.effects",
    "FramePlanView": "views.frameplan",
    "FusionView": "views.fusion",
    "GradientView": "views.gradients",
    "Launcher": "views.launcher",
    "RunBrowser": "views.browser",
    "RunMonitor": "views.monitor",
    "ScoreView": "views.scores",
    "Workbench": "views.app",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
