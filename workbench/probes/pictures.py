"""The frames a model was given, kept small inside a capture, so that a view can show them without the data.

Array ``pictures`` uint8 [clip_frame, y, x, rgb]: the clip's frames in the order and number the model got them (what the
frame plan left), scaled down to at most 160 pixels on the long side and never up. That is at most 76,800 bytes a frame:
256 frames take at most 19.7 MB (square), 11.1 MB at 16:9, 0.8 MB at 32 x 32 pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from workbench.samples.sample import Clip

LONG_SIDE = 160  # pixels
NAME = "pictures"
AXES = ("clip_frame", "y", "x", "rgb")
UNIT = "RGB, 0 to 255; the frames the model was given, scaled down to at most 160 pixels on the long side"


def pictures_of(clip: Clip, long_side: int = LONG_SIDE) -> np.ndarray:
    """A clip's frames, small: uint8 ``[F, h, w, 3]`` with max(h, w) <= ``long_side``; smaller ones stay as they are."""
    frames = np.asarray(clip.frames)
    height, width = frames.shape[1:3]
    if max(height, width) <= long_side:
        return frames
    scale = long_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = (Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS) for frame in frames)
    return np.stack([np.asarray(picture) for picture in small])


def add_pictures(
    writer: Any, clip: Clip | None, wanted: bool = True, name: str = NAME, frame_axis: str = AXES[0]
) -> None:
    """Put a clip's pictures into a capture that is being written, with axes and unit; nothing for text.

    Args:
        writer: what ``captures.capture_to`` gives.
        name, frame_axis: where one capture holds several clips.
    """
    if wanted and clip is not None and len(clip.frames):
        writer.meta["axes"][name] = [frame_axis, *AXES[1:]]
        writer.meta["units"][name] = UNIT
        writer.add(name, pictures_of(clip))
