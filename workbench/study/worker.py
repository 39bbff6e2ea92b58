"""One task of a study, in a worker process: build the model, train its stages, evaluate on the way, write the
run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from workbench.errors import CheckpointError, Interrupted, WorkbenchError
from workbench.evaluation.copies import copies_plan
from workbench.evaluation.evaluate import Packing, evaluate, losses_by_frames, subset
from workbench.frames import FramePlan
from workbench.models import load_model
from workbench.models.tempflex import new_tempflex
from workbench.models.tempflex.pretrained import load_parts, load_tokenizer
from workbench.recipe import Recipe, load_recipe, recipe_hash, to_yaml
from workbench.recipe.schema import FramesSection, StageSection
from workbench.runs import Run
from workbench.samples.reader import FrameCache, FrameReader
from workbench.samples.sample import ClipInfo, Sample
from workbench.samples.source import load_source
from workbench.study.planned import MEASURED, Planner
from workbench.study.probing import Probing
from workbench.study.tasks import BASE, Task, base_seed, eval_points, task_id
from workbench.training.loop import Trainer
from workbench.training.ranks import SilentRun
from workbench.training.stopping import StopRequest


class Bench:
    """What the tasks of one study share inside a process: recipe, samples, reader, plans on disk."""

    def __init__(self, study_dir: Path) -> None:
        self.study_dir = study_dir
        self.recipe: Recipe = load_recipe(study_dir / "recipe.yaml")
        self.root = Path(self.recipe.data.root)
        self.reader = FrameReader(cache=FrameCache(study_dir / "cache" / "frames"))
        self._sources: dict[str, list[Sample]] = {}
        self.planner = Planner(self.recipe, study_dir, self.reader)

    def source(self, name: str) -> list[Sample]:
        if name not in self._sources:
            section = self.recipe.data.sources[name]
            self._sources[name] = load_source(
                self.root / section.path, limit=section.limit, skills=section.skills
            )
        return self._sources[name]

    def run_dir(self, arm: str, seed: int) -> Path:
        return self.study_dir / "runs" / task_id(arm, seed)

    def plan(self, frames: FramesSection, samples: list[Sample], seed: int, reader: Any = None) -> FramePlan:
        """See ``Planner.plan``."""
        return self.planner.plan(frames, samples, seed, reader)


@functools.lru_cache(maxsize=4)
def bench(study_dir: Path) -> Bench:
    return Bench(study_dir)


def run_task(
    study_dir: Path, task: Task, command: str, *, meet: Callable[[], None] | None = None, silent: bool = False
) -> None:
    """Train and evaluate one task; returns when its run is finished.

    Args:
        meet: under ``torchrun``: waits for the other ranks; called when rank 0 has made the run.
        silent: this is another rank than 0: it trains along and writes nothing.

    Raises:
        WorkbenchError: anything the user can mend; the run records it as its exit reason.
    """
    shared = bench(study_dir)
    recipe = shared.recipe
    torch.set_num_threads(recipe.machine.threads)
    directory = shared.run_dir(task.arm, task.seed)
    if silent:
        if meet is not None:
            meet()
        _run(shared, SilentRun(directory), task, command)
        return
    run = Run.create(
        directory,
        to_yaml(recipe),
        {"arm": task.arm, "seed": task.seed, "study": recipe.name, "recipe_hash": recipe_hash(recipe)},
    )
    if run.status().state == "finished":
        return
    if meet is not None:
        meet()
    try:
        _run(shared, run, task, command)
    except WorkbenchError as error:
        if error.exit_code != Interrupted.exit_code:
            run.finish("failed", str(error))
        raise
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        run.finish("interrupted" if stopped else "failed", f"{type(error).__name__}: {error}")
        raise
    run.finish("finished")


def _run(shared: Bench, run: Run | SilentRun, task: Task, command: str) -> None:
    recipe = shared.recipe
    arm = recipe.arms.get(task.arm)
    stages = recipe.stages if arm is None else arm.stages
    torch.manual_seed(task.seed)
    model, processor = _model(shared, run, task)
    if not stages:  # nothing to train: every rank scores, rank 0 writes
        with StopRequest() as stop:
            check = functools.partial(_check_stop, run, stop, command)
            _evaluate(shared, run, task, model, processor, 0, True, check)
        return
    score = _Score(shared, run, task, model, processor)
    trainer = Trainer(
        run,
        stages,
        model,
        processor,
        {name: shared.source(name) for stage in stages for name in stage.data},
        shared.reader,
        lambda stage, samples: shared.plan(stage.frames, samples, task.seed),
        seed=task.seed,
        machine=recipe.machine,
        on_point=score,
        command=command,
    )
    points = [trainer.total_steps] if arm is None else eval_points(recipe, trainer.total_steps)
    score.points, score.last, score.check = frozenset(points), trainer.total_steps, trainer.check_stop
    score.probing = Probing(recipe, shared.study_dir, task, trainer.total_steps)
    trainer.points = score.points | score.probing.points
    trainer.train()
    if arm is not None and arm.measure is not None and isinstance(run, Run):
        samples = shared.source(arm.measure.source)
        plans = {
            n: shared.plan(FramesSection(policy="fixed", frames=n), samples, task.seed)
            for n in arm.measure.frames
        }
        table = losses_by_frames(model, processor, samples, plans, shared.reader, _packing(stages[-1]))
        table.to_parquet(run.directory / MEASURED)
    if isinstance(run, Run):
        score.probing.after(run)


class _Score:
    """Called by the trainer at every point: evaluations, and probes that the recipe wants on the way."""

    def __init__(self, shared: Bench, run: Run | SilentRun, task: Task, model: Any, processor: Any) -> None:
        self.call: Callable[[int, bool], None] = lambda step, final: _evaluate(
            shared, run, task, model, processor, step, final, self.check
        )
        self.run, self.model, self.processor = run, model, processor
        self.last = 0
        self.points: frozenset[int] = frozenset()
        self.probing: Probing | None = None
        self.check: Callable[[], None] = _nothing

    def __call__(self, step: int) -> None:
        if self.probing is not None and isinstance(self.run, Run):
            self.probing.during(self.run, step, self.model, self.processor, self.check)
        if step in self.points:
            self.call(step, step == self.last)


def _model(shared: Bench, run: Run | SilentRun, task: Task) -> tuple[Any, Any]:
    """The model a task starts from: its own last checkpoint, the base's result, or a new one. Weights are float32:
    with bf16 the trainer casts what it computes with."""
    recipe, section = shared.recipe, shared.recipe.model
    latest = run.latest_checkpoint()
    if latest is not None:
        return load_model(latest, dtype=torch.float32)
    if task.arm != BASE:
        base = Run.open(shared.run_dir(BASE, base_seed(recipe, task.seed))).latest_checkpoint()
        overrides = dict(recipe.arms[task.arm].model)
        if base is None and section.checkpoint is not None:
            return load_model(section.checkpoint, dtype=torch.float32, **overrides)
        if base is None:
            raise CheckpointError(
                f"start arm {task.arm!r}", "the base has no checkpoint", "run the study again"
            )
        return load_model(base, dtype=torch.float32, **overrides)
    if section.checkpoint is not None:
        return load_model(section.checkpoint, dtype=torch.float32)
    assert section.preset is not None
    words: dict[str, Any] = {}
    if section.llm_weights is not None:
        words["tokenizer"] = load_tokenizer(section.llm_weights)
    else:
        words["vocab_texts"] = sorted(_texts(shared))
    options = section.model_dump(exclude={"preset", "checkpoint", "encoder_weights", "llm_weights"})
    # the fusion sleeps until a stage trains it (stage 3)
    model, processor = new_tempflex(section.preset, seed=task.seed, use_fusion=False, **words, **options)
    load_parts(model, section.encoder_weights, section.llm_weights)
    return model, processor


def _texts(shared: Bench) -> set[str]:
    """Every text the recipe's data holds: the vocabulary of a tiny model."""
    return {
        text
        for name in shared.recipe.data.sources
        for sample in shared.source(name)
        for turn in sample.turns
        for text in (turn.question, turn.answer, *turn.choices)
    }


