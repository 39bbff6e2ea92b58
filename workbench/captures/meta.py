"""What every capture says about itself, so that a figure can be rebuilt from the file alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench import __version__
from workbench.captures.header import CaptureError
from workbench.runs.events import utc_now
from workbench.runs.files import plain

FORMAT = 1
# keys every capture has; those a probe did not give are null
META_KEYS = (
    *("format", "kind", "created", "workbench", "axes", "units", "model", "checkpoint", "recipe_hash"),
    *("sample", "frames", "token_map", "seed"),
)


def clean_meta(kind: str, meta: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """``meta`` as JSON types, completed: every key of ``META_KEYS`` is there.

    Args:
        kind: what the capture is, for example ``"attention_rows"``.
        meta: needs ``axes`` {array: axis names} and ``units`` {array: text} for every array.
        shapes: of the arrays, by name.

    Raises:
        CaptureError: an array without axes or unit, or with another number of axes than dimensions.
    """
    full = plain(
        {"format": FORMAT, "created": utc_now(), "workbench": __version__}
        | {key: None for key in META_KEYS[6:]}
        | dict(meta)
        | {"kind": kind}
    )
    axes, units = full.setdefault("axes", {}) or {}, full.setdefault("units", {}) or {}
    for name, shape in shapes.items():
        if name not in axes or name not in units:
            lacks = "axes" if name not in axes else "units"
            raise CaptureError(
                f"write a {kind} capture",
                f"meta[{lacks!r}] says nothing about {name!r}",
                "describe each array",
            )
        if len(axes[name]) != len(shape):
            raise CaptureError(
                f"write a {kind} capture",
                f"{name!r} has {len(shape)} dimensions and the axes {axes[name]}",
                "name every axis once",
            )
    rest = {key: value for key, value in full.items() if key not in META_KEYS}
    return {key: full[key] for key in META_KEYS} | rest
