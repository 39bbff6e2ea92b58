"""What a film strip in the browser is given (``frontend/src/lib/film.js``): frames, times, pictures, where tokens lie."""

from __future__ import annotations

import base64
import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.captures import Capture
from workbench.models.tokenmap import TokenMap
from workbench.views.payload import pack

PICTURES_LIMIT = 500_000  # bytes of text that the pictures of one strip may take
_LEVELS = (
    (160, 88),
    (160, 75),
    (112, 75),
    (80, 70),
    (56, 60),
    (40, 50),
)  # longest side, JPEG quality; tried in turn


@dataclass(frozen=True, eq=False)
class Strip:
    """The frames of a conversation as its language model has them.

    Attributes:
        spans: half-open ranges of clip frames, one a frame of the strip, in time order; longer than one frame where a
            model averages over time.
        names: "frame 3 of 8", or "frames 5 to 6 of 64".
        times: seconds of the middle of each span in the source; None without timestamps.
        cells: int32 ``[F, rows, cols]``, index among the visual tokens of the one that covers a cell; -1 for none. Rows
            and columns are as coarse as they can be without splitting a token.
        aspect: width / height of a frame.
    """

    spans: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    times: tuple[float | None, ...]
    cells: np.ndarray
    aspect: float

    @functools.cached_property
    def frame_of(self) -> np.ndarray:
        """Frame of the strip of every visual token, int64 ``[T]``."""
        out = np.full(int(self.cells.max(initial=-1)) + 1, -1)
        frames = np.broadcast_to(np.arange(len(self.spans))[:, None, None], self.cells.shape)
        out[self.cells[self.cells >= 0]] = frames[self.cells >= 0]
        return out

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of values of visual tokens ``[..., T]`` over each frame, ``[..., F]``; NaN counts as nothing."""
        order = np.argsort(self.frame_of, kind="stable")
        starts = np.searchsorted(self.frame_of[order], np.arange(len(self.spans)))
        seen = np.where(np.isnan(values), values.dtype.type(0), values)
        return np.add.reduceat(seen if (np.diff(order) == 1).all() else seen[..., order], starts, axis=-1)

    def data(self, pictures: np.ndarray | None) -> dict[str, Any]:
        """For ``film({...})``: frames, rows, cols, times, names, spans, aspect, cells (packed int32), sheet (or null)."""
        frames, rows, cols = self.cells.shape
        chosen = None
        if pictures is not None and len(pictures) >= max((stop for _, stop in self.spans), default=0):
            chosen = pictures[[(start + stop - 1) // 2 for start, stop in self.spans]]
        return {
            "frames": frames,
            "rows": rows,
            "cols": cols,
            "times": list(self.times),
            "names": list(self.names),
            "spans": [list(span) for span in self.spans],
            "aspect": self.aspect,
            "cells": pack(self.cells),
            "sheet": sheet(chosen),
        }


def strip_of(token_map: TokenMap) -> Strip | None:
    """The film strip of a conversation; None when it has no visual tokens."""
    visual = token_map.visual
    if not len(visual) or token_map.grid is None or token_map.frame_size is None:
        return None
    _, rows, cols = token_map.grid
    spans, frame = np.unique(token_map.frame_span[visual], axis=0, return_inverse=True)
    cells = np.full((len(spans), rows * cols), -1, dtype=np.int32)
    patches = token_map.patches[visual]
    for merged in range(patches.shape[1]):
        there = patches[:, merged] >= 0
        cells[frame.ravel()[there], patches[there, merged]] = np.flatnonzero(there)
    width, height = token_map.frame_size
    listed = tuple((int(start), int(stop)) for start, stop in spans)
    return Strip(
        listed,
        tuple(frame_name(span, len(token_map.frame_indices)) for span in listed),
        tuple(middle_time(span, token_map.timestamps_s) for span in listed),
        _coarse(cells.reshape(len(spans), rows, cols)),
        width / height,
    )


def frame_name(span: Sequence[int], frames: int) -> str:
    """Frames in words, counted from 1."""
    start, stop = span
    if stop - start > 1:
        return f"frames {start + 1} to {stop} of {frames}"
    return f"frame {start + 1} of {frames}"


def middle_time(span: Sequence[int], timestamps: Sequence[float]) -> float | None:
    """Seconds between the first and the last frame of a span; None without timestamps."""
    start, stop = span
    return (timestamps[start] + timestamps[stop - 1]) / 2 if stop <= len(timestamps) else None


def _coarse(cells: np.ndarray) -> np.ndarray:
    """Halve rows and columns while no token is split (tokens of 2 x 2 patches are one cell)."""
    for axis in (1, 2):
        while cells.shape[axis] % 2 == 0:
            even, odd = (np.take(cells, range(i, cells.shape[axis], 2), axis) for i in (0, 1))
            if not np.array_equal(even, odd):
                break
            cells = even
    return np.ascontiguousarray(cells)


def pictures_of(capture: Capture) -> np.ndarray | None:
    """uint8 ``[clip frame, y, x, rgb]`` of the frames really used; None for a capture that keeps none."""
    found = capture.arrays.get("pictures")
    return found if found is not None and found.ndim == 4 and found.size else None


def sheet(pictures: np.ndarray | None, limit: int = PICTURES_LIMIT) -> dict[str, Any] | None:
    """All frames as one image in base64, at most ``limit`` bytes: PNG where that fits, else JPEG, smaller and smaller.

    Args:
        pictures: uint8 ``[F, y, x, 3]``.
    """
    if pictures is None or not len(pictures):
        return None
    from PIL import Image

    count, tall, wide = pictures.shape[:3]
    columns = math.ceil(math.sqrt(count * tall / wide))
    lines = math.ceil(count / columns)

    def tiled(longest: int) -> tuple[Image.Image, int, int]:
        share = min(1.0, longest / max(tall, wide))
        w, t = max(1, round(wide * share)), max(1, round(tall * share))
        whole = Image.new("RGB", (columns * w, lines * t))
        for i, picture in enumerate(pictures):
            whole.paste(Image.fromarray(picture).resize((w, t)), (i % columns * w, i // columns * t))
        return whole, w, t

    def described(src: str, w: int, t: int) -> dict[str, Any]:
        return {"src": src, "columns": columns, "width": w, "height": t}

    whole, w, t = tiled(160)
    if (src := _encoded(whole, "png", optimize=True)) and len(src) <= limit:
        return described(src, w, t)
    for longest, quality in _LEVELS:
        whole, w, t = tiled(longest)
        src = _encoded(whole, "jpeg", quality=quality)
        if len(src) <= limit:
            break
    return described(src, w, t)


def _encoded(image: Any, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
