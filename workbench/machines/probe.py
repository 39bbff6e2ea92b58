"""``probe``: look inside a checkpoint of a run on the machine where it lies; captures are written into the run.

Runs in the process that answers, as ``evaluate`` does. Captures may be large: they stay there until ``fetch`` brings them,
and the answer says only which they are and what they show. Imports torch when called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.machines.base import Progress
from workbench.machines.job import job_folder, meta, need, no_run, run_names

SUMMED_UP = 40  # sentences of an answer
OWN = ("verb", "protocol", "workbench", "root", "id", "job", "run", "name", "checkpoint")


def probe_run(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Verb: {root, job, run, probe, name?, checkpoint?, + keys of a recipe's ``probes:`` section} -> {captures, words}.

    Asked again with the same words of the same weights, the captures that are there are taken.

    Returns:
        captures [{name, path (in the job), kind, bytes, sample}], words (sentences, where the kind has any).

    Raises:
        WorkbenchError: no such run, checkpoint or sample; an unknown key or value (with the nearest valid one).
    """
    from workbench.captures import Capture
    from workbench.probes.asked import Asked, make_captures
    from workbench.recipe import load_recipe
    from workbench.study.inside import checked_section
    from workbench.study.tasks import BASE, base_seed, task_id

    study, name = job_folder(request), str(need(request, "run"))
    if name not in run_names(study):
        raise no_run(study, name)
    run = study / "runs" / name
    recipe = load_recipe(study / "recipe.yaml")
    section = checked_section(recipe, {k: v for k, v in request.items() if k not in OWN and v is not None})
    start = None
    arm, _, seed = name.rpartition("-s")
    if arm != BASE and seed.isdigit():
        base = study / "runs" / task_id(BASE, base_seed(recipe, int(seed)))
        start = base if base.is_dir() else None
    asked = Asked(
        run, section, str(request.get("name") or section.probe), request.get("checkpoint"), start,
        Path(meta(study)["workdir"]),
    )  # fmt: skip
    progress({"doing": "loading", "probe": section.probe})
    paths = make_captures(
        asked, lambda what, done, total: progress({"doing": what, "done": done, "total": total})
    )
    rows, words = [], []
    for path in paths:
        capture = Capture.load(path)
        sample = (capture.meta.get("sample") or {}).get("id")
        where = path.relative_to(study).as_posix()
        rows.append(
            {
                "name": path.stem,
                "path": where,
                "kind": capture.kind,
                "bytes": path.stat().st_size,
                "sample": sample,
            }
        )
        words += said(capture, name)
    return {"captures": rows, "words": words[:SUMMED_UP]}


def said(capture: Any, run: str) -> list[str]:
    """What a capture shows, in sentences; none for the kinds that only a figure shows."""
    from workbench.probes.fusion import words as fusion_words
    from workbench.probes.gradients import words as gradient_words
    from workbench.views.charts import inside_words

    try:
        if capture.kind == "gradients":
            return gradient_words(capture)
        if capture.kind == "fusion":
            return fusion_words(capture)
        if capture.kind == "attention_scatter" and "before" in capture.arrays:
            return inside_words.scatter_words(inside_words.scatter_changes({0: capture}), run)
    except (
        ValueError,
        WorkbenchError,
    ):  # too few samples for any sentence: the capture is there all the same
        return []
    return []
