"""Real media files, written by PyAV or damaged byte by byte, and the slow obvious oracle for them."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

DEADLINE_S = 10.0  # of the readers under test
MS = Fraction(1, 1000)
UNEVEN_GAPS = (33, 17, 250, 40, 8, 41)  # ms between frames of a variable-rate clip


def uneven_times(count: int, start: int = 0) -> list[int]:
    """Presentation times in ms with the gaps above in turn."""
    times, now = [], start
    for i in range(count):
        times.append(now)
        now += UNEVEN_GAPS[i % len(UNEVEN_GAPS)]
    return times


def noise(count: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Frames no two of which are alike: noise at the left, a grey that names the frame at the right."""
    frames = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    frames[:, :, width // 2 :] = (np.arange(count) * 37 % 251)[:, None, None, None]
    return frames


def write_video(
    path: Path,
    frames: np.ndarray,
    times: list[int] | None = None,
    codec: str = "ffv1",
    pix_fmt: str = "bgr0",
    time_base: Fraction = MS,
    options: dict[str, str] | None = None,
    rotation: int = 0,
) -> Path:
    """Encode ``frames`` at ``times`` (in ``time_base``; default 25 frames/s in ms), to be shown turned by
    ``rotation`` degrees counter-clockwise."""
    times = [40 * i for i in range(len(frames))] if times is None else times
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pix_fmt
        stream.codec_context.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation)
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A tenth of a second of silence in the same containers as video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le" if path.suffix == ".avi" else "aac", rate=8000)
        for i in range(8):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.int16 if path.suffix == ".avi" else np.float32),
                format="s16" if path.suffix == ".avi" else "fltp",
                layout="mono",
            )
            frame.sample_rate, frame.pts = 8000, 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def oracle(path: Path) -> tuple[np.ndarray, list[float]]:
    """Every frame by decoding the file from beginning to end, with its presentation time in s."""
    frames, times = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            frames.append(frame.to_ndarray(format="rgb24"))
            times.append(float(frame.pts * stream.time_base))
    return np.stack(frames), times


def cut(source: Path, target: Path, share: float) -> Path:
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def spoil(source: Path, target: Path, start: float, length: int) -> Path:
    """Overwrite ``length`` bytes from the share ``start`` of the file on."""
    data = bytearray(source.read_bytes())
    first = int(len(data) * start)
    data[first : first + length] = np.random.default_rng(7).bytes(min(length, len(data) - first))
    target.write_bytes(data)
    return target


def lie_about_duration(source: Path, target: Path, factor: float) -> Path:
    """Matroska: multiply the Duration element (ID 4489, float64) of the segment's header."""
    data = bytearray(source.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    struct.pack_into(">d", data, at, struct.unpack_from(">d", data, at)[0] * factor)
    target.write_bytes(data)
    return target


def lie_about_frames(source: Path, target: Path, frames: int) -> Path:
    """AVI: write ``frames`` as the total of the main header and as the length of the stream header."""
    data = bytearray(source.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, frames)
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, frames)
    target.write_bytes(data)
    return target
