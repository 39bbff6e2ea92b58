"""The study as a plain-text table, at most 110 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

from workbench.study.arms import BASE
from workbench.study.contrasts import MEASURES, Analysis, analyse, measure_skills
from workbench.study.intervals import Estimate
from workbench.study.results import StudyResults

HEADER = ("arm", "frames", "s", "image", "w/o counting", "video", "temporal", "back by copies")
WIDTH = 110


def render_table(results: StudyResults) -> str:
    """One line an arm: mean frames, training seconds, and scores in percent, each ± half its 95% interval."""
    analysis = analyse(results)
    names = [
        n
        for n in (BASE, *(arm.name for arm in results.arms))
        if (n, "image") in analysis.levels or (n, "video") in analysis.levels
    ]
    lines = [_line(analysis, name) for name in names]
    widths = [max(len(row[i]) for row in (HEADER, *lines)) for i in range(len(HEADER))]
    spare = WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = max(8, min(widths[0], spare))
    text = [_format(HEADER, widths), "  ".join("-" * width for width in widths)]
    text += [_format(line, widths) for line in lines]
    seeds = len(results.seeds)
    over = f"{seeds} seeds and questions" if seeds > 1 else "questions"
    text += [
        "",
        f"{results.name}: % right, ± half a 95% interval over {over}; s = training seconds of one seed.",
    ]
    temporal = measure_skills(results, "video_temporal")
    if temporal:
        text.append(f"temporal = the video skills that no single frame answers: {', '.join(temporal)}.")
    if seeds == 1:
        text.append("One seed: differences between training runs are not measured.")
    elif results.shared_base:
        text.append("All seeds start from one base model: its own randomness is not measured.")
    text += [f"missing: {line}" for line in results.missing]
    return "\n".join(text)


def _line(analysis: Analysis, name: str) -> tuple[str, ...]:
    costs = analysis.results.costs
    own = costs[costs["arm"] == name]
    frames = own["mean_frames"].mean() if name != BASE else math.nan
    split = analysis.split(name)
    return (
        name,
        _number(frames, ".1f"),
        _number(own["seconds"].mean(), ".0f"),
        *(_with_half(analysis.levels.get((name, m))) for m in MEASURES),
        _with_half(split.recovered.estimate if split else None, sign=True),
    )


def _with_half(estimate: Estimate | None, sign: bool = False) -> str:
    if estimate is None:
        return "-"
    value = f"{estimate.value:+.1f}" if sign else f"{estimate.value:.1f}"
    return f"{value} ± {(estimate.high - estimate.low) / 2:.1f}"


def _number(value: float, spec: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, spec)


def _format(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0] if len(cells[0]) <= widths[0] else cells[0][: widths[0] - 1] + "…"
    rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([first.ljust(widths[0]), *rest]).rstrip()
