"""``ScoreView``: what is gained on video and lost on images, and, behind every point, the samples that flipped.

Plane -> click a point -> the questions that went right -> wrong and wrong -> right against the base of the same seed ->
click one -> its picture and every seed's answer. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from workbench import __version__
from workbench.errors import WorkbenchError
from workbench.study.arms import BASE
from workbench.study.contrasts import MEASURE_TITLES, MEASURES, analyse, measure_skills
from workbench.study.curves import curve_table
from workbench.study.results import StudyResults, load_results
from workbench.study.wording import interval, points
from workbench.views import published
from workbench.views.base import View
from workbench.views.charts import study as charts
from workbench.views.charts.study_words import described
from workbench.views.flips import DIRECTIONS, Flips, flips_at, points_of
from workbench.views.flips_piece import FlipsPiece
from workbench.views.pieces import Link, Module, Piece, Plot
from workbench.views.scores_attention import HOW, FlipAttention

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from workbench.views.widget import Shown

COLUMNS = (
    *("table", "arm", "reference", "step", "measure", "value", "low", "high", "unit", "questions", "seeds"),
    *("suite", "sample_id", "question", "source"),
)


def results_of(study: Any) -> StudyResults:
    """A study's results from its results, its directory, or anything with a ``directory`` (a study being watched).

    Raises:
        StudyError: the directory is no study, or nothing in it has been scored yet.
    """
    if isinstance(study, StudyResults):
        return study
    return load_results(Path(getattr(study, "directory", study)))


class ScoreView(View):
    """A study's scores, linked to the samples behind them.

    Args:
        study: its directory, its results, or a study being watched.
        with_published: also list what papers report (never on the axes of this study).

    Raises:
        StudyError: no study, or nothing in it has been scored yet.
    """

    def __init__(self, study: str | Path | StudyResults | Any, *, with_published: bool = True) -> None:
        self.results = results_of(study)
        self.title = f"Scores: {self.results.study.get('title') or self.results.name}"
        self._flips = FlipsPiece(self.results)
        self._published, self._page = with_published, False
        self.attention = FlipAttention(self._flips)

    # -- the samples behind a point ----------------------------------------------------------------

    def flipped(self, arm: str, step: int | None = None, direction: str | None = None) -> pd.DataFrame:
        """The questions that flipped at a point (columns: ``Flips.questions``).

        Args:
            step: default the last one scored.
            direction: ``"lost"`` (right -> wrong), ``"won"``, or both.

        Raises:
            WorkbenchError: the arm was not scored at that step; no such direction.
        """
        if direction not in (None, *DIRECTIONS):
            raise WorkbenchError(
                f"list the flips {direction!r}", f"directions are {' and '.join(DIRECTIONS)}", "Choose one"
            )
        return self.flips(arm, step).questions(direction)

    def flips(self, arm: str, step: int | None = None) -> Flips:
        """Every pair of a point with its base. Raises WorkbenchError: the arm was not scored at that step."""
        return flips_at(self.results, arm, step)

    # -- the view ----------------------------------------------------------------------------------

    def pieces(self) -> Sequence[Piece]:
        flips = self._flips
        first = flips.keys[0] if flips.keys else ""
        found: list[Piece] = [
            Plot("plane", charts.plane(self.results)),
            Module("flips", "flips", self._flips_data(), {"point": first}, flips.answer, flips.carried),
        ]
        if self._attention:
            found.append(self.attention.module(self._page))
        if analyse(self.results).skills:
            found.append(Plot("skills", charts.skill_changes(self.results)))
        if self._published:
            found.append(Module("published", "table", published.table_data()))
        return found

    def _flips_data(self) -> dict[str, Any]:
        """The flips with what is said of their attention: on a page, which it carries and how to get the others."""
        here = list(self.attention.views) if self._page else []
        otherwise = f"This page does not carry this sample's attention. {HOW}." if self._page else ""
        return self._flips.data() | {"attention": {"here": here, "otherwise": otherwise}}

    @property
    def _attention(self) -> bool:
        """There is a piece for it: always in a notebook where anything flipped, on a page where it carries some."""
        return bool(self.attention.views) if self._page else bool(self._flips.keys)

    def links(self) -> Sequence[Link]:
        links = [Link("plane", "point", "flips", "point")]
        if self._attention:
            links.append(Link("flips", "look", "attention", "sample"))
        if analyse(self.results).skills:
            links += [Link("skills", "point", "flips", "point"), Link("skills", "skill", "flips", "skill")]
        return links

    @property
    def shown(self) -> Shown:
        """The widgets; a flipped sample that is chosen is looked at by both models, on a thread of its own."""
        new = "_shown" not in self.__dict__
        shown = super().shown
        if new and self._flips.keys:
            self.attention.follow(shown)
        return shown

    def to_html(self, path: str | Path, attention: int | Sequence[str] = 0) -> Path:
        """Write one self-contained page, with pictures of the samples listed first.

        Args:
            attention: also carry what both models attended to on so many flipped samples, or on the samples of these
                ids; captures that are missing are made (torch). The page says of the others how to get them.

        Raises:
            WorkbenchError: a sample that flipped at no arm's end, or none of those asked for could be made.
        """
        shown, self.attention.views = self.attention.views, {}
        self._page = True
        try:
            problems = self.attention.carry(attention)
            if problems and not self.attention.views:
                raise problems[0]
            return super().to_html(path)
        finally:
            self._page, self.attention.views = False, shown

    def data(self) -> pd.DataFrame:
        """Scores, changes, counts of flips, every flipped question, and what is published; ``table`` says which."""
        rows = [*self._scores(), *self._changes(), *self._counts()]
        if self._published:
            for row in published.load().to_dict("records"):
                rows.append(
                    {
                        "table": "published change",
                        "arm": row["setting"],
                        "reference": row["reference"],
                        "measure": f"{row['benchmark']}, {row['model']}",
                        **{key: row[key] for key in ("low", "high", "seeds", "source")},
                        "value": row["change"],
                        "unit": "points",
                        "questions": row["n"],
                    }
                )
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _scores(self) -> list[dict[str, Any]]:
        curve: list[dict[str, Any]] = [
            {
                **{str(key): value for key, value in row.items()},
                "table": "score on the way",
                "value": row["mean"],
                "unit": "%",
            }
            for row in curve_table(self.results).to_dict("records")
        ]
        ends = [
            {"table": "score at the end", "arm": arm, "measure": measure, "unit": "%", **_numbers(e)}
            for (arm, measure), e in analyse(self.results).levels.items()
        ]
        return curve + ends

    def _changes(self) -> list[dict[str, Any]]:
        analysis = analyse(self.results)
        return [
            {
                "table": "change at the end",
                "arm": c.arm,
                "reference": c.reference,
                "measure": c.measure,
                "unit": "points",
                **_numbers(c.estimate),
            }
            for c in (*analysis.contrasts, *analysis.skills)
            if c.reference == BASE
        ]

    def _counts(self) -> list[dict[str, Any]]:
        rows = []
        for arm, step in points_of(self.results):
            flips, at = flips_at(self.results, arm, step), {"arm": arm, "step": step, "reference": BASE}
            kinds = sorted(flips.pairs["kind"].unique())
            for kind in kinds:
                n = flips.counts(kind)
                for way, said in DIRECTIONS.items():
                    rows.append(
                        {"table": f"flips, {said}", **at, "measure": kind, "value": n[way], "unit": "pairs",
                         "questions": n["questions"], "seeds": n["seeds"]}
                    )  # fmt: skip
            for row in flips.questions().to_dict("records"):
                rows.append(
                    {"table": f"flipped, {DIRECTIONS[row['direction']]}", **at, "value": row["flipped"],
                     "measure": f"{row['kind']}:{row['skill']}", "unit": "seeds", "seeds": row["asked"],
                     **{key: row[key] for key in ("suite", "sample_id", "question")}}
                )  # fmt: skip
        return rows

    def words(self) -> str:
        results, analysis = self.results, analyse(self.results)
        said = []
        if results.missing:
            said.append(f"The study is not complete: {' '.join(results.missing)}")
        base = {m: analysis.levels.get((BASE, m)) for m in MEASURES}
        at_base = [f"{MEASURE_TITLES[m]} {e.value:.1f}%" for m, e in base.items() if e]
        if at_base:
            said.append(f"The base: {', '.join(at_base)}.")
        for arm in results.arms:
            parts = []
            for measure in MEASURES:
                level, change = (
                    analysis.levels.get((arm.name, measure)),
                    analysis.find(arm.name, BASE, measure),
                )
                if level and change:
                    parts.append(
                        f"{MEASURE_TITLES[measure]} {level.value:.1f}% ({points(change.estimate.value)} "
                        f"{interval(change.estimate)} against the base)"
                    )
            if parts:
                said.append(f"{arm.title} ends at {'; '.join(parts)}.")
        if analysis.skills:
            said.append(described(results, "skills").alternative)
        for name, step in points_of(results):
            if results.final_steps.get(name) == step:
                flips = flips_at(results, name, step)
                told = "; ".join(flips.sentence(kind) for kind in sorted(flips.pairs["kind"].unique()))
                said.append(f"Flips of {results.title(name)} at its end: {told}.")
        if not points_of(results):
            said.append(self._flips.data()["empty"])
        return " ".join(said)

    def caption(self) -> str:
        results = self.results
        asked = results.scores.drop_duplicates(["suite", "sample_id", "question"]).groupby("kind").size()
        n = ", ".join(f"{count} {kind}" for kind, count in asked.items())
        seeds = ", ".join(map(str, results.seeds))
        temporal = measure_skills(results, "video_temporal")
        parts = [
            f"Study {results.name}{' (quick)' if results.study.get('quick') else ''}, recipe "
            f"{str(results.study.get('recipe_hash', 'unknown'))[:8]}, seeds {seeds}; {n} questions a seed, condition own",
            "flips: against the base of the same seed",
        ]
        if results.shared_base:
            parts.append("all seeds start from one base")
        if temporal:
            parts.append(
                f"temporal video skills ({', '.join(temporal)}) are those that no single frame answers"
            )
        parts.append(f"workbench {__version__}")
        return f"{described(results, 'plane').caption} {'; '.join(parts)}."

    def picture(self) -> Figure:
        from workbench.views.scores_still import draw

        return draw(self.results)


def _numbers(e: Any) -> dict[str, Any]:
    return {"value": e.value, "low": e.low, "high": e.high, "questions": e.questions, "seeds": e.seeds}
