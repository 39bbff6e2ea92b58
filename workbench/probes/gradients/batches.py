"""Pairs of image and video batches that can be compared, and the counterfactual versions of a clip.

Both sides of a pair have the same number of conversations and, one by one, the same numbers of answer tokens:
the loss is a mean over answer tokens, so a longer answer would weigh a side differently. All batches of a probe
are disjoint in samples. A batch is one packed row a few conversations long, and one backward pass.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from workbench.errors import DataError, MediaError
from workbench.frames.sampling import midpoint_indices
from workbench.models.videolm import Prepared
from workbench.samples.sample import Clip, ClipInfo, MediaRef, Sample
from workbench.training.packing import IGNORE, PackedBatch, materialise, plan_rows

COUNTERFACTUALS = ("frozen", "shuffled")
_KEPT_BYTES = 512 << 20  # decoded clips and batches remembered


class Reader(Protocol):
    """The part of ``FrameReader`` a probe needs."""

    def info(self, ref: MediaRef, /) -> ClipInfo: ...
    def read(self, ref: MediaRef, indices: Sequence[int], /) -> Clip: ...


@dataclasses.dataclass(frozen=True)
class Item:
    """One question of one sample, with its answer's length in tokens (end mark included)."""

    sample: Sample
    turn: int
    answer_tokens: int


@dataclasses.dataclass
class Batches:
    """Items of every batch.

    Attributes:
        images, others: ``[pairs][batch]``; the image batch under test, and the second half that the noise
            ceiling compares it with.
        videos: ``[pairs][batch]``; matched to ``images`` in answer lengths.
        static: ``[pairs][batch]`` videos with questions that one frame answers, or empty.
        held_out: ``[m][batch]`` image batches that span the subspace.
        skipped: (sample id, why) of samples that could not be used.
    """

    images: list[list[Item]]
    others: list[list[Item]]
    videos: list[list[Item]]
    static: list[list[Item]]
    held_out: list[list[Item]]
    skipped: list[tuple[str, str]]


def choose_batches(
    processor: Any,
    images: Sequence[Sample],
    videos: Sequence[Sample],
    reader: Reader,
    *,
    frames: int,
    pairs: int,
    batch: int,
    held_out: int,
    seed: int,
    static: bool = True,
) -> Batches:
    """Draw disjoint batches.

    Args:
        frames: the largest count that clips must have; shorter ones are left out and counted, never repeated.
        static: also draw batches of videos with ``min_frames == 1``; left empty when there are too few.

    Raises:
        DataError: a sample without an answer, a video among the images or the reverse, or too few samples
            (says how many there are and how many it takes).
    """
    draw = _Draw(processor, reader, frames, seed)
    pool = draw.pool(images, video=False)
    image_batches = [draw.take(pool, batch) for _ in range(2 * pairs + held_out)]
    if any(found is None for found in image_batches):
        raise _too_few("images", len(images), (2 * pairs + held_out) * batch, draw, pairs, batch, held_out)
    chosen = [found for found in image_batches if found is not None]
    tests = chosen[:pairs]
    static_batches: list[list[Item]] = []
    if static:
        static_pool = draw.pool([s for s in videos if s.min_frames == 1], video=True)
        drawn = [draw.take(static_pool, batch, like=test) for test in tests]
        static_batches = [found for found in drawn if found is not None]
        static_batches = static_batches if len(static_batches) == pairs else []
    film_pool = draw.pool(videos, video=True)
    films = [draw.take(film_pool, batch, like=test) for test in tests]
    if any(found is None for found in films):
        raise _too_few("videos", len(videos), pairs * batch, draw, pairs, batch, held_out)
    return Batches(
        tests,
        chosen[pairs : 2 * pairs],
        [found for found in films if found is not None],
        static_batches,
        chosen[2 * pairs :],
        draw.skipped,
    )


