"""``CollectedCapture``: the same calls as ``CaptureWriter``, kept in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workbench.captures.capture import Capture
from workbench.captures.header import CaptureError
from workbench.captures.writer import CaptureWriter


class CollectedCapture:
    """Arrays whole or piece by piece; ``finish`` gives the ``Capture``."""

    def __init__(self, kind: str, meta: Mapping[str, Any]) -> None:
        self.kind, self.meta = kind, dict(meta)
        self._whole: dict[str, np.ndarray] = {}
        self._pieces: dict[str, list[np.ndarray]] = {}

    def add(self, name: str, array: np.ndarray) -> None:
        """A whole array. Raises CaptureError when there is one of that name."""
        if name in self._whole or name in self._pieces:
            raise CaptureError(f"add {name!r} to a capture", "there is one already", "Use another name")
        self._whole[name] = array

    def append(self, name: str, piece: np.ndarray) -> None:
        """One more item along a new first axis."""
        self._pieces.setdefault(name, []).append(piece)

    def finish(self) -> Capture:
        """Everything as one capture, its metadata completed."""
        while self._pieces:  # one array at a time, so that not all of them are there twice
            name = next(iter(self._pieces))
            self._whole[name] = np.stack(self._pieces.pop(name))
        return Capture(self.kind, self._whole, self.meta).completed()

    def __enter__(self) -> CollectedCapture:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def capture_to(
    path: str | Path | None, kind: str, meta: Mapping[str, Any]
) -> CaptureWriter | CollectedCapture:
    """What a probe writes into: a file when there is a path, otherwise memory. Both have ``add``, ``append``,
    ``meta`` and ``finish() -> Capture``, and are context managers."""
    return CollectedCapture(kind, meta) if path is None else CaptureWriter(path, kind, meta)
