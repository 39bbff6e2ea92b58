"""Read exactly the frames that a plan asks for, from video files, folders of images and still images."""

from workbench.samples.reader.cache import FrameCache
from workbench.samples.reader.reader import FrameReader

__all__ = ["FrameCache", "FrameReader"]
