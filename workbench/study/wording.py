"""How an interval becomes words: what it excludes is said, what it does not exclude is not claimed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workbench.study.arms import Arm
from workbench.study.contrasts import Contrast
from workbench.study.intervals import Estimate

NOTHING = "no difference shown"
Kind = Literal["effect", "frames", "hybrid", "variant", "published", "caveat"]
Verdict = Literal["agrees", "partly", "disagrees", "undecided", ""]


@dataclass(frozen=True, slots=True)
class Conclusion:
    """One generated statement. ``claim`` and ``verdict`` are filled for published claims only."""

    kind: Kind
    text: str
    claim: str = ""
    verdict: Verdict = ""


def number(value: float) -> str:
    """Points without false precision: whole numbers, one decimal below 2."""
    text = f"{value:.0f}" if abs(value) >= 1.95 else f"{value:.1f}"
    return "0" if text in ("-0", "0.0", "-0.0") else text.replace("-", "\u2212")


def points(value: float) -> str:
    return f"{number(value)} point{'' if number(abs(value)) in ('1', '1.0') else 's'}"


def interval(estimate: Estimate) -> str:
    return f"[{number(estimate.low)}, {number(estimate.high)}]"


def size(*contrasts: Contrast) -> str:
    """Sample size, for example ``n = 300 image and 360 video questions × 5 seeds``."""
    counts: dict[str, int] = {}
    for contrast in contrasts:  # of measures of one kind the one that asks most counts
        kind = contrast.measure.partition("_")[0]
        counts[kind] = max(counts.get(kind, 0), contrast.estimate.questions)
    seeds = min(contrast.estimate.seeds for contrast in contrasts)
    asked = " and ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    return f"n\u00a0=\u00a0{asked} questions × {seeds} seed{'s' if seeds > 1 else ''}"


def moved(contrast: Contrast, what: str) -> str:
    """``raised video by 12 points [9, 15]`` | ``lowered ...`` | ``did not measurably change video (0
    points [-2, 2]: ...)``.
    """
    estimate = contrast.estimate
    if not estimate.shown:
        return f"shows no change of {what} ({points(estimate.value)} {interval(estimate)}: {NOTHING})"
    verb, shown = ("raised", estimate) if estimate.value > 0 else ("lowered", estimate.negated())
    return f"{verb} {what} by {points(shown.value)} {interval(shown)}{holm_note(contrast)}"


def compared(contrast: Contrast, what: str) -> str:
    """``12 points better on video [9, 15]`` | ``... worse ...`` | ``no difference shown on video (0
    points [-2, 2])``.
    """
    estimate = contrast.estimate
    if not estimate.shown:
        return f"{NOTHING} on {what} ({points(estimate.value)} {interval(estimate)})"
    word, shown = ("better", estimate) if estimate.value > 0 else ("worse", estimate.negated())
    return f"{points(shown.value)} {word} on {what} {interval(shown)}{holm_note(contrast)}"


def holm_note(contrast: Contrast) -> str:
    """Said when the interval excludes 0 but Holm's adjustment no longer does."""
    if contrast.holds or not contrast.estimate.shown:
        return ""
    return f" (not after Holm adjustment for {contrast.family_size} comparisons)"


def control_of(control: Arm) -> str:
    """A control by its title: there may be several pairs in one study."""
    return f"its random-matched control “{control.title}”"


def joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
