"""What a recipe will take before it is started: tokens, memory, time. Estimates, each with what it is made from.

Tokens: per sample as runs of the same data measured them (events ``frames`` and ``stage_end``), times samples; without
such runs only the number of samples is said. Time: the work of ``cost.py`` times the seconds a unit of it took in
finished runs of the same model; without any, for the tiny models, the pace of ``cost.py``'s own measurement; for
others only their arithmetic is said, 6 operations a parameter and token (Kaplan et al. 2020, section 2.1).
Memory of one process: float32 weights (4 bytes), their gradients (4) and Adam's moments (8) where they are trained,
activations as in Korthikanti et al. 2022 (34 bytes a token, unit of width and layer in 16 bits, twice that in 32; 2
with checkpointing), logits, and what Python and torch take themselves. It imports torch, but no weights are read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.recipe import Recipe, load_recipe
from workbench.recipe.schema import FramesSection, ModelSection, StageSection
from workbench.runs import read_events, run_status
from workbench.study.cost import frames_guess, steps_of
from workbench.study.run import shortened
from workbench.study.tasks import BASE, Task, make_tasks, work

LAPTOP_S = 0.67e-3  # seconds a unit of work, tiny models on one core (cost.py)
PROCESS_BYTES = 600 << 20  # Python with torch and this package loaded
LOOKED_AT = 40  # finished runs of this computer at most, the newest


@dataclass(frozen=True)
class Estimate:
    """Of all tasks together; ``None`` is what could not be estimated.

    Attributes:
        samples: conversations trained on, repetitions counted.
        tokens: real tokens trained on; ``visual``: those of them that show something.
        memory: bytes of one training process; ``processes`` of them work at once.
        seconds: of wall time.
        parameters: by module group.
        operations: floating point operations of training.
        basis: what each number comes from, in sentences.
    """

    tasks: int
    steps: int
    samples: int
    tokens: float | None
    visual: float | None
    memory: float
    processes: int
    seconds: float | None
    operations: float | None
    parameters: dict[str, int]
    basis: tuple[str, ...]


@dataclass
class Measured:
    """What finished runs of the same model and data took."""

    runs: list[str] = field(default_factory=list)
    text: list[float] = field(default_factory=list)  # tokens a sample that show nothing
    frame: list[float] = field(default_factory=list)  # visual tokens a frame
    pace: list[float] = field(default_factory=list)  # seconds a unit of work
    frames: dict[str, float] = field(default_factory=dict)  # mean frames a frame policy chose
    peaks: dict[str, int] = field(default_factory=dict)  # bytes of all processes of a study at once


def estimate(
    recipe: Recipe,
    *,
    quick: bool = False,
    seeds: Sequence[int] | None = None,
    arms: Sequence[str] | None = None,
    runs: str | Path = "runs",
    root: str | Path = ".",
) -> Estimate:
    """Tokens, memory and time of a recipe.

    Args:
        quick, seeds, arms: as ``workbench study`` takes them.
        runs: folder with studies of this computer; finished runs in them are what is known.
        root: folder that a recipe's relative paths start from.

    Raises:
        WorkbenchError: an arm that is not there, or a model that cannot be described.
    """
    if quick and recipe.quick is not None:
        seeds, arms = seeds or recipe.quick.seeds, arms or recipe.quick.arms
        recipe = shortened(recipe, recipe.quick.steps)
    tasks = make_tasks(recipe, seeds, arms)
    known = measured(Path(runs), recipe)
    groups, shape = describe(recipe.model, Path(root))
    basis = [_basis_of_model(recipe.model, groups)]
    steps = samples = 0
    tokens = visual = operations = 0.0
    for task in tasks:
        for stage in _stages(recipe, task.arm):
            asked = steps_of(stage) * stage.batch
            steps, samples = steps + steps_of(stage), samples + asked
            if known.frame:
                frames = known.frames.get(_key(stage.frames), frames_guess(stage.frames, recipe))
                seen = asked * frames * _mean(known.frame)
                visual, tokens = visual + seen, tokens + seen + asked * _mean(known.text)
                operations += 6 * sum(groups.values()) * (seen + asked * _mean(known.text))
    if known.frame:
        basis.append(
            f"tokens: {_mean(known.text):.0f} of text a sample and {_mean(known.frame):.1f} a frame, "
            f"as measured in {len(known.runs)} finished runs of the same model and data"
        )
    else:
        basis.append("tokens: not known, no finished run of this model and data is here")
    if any(stage.steps is None for task in tasks for stage in _stages(recipe, task.arm)):
        basis.append("an epoch, whose length only the data know, counts as 100 steps")
    machine = recipe.machine
    workers = machine.workers if machine.processes == 1 else machine.processes
    memory, how = _memory(recipe, tasks, groups, shape)
    basis.append(how)
    if known.peaks:
        name = max(known.peaks, key=lambda name: known.peaks[name])
        basis.append(f"measured: {name} took {known.peaks[name] / 2**30:.2f} GiB in all its processes")
    pace = _mean(known.pace) if known.pace else LAPTOP_S if _tiny(recipe.model) else None
    seconds = None if pace is None else _wall(tasks, workers if machine.processes == 1 else 1) * pace
    if known.pace:
        basis.append(f"time: the pace of these runs, on this computer, {workers} at once")
    elif pace is not None:
        basis.append(
            "time: the pace of a tiny model on one core of the laptop that the project was measured on"
        )
    else:
        basis.append("time: not known, no finished run of this model is here")
    if not known.frame:
        return Estimate(
            len(tasks), steps, samples, None, None, memory, workers, seconds, None, groups, tuple(basis)
        )
    return Estimate(
        len(tasks), steps, samples, tokens, visual, memory, workers, seconds, operations, groups, tuple(basis)
    )


def _stages(recipe: Recipe, arm: str) -> Sequence[StageSection]:
    return recipe.stages if arm == BASE else recipe.arms[arm].stages


def _tiny(model: ModelSection) -> bool:
    return (model.preset or "").startswith("tiny")


def _key(frames: FramesSection) -> str:
    return json.dumps(frames.model_dump(mode="json"), sort_keys=True)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _wall(tasks: Sequence[Task], workers: int) -> float:
    """Units of work until the last task ends: no less than the longest chain, nor than an even share."""
    ends: dict[str, float] = {}
    for task in tasks:  # each stands after what it needs
        ends[task.id] = task.cost + max((ends.get(name, 0.0) for name in task.needs), default=0.0)
    return max(max(ends.values()), sum(task.cost for task in tasks) / workers)


# -- what is known ---------------------------------------------------------------------------------------------


def measured(folder: Path, recipe: Recipe) -> Measured:
    """From finished runs below ``folder`` whose model and data folder are those of ``recipe``."""
    found = Measured()
    runs = sorted(folder.glob("*/runs/*/run.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    loaded: dict[Path, Recipe | None] = {}
    for path in runs[:LOOKED_AT]:
        run, study = path.parent, path.parents[2]
        if study not in loaded:
            loaded[study] = _same(study / "recipe.yaml", recipe)
        theirs = loaded[study]
        if theirs is None or run_status(run).state != "finished":
            continue
        _take(found, run, theirs)
        peak = json.loads((study / "study.json").read_text("utf-8")).get("peak_rss_bytes")
        found.peaks |= {study.name: int(peak)} if peak else {}
    return found


def _same(path: Path, recipe: Recipe) -> Recipe | None:
    try:
        theirs = load_recipe(path)
    except WorkbenchError:  # another version's, or no study at all
        return None
    same = theirs.model == recipe.model and theirs.data.root == recipe.data.root
    return theirs if same else None


def _take(found: Measured, run: Path, recipe: Recipe) -> None:
    arm = json.loads((run / "run.json").read_text("utf-8")).get("arm", BASE)
    if arm != BASE and arm not in recipe.arms:
        return
    events = read_events(run)
    stages = {stage.name: stage for stage in _stages(recipe, arm)}
    means = {event["stage"]: float(event["mean"]) for event in events if event["kind"] == "frames"}
    for event in events:
        stage = stages.get(event.get("stage", ""))
        if event["kind"] != "stage_end" or stage is None or not event["steps"]:
            continue
        asked, mean = event["steps"] * stage.batch, means.get(event["stage"], 0.0)
        found.text.append((event["real_tokens"] - event["visual_tokens"]) / asked)
        if mean:
            found.frame.append(event["visual_tokens"] / asked / mean)
            found.frames[_key(stage.frames)] = mean
    begun = [event["time"] for event in events if event["kind"] in ("start", "reopen")]
    if len(begun) == 1:  # one that was resumed has pauses in its time
        from datetime import datetime

        first, last = (datetime.fromisoformat(at) for at in (begun[0], events[-1]["time"]))
        found.pace.append((last - first).total_seconds() / work(recipe, arm).total)
    found.runs.append(run.name)


# -- the model -------------------------------------------------------------------------------------------------


def describe(model: ModelSection, root: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters by module group, and the sizes that activations depend on; nothing is loaded or downloaded.

    Raises:
        WorkbenchError: no such preset or checkpoint.
    """
    import torch

    from workbench.models import LOADERS
    from workbench.models.hosts.loading import describe_host, read_model_type
    from workbench.models.tempflex.checkpoints import read_config
    from workbench.models.tempflex.modeling import TempFlexForConditionalGeneration
    from workbench.models.tempflex.presets import preset_config

    asked = "estimate the memory"
    host: Any = None
    if model.preset is not None:
        switches = ("variant", "fusion_layers", "merge", "images", "pool_to", "encoding")
        options = {name: getattr(model, name) for name in switches}
        config: Any = preset_config(model.preset, **{k: v for k, v in options.items() if v is not None})
    else:
        path = root / Path(model.checkpoint or "").expanduser()
        if not path.is_dir():
            raise WorkbenchError(asked, f"{path} does not exist here", "Estimate it where the checkpoint is")
        host = describe_host(path) if read_model_type(path, asked) not in LOADERS else None
        config = host.config if host is not None else read_config(path, asked)
    if host is None:
        with torch.device("meta"):
            host = TempFlexForConditionalGeneration(config)
    groups = {
        group: sum(host.get_parameter(name).numel() for name in names)
        for group, names in host.module_groups().items()
    }
    text, vision = config.get_text_config(), config.vision_config
    shape = {
        "width": text.hidden_size,
        "layers": text.num_hidden_layers,
        "vocabulary": text.vocab_size,
        "vision_width": vision.hidden_size,
        "vision_layers": getattr(vision, "num_hidden_layers", None) or getattr(vision, "depth", 0),
    }
    return groups, shape


