"""Boxes in source frames, drawn or from ground truth, and how much of each visual token lies inside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.models.tokenmap import TokenMap
from workbench.probes.common import ProbeError
from workbench.samples.sample import Sample

SIDECAR = "objects.jsonl"
CORNERS = ("northwest", "northeast", "southwest", "southeast")  # as glyph world calls them


@dataclass(frozen=True, slots=True)
class Box:
    """(x0, y0, x1, y1) in pixels of a source frame, half-open; in the source frames ``first .. last`` (all if None)."""

    x0: float
    y0: float
    x1: float
    y1: float
    first: int | None = None
    last: int | None = None

    def at(self, frame: int) -> bool:
        """Whether it stands in that source frame."""
        return (self.first is None or frame >= self.first) and (self.last is None or frame <= self.last)


def inside(token_map: TokenMap, tokens: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Share of each token's area that lies in the union of the boxes, 0 .. 1, float64 ``[len(tokens)]``.

    Exact to a pixel (boxes are rounded to whole pixels); a token that covers several frames has their mean.

    Raises:
        ProbeError: a box that is empty or reaches outside the frame.
    """
    assert token_map.frame_size is not None
    width, height = token_map.frame_size
    for box in boxes:
        if not (0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height):
            raise ProbeError(
                f"use the box ({box.x0:g}, {box.y0:g}, {box.x1:g}, {box.y1:g})",
                f"the frames are {width} x {height} pixels",
                "Give boxes inside the frame with x0 < x1 and y0 < y1, in pixels of the source",
            )
    areas, owner = _areas(token_map, tokens)
    spans = token_map.frame_span[tokens]
    share = np.zeros(len(tokens))
    for span in np.unique(spans, axis=0):
        mine = np.flatnonzero((spans == span).all(1))
        parts = np.isin(owner, mine)
        frames = token_map.frame_indices[span[0] : span[1]]
        covered = np.zeros(int(parts.sum()))
        for frame in frames:
            covered += _covered(areas[parts], [box for box in boxes if box.at(frame)], width, height)
        size = (areas[:, 2] - areas[:, 0]) * (areas[:, 3] - areas[:, 1])
        total = np.bincount(owner[parts], size[parts], len(tokens))[mine] * max(1, len(frames))
        within = np.bincount(owner[parts], covered, len(tokens))[mine]
        share[mine] = np.divide(within, total, out=np.zeros(len(mine)), where=total > 0)
    return share.clip(0.0, 1.0)


def _areas(token_map: TokenMap, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles that make up the tokens ``[m, 4]`` and the token each belongs to ``[m]``.

    A token's box, unless its patches do not fill it (a strip of patches that wraps to the next row): then one each.
    """
    assert token_map.frame_size is not None
    boxes = token_map.boxes[tokens].astype(np.float64)
    if token_map.grid is None:
        return boxes, np.arange(len(tokens))
    width, height = token_map.frame_size
    _, rows, cols = token_map.grid
    tall, wide = height / rows, width / cols
    rectangles, owner = [], []
    for i, (box, patches) in enumerate(zip(boxes, token_map.patches[tokens], strict=True)):
        patches = patches[patches >= 0]
        r, c = patches // cols, patches % cols
        cells = (r.max() - r.min() + 1) * (c.max() - c.min() + 1) if len(patches) else 0
        union = (c.min() * wide, r.min() * tall, (c.max() + 1) * wide, (r.max() + 1) * tall) if cells else box
        if cells > len(patches) and np.allclose(union, box, atol=1.0):
            rectangles += [
                (x * wide, y * tall, (x + 1) * wide, (y + 1) * tall) for y, x in zip(r, c, strict=True)
            ]
            owner += [i] * len(patches)
        else:
            rectangles.append(tuple(box))
            owner.append(i)
    return np.array(rectangles), np.array(owner)


def _covered(areas: np.ndarray, boxes: Sequence[Box], width: int, height: int) -> np.ndarray:
    """Area of each rectangle inside the union of boxes, in pixels; from an integral image, interpolated in between."""
    if not boxes:
        return np.zeros(len(areas))
    mask = np.zeros((height, width))
    for box in boxes:
        mask[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)] = 1.0
    table = np.zeros((height + 1, width + 1))
    table[1:, 1:] = mask.cumsum(0).cumsum(1)

    def integral(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        left, top = np.floor(x).astype(int).clip(0, width - 1), np.floor(y).astype(int).clip(0, height - 1)
        fx, fy = x - left, y - top
        return (
            table[top, left] * (1 - fx) * (1 - fy)
            + table[top, left + 1] * fx * (1 - fy)
            + table[top + 1, left] * (1 - fx) * fy
            + table[top + 1, left + 1] * fx * fy
        )

    x0, y0, x1, y1 = areas.clip(0, [width, height, width, height]).T
    return integral(x1, y1) - integral(x0, y1) - integral(x1, y0) + integral(x0, y0)


def ground_truth(sample: Sample, which: str = "asked") -> list[Box]:
    """Boxes of a sample's objects from the ``objects.jsonl`` beside its data.

    Args:
        which: "all" objects, or those "asked" about: named in the question by digit, colour, kind or corner; if there
            are none, those named in the answer (not of counts); if there are none, all.

    Raises:
        ProbeError: there is no sidecar, or it does not know the medium.
    """
    row = _sidecar_row(sample)
    objects: list[dict[str, Any]] = row["objects"]
    texts = [] if which == "all" else [sample.question] + ([sample.answer] if sample.skill != "count" else [])
    chosen = objects
    for text in texts:
        words = set("".join(c if c.isalnum() else " " for c in text.lower()).split())
        named = [found for found in objects if words & _names(found, row["width"], row["height"])]
        if named:
            chosen = named
            break
    return [box for found in chosen for box in _boxes_of(found)]


def _names(found: dict[str, Any], width: int, height: int) -> set[str]:
    names = {str(found[key]) for key in ("digit", "colour", "new_colour") if key in found}
    if found.get("kind") != "digit":  # the word "digit" names none of them
        names.add(str(found.get("kind")))
    if "box" in found:
        x0, y0, x1, y1 = found["box"]
        names.add(CORNERS[2 * (y0 + y1 >= height) + (x0 + x1 >= width)])
    return names


def _boxes_of(found: dict[str, Any]) -> list[Box]:
    first, last = found.get("first_frame"), found.get("last_frame")
    if "boxes" in found:
        start = int(first or 0)
        return [_box(corners, start + i, start + i) for i, corners in enumerate(found["boxes"])]
    return [_box(found["box"], first, last)]


def _box(corners: Sequence[float], first: int | None, last: int | None) -> Box:
    x0, y0, x1, y1 = corners
    return Box(x0, y0, x1, y1, first, last)


def _sidecar_row(sample: Sample) -> dict[str, Any]:
    asked = f"find the boxes of {sample.id}"
    if sample.media is None:
        raise ProbeError(asked, "it has no image or video", "Give a sample with media")
    path = Path(sample.media.path).resolve()
    for folder in path.parents:
        sidecar = folder / SIDECAR
        if sidecar.is_file():
            name = path.relative_to(folder).as_posix()
            with sidecar.open(encoding="utf-8") as lines:
                for line in lines:
                    if name in line and (row := json.loads(line))["media"] == name:
                        return row
            raise ProbeError(asked, f"{SIDECAR} has no row for {name}", "Draw a box instead", str(sidecar))
    raise ProbeError(asked, f"there is no {SIDECAR} beside its data", "Draw a box instead", str(path.parent))
