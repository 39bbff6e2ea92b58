"""``FrameReader``: exactly the frames asked for, in the order asked, with the timestamps they are shown at.

A video is decoded in a worker process with a deadline, because decoders can spin for ever or crash on a
bad file; the worker is killed and the file reported, and the next read starts a fresh one. Nothing is ever
replaced by a neighbour.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from stat import S_ISDIR
from types import TracebackType

import numpy as np

from workbench.errors import MediaError, WorkbenchError
from workbench.samples.reader import images
from workbench.samples.reader.backends import (
    DISTRIBUTION,
    PREFERENCE,
    candidates,
    installed_version,
    unusable,
)
from workbench.samples.reader.cache import Entry, FrameCache, Stamp
from workbench.samples.reader.faults import media_error, stat_media
from workbench.samples.reader.process import DecodeProcess, WorkerDied, WorkerTimeout
from workbench.samples.sample import Clip, ClipInfo, ImageRef, MediaRef, VideoRef

INFOS_KEPT = 65536


class FrameReader:
    """Reads frames of images, folders of images and videos.

    Args:
        backend: ``"decord"``, ``"torchcodec"`` or ``"pyav"``; None takes the first that decodes a
            probe clip exactly, in the order of ``backends.PREFERENCE``.
        deadline_s: seconds a video read may take before its worker is killed.
        cache: a ``FrameCache``; None decodes every time.

    ``failures`` counts the ``MediaError`` raised by kind. Use as a context manager, or ``close()``; at
    interpreter exit the worker is ended in any case. Threads may share a reader (their reads queue); a
    forked child starts its own worker.
    """

    def __init__(
        self, backend: str | None = None, deadline_s: float = 20.0, cache: FrameCache | None = None
    ) -> None:
        if backend is not None and backend not in PREFERENCE:
            raise WorkbenchError(
                f"use the video backend {backend!r}", "there is no such backend", f"Choose of {PREFERENCE}"
            )
        if not deadline_s > 0:
            raise WorkbenchError(
                "read frames", f"deadline_s is {deadline_s}", "Give a positive number of seconds"
            )
        self._asked, self.deadline_s, self.cache = backend, deadline_s, cache
        self.failures: Counter[str] = Counter()
        self._candidates = candidates(backend)
        self._process: DecodeProcess | None = None
        self._chosen: tuple[str, str] | None = None
        self._lock = threading.RLock()
        self._left = threading.local()  # .seconds: what the current call of this thread may still use
        self._entries: dict[Stamp, Entry] = {}

    @property
    def backend(self) -> str:
        """The backend that the probe chose. Raises ``WorkbenchError`` if none works."""
        return self._probed()[0]

    @property
    def backend_version(self) -> str:
        return self._probed()[1]

    def info(self, ref: MediaRef) -> ClipInfo:
        """Frames, rate and size. Cheap when repeated. Raises ``MediaError``."""
        try:
            if isinstance(ref, ImageRef):
                height, width = self._image(ref.path).shape[:2]
                return ClipInfo(1, 0.0, 0.0, width, height)
            self._left.seconds = self.deadline_s
            return self._entry(ref)[1].info
        except MediaError as error:
            self.failures[error.kind] += 1
            raise

    def read(self, ref: MediaRef, indices: Sequence[int]) -> Clip:
        """Frames ``indices`` of ``ref`` in that order; repeats allowed (an image has frame 0 only).

        ``Clip.frames`` is uint8 ``[len(indices), H, W, 3]``. Raises ``MediaError`` (see
        ``MediaError.KINDS``) naming the file.
        """
        wanted = tuple(map(int, indices))
        try:
            if isinstance(ref, ImageRef):
                return self._read_image(ref, wanted)
            self._left.seconds = self.deadline_s
            return self._read_video(ref, wanted)
        except MediaError as error:
            self.failures[error.kind] += 1
            error.asked = f"read {_spell(wanted)} of {os.fspath(ref.path)}"
            error.args = (str(error),)
            raise

    def close(self) -> None:
        """End the worker. The reader stays usable: the next video read starts another."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process = None

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _image(self, path: os.PathLike[str]) -> np.ndarray:
        if self.cache is None:
            return images.read_image(path)
        return self.cache.image(path, images.read_image)

    def _read_image(self, ref: ImageRef, wanted: tuple[int, ...]) -> Clip:
        pixels = self._image(ref.path)
        _check_indices(ref.path, wanted, 1)
        height, width = pixels.shape[:2]
        frames = np.repeat(pixels[None], len(wanted), axis=0)
        return Clip(frames, wanted, (0.0,) * len(wanted), "pillow", ClipInfo(1, 0.0, 0.0, width, height))

    def _read_video(self, ref: VideoRef, wanted: tuple[int, ...]) -> Clip:
        stamp, entry = self._entry(ref)
        _check_indices(ref.path, wanted, entry.info.frames)
        rows = sorted(set(wanted))
        if entry.files:
            frames, backend = self._read_folder(ref, entry, rows), "images"
        else:
            frames, backend = self._cached_or_decoded(stamp, entry, rows)
        if list(wanted) != rows:
            place = {row: i for i, row in enumerate(rows)}
            frames = frames[[place[index] for index in wanted]]
        times = tuple([entry.timestamps_s[index] for index in wanted])
        return Clip(frames, wanted, times, backend, entry.info)

    def _entry(self, ref: VideoRef) -> tuple[Stamp, Entry]:
        """What is known of a video, from memory, the cache or, at last, the file."""
        path = os.path.abspath(ref.path)
        found = stat_media(path)
        stamp = Stamp(path, found.st_size, found.st_mtime_ns)
        entry = self._entries.get(stamp)
        if entry is None:
            entry = _folder_entry(path, self._image) if S_ISDIR(found.st_mode) else self._file_entry(stamp)
            if len(self._entries) >= INFOS_KEPT:
                self._entries.clear()
            self._entries[stamp] = entry
        return stamp, entry

    def _file_entry(self, stamp: Stamp) -> Entry:
        if self.cache is not None and (entry := self.cache.entry(stamp, self._decoder_tag())) is not None:
            return entry
        header, times = self._ask(stamp.path, {"op": "index", "path": stamp.path})
        frames, fps, duration, width, height = header["info"]
        entry = Entry(ClipInfo(frames, fps, duration, width, height), tuple(times.tolist()))
        if self.cache is not None:
            self.cache.store_entry(stamp, self._decoder_tag(), entry)
        return entry

    def _cached_or_decoded(self, stamp: Stamp, entry: Entry, rows: list[int]) -> tuple[np.ndarray, str]:
        cache = self.cache
        if cache is None:
            return self._decode(stamp.path, rows)
        tag = self._decoder_tag()
        if (hit := cache.frames(stamp, tag, entry, rows)) is not None:
            return hit
        if cache.keeps_whole(entry.info) and len(rows) < entry.info.frames:
            try:
                whole, backend = self._decode(stamp.path, list(range(entry.info.frames)))
            except MediaError as error:
                if error.kind != "broken":
                    raise
            else:  # some frame nobody asked for may be beyond decoding; those asked for are then read alone
                cache.store_frames(stamp, self._decoder_tag(), entry, None, whole, backend)
                return whole[rows], backend
        frames, backend = self._decode(stamp.path, rows)
        all_rows = None if cache.keeps_whole(entry.info) and len(rows) == entry.info.frames else rows
        cache.store_frames(stamp, self._decoder_tag(), entry, all_rows, frames, backend)
        return frames, backend

    def _decode(self, path: str, rows: list[int]) -> tuple[np.ndarray, str]:
        header, frames = self._ask(path, {"op": "read", "path": path, "wanted": rows})
        return frames, header["backend"]

    def _read_folder(self, ref: VideoRef, entry: Entry, rows: list[int]) -> np.ndarray:
        shape = (entry.info.height, entry.info.width, 3)
        frames = np.empty((len(rows), *shape), dtype=np.uint8)
        for place, row in enumerate(rows):
            pixels = self._image(entry.files[row])
            if pixels.shape != shape:
                size = f"{pixels.shape[1]}x{pixels.shape[0]}, the first {shape[1]}x{shape[0]}"
                raise media_error(
                    "broken", ref.path, f"its images differ in size ({entry.files[row].name} is {size})"
                )
            frames[place] = pixels
        return frames

    def _decoder_tag(self) -> str:
        """The decoder's name in cache keys, from installed versions: a full cache starts no worker."""
        if self._chosen is not None:
            return "-".join(self._chosen)
        if not self._candidates:
            return "-".join(self._probed())
        name = self._candidates[0]
        return f"{name}-{_version(name)}"

    def _probed(self) -> tuple[str, str]:
        with self._lock:
            if self._chosen is None:
                self._worker()
            assert self._chosen is not None
            return self._chosen

    def _worker(self) -> DecodeProcess:
        """The running worker, started if need be; the first start probes the candidates in turn."""
        if self._process is not None and self._process.alive:
            return self._process
        self._process = None
        reasons = []
        for name in self._candidates:
            try:
                self._process = DecodeProcess(name)
            except (WorkerDied, WorkerTimeout) as error:
                reasons.append(f"{name}: {error or 'no answer in time'}")
                continue
            self._chosen = (name, self._process.version)
            self._candidates = [
                name
            ]  # a later worker is of the same backend, or arms would differ in silence
            if reasons:
                warnings.warn(f"video backend {name} is used, because {'; '.join(reasons)}", stacklevel=4)
            return self._process
        ruled_out = {name: unusable(name) for name in ([self._asked] if self._asked else PREFERENCE)}
        reasons += [f"{name}: {why[0]}" for name, why in ruled_out.items() if why]
        todo = next(
            (why[1] for why in ruled_out.values() if why), "Run workbench doctor to see what is missing"
        )
        raise WorkbenchError("decode video", f"no backend works ({'; '.join(reasons)})", todo)

    def _ask(self, path: str, request: dict[str, object]) -> tuple[dict, np.ndarray]:
        with self._lock:
            try:
                worker = self._worker()  # starting one is not the file's fault: it does not count
                started = time.monotonic()
                header, payload = worker.ask(request, max(0.0, self._left.seconds))
                self._left.seconds -= time.monotonic() - started
            except WorkerTimeout:
                self._process = None
                found = f"decoding did not end within {self.deadline_s:g} s and was killed"
                raise media_error("timeout", path, found) from None
            except WorkerDied as error:
                self._process = None
                raise media_error("broken", path, str(error)) from None
        if "kind" in header:
            raise media_error(header["kind"], path, header["found"])
        return header, payload


def _version(backend: str) -> str:
    return installed_version(DISTRIBUTION[backend]) or "unknown"


def _folder_entry(path: str, read: Callable[[os.PathLike[str]], np.ndarray]) -> Entry:
    files = tuple(images.folder_images(path))
    height, width = read(files[0]).shape[:2]
    fps = images.FOLDER_FPS
    info = ClipInfo(len(files), fps, len(files) / fps, width, height)
    return Entry(info, tuple(i / fps for i in range(len(files))), files)


def _check_indices(path: os.PathLike[str], wanted: tuple[int, ...], frames: int) -> None:
    if not wanted:
        raise media_error("bad_index", path, "no frame was asked for")
    if min(wanted) < 0 or max(wanted) >= frames:
        worst = min(wanted) if min(wanted) < 0 else max(wanted)
        raise media_error(
            "bad_index", path, f"it has {frames} frames (0..{frames - 1}), {worst} was asked for"
        )


def _spell(wanted: tuple[int, ...]) -> str:
    if len(wanted) <= 8:
        return f"frames {', '.join(map(str, wanted))}" if len(wanted) != 1 else f"frame {wanted[0]}"
    return f"{len(wanted)} frames ({wanted[0]} .. {wanted[-1]})"
