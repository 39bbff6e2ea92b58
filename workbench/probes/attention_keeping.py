"""What probes of attention keep: rows in a store, the metadata all of them share, and whether there is room."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from workbench.captures.rows import Store, encode, part_axes, part_unit
from workbench.probes.attention_size import check_room
from workbench.probes.common import capture_meta

if TYPE_CHECKING:
    from workbench.models.videolm import Prepared
    from workbench.probes.attention import Look
    from workbench.samples.sample import Clip, Sample

ROWS = ("layer", "head", "query", "key")
CHECK_UNIT = "in units of the attention's output"


def look_meta(
    model: Any,
    look: Look,
    sample: Sample,
    clip: Clip | None,
    prepared: Prepared,
    *,
    layers: Sequence[int],
    heads: Sequence[int] | str,
    heads_of_model: int,
    arrays: Mapping[str, tuple[Sequence[str], str]],
    where: str = "llm",
    **own: Any,
) -> dict[str, Any]:
    """``Capture.meta`` of a look at attention.

    Args:
        heads: those listed, or "mean".
        arrays: name -> (axes, unit), of those known beforehand.
        own: further keys.
    """
    return capture_meta(
        model,
        axes={name: axes for name, (axes, _) in arrays.items()},
        units={name: unit for name, (_, unit) in arrays.items()},
        sample=sample,
        clip=clip,
        prepared=prepared,
        checkpoint=look.checkpoint,
        recipe_hash=look.recipe_hash,
        turn=look.turn,
        where=where,
        layers=list(layers),
        heads=heads,
        heads_of_model=heads_of_model,
        **own,
        **(look.own or {}),
    )


def put(
    writer: Any, name: str, weights: np.ndarray, store: Store, unit: str, axes: Sequence[str] = ROWS
) -> None:
    """Append one layer's rows, ``axes`` without the first, in the form asked for, and describe them."""
    for ending, part in encode(weights, store).items():
        writer.append(name + ending, part)
        describe(writer.meta, name + ending, part_axes(axes, ending, store), part_unit(unit, ending, store))


def describe(meta: dict[str, Any], name: str, axes: Sequence[str], unit: str) -> None:
    """Axes and unit of one more array."""
    meta["axes"][name], meta["units"][name] = list(axes), unit


def refuse_if_too_large(
    asked: str, kept: int, working: int, path: str | Path | None, smallest: int | None = None
) -> None:
    """``check_room`` against this machine: its free memory and, with a path, the free disk there."""
    on_disk = None
    if path is not None:
        folder = Path(path).absolute().parent
        while not folder.exists():
            folder = folder.parent
        on_disk = shutil.disk_usage(folder).free // 2  # spools and the file are there together for a moment
    check_room(asked, kept, working, on_disk, psutil.virtual_memory().available, smallest)
