"""Sentences from a gradients capture. What an interval excludes is said; what it does not exclude is not claimed.

Needs no torch. Sentences are about one checkpoint and its batches, never about training again.
"""

from __future__ import annotations

import numpy as np

from workbench.captures import Capture
from workbench.probes.gradients.read import of_kind, step_check

NOTHING = "no difference shown"
FEW_PAIRS = 8
TITLES = {"frozen": "one frame repeated", "shuffled": "frames shuffled"}


def words(capture: Capture, group: str = "all", metric: str = "plain") -> list[str]:
    """What the capture shows of one module group, one finding a sentence.

    Raises:
        CaptureError: a capture of another kind.
        ValueError: a group or metric that was not probed.
    """
    view = _View(of_kind(capture), group, metric)
    sentences = [view.signal(), view.agreement(), view.conflict(), view.trend("cos", "cos(g_I, g_V)")]
    for kind in (*capture.meta["counterfactuals"], *(["static_frozen"] if capture.meta["static"] else [])):
        sentences += [view.temporal(kind), view.seat(kind)]
    sentences.append(view.step())
    if capture.meta["pairs"] < FEW_PAIRS:
        sentences.append(f"{capture.meta['pairs']} batch pairs are few: at least {FEW_PAIRS} are advised.")
    return [sentence for sentence in sentences if sentence]


class _View:
    """One group and metric of a capture."""

    def __init__(self, capture: Capture, group: str, metric: str) -> None:
        self.capture, self.meta, self.group = capture, capture.meta, group
        for name, value in (("groups", group), ("metrics", metric)):
            if value not in self.meta[name]:
                raise ValueError(f"{value!r} was not probed; {name} are {', '.join(self.meta[name])}")
        self.m, self.g = self.meta["metrics"].index(metric), self.meta["groups"].index(group)
        self.frames = [int(n) for n in self.meta["frame_counts"]]
        self.where = "the model" if group == "all" else group

    def estimate(self, name: str, n: int) -> np.ndarray:
        """(estimate, low, high)."""
        return np.asarray(
            self.capture.arrays["estimates"][self.meta["statistics"].index(name), self.m, self.g, n]
        )

    def signal(self) -> str:
        share, low, high = self.capture.arrays["signal"][self.m, self.g]
        if np.isnan(share):
            return f"In {self.where} image batches give no gradient: nothing can be compared there."
        text = f"{_percent((share, low, high))} of an image gradient's square in {self.where}"
        if not low > 0:
            return (
                f"Image gradients are not distinguishable from batch noise: {text} is repeated by another batch, so "
                "cosines corrected for noise are not reported; use larger batches or a checkpoint from mid-training."
            )
        return f"{text} is repeated by another batch: a signal-to-noise ratio of {_number(share / max(1e-9, 1 - share))}."

    def agreement(self) -> str:
        parts = []
        for n, frames in enumerate(self.frames):
            found = self.estimate("cos", n)
            parts.append(f"{_interval(found)} at {frames} frames ({_sign(found, 'agree', 'conflict')})")
        ceiling = self.estimate("image_ceiling", 0)
        return f"cos(g_I, g_V) in {self.where}: {'; '.join(parts)}; two image batches reach {_interval(ceiling)}."

    def conflict(self) -> str:
        parts = []
        for n, frames in enumerate(self.frames):
            rate, low, high = self.capture.arrays["conflict_rate"][self.m, self.g, n]
            if np.isfinite(rate):
                side = (
                    "more often than not"
                    if low > 0.5
                    else "less often than not"
                    if high < 0.5
                    else "neither shown"
                )
                parts.append(f"{_percent((rate, low, high))} at {frames} frames ({side})")
        return f"Share of pairs whose gradients conflict: {'; '.join(parts)}." if parts else ""

    def trend(self, name: str, title: str) -> str:
        """Largest against smallest frame count, paired."""
        if len(self.frames) < 2:
            return ""
        few, many = int(np.argmin(self.frames)), int(np.argmax(self.frames))
        at = self.meta["statistics"].index(name)
        found = np.asarray(self.capture.arrays["trend"][at, self.m, self.g])
        if np.isnan(found[1]):
            return ""
        verb = "higher" if found[1] > 0 else "lower" if found[2] < 0 else ""
        ends = f"{self.frames[many]} than at {self.frames[few]} frames"
        if not verb:
            return f"{title} at {self.frames[many]} against {self.frames[few]} frames: {NOTHING} ({_interval(found)})."
        return f"{title} is {verb} at {ends}, by {_interval(found)}."

    def temporal(self, kind: str) -> str:
        parts = [
            f"{_interval(self.estimate(f'{kind}.share_t', n))} at {f}" for n, f in enumerate(self.frames)
        ]
        trend = self.trend(f"{kind}.share_t", "it")
        return f"Temporal share |t|/|g_V| against {_title(kind)}: {', '.join(parts)} frames; {trend}"

    def seat(self, kind: str) -> str:
        """Whether conflict sits in the shared or in the temporal part, at the largest count."""
        n = int(np.argmax(self.frames))
        shared, temporal = (self.estimate(f"{kind}.interference_{part}", n) for part in ("s", "t"))
        if np.isnan(shared[1]) or np.isnan(temporal[1]):
            return ""
        return (
            f"At {self.frames[n]} frames the part shared with {_title(kind)} has <g_I, s>/|g_I|^2 of "
            f"{_interval(shared)} ({_sign(shared, 'helps', 'hurts')}), the rest {_interval(temporal)} "
            f"({_sign(temporal, 'helps', 'hurts')})."
        )

    def step(self) -> str:
        taken = step_check(self.capture)
        if taken is None or self.group != "all":
            return ""
        spread = float(np.sqrt((taken["predicted"] ** 2).mean()))
        error = float(np.sqrt(((taken["first_order"] - taken["predicted"]) ** 2).mean()))
        curved = float(np.sqrt((taken["curvature"] ** 2).mean()))
        if spread == 0:
            return ""
        return (
            f"One-step check over {len(taken)} real steps: the measured first-order change of the image loss differs "
            f"from -eta <g_I, g_V> by {100 * error / spread:.1f}% (root mean square); the step's length adds "
            f"{100 * curved / spread:.0f}%."
        )


def _title(kind: str) -> str:
    if kind == "static_frozen":
        return f"{TITLES['frozen']} (static questions only)"
    return TITLES.get(kind, kind)


def _sign(found: np.ndarray, positive: str, negative: str) -> str:
    if np.isnan(found[1]):
        return "no interval"
    return positive if found[1] > 0 else negative if found[2] < 0 else "neither shown"


def _interval(found: np.ndarray) -> str:
    if np.isnan(found[0]):
        return "missing"
    if np.isnan(found[1]):
        return f"{_number(found[0])} [no interval]"
    return f"{_number(found[0])} [{_number(found[1])}, {_number(found[2])}]"


def _percent(found: tuple[float, float, float]) -> str:
    share, low, high = (
        f"{100 * value:.0f}".replace("-0", "0") if abs(value) < 0.005 else f"{100 * value:.0f}"
        for value in found
    )
    return f"{share}% [{low}, {high}]".replace("-", "\u2212")


def _number(value: float) -> str:
    text = f"{value:.2f}" if abs(value) < 9.95 else f"{value:.0f}"
    return ("0.00" if text == "-0.00" else text).replace("-", "\u2212")
