"""The three decoders behind one shape: ``frames(path, table, wanted) -> (frames, timestamps)``.

``wanted`` is ascending without repeats. Every decoder proves that what it returns are the frames asked for:
PyAV by the timestamp of each decoded frame, the others by comparing their own timestamps with the stream's
table. Only PyAV also refuses frames that FFmpeg patched up; damage that still parses nobody can see.
They run inside the worker process only (``worker.py``).
"""

from __future__ import annotations

import importlib.metadata as metadata
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from workbench.samples.reader.faults import media_error
from workbench.samples.reader.table import StreamTable, open_video

TIME_TOLERANCE_S = 1e-4  # backends give float32 seconds; frames are never closer than this


class Decoder(Protocol):
    name: str
    version: str

    def frames(self, path: str, table: StreamTable, wanted: list[int]) -> np.ndarray:
        """uint8 ``[len(wanted), H, W, 3]`` RGB. Raises ``MediaError`` (broken) if unproven."""
        ...


class PyAVDecoder:
    """FFmpeg through PyAV: seeks to the key frame before a wanted frame if that skips frames."""

    name = "pyav"

    def __init__(self) -> None:
        import av

        av.logging.set_level(av.logging.PANIC)
        self._av, self.version = av, av.__version__

    def frames(self, path: str, table: StreamTable, wanted: list[int]) -> np.ndarray:
        try:
            if table.seekable:
                return self._by_time(path, table, wanted)
            return self._in_order(path, table, wanted)
        except self._av.error.FFmpegError as error:
            raise media_error("broken", path, f"its frames cannot be decoded ({error.strerror})") from None

    def _by_time(self, path: str, table: StreamTable, wanted: list[int]) -> np.ndarray:
        container, stream = open_video(path)
        frames: list[np.ndarray] = []
        with container:
            decoded, damaged = container.decode(stream), False
            position = -1  # the last frame that came out of the decoder
            for index in wanted:
                target = int(table.pts[index])
                before = int(np.searchsorted(table.keys, index, side="right")) - 1
                key = int(table.keys[before]) if before >= 0 else 0
                if key > position + 2:  # jumping pays only over frames that would be decoded for nothing
                    container.seek(int(table.pts[key]), stream=stream, backward=True)
                    decoded, damaged = container.decode(stream), False
                frame, damaged = _advance(decoded, target, damaged)
                if frame is None or frame.pts != target:  # the seek overshot: start again from the beginning
                    container.seek(min(0, int(table.pts[0])), stream=stream, backward=True)
                    decoded = container.decode(stream)
                    frame, damaged = _advance(decoded, target, False)
                if frame is None or frame.pts != target or damaged:
                    found = f"frame {index} of {len(table.pts)} is damaged or lost"
                    raise media_error("broken", path, found)
                position = index
                frames.append(frame.to_ndarray(format="rgb24"))
        return _stack(path, frames, table.turns)

    def _in_order(self, path: str, table: StreamTable, wanted: list[int]) -> np.ndarray:
        container, stream = open_video(path)
        chosen, frames = set(wanted), []
        with container:
            for index, frame in enumerate(container.decode(stream)):
                if index in chosen:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if index >= wanted[-1]:
                    break
        if len(frames) != len(wanted):
            raise media_error(
                "broken", path, f"only {len(frames)} of {len(wanted)} wanted frames can be decoded"
            )
        return _stack(path, frames, table.turns)


class DecordDecoder:
    """decord, from its maintained fork (distribution ``decord2``)."""

    name = "decord"

    def __init__(self) -> None:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self._decord, self.version = decord, metadata.version("decord2")

    def frames(self, path: str, table: StreamTable, wanted: list[int]) -> np.ndarray:
        try:
            # The least fault tolerance: decord repeats a neighbour for a frame that it cannot decode
            # unless told not to.
            reader = self._decord.VideoReader(path, num_threads=1, fault_tol=1e-9)
            spans = reader.get_frame_timestamp(list(range(len(reader))))
            _same_times(path, self.name, np.asarray(spans)[:, 0].astype(float), table, slice(None))
            return reader.get_batch(wanted).asnumpy()
        except (self._decord.DECORDError, RuntimeError, IndexError, AssertionError) as error:
            line = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise media_error("broken", path, f"decord cannot decode it ({line[-200:]})") from None


class TorchCodecDecoder:
    """torchcodec, exact seek mode. Imports torch, so its worker starts in seconds rather than in tenths."""

    name = "torchcodec"

    def __init__(self) -> None:
        import torchcodec.decoders

        self._decoders, self.version = torchcodec.decoders, metadata.version("torchcodec")

    def frames(self, path: str, table: StreamTable, wanted: list[int]) -> np.ndarray:
        try:
            reader = self._decoders.VideoDecoder(
                path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
            )
            batch: Any = reader.get_frames_at(indices=wanted)
        except (RuntimeError, ValueError, IndexError) as error:
            line = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise media_error("broken", path, f"torchcodec cannot decode it ({line[:200]})") from None
        if len(reader) != len(table.pts):
            raise media_error(
                "broken", path, f"torchcodec sees {len(reader)} frames where it holds {len(table.pts)}"
            )
        _same_times(path, self.name, batch.pts_seconds.double().numpy(), table, wanted, origin=0.0)
        return batch.data.numpy()


def _advance(decoded: Iterator[Any], target: int, damaged: bool) -> tuple[Any, bool]:
    """The first frame at or after ``target``, and whether it leans on a frame that the decoder patched up."""
    for frame in decoded:
        damaged = frame.is_corrupt or (damaged and not frame.key_frame)
        if frame.pts is not None and frame.pts >= target:
            return frame, damaged
    return None, damaged


def _same_times(
    path: str, backend: str, times: np.ndarray, table: StreamTable, which: Any, origin: float | None = None
) -> None:
    """Raise unless ``times`` (s) are the table's for ``which``; ``origin`` None: relative to frame 0."""
    expected = table.timestamps_s
    expected = (expected - (expected[0] if origin is None else origin))[which]
    tolerance = TIME_TOLERANCE_S + 1e-6 * np.abs(expected)
    if times.shape != expected.shape:
        raise media_error(
            "broken", path, f"{backend} sees {len(times)} frames where it holds {len(expected)}"
        )
    wrong = np.flatnonzero(np.abs(times - expected) > tolerance)
    if len(wrong):
        i = int(wrong[0])
        raise media_error(
            "broken",
            path,
            f"{backend} returns a frame of {times[i]:.4f} s where {expected[i]:.4f} s was asked",
        )


def _stack(path: str, frames: list[np.ndarray], turns: int) -> np.ndarray:
    if len({frame.shape for frame in frames}) > 1:
        raise media_error("broken", path, "its frame size changes on the way")
    return np.rot90(np.stack(frames), turns, axes=(1, 2))


DECODERS: dict[str, type] = {"pyav": PyAVDecoder, "torchcodec": TorchCodecDecoder, "decord": DecordDecoder}
