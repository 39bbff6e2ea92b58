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
from workbench.study.curves import curve_table
from workbench.study.results import StudyError, StudyResults, load_results
from workbench.study.wording import Conclusion, interval, number, points
from workbench.views.charts import study as figures

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
    seeds = f"{len(results.seeds)} seed{'s' if len(results.seeds) != 1 else ''}"
    asked = {
        kind: analysis.results.scores.query("kind == @kind")["sample_id"].nunique()
        for kind in ("image", "video")
    }
    n = f"{asked['image']} images, {asked['video']} videos, {seeds}"
    makers: list[tuple[str, str, str, Callable[[StudyResults], go.Figure], bool]] = [
        (
            "plane",
            f"What is gained on video, what is lost on images (% right; {n})",
            "Each line starts at the base and follows one arm over its training steps. Lines use only the "
            f"questions asked at every step ({_asked_always(results)}): at steps on the way a part of each "
            "suite is asked, and a point must not move because the questions changed. The large marker (the end) and "
            "the base's circle are on all questions, so they need not lie on the lines; the cross is the 95% interval "
            "of the change against the base. The faint marks are single seeds, at the end on all questions.",
            figures.plane,
            True,
        ),
        (
            "curves",
            f"Scores over training (% right; {n})",
            "Mean over seeds at every evaluated step, on the questions asked at all steps; the band is a 95% "
            "interval over seeds.",
            figures.curves,
            True,
        ),
        (
            "forest",
            f"Comparisons between arms (points; {n})",
            "Paired over seeds and questions, 95% intervals. Filled: the interval excludes 0, also after "
            "Holm's adjustment within its kind. Hollow: not shown.",
            figures.forest,
            bool(analysis.contrasts),
        ),
        (
            "copies",
            f"Copies probe: lost, or shown at the wrong frame budget? (points; {n})",
            "Image loss against the base, split by showing each image in as many copies as the arm's own "
            "policy gives frames to that question. What returns is frame budget, what does not return is "
            "forgetting.",
            figures.copies,
            bool(analysis.copies),
        ),
        (
            "skills",
            f"Change of each skill against the base (points; {n})",
            "Paired 95% intervals, one mark an arm.",
            figures.skill_changes,
            bool(analysis.skills),
        ),
        (
            "frames",
            f"Frames the arms were trained on (training clips; {seeds})",
            "Left: how many training clips got how many frames. Right: the mean by the skill that the "
            "clip's question asks.",
            figures.frames,
            len(results.histogram) + len(results.frames) > 0,
        ),
    ]
    texts = _alternatives(analysis)
    return [
        Panel(id_, title, caption, texts[id_], _json(make(results)))
        for id_, title, caption, make, there in makers
        if there
    ]


def _asked_always(results: StudyResults) -> str:
    """How many questions the curves rest on, for example ``800 of 800 image, 200 of 300 video``."""
    table = curve_table(results)
    parts = []
    for kind in ("image", "video"):
        used = table.loc[table["measure"] == kind, "questions"]
        asked = results.scores.loc[results.scores["kind"] == kind, ["suite", "sample_id", "question"]]
        if len(used):
            least, most = int(used.min()), int(used.max())
            count = f"{least}" if least == most else f"{least} to {most}"
            parts.append(f"{count} of {len(asked.drop_duplicates())} {kind}")
    return ", ".join(parts) or "none yet"


def _json(figure: go.Figure) -> str:
    """The figure for a script element: ``<`` is escaped, so no text of a study can end the element."""
    text = figure.to_json() or json.dumps({})
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _alternatives(analysis: Analysis) -> dict[str, str]:
    results = analysis.results
    ends, changes, pairs = [], [], []
    for arm in results.arms:
        image, video = (analysis.levels.get((arm.name, m)) for m in ("image", "video"))
        if image is not None and video is not None:
            ends.append(f"{arm.title} ends at image {image.value:.0f}%, video {video.value:.0f}%")
        own = [c for c in analysis.skills if c.arm == arm.name and c.holds]
        if own:
            listed = ", ".join(f"{c.measure.replace(':', ' ')} {number(c.estimate.value)}" for c in own)
            changes.append(f"{arm.title}: {listed}")
    for c in analysis.contrasts:
        if c.family == "design":
            pairs.append(
                f"{c.arm} minus {c.reference}, {c.measure}: {points(c.estimate.value)} {interval(c.estimate)}"
            )
    splits = [
        f"{results.title(s.arm)}: {points(s.recovered.estimate.value)} of "
        f"{number(s.loss.estimate.value)} return"
        for s in analysis.copies
        if s.measure == "image"
    ]
    used = [
        f"{results.title(c['arm'])} {c['mean_frames']:.1f}" for c in tables.costs(results) if c["mean_frames"]
    ]
    nothing = "nothing finished yet"
    return {
        "plane": f"Image against video scores: {'; '.join(ends) or nothing}.",
        "curves": f"Curves over training steps: {'; '.join(ends) or nothing}. All points: data table.",
        "forest": f"{'; '.join(pairs) or 'Comparisons with the base, listed in the data table'}.",
        "copies": f"{'; '.join(splits) or nothing}.",
        "skills": f"Changes that stand after Holm's adjustment, in points: {'; '.join(changes) or 'none'}.",
        "frames": f"Mean frames a training clip: {', '.join(used) or 'not recorded'}.",
    }
