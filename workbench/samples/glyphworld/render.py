"""Scenes to pixels, and pixels to files: PNG for images, QuickTime Animation (lossless RGB) for clips.

The codec was chosen by measurement (``benchmarks/codec.py``; its table is in the dataset card): QuickTime
Animation encodes and decodes a 32-frame clip several times faster than FFV1 and libx264rgb; all are exact,
and noise compresses so badly that sizes hardly differ. Every frame is a key frame, so seeking is exact in
any reader.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np

from .scene import GRID, Scene
from .timing import FPS
from .words import COLOURS

BACKGROUND, LIT, NOISE = (
    0.1,
    0.45,
    0.08,
)  # in [0, 1]; noise is Gaussian, independent in every pixel, channel and frame


@cache
def glyph_inks(cell: int) -> np.ndarray:
    """All 1,797 digits of scikit-learn's ``load_digits`` as ink in [0, 1], float32 ``[1797, cell, cell]``.

    Larger cells than the native 8 pixels are bicubic enlargements.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    ink = (load_digits().images / 16).astype(np.float32)
    if cell == ink.shape[1]:
        return ink
    enlarged = [np.asarray(Image.fromarray(g).resize((cell, cell), Image.Resampling.BICUBIC)) for g in ink]
    return np.clip(np.stack(enlarged), 0, 1)


def render(scene: Scene, size: int, rng: np.random.Generator) -> np.ndarray:
    """Frames uint8 ``[F, size, size, 3]`` RGB of a scene; ``size`` in pixels is a multiple of 4."""
    cell = size // GRID
    canvas = np.full(
        (scene.frames, GRID, cell, GRID, cell, 3), BACKGROUND, np.float32
    )  # F, row, y, column, x, channel
    if scene.light is not None:
        row, column = 2 * (scene.light.quadrant // 2), 2 * (scene.light.quadrant % 2)
        canvas[scene.light.on, row : row + 2, :, column : column + 2] = LIT
    for track in scene.tracks:
        frame = np.flatnonzero(track.visible)
        colour = np.tile(np.asarray(COLOURS[track.colour], np.float32), (len(frame), 1))
        if track.new_colour is not None and track.change_frame is not None:
            colour[frame >= track.change_frame] = COLOURS[track.new_colour]
        row, column = track.cells[frame].T
        under = canvas[frame, row, :, column]  # [n, cell, cell, 3]
        ink = glyph_inks(cell)[track.glyph][None, :, :, None]
        canvas[frame, row, :, column] = under + ink * (colour[:, None, None, :] - under)
    canvas += NOISE * rng.standard_normal(canvas.shape, dtype=np.float32)
    pixels = np.clip(canvas * 255 + 0.5, 0, 255).astype(np.uint8)
    return pixels.reshape(scene.frames, size, size, 3)


def write_image(path: Path, pixels: np.ndarray) -> None:
    """One PNG without metadata from uint8 ``[H, W, 3]``."""
    from PIL import Image

    Image.fromarray(pixels).save(path, format="PNG", compress_level=1)


def write_clip(path: Path, frames: np.ndarray) -> None:
    """One .mov from uint8 ``[F, H, W, 3]`` at 8 fps: lossless, one thread, no dates or encoder tags."""
    import av

    content = BytesIO()  # so that a full disk is an OSError like any other
    with av.open(content, "w", format="mov", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("qtrle", rate=FPS, options={"flags": "+bitexact", "g": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        stream.codec_context.thread_count = 1
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    path.write_bytes(content.getvalue())
