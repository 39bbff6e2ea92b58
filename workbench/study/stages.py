"""A study's stages one by one: what each trains, how its loss fell, and what the model answers after it.

    stages_of(study.recipe)                      # which parts, at which learning rates, on what
    scores_after_stages(study)                   # every saved stage asked the suites; kept beside the study

The trainer saves a checkpoint ``stage-NAME`` at the end of every stage; those are what is asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from workbench.errors import WorkbenchError
from workbench.recipe import Recipe
from workbench.recipe.schema import GROUPS, StageSection
from workbench.runs import read_metrics
from workbench.runs.checkpoints import complete, verify
from workbench.study.live import LiveStudy
from workbench.study.tasks import BASE, base_seed, task_id

FRAMES = 8  # of a video where the recipe names no common count
PREFIX = "stage-"
THROUGH, BYPASS, UNTRAINED = "through", "bypass", "untrained"
#: How still images meet the fusion layer -> switches of ``load_model``.
WAYS: dict[str, dict[str, Any]] = {
    THROUGH: {},
    BYPASS: {"images": "bypass"},
    UNTRAINED: {"use_fusion": True},  # a layer that is there, switched on before any training
}


def stages_of(recipe: Recipe) -> pd.DataFrame:
    """One row a stage: its name, a column a module group (learning rate, NaN where frozen), data, frames, batch, length."""
    rows = []
    for stage in recipe.stages:
        own = {str(group): rate for group, rate in stage.train.items()}
        rates = {group: own.get(group, float("nan")) for group in GROUPS}
        length = (
            f"{stage.steps} steps"
            if stage.steps is not None
            else f"{stage.epochs} epoch{'s' if stage.epochs != 1 else ''}"
        )
        data = " + ".join(_share(name, share, stage.data) for name, share in stage.data.items())
        rows.append(
            {"stage": stage.name, "objective": stage.objective, **rates, "data": data}
            | {"frames": _frames(stage), "batch": stage.batch, "length": length}
        )
    return pd.DataFrame(rows)


def _share(name: str, share: float, data: Mapping[str, float]) -> str:
    words = name.replace("_", " ")
    return words if len(data) == 1 else f"{share / sum(data.values()):.0%} {words}"


def _frames(stage: StageSection) -> str:
    section = stage.frames
    if section.policy == "fixed":
        return str(section.frames)
    if section.policy == "fps":
        return f"{section.rate:g} a second, {section.min_frames or 1} to {section.max_frames}"
    return section.policy


def losses_of(study: LiveStudy, seed: int | None = None) -> pd.DataFrame:
    """Loss of every step of the base: ``stage, step`` (within its stage, from 1) and ``loss``. Raises RunError."""
    table = read_metrics(_base(study, seed))[["step", "stage", "loss"]].dropna()
    first = table.groupby("stage")["step"].transform("min")
    return table.assign(step=table["step"] - first + 1).reset_index(drop=True)


def scores_after_stages(
    study: LiveStudy,
    *,
    ways: Iterable[str] = (THROUGH,),
    limit: int | None = None,
    seed: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Answers of every saved stage that learned from answers (``objective: sft``), to every suite of the recipe.

    Args:
        ways: how still images meet the fusion layer: "through" it; "bypass", around it, for stages behind which it runs;
            "untrained", the last stage before it is trained with the layer switched on.
        limit: questions a suite, drawn the same for all; None asks all.
        tell: told what is asked.

    Returns:
        Score rows (docs/architecture.md) with the columns ``stage`` (its name), ``way``, ``kind`` (image | video) and
        ``seed``. What was answered before by the same weights is read from ``cache/stages`` of the study.

    Raises:
        WorkbenchError: the study's base is not finished.
    """
    run = _base(study, seed)
    saved = {path.name.removeprefix(PREFIX): path for path in complete(run) if path.name.startswith(PREFIX)}
    stages = [stage.name for stage in study.recipe.stages if stage.objective == "sft"]
    missing = [name for name in stages if name not in saved]
    if missing:
        raise WorkbenchError(
            "ask the model after each stage",
            f"no checkpoint of {', '.join(missing)}",
            "Train the recipe first",
            str(run),
        )
    tables = []
    for stage, way in _asking(study.recipe, tuple(ways)):
        folder = verify(saved[stage]) / "model"
        table = _asked(study, folder, stage, way, limit, tell or (lambda text: None))
        tables.append(table.assign(stage=stage, way=way))
    return pd.concat(tables, ignore_index=True).assign(seed=_seed(study, seed))


