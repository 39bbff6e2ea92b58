"""The still of ``ScoreView``: the plane and the change of every skill, drawn by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.study.arms import BASE
from workbench.study.contrasts import MEASURE_TITLES, analyse, measure_skills
from workbench.study.curves import curve_table
from workbench.study.results import StudyResults
from workbench.views import stills
from workbench.views.theme import study_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from workbench.study.intervals import Estimate

#: matplotlib's names of the theme's markers and dashes
MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "cross": "P",
    "star": "*",
    "hexagon": "h",
    "triangle-down": "v",
    "x": "X",
    "bowtie": "d",
}
DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3))}


def draw(results: StudyResults) -> Figure:
    """Planes in the first row; below, where an arm has finished, skills."""
    analysis = analyse(results)
    measures = [m for m in ("video", "video_temporal") if measure_skills(results, m)] or ["video"]
    kinds = [k for k in ("image", "video") if any(c.measure.startswith(k + ":") for c in analysis.skills)]
    rows = max((len(results.skills(kind)) for kind in kinds), default=0)
    below = 0.8 + rows * max(0.28, 0.1 * len(results.arms)) if kinds else 0.0
    drawn = stills.figure(8.2, 3.9 + below)
    grid = drawn.add_gridspec(2 if kinds else 1, 1, height_ratios=[3.6, below] if kinds else [1])
    planes = grid[0].subgridspec(1, len(measures))
    for i, measure in enumerate(measures):
        _plane(drawn.add_subplot(planes[i]), results, measure)
    if kinds:
        skills = grid[1].subgridspec(1, len(kinds))
        for i, kind in enumerate(kinds):
            _skills(drawn.add_subplot(skills[i]), results, kind)
    handles, labels = drawn.axes[0].get_legend_handles_labels()
    if handles:
        drawn.legend(handles, labels, loc="outside upper left", ncols=min(4, len(handles)))
    return drawn


def _plane(axes: Axes, results: StudyResults, measure: str) -> None:
    analysis, look, table = analyse(results), study_styles(results), curve_table(results)
    base = [analysis.levels.get((BASE, m)) for m in ("image", measure)]
    for arm in results.arms:
        style = look[arm.name]
        shape: dict[str, Any] = {"color": style.colour, "marker": MARKERS[style.marker]}
        path = table[table["arm"] == arm.name].pivot(index="step", columns="measure", values="mean")
        ends = [analysis.levels.get((arm.name, m)) for m in ("image", measure)]
        if {"image", measure} <= set(path.columns):
            path = path.dropna(subset=["image", measure])
            label = None if ends[0] and ends[1] else f"{arm.title} (not finished)"
            axes.plot(
                path["image"], path[measure], ls=DASHES[style.dash], lw=1.2, ms=3.5, label=label, **shape
            )
        if ends[0] is None or ends[1] is None:
            continue
        bars = [_bars(analysis.find(arm.name, BASE, m)) for m in ("image", measure)]
        axes.errorbar(
            ends[0].value, ends[1].value, xerr=bars[0], yerr=bars[1], ms=8, lw=1.4, ls="none", label=arm.title, **shape
        )  # fmt: skip
    if base[0] is not None and base[1] is not None:
        x, y = base[0].value, base[1].value
        axes.axvline(x, color="#808890", lw=0.7, ls=":")
        axes.axhline(y, color="#808890", lw=0.7, ls=":")
        axes.plot(x, y, "o", mfc="none", mec=look[BASE].colour, mew=2, ms=9, label="base (step 0)", ls="none")
    axes.set_xlabel("image, % right")
    axes.set_ylabel(f"{MEASURE_TITLES[measure]}, % right")


def _bars(contrast: Any) -> list[list[float]] | None:
    if contrast is None:
        return None
    e: Estimate = contrast.estimate
    return [[e.value - e.low], [e.high - e.value]]


def _skills(axes: Axes, results: StudyResults, kind: str) -> None:
    look = study_styles(results)
    found = [c for c in analyse(results).skills if c.measure.startswith(kind + ":")]
    names = list(dict.fromkeys(c.measure.partition(":")[2] for c in found))[::-1]
    arms = [arm for arm in results.arms if any(c.arm == arm.name for c in found)]
    spread = 0.7 / max(1, len(arms))
    for i, arm in enumerate(arms):
        mine = [c for c in found if c.arm == arm.name]
        places = [names.index(c.measure.partition(":")[2]) + ((len(arms) - 1) / 2 - i) * spread for c in mine]
        values = [c.estimate.value for c in mine]
        bars = [
            [c.estimate.value - c.estimate.low for c in mine],
            [c.estimate.high - c.estimate.value for c in mine],
        ]
        style = look[arm.name]
        axes.errorbar(
            values,
            places,
            xerr=bars,
            ls="none",
            lw=1.1,
            ms=4,
            marker=MARKERS[style.marker],
            color=style.colour,
        )
    axes.axvline(0, color="#808890", lw=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(f"{kind} skills: change against the base, points")