class Pool:
    """Items in a fixed order, each given once; those passed over for their length wait for their turn."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._waiting: dict[int, deque[Item]] = defaultdict(deque)

    def next(self, answer_tokens: int | None) -> Item | None:
        """The next item, of an answer length if one is asked for; None when there is none left."""
        if answer_tokens is not None and self._waiting[answer_tokens]:
            return self._waiting[answer_tokens].popleft()
        for item in self._items:
            if answer_tokens in (None, item.answer_tokens):
                return item
            self._waiting[item.answer_tokens].append(item)
        return None


class _Draw:
    """Draws items without replacement, in an order fixed by the seed."""

    def __init__(self, processor: Any, reader: Reader, frames: int, seed: int) -> None:
        self.processor, self.reader, self.frames, self.seed = processor, reader, frames, seed
        self.skipped: list[tuple[str, str]] = []
        self._lengths: dict[tuple[str, str], int] = {}

    def pool(self, samples: Sequence[Sample], video: bool) -> Pool:
        return Pool(self._items(samples, video))

    def _items(self, samples: Sequence[Sample], video: bool) -> Iterator[Item]:
        rng = np.random.default_rng([self.seed, int(video)])
        for index in rng.permutation(len(samples)):
            sample = samples[int(index)]
            if sample.media is None or sample.is_video != video:
                raise DataError(
                    f"probe gradients of {'videos' if video else 'images'}",
                    f"{sample.id} is {'text only' if sample.media is None else 'an image' if video else 'a video'}",
                    "Give images and videos apart",
                    sample.where or None,
                )
            turn = int(rng.integers(len(sample.turns)))
            if self._usable(sample):
                yield Item(sample, turn, self._answer_tokens(sample, turn))

    def take(self, pool: Pool, batch: int, like: Sequence[Item] | None = None) -> list[Item] | None:
        """The next ``batch`` items; with ``like``, in its answer lengths one by one. None when they run out."""
        lengths = [None] * batch if like is None else [item.answer_tokens for item in like]
        found = [pool.next(length) for length in lengths]
        taken = [item for item in found if item is not None]
        return taken if len(taken) == len(found) else None

    def _usable(self, sample: Sample) -> bool:
        assert sample.media is not None
        try:
            available = self.reader.info(sample.media).frames
            if sample.is_video and available < self.frames:
                self.skipped.append((sample.id, f"it has {available} of {self.frames} frames"))
                return False
            self.reader.read(sample.media, (0,))
        except MediaError as error:
            self.skipped.append((sample.id, str(error)))
            return False
        return True

    def _answer_tokens(self, sample: Sample, turn: int) -> int:
        asked = sample.turns[turn]
        if not asked.answer.strip():
            raise DataError(
                f"probe gradients with sample {sample.id}",
                f"its question {asked.question!r} has no answer, so no loss",
                "Leave samples without answer out",
                sample.where or None,
            )
        key = (asked.question, asked.answer)
        if key not in self._lengths:
            bare = dataclasses.replace(sample, media=None)
            prepared = self.processor.prepare(bare, None, turns=(turn,))
            self._lengths[key] = int((prepared.labels != IGNORE).sum())
        return self._lengths[key]


def _too_few(
    what: str, there: int, needed: int, draw: _Draw, pairs: int, batch: int, held_out: int
) -> DataError:
    reasons = Counter(reason.split(":")[0] for _, reason in draw.skipped)
    left_out = f", {len(draw.skipped)} of them unusable ({reasons.most_common(1)[0][0]})" if reasons else ""
    return DataError(
        f"draw {pairs} pairs of {batch} conversations",
        f"{needed} different {what} with matching answer lengths are needed, of {there} there are not enough{left_out}",
        f"Lower pairs, batch or subspace (now {held_out}), or give more samples",
    )


# -- what the model is shown -----------------------------------------------------------------------


def counterfactual(clip: Clip, kind: str, key: str = "") -> Clip:
    """The clip with its content over time changed, timestamps and length kept.

    ``frozen``: every frame is the middle one. ``shuffled``: frames in another order, fixed by ``key`` and
    never the true one (a clip of one frame stays as it is).

    Raises:
        ValueError: unknown kind.
    """
    n = len(clip.frames)
    if kind == "frozen":
        order = np.full(n, n // 2)
    elif kind == "shuffled":
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(digest, "little"))
        order = rng.permutation(n)
        while n > 1 and (order == np.arange(n)).all():
            order = rng.permutation(n)
    else:
        raise ValueError(f"counterfactuals are {', '.join(COUNTERFACTUALS)}, not {kind!r}")
    return dataclasses.replace(clip, frames=clip.frames[order], indices=tuple(clip.indices[i] for i in order))


class BatchMaker:
    """Turns items into packed batches; the last few clips are remembered (half a gigabyte at most)."""

    def __init__(self, processor: Any, reader: Reader, tokens_per_row: int, seed: int) -> None:
        self.processor, self.reader, self.seed = processor, reader, seed
        self.tokens_per_row = tokens_per_row
        self._clips: OrderedDict[tuple[str, int], Clip] = OrderedDict()
        self._bytes = 0

    def clip(self, sample: Sample, frames: int) -> Clip:
        """``frames`` frames of a video (the middle of equal spans), or an image."""
        key = (sample.id, frames)
        if key in self._clips:
            self._clips.move_to_end(key)
            return self._clips[key]
        assert sample.media is not None
        available = self.reader.info(sample.media).frames
        clip = self.reader.read(sample.media, midpoint_indices(available, frames))
        self._clips[key] = clip
        self._bytes += clip.frames.nbytes
        while self._bytes > _KEPT_BYTES and len(self._clips) > 1:
            self._bytes -= self._clips.popitem(last=False)[1].frames.nbytes
        return clip

    def prepared(self, item: Item, frames: int, kind: str = "") -> Prepared:
        """One conversation; ``kind`` names a counterfactual, empty for the clip as it is."""
        clip = self.clip(item.sample, frames)
        if kind:
            clip = counterfactual(clip, kind, f"{self.seed}/{item.sample.id}/{frames}")
        return self.processor.prepare(item.sample, clip, turns=(item.turn,))

    def batch(self, items: Sequence[Item], frames: int = 1, kind: str = "") -> PackedBatch:
        """All items in one packed batch.

        Raises:
            DataError: the batch lost or gained answer tokens against what its items promised.
        """
        prepared = [self.prepared(item, frames, kind) for item in items]
        rows = plan_rows([len(p) for p in prepared], self.tokens_per_row)
        packed = materialise(prepared, rows, self.processor.pad_token_id)
        promised = sum(item.answer_tokens for item in items)
        if packed.answer_tokens != promised:
            raise DataError(
                "compare gradients",
                f"a batch has {packed.answer_tokens} answer tokens, its texts alone {promised}",
                "Use a processor that never cuts answers",
            )
        return packed
