"""What a schema cannot say: names that must exist, keys that exclude each other, circles of arms."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from workbench.recipe.probes import check_probe
from workbench.recipe.problems import Loc, Problem, from_validation, nearest
from workbench.recipe.schema import FramesSection, ModelSection, Recipe, StageSection

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
BASE = "base"  # what the runs of `stages` are called beside the arms'
NOT_IN_ARMS = ("preset", "checkpoint", "encoder_weights", "llm_weights")

# policy -> (parameters it must have, parameters it may have)
FRAME_PARAMETERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fixed": (("frames",), ()),
    "fps": (("rate", "max_frames"), ("min_frames",)),
    "column": ((), ()),
    "keywords": (("rules",), ("frames",)),
    "classifier": (("choices", "pilot"), ("epsilon",)),
    "oracle": (("choices", "pilot", "epsilon"), ()),
    "random_matched": (("like",), ()),
    "uniform_choice": (("choices",), ()),
}


def check(recipe: Recipe) -> Iterator[Problem]:
    """Every problem of a recipe whose sections are valid by themselves."""
    yield from _finite(recipe.model_dump(), ())
    yield from _file_name(("name",), "the recipe", recipe.name)
    yield from _model(recipe.model)
    yield from _unique(("seeds",), recipe.seeds)
    if not recipe.stages and recipe.model.checkpoint is None and not recipe.arms:
        yield Problem(("stages",), "there is nothing to train or evaluate", "Add `stages:` or `arms:`")
    yield from _stages(recipe, ("stages",), recipe.stages)
    for name, arm in recipe.arms.items():
        loc: Loc = ("arms", name)
        yield from _file_name(loc, "an arm", name)
        if name == BASE:
            yield Problem(
                loc, f"an arm cannot be called {BASE!r}: the runs of `stages` are", "Choose another name"
            )
        if not arm.stages:
            yield Problem((*loc, "stages"), "the arm has no stage", "Add one, or remove the arm")
        yield from _stages(recipe, (*loc, "stages"), arm.stages)
        yield from _arm_model(recipe.model, (*loc, "model"), arm.model)
        for i, needed in enumerate(arm.needs):
            yield from _known((*loc, "needs", i), "arm", needed, recipe.arms)
        if arm.measure is not None:
            yield from _known((*loc, "measure", "source"), "source", arm.measure.source, recipe.data.sources)
            if not arm.measure.frames:
                yield Problem(
                    (*loc, "measure", "frames"), "the list of frame counts is empty", "Name at least one"
                )
    yield from _circles(recipe)
    if recipe.machine.launcher == "python" and recipe.machine.processes > 1:
        found = f"`processes` is {recipe.machine.processes} and `launcher: python` starts one process"
        yield Problem(("machine", "processes"), found, "Write `launcher: torchrun`, or `processes: 1`")
    for suite, source in recipe.evaluation.suites.items():
        yield from _file_name(("evaluation", "suites", suite), "a suite", suite)
        yield from _known(("evaluation", "suites", suite), "source", source, recipe.data.sources)
    for name, probe in recipe.probes.items():
        yield from _file_name(("probes", name), "a probe", name)
        yield from check_probe(
            ("probes", name), probe, recipe.evaluation.suites, recipe.data.sources, [BASE, *recipe.arms]
        )
    if recipe.quick is not None:
        yield from _unique(("quick", "seeds"), recipe.quick.seeds)
        for i, name in enumerate(recipe.quick.arms):
            yield from _known(("quick", "arms", i), "arm", name, recipe.arms)


def _finite(value: Any, loc: Loc) -> Iterator[Problem]:
    if isinstance(value, float) and not math.isfinite(value):
        yield Problem(loc, f"`{'.'.join(map(str, loc))}` is not a finite number", "Write a number")
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    for key, item in items:
        yield from _finite(item, (*loc, key))


def _file_name(loc: Loc, what: str, name: str) -> Iterator[Problem]:
    if not FILE_NAME.fullmatch(name):
        yield Problem(
            loc,
            f"{what} is called {name!r}, which names no file",
            "Use letters, digits, '-', '_', '+' and '.'",
        )


def _unique(loc: Loc, values: tuple[Any, ...]) -> Iterator[Problem]:
    twice = {value for value in values if values.count(value) > 1}
    if twice:
        yield Problem(
            loc, f"{sorted(twice)} stands twice in `{'.'.join(map(str, loc))}`", "Name each one once"
        )


def _known(loc: Loc, what: str, name: str, valid: Any) -> Iterator[Problem]:
    if name not in valid:
        place = "data.sources" if what == "source" else "arms"
        yield Problem(loc, f"there is no {what} {name!r} in `{place}`", nearest(name, valid))


def _model(model: ModelSection) -> Iterator[Problem]:
    given = [name for name in ("preset", "checkpoint") if getattr(model, name) is not None]
    if len(given) == 2:
        yield Problem(
            ("model", "checkpoint"),
            "`model` has both `preset` and `checkpoint`",
            "Keep one; to undo one that comes through `extends` write `preset: null`",
        )
    if not given:
        yield Problem(
            ("model",), "`model` has neither `preset` nor `checkpoint`", "Add one, for example `preset: tiny`"
        )
    for name in ("encoder_weights", "llm_weights"):
        if getattr(model, name) is not None and model.preset is None:
            yield Problem(("model", name), f"`{name}` means nothing without `preset`", "Take it out")


def _arm_model(base: ModelSection, loc: Loc, overrides: dict[str, Any]) -> Iterator[Problem]:
    valid = [name for name in ModelSection.model_fields if name not in NOT_IN_ARMS]
    unknown = [key for key in overrides if key not in valid]
    for key in unknown:
        found = "all arms start from the same model" if key in NOT_IN_ARMS else f"the key {key!r} is unknown"
        yield Problem((*loc, key), found, nearest(key, valid))
    if not unknown and overrides:
        try:
            ModelSection.model_validate({**base.model_dump(), **overrides})
        except ValidationError as error:
            for problem in from_validation(error, ModelSection):
                yield Problem((*loc, *problem.loc), problem.found, problem.todo)


def _stages(recipe: Recipe, loc: Loc, stages: tuple[StageSection, ...]) -> Iterator[Problem]:
    names = [stage.name for stage in stages]
    for i, stage in enumerate(stages):
        here: Loc = (*loc, i)
        yield from _file_name((*here, "name"), "a stage", stage.name)
        if stage.name in names[:i]:
            yield Problem(
                (*here, "name"), f"two stages are called {stage.name!r}", "Name each one differently"
            )
        if (stage.steps is None) == (stage.epochs is None):
            found = "neither `steps` nor `epochs`" if stage.steps is None else "both `steps` and `epochs`"
            at = here if stage.steps is None else (*here, "epochs")
            yield Problem(at, f"stage {stage.name!r} has {found}", "Give it exactly one of the two")
        for section in ("train", "data"):
            if not getattr(stage, section):
                yield Problem(
                    (*here, section), f"`{section}` of stage {stage.name!r} is empty", "Name at least one"
                )
        for source in stage.data:
            yield from _known((*here, "data", source), "source", source, recipe.data.sources)
        share = stage.optimizer.warmup + (
            stage.optimizer.cooldown if stage.optimizer.schedule == "trapezoid" else 0
        )
        if share > 1:
            yield Problem(
                (*here, "optimizer"),
                f"warmup and cooldown together are {share:g} of the steps",
                "Make them 1 or less together",
            )
        if not all(0 <= beta < 1 for beta in stage.optimizer.betas):
            yield Problem(
                (*here, "optimizer", "betas"), "a beta is outside [0, 1)", "Write for example [0.9, 0.98]"
            )
        yield from _frames(recipe, (*here, "frames"), stage.frames)


def _frames(recipe: Recipe, loc: Loc, frames: FramesSection) -> Iterator[Problem]:
    needed, optional = FRAME_PARAMETERS[frames.policy]
    takes = f"`{frames.policy}` takes {_list(needed)}" + (
        f" and may have {_list(optional)}" if optional else ""
    )
    for name in needed:
        if getattr(frames, name) in (None, (), {}):
            yield Problem(loc, f"the frame policy {frames.policy!r} lacks `{name}`", takes)
    for name in FramesSection.model_fields:
        if name not in ("policy", *needed, *optional) and getattr(frames, name) is not None:
            yield Problem(
                (*loc, name), f"`{name}` means nothing to the frame policy {frames.policy!r}", takes
            )
    if frames.min_frames and frames.max_frames and frames.min_frames > frames.max_frames:
        yield Problem(
            (*loc, "min_frames"),
            f"min_frames {frames.min_frames} is above max_frames {frames.max_frames}",
            "Swap them",
        )
    for words in frames.rules or {}:
        if not words.strip():
            yield Problem((*loc, "rules", words), "a rule has no word", "Give it a word or phrase")
    if frames.like is not None:
        yield from _known((*loc, "like"), "arm", frames.like, recipe.arms)
    if frames.pilot is not None:
        yield from _known((*loc, "pilot"), "arm", frames.pilot, recipe.arms)
        if frames.pilot in recipe.arms and recipe.arms[frames.pilot].measure is None:
            yield Problem(
                (*loc, "pilot"),
                f"the arm {frames.pilot!r} measures nothing",
                f"Add `measure:` to arm {frames.pilot!r}",
            )


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) if names else "no parameter"


def _circles(recipe: Recipe) -> Iterator[Problem]:
    waits: dict[str, set[str]] = {}
    for name, arm in recipe.arms.items():
        named = {
            ref for stage in arm.stages for ref in (stage.frames.like, stage.frames.pilot) if ref is not None
        }
        waits[name] = (named | set(arm.needs)) & recipe.arms.keys()
    while free := [name for name, others in waits.items() if not others & waits.keys()]:
        for name in free:
            del waits[name]
    if waits:
        first = next(iter(waits))
        circle = ", ".join(waits)
        yield Problem(
            ("arms", first),
            f"these arms wait for each other: {circle}",
            "Break the circle of needs, like, pilot",
        )
