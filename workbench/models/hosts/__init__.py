"""Stock Hugging Face models behind the ``VideoLM`` protocol. Names are imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "HOSTS": "loading",
    "attach": "loading",
    "load_host": "loading",
    "make_processor": "loading",
    "HostModel": "modeling",
    "HostProcessor": "processing",
    "ProcessorFiles": "settings",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
