"""``FrameCache``: decoded frames on disk, keyed by what the file holds, shared by processes, arms and epochs.

    DIRECTORY/ab/abcdef..-decord-3.4.0-1/   a clip: hash of the file's bytes, decoder, its version, FORMAT
        index.json      ClipInfo, timestamps, who decoded, and a checksum of these
        clip.npy        all frames, uint8 [F, H, W, 3], then their CRC-32 (4 bytes); or, for a clip that
                        takes more than ``whole_clip_bytes``, one file a frame:
        f00000012.npy   uint8 [1, H, W, 3], then its CRC-32

Files are written under another name and then renamed, so a reader sees all of a file or none. A file is
checked in full the first time a process opens it and by its length every time; a bad one counts as absent
and is written again. Frames are read with ``pread`` rather than mapped: no descriptor stays open, and a
file cut by another program is an error that we see instead of a signal that ends the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
import time
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.samples.reader.faults import media_error, stat_media
from workbench.samples.sample import ClipInfo

FORMAT = 1
MIB = 1 << 20
CRC_BYTES = 4
STALE_S = 3600.0
SMALL_IMAGE_BYTES = MIB


class Stamp(NamedTuple):
    """A file as it is now; its content hash is computed once for each stamp."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Entry:
    """What is known of a clip without its frames. ``files`` are the images of a folder, else empty."""

    info: ClipInfo
    timestamps_s: tuple[float, ...]
    files: tuple[Path, ...] = ()


