"""How attention rows are kept: exactly, or in fewer bytes with a stated error.

"Not visible" is NaN in floating types and ``HIDDEN`` in uint8, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

Store = Literal["float32", "float16", "uint8"]
BYTES = {"float32": 4, "float16": 2, "uint8": 1}
HIDDEN, LEVELS = 255, 254  # uint8: 0 .. 254 are shares of a row's largest value


def encode(weights: np.ndarray, store: Store) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows ``[..., K]`` float32 with NaN -> what is stored, and for uint8 each row's largest value ``[...]``."""
    if store != "uint8":
        return weights.astype(store), None
    hidden = np.isnan(weights)
    shown = np.where(hidden, np.float32(0), weights)
    top = shown.max(-1, initial=0.0)
    scaled = np.rint(shown * np.where(top > 0, LEVELS / np.maximum(top, 1e-30), 0.0)[..., None])
    return np.where(hidden, HIDDEN, scaled).astype(np.uint8), top.astype(np.float32)


def decode(stored: np.ndarray, top: np.ndarray | None) -> np.ndarray:
    """The inverse of ``encode``: float32 with NaN where a key is not visible."""
    if stored.dtype != np.uint8:
        return stored.astype(np.float32)
    assert top is not None
    values = stored.astype(np.float32) * (top[..., None] / np.float32(LEVELS))
    values[stored == HIDDEN] = np.nan
    return values


def stated_error(store: Store) -> str:
    """What a reader must know of stored values."""
    return {
        "float32": "exact to float32",
        "float16": "rounded to float16: relative error up to 2^-11, absolute up to 2^-25 below 2^-14",
        "uint8": f"rounded to 1/{LEVELS} of the row's largest value: absolute error up to row_max / {2 * LEVELS}",
    }[store]


def rows_of(
    arrays: Mapping[str, np.ndarray], layer: int | slice = slice(None), name: str = "rows"
) -> np.ndarray:
    """Attention rows of a capture as float32 with NaN where not visible, ``[layers?, heads, queries, keys]``.

    Args:
        layer: index *along the first axis* (the capture's ``layers`` say which layer that is).
    """
    top = arrays.get(f"{name}_max")
    return decode(arrays[name][layer], None if top is None else top[layer])
