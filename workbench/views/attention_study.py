"""Attention of one sample before and after Video-SFT, from a study's runs: captures found, or made by the probe.

Only making a capture loads torch; what was made once lies in the runs (``RUN/captures/``) and is opened.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from workbench.captures import Capture, CaptureError
from workbench.errors import DataError, WorkbenchError
from workbench.probes.boxes import Box, ground_truth
from workbench.probes.common import Checkpoint
from workbench.probes.target import newest_checkpoint
from workbench.recipe import Recipe, load_recipe
from workbench.recipe.probes import ProbeSection
from workbench.runs.captures import complete
from workbench.runs.scores import read_scores
from workbench.samples.sample import Sample
from workbench.samples.source import load_source
from workbench.study.live import project_root
from workbench.study.tasks import BASE, base_seed, task_id
from workbench.views.attention import AttentionView

NAME = "attention"


def of_sample(study_dir: str | Path, sample_id: str, arm: str, seed: int, suite: str) -> AttentionView:
    """See ``AttentionView.of_sample``."""
    study = _study(Path(study_dir))
    return _view(study / "runs" / task_id(arm, seed), sample_id, None, suite)


def of(
    where: str | Path,
    sample_id: str,
    frames: int | None = None,
    *,
    arm: str | None = None,
    seed: int | None = None,
    suite: str | None = None,
) -> AttentionView:
    """See ``AttentionView.of``."""
    path = Path(where)
    if (path / "run.json").is_file():
        return _view(path, sample_id, frames, suite)
    study = _study(path)
    listed = json.loads((study / "study.json").read_text(encoding="utf-8"))
    arm = arm or next((name for name in listed["arms"] if name != BASE), BASE)
    seed = listed["seeds"][0] if seed is None else seed
    return _view(study / "runs" / task_id(arm, seed), sample_id, frames, suite)


def _study(path: Path) -> Path:
    if not (path / "study.json").is_file():
        raise WorkbenchError(
            f"show attention of {path.name}",
            "it is neither a study (study.json) nor a run (run.json)",
            "Name a directory that `workbench study` or `workbench train` wrote",
            str(path),
        )
    return path


def _view(run: Path, sample_id: str, frames: int | None, suite: str | None) -> AttentionView:
    run = run.resolve()
    if not (run / "run.json").is_file():
        there = sorted(path.name for path in run.parent.glob("*") if (path / "run.json").is_file())
        raise WorkbenchError(
            f"show attention of {run.name}",
            "there is no such run",
            f"Choose one of {', '.join(there)}",
            str(run),
        )
    recipe = load_recipe(run / "recipe.yaml")
    root = _root(run, recipe)
    suite, sample = _sample(recipe, root, sample_id, suite, run)
    if sample.is_video:
        frames = frames or _frames_used(run, sample_id, suite) or recipe.evaluation.common_frames or 8
    else:
        frames = 1
    now = _capture(run, sample, frames, suite, root)
    base, before = _base(run, recipe), None
    if base is not None:
        before = _capture(base, sample, frames, suite, root)
    return AttentionView(now, before, box=_box(sample))


def _root(run: Path, recipe: Recipe) -> Path:
    """What the recipe's data folder is relative to: the working directory, or the project around the run."""
    if Path(recipe.data.root).is_absolute() or Path(recipe.data.root).is_dir():
        return Path.cwd()
    try:
        return project_root(run)
    except WorkbenchError:
        return Path.cwd()


def _base(run: Path, recipe: Recipe) -> Path | None:
    """The run that this arm's training began from; None for a base and for a run of no study."""
    told = json.loads((run / "run.json").read_text(encoding="utf-8"))
    if "study" not in told or told.get("arm") in (None, BASE):
        return None
    base = run.parent / task_id(BASE, base_seed(recipe, int(told["seed"])))
    return base if (base / "run.json").is_file() else None


