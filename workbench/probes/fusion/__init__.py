"""The lens on Temporal Fiber Fusion: what each branch does to each frame and patch (docs/tff.md, "The lens").

``fusion_probe`` measures and needs torch; reading its capture (``table``, ``changes``, ``words``) does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.probes.fusion.probe import fusion_probe
    from workbench.probes.fusion.read import changes, table
    from workbench.probes.fusion.sentences import comparison_words, words

__all__ = ["changes", "comparison_words", "fusion_probe", "table", "words"]
_HOMES = {"fusion_probe": "probe", "changes": "read", "table": "read"}
_HOMES |= {"comparison_words": "sentences", "words": "sentences"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
