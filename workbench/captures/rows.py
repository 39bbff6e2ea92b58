"""How attention rows are kept: exactly, or in fewer bytes with a stated error.

"Not visible" is NaN in floating types, ``HIDDEN`` in uint8 and a bit of its own in topk (``topk.py``), never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from workbench.captures.topk import BLOCK, PART_AXES, decode_topk, encode_topk, row_bytes

Store = Literal["float32", "float16", "uint8", "topk"]
Choice = Literal["auto", "float32", "float16", "uint8", "topk"]
BYTES = {"float32": 4, "float16": 2, "uint8": 1}
HIDDEN, LEVELS = 255, 254  # uint8: 0 .. 254 are shares of a row's largest value
AUTO_BYTES = 100_000_000  # "auto" keeps rows exactly as long as they take no more


def store_bytes(rows: int, keys: int, store: Store) -> int:
    """Bytes of so many rows of K keys, row maxima and the like included."""
    if store == "topk":
        return rows * row_bytes(keys)
    return rows * keys * BYTES[store] + (4 * rows if store == "uint8" else 0)


def chosen_store(choice: Choice, rows: int, keys: int) -> Store:
    """ "auto" is float32 while that takes at most 100 MB, and topk beyond."""
    if choice != "auto":
        return choice
    return "float32" if store_bytes(rows, keys, "float32") <= AUTO_BYTES else "topk"


def encode(weights: np.ndarray, store: Store) -> dict[str, np.ndarray]:
    """Rows ``[..., K]`` float32 with NaN -> what is stored, by the ending of the array's name.

    "" the values; with uint8 ``_max`` each row's largest; with topk those of ``topk.py``.
    """
    if store == "topk":
        return encode_topk(weights)
    if store != "uint8":
        return {"": weights.astype(store, copy=False)}
    hidden = np.isnan(weights)
    shown = np.where(hidden, np.float32(0), weights)
    top = shown.max(-1, initial=0.0)
    scaled = np.rint(shown / np.where(top > 0, top, np.float32(1))[..., None] * np.float32(LEVELS))
    return {"": np.where(hidden, HIDDEN, scaled).astype(np.uint8), "_max": top.astype(np.float32)}


def part_axes(axes: Sequence[str], ending: str, store: Store) -> tuple[str, ...]:
    """Axes of a stored part of rows that have the axes ``axes``, the first of which counts the pieces appended."""
    if ending == "_keys":
        return tuple(axes[:1])
    if store == "topk":
        return (*axes[:-1], *PART_AXES[ending])
    return tuple(axes if ending == "" else axes[:-1])


def part_unit(unit: str, ending: str, store: Store) -> str:
    """Unit of a stored part of rows whose values have the unit ``unit``."""
    whole = f"{unit}, {stated_error(store)}"
    if ending == "" and store == "topk":
        return f"share of row_max: {whole}"
    return {
        "": f"{whole}; not visible is NaN (255 in uint8)",
        "_max": f"largest {unit} of the row",
        "_cut": f"largest {unit} of the row that is not listed",
        "_rest": f"mean over the visible unlisted keys among {BLOCK} neighbours, as a share of row_cut",
        "_bits": "bitmaps, most significant bit first: visible keys; listed keys",
        "_keys": "keys of a row",
    }[ending]


def stated_error(store: Store) -> str:
    """What a reader must know of stored values."""
    return {
        "float32": "exact to float32",
        "float16": "rounded to float16: relative error up to 2^-11, absolute up to 2^-25 below 2^-14",
        "uint8": f"rounded to 1/{LEVELS} of the row's largest value: absolute error up to row_max / {2 * LEVELS}",
        "topk": "the largest values of a row singly, relative error up to 2^-11 (absolute up to row_max * 2^-25); all others "
        f"lie between 0 and row_cut and are given as means of {BLOCK} neighbours: absolute error up to row_cut",
    }[store]


Index = int | slice | tuple[int | slice, ...]


def rows_of(arrays: Mapping[str, np.ndarray], at: Index = slice(None), name: str = "rows") -> np.ndarray:
    """Attention rows of a capture as float32 with NaN where not visible, ``[layers?, heads?, queries?, keys]``.

    Args:
        at: which, *along the axes* before the last (the capture's ``layers`` say which layer an index is): a layer, or
            (layer, head, query), slices among them. Only what is asked for is read.
    """
    stored = np.asarray(arrays[name][at])
    if f"{name}_rest" in arrays:
        parts = {ending: np.asarray(arrays[name + ending][at]) for ending in PART_AXES}
        return decode_topk(parts, int(arrays[f"{name}_keys"][0]))
    if stored.dtype != np.uint8:
        return stored.astype(np.float32)
    values = stored.astype(np.float32) * (
        np.asarray(arrays[f"{name}_max"][at])[..., None] / np.float32(LEVELS)
    )
    values[stored == HIDDEN] = np.nan
    return values
