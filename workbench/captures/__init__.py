"""Captures: what a probe saw inside a model, as one file that says everything about itself. Needs no torch."""

from workbench.captures.capture import FORMAT, Capture, CaptureError
from workbench.captures.collected import CollectedCapture, capture_to
from workbench.captures.meta import META_KEYS, clean_meta
from workbench.captures.writer import CaptureWriter

__all__ = [
    "FORMAT",
    "META_KEYS",
    "Capture",
    "CaptureError",
    "CaptureWriter",
    "CollectedCapture",
    "capture_to",
    "clean_meta",
]
