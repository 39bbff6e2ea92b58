"""Glyphworld: real handwritten digits on a small canvas, as image and video files with known answers.

Public face: :func:`make_glyphworld`, :class:`World` and the word lists. The dataset card is
``data/glyphworld.md``.
"""

from .make import SIZES, World, make_glyphworld
from .words import COLOURS, CORNERS, DIGITS, IMAGE_SKILLS, SKILLS, STATIC_SKILLS, TEMPORAL_SKILLS

__all__ = [
    "COLOURS",
    "CORNERS",
    "DIGITS",
    "IMAGE_SKILLS",
    "SIZES",
    "SKILLS",
    "STATIC_SKILLS",
    "TEMPORAL_SKILLS",
    "World",
    "make_glyphworld",
]