def _packing(stage: StageSection) -> Packing:
    return Packing(stage.tokens_per_row, stage.rows_per_micro_batch)


def _nothing() -> None:
    return None


def _check_stop(run: Run | SilentRun, stop: StopRequest, command: str) -> None:
    """Where nothing is trained there is nothing to save: a stop ends the run, which then scores again."""
    if stop.asked or "stop" in run.requests():
        run.finish("interrupted")
        raise Interrupted("score the model", "a stop was asked for", f"Start again with: {command}")


def _evaluate(
    shared: Bench,
    run: Run | SilentRun,
    task: Task,
    model: Any,
    processor: Any,
    step: int,
    final: bool,
    check: Callable[[], None],
) -> None:
    """Score every suite: images once, videos at the arm's own policy; at the end also at a common count, and
    copies. ``check`` is called between groups of questions and raises when it shall end.
    """
    recipe, section = shared.recipe, shared.recipe.evaluation
    arm = recipe.arms.get(task.arm)
    stages = recipe.stages if arm is None else arm.stages
    common = FramesSection(policy="fixed", frames=section.common_frames or 8)
    # the base has no video policy of its own: it is asked at the common count
    own = common if arm is None else stages[-1].frames
    packing = _packing(stages[-1]) if stages else None
    clip = ClipInfo(frames=0, fps=0.0, duration_s=0.0, width=0, height=0)

    def score(suite: str, samples: list[Sample], plan: FramePlan, condition: str) -> None:
        table = evaluate(
            model, processor, samples, plan, shared.reader, packing=packing,
            suite=suite, arm=task.arm, seed=task.seed, step=step, condition=condition, between=check,
        )  # fmt: skip
        run.write_scores(f"{suite}-{step:06d}-{condition}", table)

    for suite, name in section.suites.items():
        everything = shared.source(name)
        samples = everything if final else subset(everything, section.limit)
        plan = shared.plan(own, samples, task.seed)
        score(suite, samples, plan, "own")
        films = [s for s in samples if s.is_video]
        if films:
            clip = shared.reader.info(films[0].media)  # type: ignore[arg-type]
        if final and films and section.common_frames is not None:
            if own == common:
                run.event("scores_shared", suite=suite, own="common", step=step)
            else:
                score(suite, samples, shared.plan(common, samples, task.seed), "common")
        if final and section.copies and not films and arm is not None and recipe.evaluation.suites:
            stand_in = clip if clip.frames else _a_clip(shared)
            plan = copies_plan(plan, samples, lambda s, r: shared.plan(own, s, task.seed, r), stand_in)
            score(suite, samples, plan, "copies")
    run.event("evaluated", step=step, final=final)


def _a_clip(shared: Bench) -> ClipInfo:
    """A clip of the video suite: what a copied image stands in for."""
    for name in shared.recipe.evaluation.suites.values():
        for sample in shared.source(name):
            if sample.is_video and sample.media is not None:
                return shared.reader.info(sample.media)
    return ClipInfo(frames=64, fps=1.0, duration_s=64.0, width=0, height=0)
