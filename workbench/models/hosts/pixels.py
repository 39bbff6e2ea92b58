"""Frames to network inputs without torchvision: Pillow's antialiased resizing, cropping, normalising.

F frames, H and W source pixels. Geometry is kept beside the pixels (``View``), so that every patch has its box in the
source frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from workbench.errors import CheckpointError
from workbench.models.hosts.settings import PictureSettings


@dataclass(frozen=True, slots=True)
class View:
    """Where a network input of ``height`` x ``width`` pixels lies in a source frame: pixel (x, y) of the input shows
    the source at ((x - left) / scale_x, (y - top) / scale_y)."""

    height: int
    width: int
    scale_x: float
    scale_y: float
    left: float
    top: float

    def boxes(self, corners: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
        """Boxes (x0, y0, x1, y1) of the input, ``[n, 4]``, in pixels of a source frame (width, height), clipped to it;
        what lies wholly in padding becomes an empty box on the border. float32."""
        box = (corners - np.array([self.left, self.top] * 2)) / np.array([self.scale_x, self.scale_y] * 2)
        return box.clip(0, np.array(frame * 2)).astype(np.float32)


def resize(frames: np.ndarray, height: int, width: int, resample: int) -> np.ndarray:
    """uint8 ``[F, H, W, 3]`` at another size; untouched when it has that size already."""
    if frames.shape[1:3] == (height, width):
        return frames
    out = np.empty((len(frames), height, width, 3), dtype=np.uint8)
    how = Image.Resampling(resample)
    for i, frame in enumerate(frames):
        out[i] = np.asarray(Image.fromarray(frame).resize((width, height), how))
    return out


def normalise(frames: np.ndarray, settings: PictureSettings) -> Tensor:
    """uint8 ``[F, H, W, 3]`` -> float32 ``[F, 3, H, W]``, (value * rescale - mean) / std."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).to(torch.float32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (settings.mean, settings.std))
    return pixels.mul_(settings.rescale).sub_(mean).div_(std)


def square_pixels(frames: np.ndarray, settings: PictureSettings) -> tuple[Tensor, View]:
    """CLIP's and SigLIP's way: resize to a fixed size, or the shortest edge to a size and the middle cut out.

    Returns:
        float32 ``[F, 3, S, S]`` and where they lie in the frames.

    Raises:
        CheckpointError: settings under which the cut would reach outside.
    """
    height, width = frames.shape[1:3]
    left = top = 0.0
    if settings.pad_square and height != width:
        side = max(height, width)
        padded = np.empty((len(frames), side, side, 3), dtype=np.uint8)
        padded[:] = [int(value * 255) for value in settings.mean]
        y, x = (side - height) // 2, (side - width) // 2
        padded[:, y : y + height, x : x + width] = frames
        frames, left, top = padded, float(x), float(y)
    tall, wide = frames.shape[1:3]
    new_height, new_width = target_size(tall, wide, settings.size)
    frames = resize(frames, new_height, new_width, settings.resample)
    scale_y, scale_x = new_height / tall, new_width / wide
    left, top = left * scale_x, top * scale_y
    if settings.crop is not None:
        crop_height, crop_width = settings.crop
        y, x = (new_height - crop_height) // 2, (new_width - crop_width) // 2
        if min(y, x) < 0:
            raise CheckpointError(
                f"cut {crop_width}x{crop_height} pixels from frames resized to {new_width}x{new_height}",
                "the cut is larger than the frame",
                "set size.shortest_edge of preprocessor_config.json to at least the crop size",
            )
        frames = frames[:, y : y + crop_height, x : x + crop_width]
        left, top = left - x, top - y
    view = View(frames.shape[1], frames.shape[2], scale_x, scale_y, left, top)
    return normalise(frames, settings), view


def target_size(height: int, width: int, size: dict[str, int]) -> tuple[int, int]:
    """(height, width) after resizing: fixed, or the shortest edge given and the other in proportion, cut to whole
    pixels."""
    if "height" in size:
        return size["height"], size["width"]
    short = size["shortest_edge"]
    long = int(short * max(height, width) / min(height, width))
    return (short, long) if height <= width else (long, short)


@lru_cache(maxsize=1024)
def patch_corners(rows: int, cols: int, patch: int) -> np.ndarray:
    """Boxes of all patches of an input in raster order, in its own pixels: float64 ``[rows * cols, 4]``."""
    y, x = (index.ravel() * patch for index in np.mgrid[0:rows, 0:cols])
    return np.stack([x, y, x + patch, y + patch], axis=1).astype(np.float64)
