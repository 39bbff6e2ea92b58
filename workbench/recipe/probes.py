"""The ``probes:`` section of a recipe: what is looked at inside the models that it trains, and when.

```yaml
probes:
  conflict: {probe: gradients, frames: [2, 8, 16], pairs: 8}
  spread: {probe: scatter, suite: image, against_start: true}
```
Captures go to ``RUN/captures/`` of every run. They change nothing in the training, so the section is no part of a recipe's
hash. Runs that are finished are not looked into again: for them there are `workbench probe` and notebooks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench.recipe.problems import Loc, Problem, nearest

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
END = (1.0,)


class ProbeSection(BaseModel):
    """One probe and its parameters; ``PARAMETERS`` says which ones apply. null: the probe's own default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    probe: Literal["attention", "atlas", "scatter", "fusion", "gradients", "knockout", "attribution"]
    at: tuple[Annotated[float, Field(gt=0, le=1)], ...] = END  # shares of a run's steps; 1 is its end
    arms: tuple[str, ...] | None = None  # only these; "base" is the recipe's own stages (null: every run)
    seed: int = 0  # of what the probe draws
    frames: tuple[Positive, ...] | None = None  # counts every video is shown at
    # which samples
    suite: str | None = None  # of evaluation.suites (null: the first)
    samples: tuple[str, ...] | None = None  # ids
    limit: Positive | None = None  # without ids: the first so many
    turn: Count | None = None  # which question of a sample
    pictures: bool | None = None  # keep the frames too, small (null: yes)
    # attention, atlas, scatter
    queries: Literal["answer", "predict", "question", "text", "all"] | None = None
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    where: Literal["llm", "encoder"] | None = None
    store: Literal["auto", "float32", "float16", "uint8", "topk"] | None = None
    norms: bool | None = None
    boxes: Literal["asked", "all", "none"] | None = None
    against_start: bool | None = None  # scatter: paired with the model that the run started from
    # fusion
    videos: Positive | None = None
    images: Positive | None = None
    kernels: bool | None = None
    parts: bool | None = None
    # gradients
    pairs: Positive | None = None
    batch: Positive | None = None  # conversations a batch; attribution: passes that run together
    groups: tuple[str, ...] | None = None
    image_source: str | None = None  # of data.sources (null: what the run was trained on)
    video_source: str | None = None
    counterfactuals: tuple[Literal["frozen", "shuffled"], ...] | None = None
    static: bool | None = None
    subspace: Count | None = None
    copies: Positive | None = None
    adam: bool | None = None
    check_steps: bool | None = None
    map_conflicts: bool | None = None
    # knockout, attribution
    windows: str | None = None
    grid: tuple[Positive, Positive] | None = None
    edges: Literal["text"] | None = None
    checks: Count | None = None
    rankings: tuple[Literal["attention", "knockout", "ablation", "ig"], ...] | None = None
    baseline: Literal["mean", "zero"] | None = None
    steps: Positive | None = None
    curves: bool | None = None


COMMON = ("probe", "at", "arms", "seed", "frames")
_WHICH = ("suite", "samples", "limit", "turn")
_ROWS = (*_WHICH, "queries", "layers", "heads")
PARAMETERS: dict[str, tuple[str, ...]] = {
    "attention": (*_ROWS, "where", "store", "norms", "pictures"),
    "atlas": (*_ROWS, "pictures"),
    "scatter": (*_ROWS, "boxes", "against_start"),
    "fusion": ("videos", "images", "kernels", "parts", "pictures"),
    "gradients": (
        *("pairs", "batch", "groups", "image_source", "video_source", "counterfactuals", "static"),
        *("subspace", "copies", "adam", "check_steps", "map_conflicts"),
    ),
    "knockout": (*_WHICH, "windows", "grid", "edges", "checks", "pictures"),
    "attribution": (*_WHICH, "rankings", "grid", "baseline", "steps", "batch", "curves", "pictures"),
}


def check_probe(
    loc: Loc, section: ProbeSection, suites: dict[str, str], sources: dict, arms: list[str]
) -> Iterator[Problem]:
    """Parameters of another probe, and names that the recipe lacks.

    Args:
        loc: of the section.
        suites, sources: of the recipe, by name.
        arms: names of its runs, "base" included.
    """
    takes = PARAMETERS[section.probe]
    for name in ProbeSection.model_fields:
        if name not in (*COMMON, *takes) and getattr(section, name) is not None:
            found = f"`{name}` means nothing to the probe {section.probe!r}"
            yield Problem((*loc, name), found, nearest(name, (*COMMON, *takes)))
    if not section.at:
        yield Problem((*loc, "at"), "the list of shares is empty", "Write for example [1.0]")
    if section.frames == ():
        yield Problem((*loc, "frames"), "the list of frame counts is empty", "Name at least one")
    if section.suite is not None and section.suite not in suites:
        found = f"there is no suite {section.suite!r} in `evaluation.suites`"
        yield Problem((*loc, "suite"), found, nearest(section.suite, suites))
    for key in ("image_source", "video_source"):
        source = getattr(section, key)
        if source is not None and source not in sources:
            found = f"there is no source {source!r} in `data.sources`"
            yield Problem((*loc, key), found, nearest(source, sources))
    for i, arm in enumerate(section.arms or ()):
        if arm not in arms:
            yield Problem((*loc, "arms", i), f"there is no arm {arm!r} in `arms`", nearest(arm, arms))
