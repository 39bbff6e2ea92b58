"""From frames to patches, and from patch grids to visual tokens: one set of rules for processor, model and
command line.

Three encodings (science.md section 1); p is the patch size, sizes in pixels:

* ``native``: aspect ratio kept, each side rounded to a multiple of 2p (so that 2x2 merging always fits),
  never enlarged beyond that, scaled down only when a frame would exceed ``max_patches``;
* ``fixed``: each frame resized to ``tile_size`` x ``tile_size``;
* ``tiled``: a global view of ``tile_size`` and K = round(W/tile) * round(H/tile) tiles, each side at least
  one tile. The K+1 views are stacked as rows of one grid: rows = (K+1) * tile/p, cols = tile/p, global view
  first, tiles in raster order.

A *grid* is (frames, rows, cols) in patches. After the fusion time may be averaged down (``pool_to``), 4
patches become one token, and a newline token may follow each frame that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from workbench.models.tempflex.configuration import TempFlexConfig

CELL = 4  # patches a visual token merges
PUBLISHED_CAP = 2048  # visual tokens of one native image at most, in the paper's table


@dataclass(frozen=True, slots=True)
class Placement:
    """How a frame of ``width`` x ``height`` pixels is laid on patches: ``rows`` x ``cols`` of ``patch``
    pixels in all.

    ``tiles`` is (tile rows, tile cols) for the tiled encoding and None otherwise.
    """

    width: int
    height: int
    rows: int
    cols: int
    patch: int
    tiles: tuple[int, int] | None = None

    @property
    def views(self) -> int:
        """Pictures encoded separately: 1, or K+1 when tiled."""
        return 1 if self.tiles is None else self.tiles[0] * self.tiles[1] + 1

    @property
    def patches(self) -> int:
        return self.rows * self.cols

    @property
    def tokens(self) -> int:
        """Visual tokens of one frame, newlines not counted."""
        return self.patches // CELL

    def boxes(self) -> np.ndarray:
        """Pixel box (x0, y0, x1, y1) of every patch in the *source* frame, float32 ``[rows * cols, 4]``."""
        return _boxes(self)


def round_half_up(x: float) -> int:
    """Python rounds halves to even; sizes should grow monotonically."""
    return int(x + 0.5)


@lru_cache(maxsize=4096)
def place(
    width: int, height: int, encoding: str, patch: int, max_patches: int, tile_size: int = 384
) -> Placement:
    """Placement of one frame of ``width`` x ``height`` pixels under an encoding (rules in the module
    docstring)."""
    if width < 1 or height < 1:
        raise ValueError(f"a frame has at least one pixel, found {width}x{height}")
    side = tile_size // patch
    if encoding == "fixed":
        return Placement(width, height, side, side, patch)
    if encoding == "tiled":
        tiles = (max(1, round_half_up(height / tile_size)), max(1, round_half_up(width / tile_size)))
        return Placement(width, height, side * (tiles[0] * tiles[1] + 1), side, patch, tiles)
    if encoding != "native":
        raise ValueError(f"encoding is native, fixed or tiled, found {encoding!r}")
    unit = 2 * patch
    cells = max(1, max_patches // CELL)
    rows, cols = (max(1, round_half_up(size / unit)) for size in (height, width))
    if rows * cols > cells:
        scale = (cells * unit * unit / (width * height)) ** 0.5
        rows, cols = (max(1, int(size * scale / unit)) for size in (height, width))
        rows, cols = min(rows, cells), min(cols, cells)  # a side that was lifted to 1 must not lift the area
        rows, cols = (rows, min(cols, cells // rows)) if rows <= cols else (min(rows, cells // cols), cols)
    return Placement(width, height, 2 * rows, 2 * cols, patch)


def place_for(config: TempFlexConfig, width: int, height: int) -> Placement:
    """``place`` with the settings of a model."""
    vision = config.vision_config
    return place(width, height, config.encoding, vision.patch_size, vision.max_patches, config.tile_size)


def published_tokens(width: int, height: int, encoding: str) -> int:
    """The count in the paper's comparison: patch tokens for fixed and tiled (they are not merged there),
    merged for native."""
    if encoding == "native":
        return min(PUBLISHED_CAP, round_half_up(width * height / 32**2))
    return place(width, height, encoding, 16, CELL * PUBLISHED_CAP).patches


# ------------------------------------------------------------------------------------------------ pixels


def patchify(frames: np.ndarray, placement: Placement) -> torch.Tensor:
    """uint8 ``[F, H, W, 3]`` -> float32 ``[F * rows * cols, patch * patch * 3]`` in [-1, 1] (SigLIP2: mean =
    std = .5).

    A patch vector is ordered (y, x, channel); patches are in raster order, frames in time order. Resizing is
    PIL's bilinear filter, which is antialiased; a frame that already has the right size is only reshaped.
    """
    p = placement.patch
    if placement.tiles is None:
        views = resize(frames, placement.cols * p, placement.rows * p)
    else:
        side = placement.cols * p
        n_rows, n_cols = placement.tiles
        whole = resize(frames, n_cols * side, n_rows * side)
        cut = whole.reshape(len(frames), n_rows, side, n_cols, side, 3).transpose(0, 1, 3, 2, 4, 5)
        tiles = cut.reshape(len(frames), n_rows * n_cols * side, side, 3)
        views = np.concatenate([resize(frames, side, side), tiles], axis=1)
    split = torch.from_numpy(views).view(len(frames), placement.rows, p, placement.cols, p, 3)
    out = split.permute(0, 1, 3, 2, 4, 5).to(torch.float32, memory_format=torch.contiguous_format)
    return out.mul_(1 / 127.5).sub_(1.0).view(-1, p * p * 3)


def resize(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    """Frames uint8 ``[F, H, W, 3]`` at another size; the same array when nothing changes."""
    if frames.shape[1:3] == (height, width):
        return frames if frames.flags.c_contiguous and frames.flags.writeable else np.array(frames, order="C")
    out = np.empty((len(frames), height, width, 3), dtype=np.uint8)
    for i, frame in enumerate(frames):
        out[i] = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
    return out


def unpatchify(pixel_values: torch.Tensor, grid: Sequence[int], patch: int) -> np.ndarray:
    """The inverse of ``patchify`` without its resizing: uint8 ``[F, rows * patch, cols * patch, 3]``, for
    pictures of inputs."""
    n, rows, cols = grid
    x = pixel_values.detach().float().cpu().view(n, rows, cols, patch, patch, 3).permute(0, 1, 3, 2, 4, 5)
    x = (x + 1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return x.reshape(n, rows * patch, cols * patch, 3).numpy()


@lru_cache(maxsize=512)
def _boxes(placement: Placement) -> np.ndarray:
    width, height = placement.width, placement.height
    if placement.tiles is None:
        return _grid_boxes(0.0, 0.0, width, height, placement.rows, placement.cols)
    side = placement.cols
    n_rows, n_cols = placement.tiles
    parts = [_grid_boxes(0.0, 0.0, width, height, side, side)]
    for r in range(n_rows):
        for c in range(n_cols):
            tile = _grid_boxes(0, 0, width / n_cols, height / n_rows, side, side)
            shift = np.array([c * width / n_cols, r * height / n_rows] * 2, dtype=np.float32)
            parts.append(tile + shift)
    return np.concatenate(parts)


def _grid_boxes(x0: float, y0: float, width: float, height: float, rows: int, cols: int) -> np.ndarray:
    y, x = np.mgrid[0:rows, 0:cols]
    box = np.stack(
        [x * width / cols, y * height / rows, (x + 1) * width / cols, (y + 1) * height / rows], axis=-1
    )
    return (box.reshape(-1, 4) + np.array([x0, y0, x0, y0])).astype(np.float32)


# ------------------------------------------------------------------------------------------------ tokens


def pooled_ranges(frames: int, pool_to: int | None) -> list[tuple[int, int]]:
    """Half-open frame ranges that each remaining frame averages (adaptive average pooling; identity when it
    fits)."""
    n = frames if pool_to is None else min(frames, pool_to)
    return [(i * frames // n, -((i + 1) * frames // -n)) for i in range(n)]


def visual_tokens(grid: Sequence[int], pool_to: int | None = None, newline: bool = False) -> int:
    """Placeholders that one medium of this patch grid takes in the LLM's input (newlines included)."""
    frames, rows, cols = grid
    left = frames if pool_to is None else min(frames, pool_to)
    return left * (rows * cols // CELL + int(newline))