def _sample(recipe: Recipe, root: Path, sample_id: str, suite: str | None, run: Path) -> tuple[str, Sample]:
    """The sample and the suite that has it."""
    suites = recipe.evaluation.suites
    if suite is not None and suite not in suites:
        raise WorkbenchError(
            f"look for {sample_id} in the suite {suite}",
            f"the recipe has {', '.join(suites) or 'none'}",
            "Choose one of those",
            str(run / "recipe.yaml"),
        )
    for name in [suite] if suite is not None else suites:
        source = recipe.data.sources[suites[name]]
        path = root / recipe.data.root / source.path
        if not path.is_file():
            raise DataError(
                f"look for the sample {sample_id}",
                "the study's data are not there",
                "Make them again (`workbench data make`), or start in the folder that they are relative to",
                str(path),
            )
        for sample in load_source(path, skills=source.skills):
            if sample.id == sample_id:
                return name, sample
    raise DataError(
        f"look at the sample {sample_id}",
        f"{suite or 'no suite of the recipe'} has none of that id",
        "Take an id from the run's scores",
        str(run / "recipe.yaml"),
    )


def _frames_used(run: Path, sample_id: str, suite: str) -> int | None:
    """Frames that the run's last evaluation at its own policy showed; None when it asked nothing of that sample."""
    try:
        scores = read_scores(run)
    except WorkbenchError:
        return None
    if scores.empty:
        return None
    mine = scores[
        (scores["sample_id"] == sample_id) & (scores["suite"] == suite) & (scores["condition"] == "own")
    ]
    mine = mine[mine["frames_used"].notna() & (mine["frames_used"] > 0)]
    return None if mine.empty else int(pd.to_numeric(mine.sort_values("step")["frames_used"]).iloc[-1])


def _capture(run: Path, sample: Sample, frames: int, suite: str, root: Path) -> Capture:
    """The newest checkpoint's rows of a sample, made if need be; without checkpoints what was kept of them."""
    section = ProbeSection(
        probe="attention", suite=suite, samples=(sample.id,), frames=(frames,), queries="text"
    )
    kept = _kept(run, sample, frames)
    try:
        weights = Checkpoint.at(*newest_checkpoint(run)).sha256
        wanted = section.model_dump(mode="json", exclude={"at", "arms"}, exclude_none=True)
        for capture in kept:  # opened without torch
            told = capture.meta.get("checkpoint") or {}
            if capture.meta.get("asked") == wanted and weights and told.get("sha256") == weights:
                return capture
        from workbench.probes.asked import Asked, load_captures

        return load_captures(Asked(run, section, NAME, workdir=root))[0]
    except WorkbenchError as error:
        if kept:
            return kept[-1]
        raise WorkbenchError(
            f"show what {run.name} looks at in {sample.id}",
            f"no capture of it is kept, and none can be made ({error.found})",
            "Train the run again (`workbench study RECIPE`), or probe a copy of it that has its checkpoints with "
            f"`workbench probe attention RUN --suite {suite} --sample {sample.id} --frames {frames} --queries text`, "
            "and give that capture to AttentionView",
            str(run),
        ) from error


def _kept(run: Path, sample: Sample, frames: int) -> list[Capture]:
    """Captures of all text queries of that sample at that many frames, the latest checkpoint's last."""
    found = []
    for path in complete(run):
        try:
            capture = Capture.load(path)
        except CaptureError:
            continue
        meta = capture.meta
        same = (meta.get("sample") or {}).get("id") == sample.id and meta.get("queries") == "text"
        there = len((meta.get("frames") or {}).get("indices") or ())
        if capture.kind == "attention_rows" and same and there == frames:
            found.append(((meta.get("checkpoint") or {}).get("step") or 0, path.name, capture))
    return [capture for *_, capture in sorted(found, key=lambda one: one[:2])]


def _box(sample: Sample) -> list[Box]:
    """Ground truth of what is asked about, where the data have it."""
    try:
        return ground_truth(sample)
    except WorkbenchError:
        return []
