"""``report.html`` from a study directory: one file that opens from disk without a network."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from workbench.report import tables
from workbench.report.inside import look_inside
from workbench.study.claims import PAPER
from workbench.study.conclusions import conclude
from workbench.study.contrasts import MEASURE_TITLES, MEASURES, Analysis, analyse, measure_skills
from workbench.study.results import StudyError, StudyResults, load_results
from workbench.study.wording import Conclusion
from workbench.views.charts import study as figures
from workbench.views.charts.study_words import described

GROUPS = {
    "effect": "What Video-SFT did",
    "frames": "More frames against fewer",
    "hybrid": "Frames chosen by the question",
    "variant": "Variants",
}
ASSETS = ("report.html", "report.css", "report.js")


@dataclass(frozen=True)
class Panel:
    """One figure of the report: ``caption`` says how to read it, ``alternative`` what it shows, in words."""

    id: str
    title: str
    caption: str
    alternative: str
    spec: str


def build_report(study: str | Path | StudyResults, out: str | Path | None = None) -> Path:
    """Write the report of a study, finished or not, and return its path (default ``STUDY_DIR/report.html``).

    Args:
        study: its directory, or its results where these are read already (their analysis is then not repeated).

    Raises:
        StudyError: the directory is no study, nothing has been scored yet, or the file cannot be written.
    """
    results = study if isinstance(study, StudyResults) else load_results(study)
    path = Path(out) if out is not None else results.directory / "report.html"
    html = render(results)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(html, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StudyError(f"write {path}", reason, "give another file with --out, or make room") from None
    return path


def render(results: StudyResults) -> str:
    """The whole page as text."""
    analysis = analyse(results)
    assets = resources.files("workbench.report")
    sources = {name: (assets / name).read_text(encoding="utf-8") for name in ASSETS}
    environment = Environment(loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined)
    environment.filters["signed"] = _signed
    conclusions = conclude(analysis)
    inside = look_inside(results)
    rows = tables.numbers(analysis)
    csv = base64.b64encode(tables.as_csv(rows).encode("utf-8")).decode("ascii")
    return environment.get_template("report.html").render(
        results=results,
        title=str(results.study.get("title") or results.name),
        findings=_grouped(conclusions),
        claims=[c for c in conclusions if c.kind == "published"],
        caveats=[c for c in conclusions if c.kind == "caveat"],
        paper=PAPER,
        headline=tables.headline_table(analysis),
        measures=[MEASURE_TITLES[measure].capitalize() for measure in MEASURES],
        temporal=measure_skills(results, "video_temporal"),
        panels=_panels(results, analysis),
        flips=tables.flipped(results),
        inside=[(piece, _json(piece.figure)) for piece in inside.pieces],
        inside_unread=inside.unread,
        costs=tables.costs(results),
        numbers=rows,
        columns=tables.NUMBER_COLUMNS,
        csv=Markup("data:text/csv;charset=utf-8;base64,") + csv,
        provenance=tables.provenance(results),
        recipe=tables.public_recipe(results),
        css=Markup(sources["report.css"]),
        js=Markup(sources["report.js"]),
        # "</script" cannot occur in a script element; the escape means the same inside a JavaScript string
        plotlyjs=Markup(get_plotlyjs().replace("</script", "<\\/script")),
    )


def _grouped(conclusions: list[Conclusion]) -> list[tuple[str, list[str]]]:
    found = [(title, [c.text for c in conclusions if c.kind == kind]) for kind, title in GROUPS.items()]
    return [(title, texts) for title, texts in found if texts]


def _signed(value: float, spec: str = ".1f") -> str:
    """A number for the tables, never a minus zero."""
    text = format(value, spec)
    return text.replace("-", "") if not text.strip("+-0.") else text.replace("-", "\u2212")


def _panels(results: StudyResults, analysis: Analysis) -> list[Panel]:
    makers: list[tuple[str, Callable[[StudyResults], go.Figure], bool]] = [
        ("plane", figures.plane, True),
        ("curves", figures.curves, True),
        ("forest", figures.forest, bool(analysis.contrasts)),
        ("copies", figures.copies, bool(analysis.copies)),
        ("skills", figures.skill_changes, bool(analysis.skills)),
        ("frames", figures.frames, len(results.histogram) + len(results.frames) > 0),
    ]
    panels = []
    for id_, make, there in makers:
        if there:
            said = described(results, id_)
            panels.append(Panel(id_, said.title, said.caption, said.alternative, _json(make(results))))
    return panels


def _json(figure: go.Figure) -> str:
    """The figure for a script element: ``<`` is escaped, so no text of a study can end the element."""
    text = figure.to_json() or json.dumps({})
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))