def _basis_of_model(model: ModelSection, groups: dict[str, int]) -> str:
    parts = ", ".join(f"{group} {count:,}" for group, count in groups.items() if count)
    return f"parameters of {model.preset or model.checkpoint}: {sum(groups.values()):,} ({parts})"


def _memory(
    recipe: Recipe, tasks: Sequence[Task], groups: dict[str, int], shape: dict[str, int]
) -> tuple[float, str]:
    stages = [stage for task in tasks for stage in _stages(recipe, task.arm)]
    trained = max((sum(groups.get(name, 0) for name in stage.train) for stage in stages), default=0)
    places = max((stage.tokens_per_row * stage.rows_per_micro_batch for stage in stages), default=0)
    fixed = 4 * sum(groups.values()) + 12 * trained
    each = 2 if recipe.machine.gradient_checkpointing else 34 if recipe.machine.precision == "bf16" else 68
    # patches: four a visual token, and no row can hold more visual tokens than tokens
    widths = shape["width"] * shape["layers"] + 4 * shape["vision_width"] * shape["vision_layers"]
    active = places * (each * widths + 8 * shape["vocabulary"])
    how = (
        f"memory of a process: weights, gradients and Adam {fixed / 2**30:.2f} GiB, activations and logits of "
        f"{places:,} places at most {active / 2**30:.2f} GiB, Python and torch {PROCESS_BYTES / 2**30:.2f} GiB"
    )
    return fixed + active + PROCESS_BYTES, how
