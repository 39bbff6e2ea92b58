"""Gradients of image and video batches, split into a shared and a temporal part (science.md section 2).

``gradient_probe`` measures and needs torch; reading its capture (``table``, ``words``) does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.probes.gradients.probe import gradient_probe
    from workbench.probes.gradients.read import table
    from workbench.probes.gradients.wording import words

__all__ = ["gradient_probe", "table", "words"]
_HOMES = {"gradient_probe": "probe", "table": "read", "words": "wording"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
