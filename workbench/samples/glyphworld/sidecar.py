"""Ground truth for ``objects.jsonl``: boxes in pixels (x0, y0, x1, y1; half-open) and times in frames."""

from __future__ import annotations

from typing import Any

from .scene import GRID, Scene, Track
from .timing import FPS


def describe(media: str, scene: Scene, size: int) -> dict[str, Any]:
    """One sidecar row. ``box`` is where an object stands; movers have ``boxes``, one a frame."""
    objects = [_digit(track, size // GRID) for track in scene.tracks]
    if scene.light is not None:
        side = size // 2
        y, x = side * (scene.light.quadrant // 2), side * (scene.light.quadrant % 2)
        objects.append({"kind": "light", "box": [x, y, x + side, y + side], "flashes": scene.light.runs})
    row: dict[str, Any] = {"media": media, "width": size, "height": size, "frames": scene.frames}
    if scene.frames > 1:
        row["fps"] = FPS
    return row | {"objects": objects}


def _digit(track: Track, cell: int) -> dict[str, Any]:
    seen = track.visible.nonzero()[0]
    boxes = [[c * cell, r * cell, (c + 1) * cell, (r + 1) * cell] for r, c in track.cells[seen].tolist()]
    row: dict[str, Any] = {"kind": "digit", "digit": track.word, "colour": track.colour, "role": track.role}
    row |= {"glyph": track.glyph, "first_frame": int(seen[0]), "last_frame": int(seen[-1])}
    if track.new_colour is not None:
        row |= {"new_colour": track.new_colour, "change_frame": track.change_frame}
    return row | ({"boxes": boxes} if track.moves else {"box": boxes[0]})
