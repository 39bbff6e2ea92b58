"""``Media``: the frames of one sample as a host takes them, and what each of its positions shows.

n positions of one placeholder in the text. A text holds one mark a medium (a video is one medium, or one picture a
frame where a host knows no video); each mark is replaced by a ``Part``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from workbench.models.tokenmap import TEMPLATE


@dataclass(frozen=True)
class Part:
    """What replaces one mark.

    Attributes:
        ids: int64 ``[n]``; the visual token at visual and newline positions.
        kinds: uint8 ``[n]`` (see ``tokenmap``).
        span: int32 ``[n, 2]``, half-open range of clip frames.
        patches: int32 ``[n, 4]``, raster indices of the merged patches; -1 fills up.
        boxes: float32 ``[n, 4]``, in pixels of the source frame.
    """

    ids: np.ndarray
    kinds: np.ndarray
    span: np.ndarray
    patches: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Media:
    """One sample's frames, ready.

    Attributes:
        kind: "image" or "video", which mark stands in the text.
        pixel_values: float32, first axis as ``HostModel.visual_features`` reads it.
        grid: (F, rows, cols) of what the encoder sees, in patches, and columns of the host's own behind.
        map_grid: (F, rows, cols) that ``Part.patches`` counts in.
        frame_size: (width, height) of the source frames.
        parts: one a mark.
    """

    kind: str
    pixel_values: Tensor
    grid: tuple[int, ...]
    map_grid: tuple[int, int, int]
    frame_size: tuple[int, int]
    parts: tuple[Part, ...]


def text_part(ids: np.ndarray, kinds: np.ndarray | None = None) -> Part:
    """Text positions: no frames, patches or boxes."""
    n = len(ids)
    return Part(
        np.asarray(ids, dtype=np.int64),
        np.full(n, TEMPLATE, dtype=np.uint8) if kinds is None else kinds,
        np.full((n, 2), -1, dtype=np.int32),
        np.full((n, 4), -1, dtype=np.int32),
        np.full((n, 4), -1, dtype=np.float32),
    )


def join(parts: list[Part]) -> Part:
    """Parts one behind the other."""
    if len(parts) == 1:
        return parts[0]
    names = ("ids", "kinds", "span", "patches", "boxes")
    return Part(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def union(boxes: np.ndarray) -> np.ndarray:
    """Boxes around groups of boxes: ``[n, k, 4]`` -> float32 ``[n, 4]``."""
    return np.concatenate([boxes[..., :2].min(1), boxes[..., 2:].max(1)], axis=1).astype(np.float32)
