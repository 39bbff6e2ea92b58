"""``Capture``: arrays with everything one must know to read them (docs/formats.md, "Capture")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.captures.header import CaptureError, Entry, read_header
from workbench.captures.meta import FORMAT, clean_meta
from workbench.captures.writer import CaptureWriter
from workbench.models.tokenmap import TokenMap

__all__ = ["FORMAT", "Capture", "CaptureError", "FileArrays"]


class FileArrays(Mapping[str, np.ndarray]):
    """Arrays of a capture file, mapped into memory: bytes are read when they are touched. Read-only views."""

    def __init__(self, path: Path, entries: Mapping[str, Entry]) -> None:
        self._path, self.entries = path, dict(entries)
        self._bytes: np.ndarray | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        if self._bytes is None:
            self._bytes = np.asarray(np.memmap(self._path, dtype=np.uint8, mode="r"))
        return self._bytes[entry.start : entry.stop].view(entry.dtype).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(frozen=True, eq=False)
class Capture:
    """What one probe saw.

    Attributes:
        kind: what it is, for example ``"attention_rows"``.
        arrays: by name; those of a loaded file are read-only and come from disk when touched.
        meta: see ``clean_meta`` and docs/formats.md; the keys of ``META_KEYS`` are there once saved.
    """

    kind: str
    arrays: Mapping[str, np.ndarray]
    meta: dict[str, Any]

    def save(self, path: str | Path) -> Path:
        """Write one ``.safetensors`` file, whole or not at all.

        Raises:
            CaptureError: arrays without axes or units, or of a type that the format lacks.
            DiskFullError: no room.
        """
        with CaptureWriter(path, self.kind, self.meta) as writer:
            for name in self.arrays:
                writer.add(name, self.arrays[name])
        return writer.path

    @classmethod
    def load(cls, path: str | Path) -> Capture:
        """Open a capture; arrays stay on disk.

        Raises:
            CaptureError: no such file, a foreign or cut one, or one of a newer format.
        """
        path = Path(path)
        entries, meta = read_header(path)
        version = meta.get("format")
        if not isinstance(version, int) or version > FORMAT:
            raise CaptureError(
                "open a capture",
                f"it has format {version}, this workbench knows up to {FORMAT}",
                "Update the workbench",
                str(path),
            )
        return cls(str(meta["kind"]), FileArrays(path, entries), meta)

    def completed(self) -> Capture:
        """The same with every key of ``META_KEYS``, as it would be read back from a file."""
        shapes = {name: array.shape for name, array in self.arrays.items()}
        return Capture(self.kind, self.arrays, clean_meta(self.kind, self.meta, shapes))

    @property
    def token_map(self) -> TokenMap | None:
        """What each position of the captured conversation stands for; None when the capture has none."""
        text = self.meta.get("token_map")
        return None if text is None else TokenMap.from_json(text)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, without touching them."""
        if isinstance(self.arrays, FileArrays):
            return sum(entry.stop - entry.start for entry in self.arrays.entries.values())
        return sum(array.nbytes for array in self.arrays.values())

    def __repr__(self) -> str:
        sample = (self.meta.get("sample") or {}).get("id")
        return f"Capture({self.kind!r}, {len(self.arrays)} arrays, {self.nbytes:,} bytes, sample {sample!r})"
