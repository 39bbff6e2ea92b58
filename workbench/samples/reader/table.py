"""The table of a video stream: which frames it holds and when each is shown, found without decoding.

Phase 1 demuxes every packet (reads the file once, decodes nothing). Phase 2 sorts the presentation
timestamps of the video packets: frame ``i`` of the file *is* the ``i``-th smallest timestamp, so variable
frame rates need no special case. Phase 3 compares the header's promises with what was found. Every backend
is checked against this table. Streams whose packets carry no timestamps (raw streams, some AVI files) are
decoded once instead, in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
from av.stream import Disposition

from workbench.samples.reader.container import missing_bytes
from workbench.samples.reader.faults import media_error
from workbench.samples.sample import ClipInfo


@dataclass(frozen=True)
class StreamTable:
    """``pts`` int64 ``[F]`` ascending in ``time_base`` seconds; ``keys`` int64: positions in it that are
    key frames.

    ``seekable`` is False when the table comes from decoding, because packets have no timestamps to seek by.
    ``turns``: quarter turns counter-clockwise that put a decoded frame upright (telephones film sideways);
    ``info`` has the upright size.
    """

    pts: np.ndarray
    keys: np.ndarray
    time_base: Fraction
    info: ClipInfo
    seekable: bool
    turns: int = 0

    @property
    def timestamps_s(self) -> np.ndarray:
        """float64 ``[F]``: presentation time of each frame in seconds, as the file states it (the first
        may not be 0)."""
        return self.pts * self.time_base.numerator / self.time_base.denominator


def open_video(path: str) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open ``path`` and choose its best video stream; a cover picture of a sound file is not one."""
    try:
        container = av.open(path)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        lost = missing_bytes(path)
        if lost:
            raise media_error("truncated", path, f"{lost} bytes are missing at its end") from None
        raise media_error("broken", path, f"no container format fits it ({_text(error)})") from None
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        container.close()
        raise media_error("no_video", path, f"it has no video stream, only {', '.join(kinds) or 'nothing'}")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    stream.codec_context.thread_count = 1  # short clips: starting threads costs more than they give
    return container, stream


def read_table(path: str) -> StreamTable:
    """Build the table of ``path``. Raises ``MediaError`` (truncated, broken, no_video, bad_header)."""
    lost = missing_bytes(path)
    if lost:
        raise media_error("truncated", path, f"{lost} bytes are missing at its end")
    container, stream = open_video(path)
    with container:
        time_base = stream.time_base
        if time_base is None or not stream.codec_context.width:
            raise media_error("broken", path, "its video stream has no readable parameters")
        rows: list[tuple[int | None, bool, int]] = []
        span_start, span_end = float("inf"), float("-inf")
        first: av.VideoFrame | None = None
        try:
            for packet in container.demux():
                if not packet.size:
                    continue
                if packet.pts is not None and packet.time_base is not None:
                    start = float(packet.pts * packet.time_base)
                    span_start = min(span_start, start)
                    span_end = max(span_end, start + float((packet.duration or 0) * packet.time_base))
                if packet.stream_index == stream.index and not packet.is_discard:
                    rows.append((packet.pts, packet.is_keyframe, packet.duration or 0))
                    first = first or _decode_one(packet)
        except av.error.FFmpegError as error:
            raise media_error("broken", path, f"its packets cannot be read ({_text(error)})") from None
        if not rows:
            raise media_error("broken", path, "its video stream holds no frames")
        _check_promises(path, container, stream, len(rows), span_start, span_end)
        rate = stream.average_rate or stream.guessed_rate
        seekable = all(pts is not None for pts, _, _ in rows) and len({pts for pts, _, _ in rows}) == len(
            rows
        )
        turns = round(first.rotation / 90) % 4 if first is not None else 0
        width, height = stream.codec_context.width, stream.codec_context.height
        size = (height, width) if turns % 2 else (width, height)
    if seekable:
        rows.sort()
        pts = np.array([row[0] for row in rows], dtype=np.int64)
        keys = np.flatnonzero(np.array([row[1] for row in rows]))
        last = rows[-1][2]
    else:
        pts, time_base = _decode_times(path, time_base, rate)
        keys, last = np.zeros(1, dtype=np.int64), 0
    info = _clip_info(pts, time_base, last, rate, size)
    return StreamTable(pts, keys, time_base, info, seekable, turns)


def _decode_one(packet: av.Packet) -> av.VideoFrame | None:
    """The first frame out of the decoder, wanted only for its rotation; damage is reported by reads."""
    try:
        return next((frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)), None)
    except av.error.FFmpegError:
        return None


def _clip_info(
    pts: np.ndarray, time_base: Fraction, last: int, rate: Fraction | None, size: tuple[int, int]
) -> ClipInfo:
    """Mean rate over the real timestamps; a last frame without duration is shown for the mean gap before
    it."""
    frames = len(pts)
    span = float((int(pts[-1]) - int(pts[0])) * time_base)
    if last:
        span += float(last * time_base)
    elif frames > 1:
        span *= frames / (frames - 1)
    elif rate:
        span = float(1 / rate)
    return ClipInfo(frames, frames / span if span > 0 else 0.0, span, *size)


def _check_promises(
    path: str,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    frames: int,
    start_s: float,
    end_s: float,
) -> None:
    """Refuse a header that is grossly wrong (more than double or less than half, beyond rounding of short
    files)."""
    span_s = end_s - start_s
    promised = stream.frames
    slots = span_s * float(stream.average_rate or 0)  # AVI counts the places of frames left out, too
    if promised and all(promised > 2 * count + 2 or count > 2 * promised + 2 for count in (frames, slots)):
        raise media_error("bad_header", path, f"its header promises {promised} frames and it holds {frames}")
    claims = []
    if container.duration is not None:
        claims.append(container.duration / 1e6)
    if stream.duration is not None and stream.time_base is not None:
        claims.append(float(stream.duration * stream.time_base))
    for claim in claims:
        longer = claim > 2 * max(span_s, end_s) + 1  # Matroska counts from 0, wherever the first frame is
        shorter = (
            span_s > 2 * claim + 1 and claim is claims[0]
        )  # one stream may rightly end before the others
        if longer or shorter:
            raise media_error(
                "bad_header", path, f"its header promises {claim:.1f} s and its packets span {span_s:.1f} s"
            )


def _decode_times(path: str, time_base: Fraction, rate: Fraction | None) -> tuple[np.ndarray, Fraction]:
    """Timestamps by decoding everything; frames without one are spaced by the stream's rate (else 25
    frames/s)."""
    container, stream = open_video(path)
    with container:
        try:
            times = [frame.pts for frame in container.decode(stream)]
        except av.error.FFmpegError as error:
            raise media_error("broken", path, f"its frames cannot be decoded ({_text(error)})") from None
    if not times:
        raise media_error("broken", path, "no frame of it can be decoded")
    stated = [time for time in times if time is not None]
    if len(stated) == len(times) and all(b > a for a, b in pairwise(stated)):
        return np.array(stated, dtype=np.int64), time_base
    return np.arange(len(times), dtype=np.int64), 1 / Fraction(rate or 25)


def _text(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
