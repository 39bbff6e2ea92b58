"""What each arm of a study is for: which comparisons make sense follows from it.

Roles come from the resolved recipe's frame policies; where the recipe says nothing, from the arms' names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

BASE = "base"
Role = Literal["fixed", "aware", "matched", "variant", "other"]

_PLAIN_FIXED = re.compile(r"fixed-(\d+)")
#: Policies that choose a frame count from the question, the data or the model: what Hybrid-Frame stands for.
AWARE_POLICIES = frozenset({"keywords", "classifier", "oracle", "column", "vlm", "redundancy"})


@dataclass(frozen=True, slots=True)
class Arm:
    """One Video-SFT arm.

    ``frames`` is the count of a plain fixed arm. ``reference`` names the arm that a comparison needs: the
    arm whose histogram a matched control shuffles, or the arm that a variant changes in one respect.
    """

    name: str
    title: str
    role: Role
    frames: int | None = None
    reference: str | None = None


def describe_arms(declared: Mapping[str, Any], recipe: Mapping[str, Any]) -> tuple[Arm, ...]:
    """Arms in the order declared (name -> title or None), with roles read from the resolved recipe."""
    names = [str(name) for name in declared if str(name) != BASE]
    sections = recipe.get("arms") or {}
    arms: list[Arm] = []
    for name in names:
        section = sections.get(name) or {}
        title = declared[name]
        role, frames, reference = _role(name, section, names)
        arms.append(Arm(name, str(title or section.get("title") or name), role, frames, reference))
    return tuple(arms)


def _role(name: str, section: Mapping[str, Any], names: Sequence[str]) -> tuple[Role, int | None, str | None]:
    stages = section.get("stages") or ()
    policy = dict((stages[-1].get("frames") or {}) if stages else {})
    kind = policy.get("policy")
    plain = _PLAIN_FIXED.fullmatch(name)
    if plain:
        return "fixed", int(plain.group(1)), None
    if kind == "random_matched" or (kind is None and name.startswith("random")):
        like = policy.get("like")
        aware = [other for other in names if other.startswith("hybrid")]
        return "matched", None, str(like) if like else (aware[0] if aware else None)
    parent = _parent(name, policy, names)
    if parent is not None:
        return "variant", None, parent
    if kind in AWARE_POLICIES or (kind is None and name.startswith("hybrid")):
        return "aware", None, None
    return "other", None, None


def _parent(name: str, policy: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The arm a variant departs from: ``fixed-16-replay`` -> ``fixed-16``, ``tff-paper`` -> ``tff-off``."""
    prefixes = [other for other in names if other != name and name.startswith(other + "-")]
    if prefixes and policy.get("policy") not in AWARE_POLICIES:
        return max(prefixes, key=len)
    stem, _, _ = name.rpartition("-")
    off = f"{stem}-off"
    if stem and off in names and off != name:
        return off
    fixed = f"fixed-{policy.get('frames')}"
    if policy.get("policy") == "fixed" and fixed in names:
        return fixed
    return None


def ladders(arms: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    """(most, fewest) frames of variants that differ in their number: ``narrow-16`` and ``narrow-2``."""
    steps: dict[str, list[tuple[int, Arm]]] = {}
    for arm in arms:
        stem, _, count = arm.name.rpartition("-")
        if arm.role == "variant" and stem and count.isdigit():
            steps.setdefault(stem, []).append((int(count), arm))
    ordered = [sorted(found, key=lambda item: item[0]) for found in steps.values()]
    return [(found[-1][1], found[0][1]) for found in ordered if len(found) > 1]


def extremes(arms: Sequence[Arm]) -> tuple[Arm, Arm] | None:
    """The plain fixed arms with the fewest and the most frames, or None when there are not two."""
    fixed = sorted((arm for arm in arms if arm.role == "fixed"), key=lambda arm: arm.frames or 0)
    return (fixed[0], fixed[-1]) if len(fixed) > 1 else None
