"""Tables of the report: every number shown, costs, and what the study was made with."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from typing import Any

from workbench.study.arms import BASE
from workbench.study.contrasts import MEASURE_TITLES, MEASURES, Analysis, Contrast
from workbench.study.curves import curve_table
from workbench.study.results import StudyResults
from workbench.views.flips import DIRECTIONS, flips_at, points_of
from workbench.views.theme import BASE_COLOUR, arm_styles

NUMBER_COLUMNS = (
    "table",
    "arm",
    "reference",
    "measure",
    "step",
    "value",
    "low",
    "high",
    "unit",
    "questions",
    "seeds",
    "p",
    "p_holm",
)
FLIPS_LISTED = 20  # questions an arm and direction
_ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:[\w.~+-]+/)+([\w.~+-]*)")


def numbers(analysis: Analysis) -> list[dict[str, Any]]:
    """Every number in the report as rows of ``NUMBER_COLUMNS``; missing cells are None."""
    rows: list[dict[str, Any]] = []
    for (arm, measure), e in analysis.levels.items():
        rows.append(_row("score", arm, "", measure, e.value, e.low, e.high, "%", e.questions, e.seeds))
    rows += [_contrast_row("difference", c) for c in analysis.contrasts]
    rows += [_contrast_row("skill change", c) for c in analysis.skills]
    for split in analysis.copies:
        for name in ("loss", "recovered", "remaining"):
            row = _contrast_row(f"copies probe: {name}", getattr(split, name))
            rows.append({**row, "arm": split.arm, "reference": BASE if name != "recovered" else "own frames"})
    for point in curve_table(analysis.results).to_dict("records"):
        at = (point["mean"], _finite(point["low"]), _finite(point["high"]))
        row = _row("curve", point["arm"], "", point["measure"], *at, "%", point["questions"], point["seeds"])
        rows.append({**row, "step": point["step"]})
    results = analysis.results
    counts = results.histogram.groupby(["arm", "frames"])["samples"].sum().reset_index()
    for item in counts.to_dict("records"):
        label = f"{item['frames']} frames"
        rows.append(
            _row("training clips", item["arm"], "", label, item["samples"], None, None, "clips", None, None)
        )
    means = results.frames.groupby(["arm", "skill"])["frames"].mean().reset_index()
    for item in means.to_dict("records"):
        label = f"video:{item['skill']}"
        rows.append(
            _row("mean frames", item["arm"], "", label, item["frames"], None, None, "frames", None, None)
        )
    for cost in costs(results):
        for name, unit in (("mean_frames", "frames"), ("seconds", "s"), ("visual_tokens", "tokens")):
            if cost[name] is not None:
                rows.append(
                    _row("cost", cost["arm"], "", name, cost[name], None, None, unit, None, cost["seeds"])
                )
    return rows


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV text with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, NUMBER_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
    return out.getvalue()


def costs(results: StudyResults) -> list[dict[str, Any]]:
    """Mean over seeds of what each arm cost: frames a clip, visual tokens, seconds; None where nothing
    was recorded.
    """
    rows = []
    for name in (BASE, *(arm.name for arm in results.arms)):
        own = results.costs[results.costs["arm"] == name]
        if len(own):
            mean = {k: _finite(own[k].mean()) for k in ("mean_frames", "seconds", "visual_tokens", "steps")}
            if name == BASE:
                mean["mean_frames"] = None  # its stages have different data: one number would mean nothing
            rows.append({"arm": name, "title": results.title(name), "seeds": len(own), **mean})
    return rows


def flipped(results: StudyResults) -> list[dict[str, Any]]:
    """Of every finished arm's end: McNemar's counts in a sentence, and the questions that flipped in most seeds, a list a
    direction; ``left`` says how many are not listed.
    """
    found = []
    for arm, step in points_of(results):
        if results.final_steps.get(arm) != step:
            continue
        flips = flips_at(results, arm, step)
        kinds = sorted(flips.pairs["kind"].unique())
        lists = []
        for way, title in DIRECTIONS.items():
            table = flips.questions(way)
            rows = table.head(FLIPS_LISTED).to_dict("records")
            lists.append({"title": title, "rows": rows, "left": len(table) - len(rows)})
        found.append(
            {
                "title": results.title(arm),
                "sentence": "; ".join(flips.sentence(kind) for kind in kinds),
                "lists": lists,
            }
        )
    return found


def legend(results: StudyResults) -> list[tuple[str, str, str]]:
    """(name, title, colour) of the base and every arm."""
    styles = arm_styles([arm.name for arm in results.arms])
    return [(BASE, "Base", BASE_COLOUR), *((a.name, a.title, styles[a.name].colour) for a in results.arms)]


def headline_table(analysis: Analysis) -> list[dict[str, Any]]:
    """One row an arm for the table under the conclusions: scores, and what copies bring back."""
    rows = []
    for name in (BASE, *(arm.name for arm in analysis.results.arms)):
        cells = {m: analysis.levels.get((name, m)) for m in MEASURES}
        if any(cells.values()):
            split = analysis.split(name)
            back = split.recovered.estimate if split else None
            rows.append(
                {
                    "arm": name,
                    "title": analysis.results.title(name),
                    "cells": list(cells.values()),
                    "back": back,
                }
            )
    return rows


def provenance(results: StudyResults) -> list[tuple[str, str]]:
    """What the study was made with, without names or paths of the machine."""
    study = results.study
    machine = _environment(results)
    asked = results.scores.drop_duplicates(["suite", "sample_id", "question"]).groupby("kind").size()
    wall, peak = study.get("wall_s"), study.get("peak_rss_bytes")
    pairs = [
        ("study", f"{results.name}{' (quick)' if study.get('quick') else ''}"),
        ("recipe hash", str(study.get("recipe_hash", "unknown"))),
        ("seeds", ", ".join(map(str, results.seeds))),
        ("questions", ", ".join(f"{count} {kind}" for kind, count in asked.items())),
        ("started", str(study.get("started") or "unknown")),
        ("finished", str(study.get("finished") or "not yet")),
        ("wall time", f"{wall:,.0f} s" if wall else "unknown"),
        ("peak memory", f"{peak / 2**30:.2f} GiB" if peak else "unknown"),
        ("machine", machine),
        ("versions", ", ".join(f"{k} {v}" for k, v in (study.get("versions") or {}).items()) or "unknown"),
    ]
    return pairs


def public_recipe(results: StudyResults) -> str:
    """The resolved recipe with absolute paths cut to their last part."""
    return _ABSOLUTE.sub(lambda match: f"…/{match.group(1)}", results.recipe_yaml)


def _environment(results: StudyResults) -> str:
    for file in sorted((results.directory / "runs").glob("*/environment.json")):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue
        system = str(found.get("platform", "")).split("-")[0]
        words = [system, str(found.get("machine", "")), f"{found['cpus']} CPUs" if found.get("cpus") else ""]
        words.append(f"Python {found['python']}" if found.get("python") else "")
        if found.get("commit"):
            changed = " with local changes" if found.get("changed_since_commit") else ""
            words.append(f"workbench at {str(found['commit'])[:12]}{changed}")
        return ", ".join(word for word in words if word)
    return "unknown"


def _contrast_row(table: str, c: Contrast) -> dict[str, Any]:
    e = c.estimate
    row = _row(table, c.arm, c.reference, c.measure, e.value, e.low, e.high, "points", e.questions, e.seeds)
    return {**row, "p": e.p, "p_holm": c.adjusted_p}


def _row(
    table: str,
    arm: str,
    reference: str,
    measure: str,
    value: float,
    low: float | None,
    high: float | None,
    unit: str,
    questions: int | None,
    seeds: int | None,
) -> dict[str, Any]:
    values = (
        table,
        arm,
        reference,
        MEASURE_TITLES.get(measure, measure),
        None,
        value,
        low,
        high,
        unit,
        questions,
        seeds,
    )
    return dict(zip(NUMBER_COLUMNS, (*values, None, None), strict=True))


def _finite(value: float) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
