"""``FramePlanView``: who got how many frames and why; the arm that chooses beside the controls that keep one honest."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from workbench import __version__
from workbench.frames import FramePlan
from workbench.samples.sample import Sample
from workbench.study.results import StudyResults
from workbench.views import frameplan_charts as charts
from workbench.views import frameplan_data as data
from workbench.views import stills
from workbench.views.base import View
from workbench.views.charts.framing import excess_by_skill
from workbench.views.frameplan_data import ALL, Planned, Plans
from workbench.views.pieces import Module, Piece, Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 4  # different questions shown of each plan, skill and count
TOTALS = {
    "plan": "Plan",
    "policy": "Policy",
    "clips": "Clips",
    "asked": "Frames asked for, mean",
    "used": "Frames used, mean",
    "fewer": "Clips too short for what was asked",
    "failed": "Unreadable, left out",
    "enough": "Enough frames to answer, %",
    "excess": "Frames beyond need, mean",
    "short": "Frames lacking, mean",
}
EXAMPLE = {
    "question": "Question",
    "plan": "Plan",
    "skill": "Skill",
    "asked": "Asked for",
    "available": "In the clip",
    "used": "Used",
    "needed": "Needed",
    "reason": "Reason",
}
COLUMNS = ("table", "plan", "skill", "frames", "value", "low", "high", "unit", "n")


class FramePlanView(View):
    """Frames by skill, examples with reasons, and what was asked for, there and used.

    Args:
        of: a ``FramePlan``; or a study, its results, a study being watched, or one run (a directory).
        samples: of a bare plan: without them it has neither questions nor skills.
        arms, seed: of a study: only these arms, in this order; default all shown ones, the first seed.

    Raises:
        WorkbenchError: neither plan, study nor run; a study without that arm.
    """

    def __init__(
        self,
        of: FramePlan | str | Path | StudyResults | Any,
        samples: Sequence[Sample] | None = None,
        *,
        arms: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> None:
        if isinstance(of, FramePlan):
            planned = data.of_plan(of, samples, str(of.metadata.get("policy") or "plan"))
            self.plans = Plans(f"Frames: policy {planned.policy or 'unknown'}", (planned,), "a frame plan")
        else:
            folder = of if isinstance(of, str | Path) else of.directory
            self.plans = data.of_study(Path(folder), arms, seed)
        self.title = self.plans.title

    def pieces(self) -> Sequence[Piece]:
        found: list[Piece] = []
        if any(plan.videos for plan in self.plans.plans):
            found.append(Plot("histogram", charts.histogram(self.plans.plans)))
        found.append(Module("totals", "table", self._totals()))
        if self._measured():
            found.append(Plot("losses", charts.losses(self.plans)))
        found.append(Module("examples", "table", self._examples(), {"plan": "", "skill": "", "used": ""}))
        return found

    def _measured(self) -> bool:
        return self.plans.measured is not None and len(self.plans.measured) > 0

    def _totals(self) -> dict[str, Any]:
        rows = [
            {
                "plan": p.title,
                "policy": p.policy.replace("_", " ") or "not recorded",
                "clips": p.videos,
                "asked": _asked(p),
                "used": _number(p.mean),
                "fewer": "not recorded" if p.fewer is None else p.fewer,
                "failed": ", ".join(f"{n} {kind}" for kind, n in p.failures.items()) or "none",
                "enough": "not known" if p.regret is None else f"{100 * p.regret.enough:.0f}",
                "excess": "not known" if p.regret is None else f"{p.regret.mean_excess:.1f}",
                "short": "not known" if p.regret is None else f"{p.regret.mean_shortfall:.1f}",
            }
            for p in self.plans.plans
        ]
        notes = [f"{p.title}: {p.note}" for p in self.plans.plans if p.note]
        caption = "What was asked for, what was used, and what the questions need where the data know it"
        return {
            "caption": f"{caption}. {' '.join(notes)}".strip(),
            "columns": [
                {"key": k, "title": t, "numeric": k not in ("plan", "policy", "failed")}
                for k, t in TOTALS.items()
            ],
            "rows": rows,
            "empty": "No arm of this study plans frames for videos.",
        }

    def _examples(self) -> dict[str, Any]:
        rows = [row for plan in self.plans.plans for row in _examples(plan)]
        titles = (
            EXAMPLE
            if any(row["needed"] != "" for row in rows)
            else {k: v for k, v in EXAMPLE.items() if k != "needed"}
        )
        return {
            "caption": f"{{n}} examples: at most {EXAMPLES} questions of each plan, skill and count",
            "columns": [
                {"key": k, "title": t, "numeric": k in ("asked", "available", "used", "needed")}
                for k, t in titles.items()
            ],
            "rows": rows,
            "filters": [
                {"key": "plan", "title": "Plan"},
                {"key": "skill", "title": "Skill"},
                {"key": "used", "title": "Frames used"},
            ],
            "empty": "No examples: single clips are known only while the study keeps its plans, or none fits these choices.",
            "most": 200,
        }

    def data(self) -> pd.DataFrame:
        """Questions by plan, skill and frames; totals; the pilot's losses. ``table`` says which."""
        rows: list[dict[str, Any]] = []
        for plan in self.plans.plans:
            counts = plan.by_skill()
            for skill, line in counts.iterrows():
                n = int(line.sum())
                for frames, value in line.items():
                    rows.append(
                        {"table": "questions by frames", "plan": plan.name, "skill": skill, "frames": frames,
                         "value": int(value), "unit": "clips" if skill == ALL else "questions", "n": n}
                    )  # fmt: skip
            for skill, mean in plan.means.items():
                rows.append(
                    {
                        "table": "mean frames",
                        "plan": plan.name,
                        "skill": skill,
                        "value": mean,
                        "unit": "frames",
                    }
                )
            totals: list[tuple[str, float | None, str]] = [
                ("mean frames", plan.mean, "frames"),
                ("too short for what was asked", plan.fewer, "clips"),
                ("unreadable", sum(plan.failures.values()), "samples"),
            ]
            if plan.regret is not None:
                totals += [
                    ("enough frames to answer", 100 * plan.regret.enough, "%"),
                    ("frames beyond need", plan.regret.mean_excess, "frames"),
                    ("frames lacking", plan.regret.mean_shortfall, "frames"),
                ]
            for name, value, unit in totals:
                rows.append(
                    {
                        "table": name,
                        "plan": plan.name,
                        "skill": ALL,
                        "value": value,
                        "unit": unit,
                        "n": plan.videos,
                    }
                )
        if self._measured():
            assert self.plans.measured is not None
            for row in excess_by_skill(self.plans.measured).itertuples():
                rows.append(
                    {"table": "pilot's excess loss", "skill": row.skill, "frames": row.frames, "value": row.mean,
                     "low": row.low, "high": row.high, "unit": "nats", "n": row.n}
                )  # fmt: skip
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def words(self) -> str:
        said = [_sentence(plan) for plan in self.plans.plans]
        if self._measured():
            ringed = charts.chosen(self.plans)
            told = ", ".join(f"{skill} {n} ({share:.0f}%)" for skill, (n, share) in ringed.items())
            if told:
                said.append(f"Frames that {self.plans.plans[0].title} gives a skill most often: {told}.")
        return " ".join(said) or "No arm of this study plans frames for videos."

    def caption(self) -> str:
        parts = [
            self.plans.provenance,
            "bars: % of the questions about videos, by frames used (not asked for)",
        ]
        if self._measured():
            parts.append(
                "losses: the pilot's, of the right answer, above that at its most frames, mean with 95% interval over "
                f"questions; dotted: {self.plans.epsilon:g} nats, what a label tolerates; policies never see the skill"
            )
        if any(plan.regret for plan in self.plans.plans):
            parts.append("needs are the data's `min_frames`, which no policy reads")
        said = f"{'; '.join(parts)}; workbench {__version__}."
        return said[0].upper() + said[1:]

    def picture(self) -> Figure:
        """The bars of every plan, a panel each."""
        shown = [plan for plan in self.plans.plans if plan.videos]
        groups = charts.bins(charts.counts_of(shown)) if shown else []
        colours = charts.colours(len(groups))
        lines = max((len(plan.by_skill()) for plan in shown), default=1)
        across, down = charts.panels(len(shown))
        drawn = stills.figure(max(4.0, 2.4 * across), 0.7 + down * (0.9 + 0.24 * lines))
        if not shown:
            drawn.text(0.5, 0.5, "No video has frames planned here.", ha="center")
            return drawn
        for i, plan in enumerate(shown):
            axes = drawn.add_subplot(down, across, i + 1)
            table = charts.shares(plan, groups)
            left = pd.Series(0.0, index=table.index)
            for (name, _), colour in zip(groups, colours, strict=True):
                rgb = tuple(int(c) / 255 for c in colour.removeprefix("rgb(").removesuffix(")").split(","))
                label = f"{name} frame{'s' if name != '1' else ''}" if i == 0 else None
                axes.barh(
                    list(table.index),
                    table[name],
                    left=left,
                    color=rgb,
                    edgecolor="white",
                    lw=0.5,
                    label=label,
                )
                left = left + table[name]
            axes.invert_yaxis()
            axes.set_xlim(0, 100)
            title = "\n".join(textwrap.wrap(plan.title, charts.TITLE))
            axes.set_title(
                f"{title}\nmean {plan.mean:.1f} frames, {plan.videos} clips", fontsize=8, loc="left"
            )
            axes.set_xlabel("% of questions")
        drawn.legend(loc="outside upper left", ncols=8, fontsize=8)
        return drawn


