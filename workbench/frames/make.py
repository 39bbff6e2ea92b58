"""From a policy and samples to a ``FramePlan``: computed once, cached by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from workbench.errors import DataError, MediaError
from workbench.frames.plan import COLUMNS, FramePlan
from workbench.samples.sample import ClipInfo, ImageRef, MediaRef, Sample


class FramePolicy(Protocol):
    """Decides how many frames videos get. Images and text are never asked about.

    ``requested`` answers one ``(frames >= 1, reason)`` a sample, in order; ``infos`` describes each clip.
    ``seed`` is the plan's: a policy that draws at random mixes it with its own. A policy reads questions,
    media facts and ``frames_column``, never ``min_frames``, ``answer`` or ``skill``. A model that predicts
    counts from the question (a vision LLM behind an endpoint, say) is one more class with these three
    members.
    """

    @property
    def name(self) -> str: ...

    def requested(
        self, samples: Sequence[Sample], infos: Sequence[ClipInfo], seed: int = 0
    ) -> list[tuple[int, str]]: ...

    def parameters(self) -> dict[str, Any]:
        """What decides its answers, as JSON values: it becomes part of the plan's identity."""
        ...


class InfoReader(Protocol):
    """The part of ``FrameReader`` a plan needs."""

    def info(self, ref: MediaRef, /) -> ClipInfo: ...


def make_plan(
    policy: FramePolicy,
    samples: Sequence[Sample],
    reader: InfoReader,
    seed: int = 0,
    *,
    cache: str | Path | None = None,
) -> FramePlan:
    """Plan the frames of every sample.

    ``used = min(requested, available)``. Images get 1 frame (reason ``image``), text 0 (``text``); a video
    whose ``info`` raises ``MediaError``, and an image that is missing or empty, gets 0 and ``failed: KIND``,
    so that it is counted and never silently replaced. Each video is opened once, however many samples share
    it; images are not opened (they have one frame whatever they hold, and a data set may have millions).

    Args:
        cache: a folder that keeps plans by content hash; a plan that is already there is read, no media
        opened.
            Plans with failures are not kept, so a mended file is seen next time.

    Raises:
        DataError: two samples share an id; whatever the policy raises.
    """
    sizes = {path: _size(path) for path in {s.media.path for s in samples if s.media is not None}}
    metadata = {
        "policy": policy.name,
        "parameters": policy.parameters(),
        "seed": seed,
        "content": content_hash(samples, sizes),
    }
    key = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()[:24]
    kept = Path(cache) / f"{policy.name}-{key}.parquet" if cache is not None else None
    if kept is not None and kept.exists():
        try:
            return FramePlan.load(kept)
        except DataError:  # a cut cache file is not the user's problem: it is made again
            kept.unlink(missing_ok=True)
    infos: dict[MediaRef, ClipInfo | str] = {}
    for ref in (s.media for s in samples if s.media is not None):
        if ref not in infos:
            infos[ref] = _image(ref, sizes) if isinstance(ref, ImageRef) else _info(reader, ref)
    known = [(s, infos[s.media]) for s in samples if s.is_video and s.media is not None]
    films = [sample for sample, info in known if isinstance(info, ClipInfo)]
    clips = [info for _, info in known if isinstance(info, ClipInfo)]
    answers = iter(policy.requested(films, clips, seed) if films else [])
    rows: list[tuple[str, int, int, int, str, str]] = []
    for sample in samples:
        info: ClipInfo | str | None = infos[sample.media] if sample.media is not None else None
        if info is None:
            wanted, available, reason = 0, 0, "text"
        elif isinstance(info, str):
            wanted, available, reason = 0, 0, f"failed: {info}"
        elif isinstance(sample.media, ImageRef):
            wanted, available, reason = 1, 1, "image"
        else:
            wanted, reason = next(answers)
            available = info.frames
        rows.append((sample.id, int(wanted), available, min(int(wanted), available), policy.name, reason))
    plan = FramePlan(pd.DataFrame(rows, columns=list(COLUMNS)), metadata)
    if kept is not None and not plan.failures():
        plan.save(kept)
    return plan


def _info(reader: InfoReader, ref: MediaRef) -> ClipInfo | str:
    try:
        return reader.info(ref)
    except MediaError as error:
        return error.kind


def _image(ref: ImageRef, sizes: Mapping[Path, int]) -> ClipInfo | str:
    size = sizes[ref.path]
    if size > 0:
        return ClipInfo(frames=1, fps=0.0, duration_s=0.0, width=0, height=0)
    return "empty" if size == 0 else "missing"


def content_hash(samples: Sequence[Sample], sizes: Mapping[Path, int] | None = None) -> str:
    """SHA-256 of what a plan can depend on: ids, questions, ``frames_column``, and each medium's kind, name
    and size.

    Sizes in bytes stand for media contents (hashing the bytes of a real video set would take hours), and
    names are the last two parts of the path, so that the same data set elsewhere has the same hash.

    Args:
        sizes: bytes by path where they are known already; -1 for a file that is not there.
    """
    digest = hashlib.sha256()
    known = dict(sizes or {})
    for sample in samples:
        row: list[Any] = [sample.id, [turn.question for turn in sample.turns], sample.frames_column]
        if sample.media is not None:
            path = sample.media.path
            if path not in known:
                known[path] = _size(path)
            row += [type(sample.media).__name__, list(path.parts[-2:]), known[path]]
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _size(path: Path) -> int:
    """Bytes of a file, or of the files of a folder of images; -1 if there is none (the reader then says
    why).
    """
    try:
        if path.is_dir():
            return sum(entry.stat().st_size for entry in path.iterdir() if entry.is_file())
        return path.stat().st_size
    except OSError:
        return -1
