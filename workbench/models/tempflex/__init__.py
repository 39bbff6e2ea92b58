"""TempFlex-VL. Names are imported when first used, so that a part can be taken without the rest."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "TemporalFiberFusion": "fusion",
    "FusionWeights": "fusion",
    "PatchMerger": "merger",
    "TempFlexConfig": "configuration",
    "TempFlexVisionConfig": "configuration",
    "NaFlexEncoder": "encoder",
    "TempFlexForConditionalGeneration": "modeling",
    "TempFlexProcessor": "processing",
    "build_word_tokenizer": "tokenizer",
    "preset_config": "presets",
    "new_tempflex": "checkpoints",
    "load_tempflex": "checkpoints",
    "save_tempflex": "checkpoints",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