def _examples(plan: Planned) -> list[dict[str, Any]]:
    """Different questions of every skill and count, the first of each in the order of the samples."""
    if plan.rows is None:
        return []
    rows = plan.rows.drop_duplicates(
        ["skill", "used", "question"] if plan.rows["question"].any() else "sample_id"
    )
    shown = (
        rows.groupby(["skill", "used"], sort=True)
        .head(EXAMPLES)
        .sort_values(["skill", "used"], kind="stable")
    )
    return [
        {
            "question": row["question"] or row["sample_id"],
            "plan": plan.title,
            "skill": row["skill"],
            "asked": row["requested"],
            "available": row["available"],
            "used": row["used"],
            "needed": ""
            if row["min_frames"] is None or math.isnan(row["min_frames"])
            else int(row["min_frames"]),
            "reason": row["reason"],
        }
        for row in shown.to_dict("records")
    ]


def _asked(plan: Planned) -> str:
    if plan.rows is None:
        return "not recorded"
    return _number(float(plan.rows.drop_duplicates("sample_id")["requested"].mean()))


def _number(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.1f}"


def _sentence(plan: Planned) -> str:
    if not plan.videos:
        return f"{plan.title}: {plan.note or 'no videos.'}"
    dealt = ", ".join(f"{100 * n / plan.videos:.0f}% get {count}" for count, n in plan.counts.items())
    dealt = (
        dealt if len(plan.counts) <= charts.MOST_COUNTS else f"from {min(plan.counts)} to {max(plan.counts)}"
    )
    clips = f"{plan.videos} clip{'s' if plan.videos != 1 else ''}"
    parts = [f"{plan.title}: {clips}, mean {plan.mean:.1f} frames ({dealt})"]
    if plan.fewer:
        parts.append(f"{plan.fewer} clips are shorter than what was asked for")
    if plan.failures:
        parts.append(f"{sum(plan.failures.values())} samples could not be read")
    if plan.regret is not None:
        parts.append(
            f"{100 * plan.regret.enough:.0f}% get at least the frames they need, with {plan.regret.mean_excess:.1f} frames "
            "more than needed on average"
        )
    return f"{'; '.join(parts)}.{' ' + plan.note if plan.note else ''}"