class FrameCache:
    """Decoded frames by content.

    Args:
        directory: made if missing; several processes may use it at once.
        whole_clip_bytes: a clip whose decoded size is at most this is kept whole, others frame by frame.
        max_bytes: beyond it the clips used longest ago are removed; None: no limit.
        image_bytes: memory of this process for decoded still images of at most 1 MiB each.

    A full disk or a read-only directory is warned about once; reading goes on without storing.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        whole_clip_bytes: int = 64 * MIB,
        max_bytes: int | None = None,
        image_bytes: int = 64 * MIB,
    ) -> None:
        self.directory = Path(directory)
        self.whole_clip_bytes, self.max_bytes, self.image_bytes = whole_clip_bytes, max_bytes, image_bytes
        self.writable = True
        self._hashes: dict[Stamp, str] = {}
        self._offsets: dict[
            str, int
        ] = {}  # file -> where its pixels start; present once the file was checked
        self._backends: dict[str, str] = {}
        self._images: OrderedDict[Stamp, np.ndarray] = OrderedDict()
        self._images_size = 0
        self._size: int | None = None
        self._lock = threading.RLock()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            self._give_up(error)

    def image(self, path: str | os.PathLike[str], read: Callable[[Any], np.ndarray]) -> np.ndarray:
        """``read(path)``, remembered in memory while the file stays the same; not writeable."""
        found = stat_media(path)
        stamp = Stamp(os.fspath(path), found.st_size, found.st_mtime_ns)
        with self._lock:
            if (pixels := self._images.get(stamp)) is not None:
                self._images.move_to_end(stamp)
                return pixels
        pixels = read(path)
        if pixels.nbytes <= min(SMALL_IMAGE_BYTES, self.image_bytes):
            pixels.flags.writeable = False
            with self._lock:
                if stamp not in self._images:
                    self._images[stamp] = pixels
                    self._images_size += pixels.nbytes
                while self._images_size > self.image_bytes:
                    self._images_size -= self._images.popitem(last=False)[1].nbytes
        return pixels

    def keeps_whole(self, info: ClipInfo) -> bool:
        return info.frames * info.height * info.width * 3 <= self.whole_clip_bytes

    def entry(self, stamp: Stamp, tag: str) -> Entry | None:
        """The stored index of a clip, or None if there is no valid one."""
        folder = self._folder(stamp, tag)
        try:
            with open(folder + "/index.json", "rb") as file:
                stored = json.loads(file.read())
            body = stored["body"]
            if stored["crc32"] != zlib.crc32(_canonical(body)):
                return None
            entry = Entry(ClipInfo(**body["info"]), tuple(body["timestamps_s"]))
            os.utime(folder)  # "used now", for the eviction
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self._backends[folder] = body["backend"]
        return entry

    def store_entry(self, stamp: Stamp, tag: str, entry: Entry, backend: str = "") -> None:
        """Write the index of a clip; ``backend`` is empty as long as no frames are stored with it."""
        folder = self._folder(stamp, tag)
        body = {"info": asdict(entry.info), "timestamps_s": entry.timestamps_s, "backend": backend}
        crc = zlib.crc32(_canonical(body))
        if self._write(folder, "index.json", json.dumps({"crc32": crc, "body": body}).encode()):
            self._backends[folder] = backend

    def frames(self, stamp: Stamp, tag: str, entry: Entry, rows: list[int]) -> tuple[np.ndarray, str] | None:
        """Frames ``rows`` (ascending, no repeats) and who decoded them; None unless all are there."""
        folder = self._folder(stamp, tag)
        if not self._backends.get(folder):  # perhaps another process has stored frames since
            self.entry(stamp, tag)
        backend = self._backends.get(folder)
        if not backend:
            return None
        frame_shape = (entry.info.height, entry.info.width, 3)
        out = np.empty((len(rows), *frame_shape), dtype=np.uint8)
        if self.keeps_whole(entry.info) and self._load(folder + "/clip.npy", entry.info.frames, rows, out):
            return out, backend
        for place, row in enumerate(rows):
            if not self._load(f"{folder}/f{row:08d}.npy", 1, [0], out[place : place + 1]):
                return None
        return out, backend

    def store_frames(
        self, stamp: Stamp, tag: str, entry: Entry, rows: list[int] | None, frames: np.ndarray, backend: str
    ) -> None:
        """Keep ``frames``: of the whole clip if ``rows`` is None, else one by one."""
        folder = self._folder(stamp, tag)
        if rows is None:
            kept = self._write(folder, "clip.npy", _npy(frames))
        else:
            kept = all(
                self._write(folder, f"f{row:08d}.npy", _npy(frames[i : i + 1])) for i, row in enumerate(rows)
            )
        if kept:  # the index comes last: it says that there are frames
            self.store_entry(stamp, tag, entry, backend)
            self._evict(keep=folder)

    def _folder(self, stamp: Stamp, tag: str) -> str:
        digest = self._hashes.get(stamp)
        if digest is None:
            try:
                with open(stamp.path, "rb") as file:
                    digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
            except OSError as error:
                raise media_error(
                    "broken", stamp.path, f"its bytes cannot be read ({error.strerror})"
                ) from None
            self._hashes[stamp] = digest
        return f"{self.directory}/{digest[:2]}/{digest}-{tag}-{FORMAT}"

    def _load(self, path: str, count: int, rows: list[int], out: np.ndarray) -> bool:
        """Read ``rows`` of the ``count`` frames in ``path`` into ``out``; False if it is absent or bad."""
        frame_bytes = out[0].nbytes
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            self._offsets.pop(path, None)
            return False
        try:
            offset = self._offsets.get(path)
            if offset is None:
                offset = _check_npy(descriptor, (count, *out.shape[1:]))
                if offset is None:
                    return False
                self._offsets[path] = offset
            if os.fstat(descriptor).st_size != offset + count * frame_bytes + CRC_BYTES:
                del self._offsets[path]
                return False
            view, place = out.data.cast("B"), 0
            while place < len(rows):  # one call for each run of neighbouring frames
                end = place + 1
                while end < len(rows) and rows[end] == rows[end - 1] + 1:
                    end += 1
                target = view[place * frame_bytes : end * frame_bytes]
                if os.preadv(descriptor, [target], offset + rows[place] * frame_bytes) != len(target):
                    return False
                place = end
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def _write(self, folder: str, name: str, data: bytes) -> bool:
        if not self.writable:
            return False
        temporary = f"{folder}/{name}.{os.getpid()}-{threading.get_ident()}.part"
        try:
            os.makedirs(folder, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(data)
            os.replace(temporary, f"{folder}/{name}")
        except FileNotFoundError:  # another process evicted the folder meanwhile: a miss, not a fault
            return False
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            self._give_up(error)
            return False
        self._offsets.pop(f"{folder}/{name}", None)
        with self._lock:
            if self._size is not None:
                self._size += len(data)
        return True

    def _give_up(self, error: OSError) -> None:
        if self.writable:
            self.writable = False
            warnings.warn(
                f"the frame cache {self.directory} cannot be written ({error.strerror or error}); "
                "reading goes on, and clips that are not in it are decoded every time",
                stacklevel=3,
            )

    def _evict(self, keep: str) -> None:
        """Bring the directory under ``max_bytes``, removing whole clips, the one used longest ago first."""
        if self.max_bytes is None:
            return
        with self._lock:
            if self._size is not None and self._size <= self.max_bytes:
                return
            clips: list[tuple[float, int, str]] = []
            for path in map(str, self.directory.glob("??/*")):
                try:
                    used = os.stat(path).st_mtime
                    clips.append((used, sum(file.stat().st_size for file in os.scandir(path)), path))
                except OSError:
                    continue
            self._size = sum(size for _, size, _ in clips)
            for _, size, path in sorted(clips):
                if self._size <= self.max_bytes:
                    break
                if path != keep:
                    shutil.rmtree(path, ignore_errors=True)
                    self._size -= size

    def _sweep(self) -> None:
        """Remove what killed processes left half written."""
        for path in self.directory.glob("??/*/*.part"):
            try:
                if time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink()
            except OSError:
                continue


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _npy(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    data = buffer.getvalue()
    return data + zlib.crc32(data).to_bytes(CRC_BYTES, "little")


def _check_npy(descriptor: int, shape: tuple[int, ...]) -> int | None:
    """Where the pixels start in an ``.npy`` file of ours, or None if any byte of it is wrong."""
    with open(descriptor, "rb", closefd=False) as file:
        data = file.read()
    if zlib.crc32(data[:-CRC_BYTES]).to_bytes(CRC_BYTES, "little") != data[-CRC_BYTES:]:
        return None
    buffer = BytesIO(data)
    try:
        np.lib.format.read_magic(buffer)
        stored, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    except ValueError:
        return None
    if stored != shape or fortran or dtype != np.uint8:
        return None
    return buffer.tell()
