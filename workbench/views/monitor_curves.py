"""The curves of a monitor, from what its runs have written: six panels, each curve with a name that stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.study.arms import BASE
from workbench.views.monitor_records import RATE, RunRecord
from workbench.views.theme import BASE_COLOUR, DASHES, PALETTE, Style, arm_styles

if TYPE_CHECKING:
    from workbench.views.monitor_source import Source

SMOOTH, POINTS = 11, 300  # steps of the moving mean; points of one curve at most
PANELS = {  # title, x axis, y axis
    "loss": ("Loss", "training step", "nats per answer token"),
    "scores": ("Evaluation, 95% intervals", "step of the arm", "% right, mean over skills"),
    "frames": ("Frames planned", "frames", "% of training samples"),
    "rates": ("Learning rates", "training step", "learning rate"),
    "speed": ("Throughput", "training step", "tokens/s"),
    "padding": ("Padding", "training step", "% of places"),
}
SUITES = ("circle", "square", "diamond", "cross", "x")


@dataclass(frozen=True, slots=True)
class Curve:
    """One line, or the bars of a histogram; ``low`` and ``high`` are 95% intervals; ``n`` what each point is of."""

    panel: str
    key: str
    name: str
    group: str
    style: Style
    x: list[Any]
    y: list[float | None]
    low: list[float] | None = None
    high: list[float] | None = None
    n: list[int] | None = None


def curves(source: Source, chosen: str | None, kept: dict[Any, list[Curve]] | None = None) -> list[Curve]:
    """Every curve of a source.

    Args:
        chosen: only this run; None: loss, scores and frames of all, the rest of the run that worked last.
        kept: score curves of the last look, which are used again while no table has come.
    """
    records = [record for name, record in source.runs.items() if chosen in (None, name)]
    look = styles(source)
    tables = (chosen, *((r.name, *table) for r in records for table in r.scores))
    kept = {} if kept is None else kept
    if tables not in kept:
        kept.clear()
        kept[tables] = list(_scores(source, records, look))
    found = [*_losses(source, records, look), *kept[tables], *_frames(records, look)]
    detail = detailed(source, chosen)
    return found + (list(_details(source.runs[detail], look)) if detail is not None else [])


def detailed(source: Source, chosen: str | None) -> str | None:
    """The run whose rates, throughput and padding are shown: the chosen one, else the one that worked last."""
    if chosen is not None:
        return chosen if chosen in source.runs else None
    rows = [record for record in source.runs.values() if len(record)]
    return max(rows, key=lambda record: record.worked[-1][1] if record.worked else 0.0).name if rows else None


def styles(source: Source) -> dict[str, Style]:
    arms = list(dict.fromkeys([*source.titles, *(record.arm for record in source.runs.values())]))
    look = arm_styles([arm for arm in arms if arm != BASE])
    return look | {BASE: Style(BASE_COLOUR, "circle", "solid")}


def title_of(source: Source, arm: str) -> str:
    return "base" if arm == BASE else source.titles.get(arm, arm)


def starts(source: Source) -> dict[str, int]:
    """Where a run's steps begin in the loss panel: those of an arm behind its base's."""
    bases = {r.seed: r.total or 0 for r in source.runs.values() if r.arm == BASE}
    shared = source.recipe.get("base_seed")
    found = {}
    for name, record in source.runs.items():
        seed = record.seed if shared is None else int(shared)
        found[name] = 0 if record.arm == BASE else bases.get(seed, 0)
    return found


def _losses(source: Source, records: list[RunRecord], look: dict[str, Style]) -> Iterator[Curve]:
    offset = starts(source) if len(records) > 1 else {}
    for record in records:
        if "loss" not in record.columns:
            continue
        steps, loss = (np.asarray(record.columns[name]) for name in ("step", "loss"))
        x: list[Any] = []
        y: list[float | None] = []
        stages = np.asarray(record.stages)
        for stage in dict.fromkeys(record.stages):  # apart: their losses measure different things
            here = stages == stage
            px, py = _thin(steps[here], _smooth(loss[here]), POINTS)
            x += [step + offset.get(record.name, 0) for step in px]
            x.append(x[-1])
            y += [*py, None]
        style, title = look[record.arm], title_of(source, record.arm)
        yield Curve("loss", record.name, title, record.arm, style, x, y)


def _details(record: RunRecord, look: dict[str, Style]) -> Iterator[Curve]:
    style = look[record.arm]
    steps = np.asarray(record.columns["step"])
    for i, name in enumerate(record.rates):
        x, y = _thin(steps, np.asarray(record.columns[name]), POINTS, digits=10)
        group = name.removeprefix(RATE)
        yield Curve(
            "rates", name, group, name, Style(PALETTE[i % len(PALETTE)], style.marker, DASHES[i % 5]), x, y
        )
    if not {"tokens", "seconds", "padding"} <= record.columns.keys():
        return
    tokens, seconds, padding = (np.asarray(record.columns[n]) for n in ("tokens", "seconds", "padding"))
    with np.errstate(invalid="ignore", divide="ignore"):
        speed = _smooth(tokens) / _smooth(seconds)
        share = 100 * _smooth(padding) / _smooth(tokens + padding)
    for panel, values in (("speed", speed), ("padding", share)):
        x, y = _thin(steps, values, POINTS)
        yield Curve(panel, panel, record.name, panel, style, x, y)


def _frames(records: list[RunRecord], look: dict[str, Style]) -> Iterator[Curve]:
    planned: dict[str, dict[int, int]] = {}
    for record in records:
        for count, samples in record.histogram.items():
            counts = planned.setdefault(record.arm, {})
            counts[count] = counts.get(count, 0) + samples
    for arm, counts in planned.items():
        total = sum(counts.values())
        x = sorted(counts)
        y: list[float | None] = [round(100 * counts[count] / total, 2) for count in x]
        yield Curve("frames", arm, arm, arm, look[arm], list(map(str, x)), y, n=[counts[c] for c in x])


def _scores(source: Source, records: list[RunRecord], look: dict[str, Style]) -> Iterator[Curve]:
    import pandas as pd

    from workbench.study.intervals import level

    whole = len(records) > 1
    lines: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        for suite in dict.fromkeys(suite for suite, _ in record.scores):
            lines.setdefault((record.arm, suite), []).append(record)
    order = list(dict.fromkeys(suite for _, suite in lines))
    for (arm, suite), runs in lines.items():
        steps = sorted({step for run in runs for name, step in run.scores if name == suite})
        tables = {step: _at(runs, suite, step) for step in steps}
        asked = [set(zip(t["sample_id"], t["skill"], t["question"], strict=True)) for t in tables.values()]
        common = set.intersection(*asked)  # early points may ask fewer questions: those asked at every step
        x: list[Any] = []
        y: list[float | None] = []
        low, high, n = [], [], []
        for step, table in tables.items():
            rows = pd.MultiIndex.from_frame(table[["sample_id", "skill", "question"]]).isin(common)
            found = level(table[rows].astype({"correct": float}))
            if found is not None:
                x.append(0 if arm == BASE and whole else step)
                y.append(round(found.value, 3))
                low.append(round(found.low, 3))
                high.append(round(found.high, 3))
                n.append(found.questions)
        i = order.index(suite)
        style = Style(look[arm].colour, SUITES[i % len(SUITES)], DASHES[i % len(DASHES)])
        yield Curve("scores", f"{arm} {suite}", suite, arm, style, x, y, low, high, n)


def _at(runs: list[RunRecord], suite: str, step: int) -> Any:
    import pandas as pd

    tables = [run.scores[suite, step].assign(seed=run.seed) for run in runs if (suite, step) in run.scores]
    return pd.concat(tables, ignore_index=True)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving mean over ``SMOOTH`` steps, shorter at the ends; what is not finite is left out."""
    good = np.isfinite(values)
    kernel = np.ones(min(SMOOTH, len(values)))
    total = np.convolve(np.where(good, values, 0.0), kernel, "same")
    count = np.convolve(good.astype(float), kernel, "same")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(good, total / count, np.nan)


def _thin(
    steps: np.ndarray, values: np.ndarray, points: int, digits: int = 4
) -> tuple[list[int], list[float | None]]:
    """At most about ``points`` of them, the newest always."""
    every = max(1, len(steps) // points)
    kept = np.arange((len(steps) - 1) % every, len(steps), every) if len(steps) else np.arange(0)
    y = [round(float(v), digits) if np.isfinite(v) else None for v in values[kept]]
    return [int(step) for step in steps[kept]], y