def _asking(recipe: Recipe, ways: tuple[str, ...]) -> list[tuple[str, str]]:
    """(stage, way) pairs in the order of the stages; what a stage cannot be asked is left out."""
    found, fused = [], False
    trained = [stage for stage in recipe.stages if stage.objective == "sft"]
    for stage, after in zip(trained, [*trained[1:], None], strict=True):
        fused = fused or "fusion" in stage.train
        next_fused = not fused and after is not None and "fusion" in after.train
        can = {THROUGH: True, BYPASS: fused, UNTRAINED: next_fused}
        found += [(stage.name, way) for way in ways if can[way]]
    return found


def _asked(
    study: LiveStudy, folder: Path, stage: str, way: str, limit: int | None, tell: Callable[[str], None]
) -> pd.DataFrame:
    """Scores of one saved model, from the cache where they are there."""
    section = study.recipe.evaluation
    files = [study.data / study.recipe.data.sources[name].path for name in section.suites.values()]
    digest = hashlib.sha256(json.dumps([section.model_dump(mode="json"), way, limit]).encode())
    for path in (*sorted(folder.glob("*.safetensors")), *files):
        digest.update(path.read_bytes())
    kept = study.directory / "cache" / "stages" / f"{stage}-{way}-{digest.hexdigest()[:16]}.parquet"
    if kept.is_file():
        return pd.read_parquet(kept)
    tell(f"asking the model after {stage} ({way})")
    table = _evaluate(study, folder, way, limit)
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".partial")
    table.to_parquet(partial)
    partial.replace(kept)
    return table


def _evaluate(study: LiveStudy, folder: Path, way: str, limit: int | None) -> pd.DataFrame:
    import torch

    from workbench.evaluation.evaluate import evaluate, subset
    from workbench.frames import make_plan
    from workbench.frames.policies import Fixed
    from workbench.models import load_model
    from workbench.samples.reader import FrameCache, FrameReader
    from workbench.samples.source import load_source

    section = study.recipe.evaluation
    model, processor = load_model(folder, dtype=torch.float32, **WAYS[way])
    tables = []
    with FrameReader(cache=FrameCache(study.directory / "cache" / "frames")) as reader:
        for suite, name in section.suites.items():
            source = study.recipe.data.sources[name]
            samples = load_source(study.data / source.path, limit=source.limit, skills=source.skills)
            samples = subset(samples, limit) if limit is not None else samples
            plan = make_plan(Fixed(section.common_frames or FRAMES), samples, reader)
            table = evaluate(model, processor, samples, plan, reader, suite=suite)
            tables.append(table.assign(kind="video" if any(s.is_video for s in samples) else "image"))
    return pd.concat(tables, ignore_index=True)


def part(scores: pd.DataFrame, stage: str, kind: str, way: str = THROUGH) -> pd.DataFrame:
    """The rows of one stage, kind and way."""
    return scores[(scores["stage"] == stage) & (scores["kind"] == kind) & (scores["way"] == way)]


def guessing(study: LiveStudy) -> dict[str, float]:
    """% right of one who guesses among each question's choices, mean over skills, by kind (image | video)."""
    from workbench.samples.source import load_source

    shares: dict[str, dict[str, list[float]]] = {}
    for name in study.recipe.evaluation.suites.values():
        source = study.recipe.data.sources[name]
        for sample in load_source(study.data / source.path, limit=source.limit, skills=source.skills):
            by_skill = shares.setdefault("video" if sample.is_video else "image", {})
            by_skill.setdefault(sample.skill, []).append(1 / len(sample.choices) if sample.choices else 0.0)
    return {kind: 100 * fmean(fmean(found) for found in by.values()) for kind, by in shares.items()}


def parameters_of(source: str | Path, **options: Any) -> dict[str, int]:
    """Parameters by module group of a preset or a model folder, built on the meta device: no weights, no memory.

    Args:
        options: of a preset (``vocab_size`` ...), as ``preset_config`` takes them.

    Raises:
        RecipeError, CheckpointError: no such preset or folder.
    """
    import torch

    from workbench.models import model_folder
    from workbench.models.tempflex.checkpoints import read_config
    from workbench.models.tempflex.modeling import TempFlexForConditionalGeneration
    from workbench.models.tempflex.presets import preset_config

    path = model_folder(Path(source))
    if path.is_dir():
        config = read_config(path, f"describe the checkpoint {path}")
    else:
        config = preset_config(str(source), **options)
    with torch.device("meta"):
        model = TempFlexForConditionalGeneration(config)
    groups = model.module_groups()
    return {group: sum(model.get_parameter(n).numel() for n in names) for group, names in groups.items()}


def _seed(study: LiveStudy, seed: int | None) -> int:
    first = (study.recipe.seeds or (study.recipe.seed,))[0]
    return base_seed(study.recipe, first if seed is None else seed)


def _base(study: LiveStudy, seed: int | None) -> Path:
    return study.directory / "runs" / task_id(BASE, _seed(study, seed))
