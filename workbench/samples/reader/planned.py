"""From a sample and its planned frames to a clip. A file that could not be planned says again why."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.errors import MediaError
from workbench.samples.reader.reader import FrameReader
from workbench.samples.sample import Clip, Sample


def clip_of(sample: Sample, indices: Sequence[int], reader: FrameReader) -> Clip | None:
    """The frames of a sample, None for text.

    Raises:
        MediaError: the file cannot be read, or could not when frames were planned.
    """
    if sample.media is None:
        return None
    if indices:
        return reader.read(sample.media, indices)
    reader.read(sample.media, (0,))  # the error that left it out of the plan
    raise MediaError(
        f"read {sample.media.path}",
        "it could not be opened when frames were planned, and can be now",
        "Run again to plan its frames",
        kind="bad_index",
    )
