"""YAML file -> ``Recipe``: ``extends``, overrides, validation with file and line, hash, difference.

Phases: read the file as a tree with places; put it on top of the file it ``extends`` (and so on up); put the
overrides on top; validate against the schema; check what spans sections. Each failure is one
``RecipeError`` that names the place where the offending key was really written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from workbench.errors import RecipeError
from workbench.recipe import yamltree
from workbench.recipe.checks import check
from workbench.recipe.problems import Problem, from_validation
from workbench.recipe.schema import Recipe
from workbench.recipe.yamltree import Node, Place, bad

EXTENDS = "extends"
ABSENT = "(absent)"


def load_recipe(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Load, merge and validate one recipe.

    Args:
        path: a YAML file.
        overrides: dotted keys and their values, for example ``{"machine.workers": 1, "stages.0.steps": 10}``.

    Raises:
        RecipeError: anything wrong, one error, with ``where`` = ``file:line`` (or the flag of an override).
    """
    tree = _tree(path, overrides)
    try:
        recipe = Recipe.model_validate(tree.plain())
    except ValidationError as error:
        raise _error(tree, from_validation(error, Recipe)) from None
    problems = list(check(recipe))
    if problems:
        raise _error(tree, problems)
    return recipe


def resolve(path: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The recipe as plain data, after ``extends`` and overrides and before validation and defaults."""
    return _tree(path, overrides).plain()


def _tree(path: str | Path, overrides: Mapping[str, Any] | None) -> Node:
    tree = _with_bases(Path(path), None, ())
    for key, value in (overrides or {}).items():
        tree = _override(tree, key, value)
    return tree


def _error(tree: Node, problems: list[Problem]) -> RecipeError:
    first = problems[0]
    more = f" ({len(problems) - 1} more after this one)" if len(problems) > 1 else ""
    return bad(first.found, first.todo + more, tree.find(first.loc)[0])


# -- extends ----------------------------------------------------------------------------------------------


def _with_bases(path: Path, asked_at: Place | None, chain: tuple[Path, ...]) -> Node:
    real = Path(os.path.realpath(path))
    if real in chain:
        assert asked_at is not None
        names = " -> ".join(p.name for p in (*chain[chain.index(real) :], real))
        raise bad(f"`extends` goes in a circle ({names})", "Remove one of them", asked_at)
    node = yamltree.read(path, asked_at)
    if EXTENDS not in node.value:
        return node
    place, target = node.keys.pop(EXTENDS), node.value.pop(EXTENDS)
    if not isinstance(target.value, str) or not target.value:
        raise bad("`extends` does not name a file", "Write one path, relative to this file", place)
    base = Path(os.path.normpath(path.parent / target.value))
    return yamltree.merge(_with_bases(base, place, (*chain, real)), node)


# -- overrides --------------------------------------------------------------------------------------------


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """``["machine.workers=1", ...]`` as given to ``--set`` -> a mapping for ``load_recipe``; values are YAML.

    Raises:
        RecipeError: not KEY=VALUE, a key given twice, or a value that is not YAML.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        flag = Place(f"--set {pair}")
        if not equals or not all(key.split(".")):
            raise bad("this is not KEY=VALUE", "Write for example --set machine.workers=1", flag)
        if key in found:
            raise bad(f"{key!r} is set twice", "Keep one of them", flag)
        found[key] = yamltree.parse(text, flag.file).plain() if text.strip() else None
    return found


def _override(tree: Node, key: str, value: Any) -> Node:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    flag = Place(f"--set {key}={text}")
    steps = key.split(".")
    if steps[0] == EXTENDS or not all(steps):
        raise bad(f"{key!r} cannot be set", "Name a key of the recipe, for example machine.workers", flag)
    return _put(tree, steps, _as_node(value, flag), flag, key)


def _as_node(value: Any, place: Place) -> Node:
    if isinstance(value, Mapping):
        nodes = {str(key): _as_node(item, place) for key, item in value.items()}
        return Node(nodes, place, dict.fromkeys(nodes, place))
    if isinstance(value, list | tuple):
        return Node([_as_node(item, place) for item in value], place)
    return Node(value, place)


def _put(node: Node, steps: list[str], value: Node, flag: Place, key: str) -> Node:
    if not steps:
        return value
    head, rest = steps[0], steps[1:]
    if isinstance(node.value, list):
        if not head.isdigit() or int(head) >= len(node.value):
            count = len(node.value)
            raise bad(f"{head!r} in {key!r} is not an index of a list of {count}", "Count from 0", flag)
        items = list(node.value)
        items[int(head)] = _put(items[int(head)], rest, value, flag, key)
        return Node(items, node.place)
    if node.value is not None and not isinstance(node.value, dict):
        raise bad(f"{head!r} in {key!r} is below a single value", "Set the key above it", flag)
    below = node.value or {}
    inner = below.get(head, Node(None, flag))
    # the key is the flag's only where the flag made it: errors elsewhere in a section keep their own lines
    place = node.keys.get(head, flag) if rest else flag
    return Node({**below, head: _put(inner, rest, value, flag, key)}, node.place, {**node.keys, head: place})


# -- what was loaded --------------------------------------------------------------------------------------


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 of what the recipe asks for, as 64 hexadecimal digits.

    It covers every value, defaults included (a default that changes makes another experiment), in canonical
    JSON: sorted keys, no spaces. ``machine`` is left out: the same experiment with other workers or on
    another machine is the same experiment. So are ``probes``, which only look. Comments, key order, anchors and
    how a value came in (``extends``, ``--set``) do not matter.
    """
    content = recipe.model_dump(mode="json", exclude={"machine", "probes"})
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe with every default written out; loading it gives an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs: dotted key, value in each recipe (``"(absent)"`` where there is none)."""

    key: str
    a: Any
    b: Any


def diff(a: Recipe, b: Recipe) -> list[Difference]:
    """What differs between two recipes, in the schema's order; equal recipes give an empty list."""
    flat_a, flat_b = _flat(a.model_dump(mode="json"), ""), _flat(b.model_dump(mode="json"), "")
    keys = dict.fromkeys([*flat_a, *flat_b])
    pairs = ((key, flat_a.get(key, ABSENT), flat_b.get(key, ABSENT)) for key in keys)
    return [Difference(key, left, right) for key, left, right in pairs if left != right]


def _flat(value: Any, prefix: str) -> dict[str, Any]:
    items: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = enumerate(value)
    else:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in items:
        found |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return found
