"""Frame policies behind one interface: how many frames a video's question deserves.

A conversation has one clip and may have several questions: policies that read the question take the largest
count that any of its turns asks for.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import DataError
from workbench.frames.plan import FramePlan
from workbench.samples.sample import ClipInfo, Sample

Answers = list[tuple[int, str]]


@dataclass(frozen=True)
class Fixed:
    """Every video gets ``frames`` frames."""

    frames: int
    name: str = field(default="fixed", init=False)

    def requested(self, samples: Sequence[Sample], infos: Sequence[ClipInfo], seed: int = 0) -> Answers:
        return [(self.frames, "fixed")] * len(samples)

    def parameters(self) -> dict[str, Any]:
        return {"frames": self.frames}


@dataclass(frozen=True)
class Fps:
    """``rate`` frames per second of film, at least ``lo`` and at most ``hi``; then spread evenly over the
    clip.
    """

    rate: float
    lo: int
    hi: int
    name: str = field(default="fps", init=False)

    def requested(self, samples: Sequence[Sample], infos: Sequence[ClipInfo], seed: int = 0) -> Answers:
        return [self._one(info) for info in infos]

    def _one(self, info: ClipInfo) -> tuple[int, str]:
        seconds = info.frames / info.fps if info.fps > 0 else info.duration_s
        wanted = math.floor(self.rate * seconds + 0.5)
        if wanted < self.lo:
            return self.lo, "fps: at least"
        return (self.hi, "fps: at most") if wanted > self.hi else (wanted, "fps")

    def parameters(self) -> dict[str, Any]:
        return {"rate": self.rate, "lo": self.lo, "hi": self.hi}


@dataclass(frozen=True)
class Column:
    """The count that the data set itself stores (``frames`` in its rows).

    A video without one gets the smallest count seen among the others, and its reason says so.
    """

    name: str = field(default="column", init=False)

    def requested(self, samples: Sequence[Sample], infos: Sequence[ClipInfo], seed: int = 0) -> Answers:
        seen = [s.frames_column for s in samples if s.frames_column is not None]
        if not seen:
            raise DataError(
                "plan frames by the policy `column`",
                f"none of {len(samples)} videos has a `frames` value",
                "add `frames` to the rows, or choose another policy",
                samples[0].where if samples else None,
            )
        smallest = min(seen)
        return [
            (smallest, "no column: smallest") if s.frames_column is None else (s.frames_column, "column")
            for s in samples
        ]

    def parameters(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Keywords:
    """Rules from a word or phrase to a count; the largest match wins.

    Words match whole and in any case, and any run of spaces matches a space of the rule. Without a match:
    ``default``, or the smallest count of the rules.
    """

    rules: Mapping[str, int]
    default: int | None = None
    name: str = field(default="keywords", init=False)
    _patterns: tuple[tuple[int, str, re.Pattern[str]], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        order = sorted(self.rules.items(), key=lambda rule: (-rule[1], rule[0]))
        patterns = tuple((count, words, _whole_words(words)) for words, count in order)
        object.__setattr__(self, "_patterns", patterns)

    def requested(self, samples: Sequence[Sample], infos: Sequence[ClipInfo], seed: int = 0) -> Answers:
        seen: dict[tuple[str, ...], tuple[int, str]] = {}
        answers = []
        for sample in samples:
            questions = tuple(turn.question for turn in sample.turns)
            if questions not in seen:
                seen[questions] = max((self._one(q) for q in questions), key=lambda answer: answer[0])
            answers.append(seen[questions])
        return answers

    def _one(self, question: str) -> tuple[int, str]:
        for count, words, pattern in self._patterns:  # largest count first
            if pattern.search(question):
                return count, f"rule: {words}"
        return (min(self.rules.values()) if self.default is None else self.default), "no rule"

    def parameters(self) -> dict[str, Any]:
        return {"rules": dict(self.rules), "default": self.default}


def _whole_words(words: str) -> re.Pattern[str]:
    inner = r"\s+".join(re.escape(word) for word in words.split())
    return re.compile(rf"(?<!\w){inner}(?!\w)", re.IGNORECASE)


@dataclass(frozen=True)
class UniformChoice:
    """Each video draws one of ``choices`` by itself (its id and the seeds decide): a pilot that sees all
    counts.
    """

    choices: tuple[int, ...]
    seed: int = 0
    name: str = field(default="uniform_choice", init=False)

    def requested(self, samples: Sequence[Sample], infos: Sequence[ClipInfo], seed: int = 0) -> Answers:
        return [(self._draw(sample.id, seed), "drawn") for sample in samples]

    def _draw(self, sample_id: str, seed: int) -> int:
        # Hashed rather than drawn in sequence, so that a sample keeps its count when others come or go.
        digest = hashlib.sha256(f"{self.seed}/{seed}/{sample_id}".encode()).digest()
        return self.choices[int.from_bytes(digest[:8], "big") * len(self.choices) >> 64]

    def parameters(self) -> dict[str, Any]:
        return {"choices": list(self.choices), "seed": self.seed}


@dataclass(frozen=True)
class RandomMatched:
    """The counts of another plan, dealt out again at random: as many frames, without looking at the question.

    Counts *used* are dealt, each only to a clip long enough for it, uniformly among all such deals; the
    histogram of used frames is therefore exactly the other plan's. The deal takes counts from the largest
    down, each to a random clip still free with enough frames: clips with >= n frames always outnumber counts
    >= n (the other plan is the witness), so it never gets stuck, and every step has the same number of
    choices in every deal.
    """

    like: FramePlan
    seed: int = 0
    name: str = field(default="random_matched", init=False)

    def requested(self, samples: Sequence[Sample], infos: Sequence[ClipInfo], seed: int = 0) -> Answers:
        videos = self.like.videos()
        counts = dict(zip(videos["sample_id"], videos["used"].tolist(), strict=True))
        clips = {sample.id: info.frames for sample, info in zip(samples, infos, strict=True)}
        if clips.keys() != counts.keys():
            raise DataError(
                "match the frame histogram of another plan",
                f"it has {len(counts.keys() - clips.keys())} videos that these samples lack and lacks "
                f"{len(clips.keys() - counts.keys())} that they have",
                "make both plans over the same samples",
            )
        rng = np.random.default_rng([self.seed, seed, 0x5EED])
        waiting = sorted(clips, key=lambda name: (clips[name], name))  # longest clip last
        free: list[str] = []
        dealt: dict[str, int] = {}
        for count in sorted(counts.values(), reverse=True):
            while waiting and clips[waiting[-1]] >= count:
                free.append(waiting.pop())
            if not free:
                raise DataError(
                    "match the frame histogram of another plan",
                    f"too few clips have {count} frames",
                    "make both plans over the same files",
                )
            pick = int(rng.integers(len(free)))
            free[pick], free[-1] = free[-1], free[pick]
            dealt[free.pop()] = count
        return [(dealt[sample.id], "shuffled") for sample in samples]

    def parameters(self) -> dict[str, Any]:
        videos = self.like.videos().sort_values("sample_id")
        table = videos[["sample_id", "used"]].to_csv(index=False).encode()
        return {"like": hashlib.sha256(table).hexdigest(), "seed": self.seed}


@dataclass(frozen=True, eq=False)
class Oracle:
    """The smallest count whose measured loss is within ``epsilon`` nats of the loss at the largest count.

    ``losses`` has a row a measurement: ``sample_id``, ``frames``, ``loss`` and, where a sample has several
    questions, ``question``; repeated measurements (seeds) are averaged. A sample not measured at the largest
    count gets the smallest one, and its reason says so. It sees the answers' losses: a bound for other
    policies, not a rival.
    """

    losses: pd.DataFrame
    epsilon: float
    choices: tuple[int, ...] | None = None
    name: str = field(default="oracle", init=False)

    def requested(self, samples: Sequence[Sample], infos: Sequence[ClipInfo], seed: int = 0) -> Answers:
        table = self._table()
        best = smallest_within(
            table.groupby(["sample_id", "question", "frames"])["loss"].mean(), self.epsilon
        )
        counts = {str(k): int(v) for k, v in best.groupby("sample_id").max().items()}
        fallback = int(table["frames"].min())
        return [
            (counts[s.id], "measured") if s.id in counts else (fallback, "not measured: smallest")
            for s in samples
        ]

    def _table(self) -> pd.DataFrame:
        missing = {"sample_id", "frames", "loss"} - set(self.losses.columns)
        if missing:
            raise DataError(
                "plan frames by the policy `oracle`",
                f"the loss table lacks {', '.join(sorted(missing))}",
                "measure losses with one row a sample and frame count",
            )
        table = self.losses.assign(question="") if "question" not in self.losses else self.losses
        if self.choices is not None:
            table = table[table["frames"].isin(self.choices)]
            absent = sorted(set(self.choices) - set(table["frames"].tolist()))
            if absent:
                raise DataError(
                    "plan frames by the policy `oracle`",
                    f"the loss table has no row at {absent} frames",
                    "measure every count of `choices`",
                )
        if table.empty:
            raise DataError(
                "plan frames by the policy `oracle`", "an empty loss table", "measure some losses first"
            )
        return table

    def parameters(self) -> dict[str, Any]:
        kept = [c for c in ("sample_id", "question", "frames", "loss") if c in self.losses]
        table = self.losses[kept].sort_values(kept).to_csv(index=False).encode()
        return {
            "losses": hashlib.sha256(table).hexdigest(),
            "epsilon": self.epsilon,
            "choices": list(self.choices) if self.choices is not None else None,
        }


def smallest_within(losses: pd.Series, epsilon: float) -> pd.Series:
    """The smallest count whose loss is at most ``epsilon`` above the loss at the largest count.

    Args:
        losses: values in nats, indexed by group levels and, last, ``frames``.

    Returns:
        Counts indexed by the group levels; groups without a finite loss at the largest count are left out.
    """
    wide = losses.unstack("frames").sort_index(axis=1)
    wide = wide[wide.iloc[:, -1].notna()]
    fits = wide.to_numpy() <= wide.iloc[:, -1].to_numpy()[:, None] + epsilon
    return pd.Series(wide.columns.to_numpy()[fits.argmax(axis=1)], index=wide.index, dtype=np.int64)
