"""Which clips a fusion probe sees: those that have the frames asked for, never a short one repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from workbench.errors import DataError, MediaError
from workbench.frames.sampling import midpoint_indices
from workbench.probes.common import ProbeError
from workbench.samples.sample import Clip, Sample


class Source(Protocol):
    """Frames of a sample. ``key``: samples of one key show the same medium."""

    def key(self, sample: Sample, /) -> Any: ...
    def available(self, sample: Sample, /) -> int: ...
    def read(self, sample: Sample, indices: Sequence[int], /) -> Clip: ...


class _Files:
    def __init__(self, reader: Any) -> None:
        self.reader = reader

    def key(self, sample: Sample, /) -> Any:
        return sample.media

    def available(self, sample: Sample, /) -> int:
        return self.reader.info(sample.media).frames

    def read(self, sample: Sample, indices: Sequence[int], /) -> Clip:
        return self.reader.read(sample.media, indices)


class _Given:
    """Clips in memory: all frames there are, by the sample's id."""

    def __init__(self, samples: Sequence[Sample], clips: Sequence[Clip]) -> None:
        self.clips = {s.id: clip for s, clip in zip(samples, clips, strict=True)}

    def key(self, sample: Sample, /) -> Any:
        return sample.id

    def available(self, sample: Sample, /) -> int:
        return len(self.clips[sample.id].frames)

    def read(self, sample: Sample, indices: Sequence[int], /) -> Clip:
        clip, at = self.clips[sample.id], list(indices)
        return Clip(
            clip.frames[at],
            tuple(clip.indices[i] for i in at),
            tuple(clip.timestamps_s[i] for i in at),
            clip.backend,
            clip.info,
        )


@contextmanager
def opened(samples: Sequence[Sample], reader: Any, clips: Sequence[Clip] | None) -> Iterator[Source]:
    """Where frames come from: the clips given, the reader given, or a reader of its own."""
    if clips is not None:
        if len(clips) != len(samples) or len({s.id for s in samples}) != len(samples):
            raise DataError(
                "probe the fusion on clips given",
                f"there are {len(clips)} clips for {len(samples)} samples",
                "Give one clip a sample, and every sample its own id",
            )
        yield _Given(samples, clips)
    elif reader is not None:
        yield _Files(reader)
    else:
        from workbench.samples.reader import FrameReader

        own = FrameReader()
        try:
            yield _Files(own)
        finally:
            own.close()


@dataclass
class Chosen:
    """Videos and images that can be read, frames there are by sample id, and why others were left out."""

    videos: list[Sample]
    images: list[Sample]
    available: dict[str, int]
    left_out: list[str]

    def clip(self, source: Source, sample: Sample, frames: int) -> Clip | None:
        """``frames`` frames by midpoint sampling; None when the sample has fewer or they cannot be read."""
        available = self.available[sample.id]
        if frames > available:
            return None
        try:
            return source.read(sample, midpoint_indices(available, frames))
        except MediaError as error:
            self.left_out.append(str(error))
            return None


def choose(samples: Sequence[Sample], source: Source, frames: Sequence[int]) -> Chosen:
    """Sort samples into videos and images. One medium counts once, however many samples ask about it.

    Raises:
        ProbeError: nothing to show, or a frame count that no video has.
    """
    chosen = Chosen([], [], {}, [])
    media = set()
    for sample in samples:
        if sample.media is None or source.key(sample) in media:
            continue
        try:
            chosen.available[sample.id] = source.available(sample)
        except MediaError as error:
            chosen.left_out.append(str(error))
            continue
        media.add(source.key(sample))
        (chosen.videos if sample.is_video else chosen.images).append(sample)
    if not media:
        why = chosen.left_out[0] if chosen.left_out else "none has an image or video"
        raise ProbeError(
            "probe the fusion", f"no sample of {len(samples)} can be shown ({why})", "Give others"
        )
    longest = max((chosen.available[s.id] for s in chosen.videos), default=0)
    if chosen.videos and max(frames) > longest:
        raise ProbeError(
            f"probe the fusion at {max(frames)} frames",
            f"the longest of {len(chosen.videos)} videos has {longest}",
            "Ask for fewer frames: a clip is never repeated to fill a count",
        )
    for sample in chosen.videos:
        if (found := chosen.available[sample.id]) < max(frames):
            chosen.left_out.append(f"{sample.id} has {found} frames: left out above that")
    return chosen
