"""From the ``frames`` section of a recipe to a policy: which parameters each one needs, which it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import pandas as pd

from workbench.errors import RecipeError
from workbench.frames.make import FramePolicy
from workbench.frames.plan import FramePlan
from workbench.frames.policies import Column, Fixed, Fps, Keywords, Oracle, RandomMatched, UniformChoice

if TYPE_CHECKING:
    from workbench.frames.classifier import FrameClassifier

# policy -> (parameters it must have, parameters it may have)
PARAMETERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fixed": (("frames",), ()),
    "fps": (("rate", "max_frames"), ("min_frames",)),
    "column": ((), ()),
    "keywords": (("rules",), ("frames",)),
    "classifier": ((), ("choices", "epsilon", "pilot")),
    "oracle": (("epsilon",), ("choices", "pilot")),
    "random_matched": (("like",), ()),
    "uniform_choice": (("choices",), ()),
}
NAMES = tuple(dict.fromkeys(name for pair in PARAMETERS.values() for names in pair for name in names))


class FrameSettings(Protocol):
    """The shape of ``workbench.recipe.schema.FramesSection`` (this room does not import recipes)."""

    @property
    def policy(self) -> str: ...
    @property
    def frames(self) -> int | None: ...
    @property
    def max_frames(self) -> int | None: ...
    @property
    def min_frames(self) -> int | None: ...
    @property
    def rate(self) -> float | None: ...
    @property
    def choices(self) -> tuple[int, ...] | None: ...
    @property
    def rules(self) -> Mapping[str, int] | None: ...
    @property
    def like(self) -> str | None: ...
    @property
    def epsilon(self) -> float | None: ...
    @property
    def pilot(self) -> str | None: ...


def check_settings(section: FrameSettings) -> None:
    """Refuse a section whose parameters do not fit its policy.

    Raises:
        RecipeError: a parameter is missing, empty, of no meaning to the policy, or ``min_frames >
        max_frames``.
    """
    needed, optional = PARAMETERS[section.policy]
    given = [name for name in NAMES if getattr(section, name) is not None]
    asked = f"use the frame policy `{section.policy}`"
    takes = f"it needs {_list(needed)} and may have {_list(optional)}"
    missing = [name for name in needed if getattr(section, name) in (None, (), {})]
    if missing:
        raise RecipeError(asked, f"it lacks {_list(missing)}", f"Set it under `frames`: {takes}")
    extra = [name for name in given if name not in needed + optional]
    if extra:
        raise RecipeError(asked, f"{_list(extra)} means nothing to it", f"Take it out: {takes}")
    if section.min_frames and section.max_frames and section.min_frames > section.max_frames:
        found = f"min_frames {section.min_frames} is above max_frames {section.max_frames}"
        raise RecipeError(asked, found, "Swap them")
    if section.rules is not None and not all(words.strip() for words in section.rules):
        raise RecipeError(asked, "a rule without a word", "Give every rule a word or phrase")


def _list(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) if names else "nothing"


def make_policy(
    section: FrameSettings,
    *,
    classifier: FrameClassifier | None = None,
    losses: pd.DataFrame | None = None,
    like: FramePlan | None = None,
    seed: int = 0,
) -> FramePolicy:
    """The policy that a recipe's ``frames`` section describes.

    Args:
        section: a ``FramesSection``.
        classifier: a fitted classifier, for ``classifier``.
        losses: measured losses (see ``Oracle``), for ``oracle``.
        like: the plan of the arm ``section.like``, for ``random_matched``.
        seed: the policy's own seed, for ``random_matched`` and ``uniform_choice``.

    Raises:
        RecipeError: the parameters do not fit the policy, or the measured thing that it needs was not handed
        over.
    """
    check_settings(section)
    if section.policy == "fixed":
        return Fixed(section.frames or 1)
    if section.policy == "fps":
        return Fps(section.rate or 1.0, lo=section.min_frames or 1, hi=section.max_frames or 1)
    if section.policy == "column":
        return Column()
    if section.policy == "keywords":
        return Keywords(dict(section.rules or {}), default=section.frames)
    if section.policy == "uniform_choice":
        return UniformChoice(tuple(section.choices or ()), seed)
    if section.policy == "oracle":
        if losses is None:
            raise _needs("oracle", "no loss table", "Measure losses at several frame counts first")
        return Oracle(losses, section.epsilon or 0.0, section.choices)
    if section.policy == "random_matched":
        if like is None:
            raise _needs("random_matched", f"no plan of the arm {section.like!r}", "Run that arm first")
        return RandomMatched(like, seed)
    if classifier is None:
        raise _needs("classifier", "no fitted classifier", "Measure labels and fit one first")
    return classifier.policy(section.choices)


def _needs(policy: str, found: str, todo: str) -> RecipeError:
    return RecipeError(f"use the frame policy `{policy}`", found, todo)
