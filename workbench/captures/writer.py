"""``CaptureWriter``: a capture written piece by piece, so that memory holds one piece, not the file.

Arrays may grow in turn (each layer adds a slice to each of them), while the container wants each array in one
stretch. So every array is spooled to a file of its own, and closing copies the spools behind the header: twice
the bytes on disk for a moment, one piece in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from workbench.captures.header import CaptureError, build_header, little_endian
from workbench.captures.meta import clean_meta
from workbench.runs.files import disk_guard, sync_dir

if TYPE_CHECKING:
    from workbench.captures.capture import Capture

SUFFIX = ".safetensors"


class CaptureWriter:
    """Writes one capture; use as a context manager. The file appears under its name when the block succeeds,
    and not at all when it fails.

    Args:
        path: the file, ``*.safetensors``; its folder is made. A file already there is replaced.
        kind: what the capture is.
        meta: see ``clean_meta``; ``writer.meta`` may be changed until the end.

    Raises:
        CaptureError: a path without the suffix.
        DiskFullError: no room, at any call; nothing stays behind.
    """

    def __init__(self, path: str | Path, kind: str, meta: Mapping[str, Any]) -> None:
        self.path, self.kind, self.meta = Path(path), kind, dict(meta)
        if self.path.suffix != SUFFIX:
            raise CaptureError(
                "write a capture", f"it would be called {self.path.name}", f"End it in {SUFFIX}"
            )
        self._spools: dict[str, BinaryIO] = {}
        self._dtypes: dict[str, np.dtype] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._closed = False
        self._folder = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        with self._guard():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._clear_left_behind()
            self._folder.mkdir()

    def _guard(self) -> contextlib.AbstractContextManager[None]:
        return disk_guard(f"write the capture {self.path.stem}", self.path)

    def _clear_left_behind(self) -> None:
        """What writers of this file left that were killed (or this process, before)."""
        for old in self.path.parent.glob(f"{self.path.name}.*.partial"):
            pid = old.name.split(".")[-2]
            if pid == str(os.getpid()) or not (pid.isdigit() and Path("/proc", pid).exists()):
                shutil.rmtree(old, ignore_errors=True)

    def add(self, name: str, array: np.ndarray) -> None:
        """A whole array at once. Raises CaptureError when there is one of that name."""
        if name in self._shapes:
            raise CaptureError(f"add {name!r} to a capture", "there is one already", "Use another name")
        self._write(name, array, array.shape)

    def append(self, name: str, piece: np.ndarray) -> None:
        """One more item along a new first axis: ``piece`` must have the shape and type of those before."""
        shape = self._shapes.get(name)
        if shape is not None and (shape[1:] != piece.shape or self._dtypes[name] != piece.dtype):
            raise CaptureError(
                f"append to {name!r}",
                f"the piece is {piece.dtype} {piece.shape}, those before {self._dtypes[name]} {shape[1:]}",
                "Give pieces of one shape and type",
            )
        self._write(name, piece, (1 if shape is None else shape[0] + 1, *piece.shape))

    def _write(self, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        array = little_endian(array)
        with self._guard():
            if name not in self._spools:
                self._spools[name] = (self._folder / str(len(self._spools))).open("w+b")
            self._spools[name].write(array.data if array.size else b"")
        self._dtypes[name], self._shapes[name] = array.dtype, shape

    def close(self) -> Path:
        """Write the file under its name; nothing happens the second time."""
        if self._closed:
            return self.path
        meta = json.dumps(clean_meta(self.kind, self.meta, self._shapes), ensure_ascii=False, allow_nan=False)
        names = sorted(self._shapes, key=lambda name: -self._dtypes[name].itemsize)  # keeps all aligned
        header = build_header({n: (self._dtypes[n], self._shapes[n]) for n in names}, meta)
        whole = self._folder / "whole"
        with self._guard():
            with whole.open("wb") as out:
                out.write(header)
                for name in names:
                    spool = self._spools.pop(name)
                    spool.seek(0)
                    shutil.copyfileobj(spool, out, 1 << 20)
                    spool.close()
                out.flush()
                os.fsync(out.fileno())
            os.replace(whole, self.path)
            sync_dir(self.path.parent)
        self._closed = True
        self.abort()
        return self.path

    def finish(self) -> Capture:
        """Close, and open what was written: its arrays stay on disk."""
        from workbench.captures.capture import Capture  # it builds on this module

        self.close()
        return Capture.load(self.path)

    def abort(self) -> None:
        """Drop what was written and is not under the file's own name yet."""
        for spool in self._spools.values():
            with contextlib.suppress(OSError):  # a full disk shows again when buffers are flushed
                spool.close()
        self._spools.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> CaptureWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self.abort()
