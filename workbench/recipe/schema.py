"""The recipe's schema: one frozen pydantic model a section. Loading, ``extends`` and error positions live
in ``load.py``.

A recipe trains ``stages`` in order, then (for a study) every arm of ``arms`` from the result, once a seed
of ``seeds``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench.recipe.probes import ProbeSection

GROUPS = ("encoder", "fusion", "merger", "llm")
Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """Which model. ``preset`` names a configuration; ``checkpoint`` starts from saved weights instead."""

    preset: str | None = None
    checkpoint: str | None = None
    encoder_weights: str | None = None  # with preset: SigLIP2 NaFlex checkpoint, local folder or hub name
    llm_weights: str | None = None  # with preset: language model (and tokenizer), local folder or hub name
    variant: Literal["paper", "release"] = "paper"
    fusion_layers: Annotated[int, Field(ge=0)] | None = None
    merge: Literal["2x2", "strip4"] = "2x2"
    images: Literal["through", "bypass"] = "through"
    pool_to: Positive | None = None
    encoding: Literal["native", "fixed", "tiled"] = "native"


class SourceSection(Section):
    """One dataset: a LLaVA-style JSONL file below ``data.root``. ``limit`` keeps the first rows only."""

    path: str
    limit: Positive | None = None
    skills: tuple[str, ...] | None = None


class DataSection(Section):
    root: str
    sources: dict[str, SourceSection]
    make: str | None = None  # arguments of `workbench data make` that create root when it is missing


class FramesSection(Section):
    """A frame policy and its parameters; which ones apply is checked by the policy itself at load."""

    policy: Literal[
        "fixed", "fps", "column", "keywords", "classifier", "oracle", "random_matched", "uniform_choice"
    ] = "fixed"
    frames: Positive | None = None  # fixed
    max_frames: Positive | None = None  # fps: hi
    min_frames: Positive | None = None  # fps: lo
    rate: Annotated[float, Field(gt=0)] | None = None  # fps, in frames/s
    choices: tuple[Positive, ...] | None = None  # candidate counts of classifier, oracle, uniform_choice
    rules: dict[str, Positive] | None = None  # keywords: word or phrase -> frames
    like: str | None = None  # random_matched: the arm whose histogram is shuffled
    epsilon: Annotated[float, Field(ge=0)] | None = None  # oracle, classifier labels: loss tolerance in nats
    pilot: str | None = None  # classifier, oracle: the arm whose `measure` table of losses gives the labels


class OptimizerSection(Section):
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    schedule: Literal["cosine", "trapezoid", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03  # share of the steps
    cooldown: Annotated[float, Field(ge=0, lt=1)] = 0.3  # trapezoid: share of the steps


class StageSection(Section):
    """One training stage. ``train`` maps a module group to its learning rate; a group not named is frozen."""

    name: str
    objective: Literal["sft", "align"] = "sft"
    train: dict[Literal["encoder", "fusion", "merger", "llm"], Annotated[float, Field(gt=0)]]
    data: dict[str, Annotated[float, Field(gt=0)]]  # source -> share of each batch
    frames: FramesSection = FramesSection(policy="fixed", frames=8)
    steps: Positive | None = None
    epochs: Positive | None = None
    batch: Positive = 32
    turns: Positive | None = None  # at most so many question-answer turns of a conversation a visit
    tokens_per_row: Positive = 512  # packing: length of a packed row
    rows_per_micro_batch: Positive = 8
    optimizer: OptimizerSection = OptimizerSection()
    checkpoint_every: Positive | None = None


class MeasureSection(Section):
    """After an arm is trained, its loss on every sample of ``source`` at each frame count of ``frames``."""

    source: str
    frames: tuple[Positive, ...]


class ArmSection(Section):
    """A Video-SFT arm: stages that start from the base. ``model`` overrides switches such as ``images``."""

    title: str | None = None
    stages: tuple[StageSection, ...]
    model: dict[str, str | int | None] = {}
    needs: tuple[
        str, ...
    ] = ()  # arms that must be finished first (labels of a classifier, a matched histogram)
    measure: MeasureSection | None = None
    first_seed_only: bool = False  # a pilot: trained once, shared by every seed
    shown: bool = True  # False: a helper arm, left out of score tables


class EvaluationSection(Section):
    suites: dict[str, str] = {}  # suite name -> source name in data.sources
    at: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (1.0,)  # shares of an arm's steps
    limit: Positive | None = None  # samples a suite at the intermediate points; the last point uses all
    common_frames: Positive | None = None  # also evaluate video at this one count at the end
    copies: bool = False  # the copies probe on the image suite


class QuickSection(Section):
    """What ``workbench study --quick`` keeps of a study."""

    seeds: tuple[int, ...] = (0,)
    arms: tuple[str, ...]
    steps: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of every stage's steps


class MachineSection(Section):
    """How this machine is used. Remote machines are named, never described, in a recipe."""

    name: str = "local"
    workers: Positive = 2
    threads: Positive = 1
    precision: Literal["float32", "bf16"] = "float32"
    gradient_checkpointing: bool = False
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    # jobs (`workbench submit`): what starts the processes of one data-parallel training, and how many
    launcher: Literal["python", "torchrun", "accelerate", "deepspeed"] = "python"
    processes: Positive = 1
    restarts: Annotated[int, Field(ge=0)] = 0  # after a crash: go on from the last checkpoint so many times
    grace_s: Annotated[float, Field(gt=0)] = 60.0  # a stop may take so long before processes are killed


class Recipe(Section):
    """One complete experiment, frozen and validated."""

    name: str
    title: str = ""
    seed: int = 0
    seeds: tuple[int, ...] = ()
    base_seed: int | None = None  # one base of this seed for the arms of every seed; null: a base a seed
    model: ModelSection
    data: DataSection
    stages: tuple[StageSection, ...] = ()
    arms: dict[str, ArmSection] = {}
    evaluation: EvaluationSection = EvaluationSection()
    probes: dict[str, ProbeSection] = {}  # name -> what is looked at inside the trained models, and when
    machine: MachineSection = MachineSection()
    quick: QuickSection | None = None
    output: str = "runs"
