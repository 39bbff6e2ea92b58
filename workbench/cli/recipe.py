"""`workbench recipe check|show|diff`: validate a recipe, print it with every default, compare two."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def register(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("recipe", help="check, show or compare recipes")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="validate a recipe and say what it does")
    check.add_argument("file", type=Path, metavar="FILE")
    _set(check)
    check.set_defaults(func=run_check)
    show = actions.add_parser("show", help="print the resolved recipe with every default (YAML)")
    show.add_argument("file", type=Path, metavar="FILE")
    _set(show)
    show.set_defaults(func=run_show)
    compare = actions.add_parser("diff", help="what differs between two recipes, key by key")
    compare.add_argument("a", type=Path, metavar="A")
    compare.add_argument("b", type=Path, metavar="B")
    compare.set_defaults(func=run_diff)


def _set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change recipe values")


def run_check(args: argparse.Namespace) -> int:
    from workbench.recipe import load_recipe, parse_overrides, recipe_hash

    recipe = load_recipe(args.file, parse_overrides(args.set))
    programme = {"stages": recipe.stages, **{f"arm {name}": arm.stages for name, arm in recipe.arms.items()}}
    lines = {
        "name": recipe.name + (f" ({recipe.title})" if recipe.title else ""),
        "hash": recipe_hash(recipe),
    }
    lines["model"] = recipe.model.preset or str(recipe.model.checkpoint)
    for label, stages in programme.items():
        lengths = [f"{s.name} ({_count(s.steps, 'step') or _count(s.epochs, 'epoch')})" for s in stages]
        lines[label] = ", ".join(lengths) or "none"
    lines["seeds"] = ", ".join(map(str, recipe.seeds or (recipe.seed,)))
    width = max(map(len, lines))
    print(f"{args.file}: valid")
    for label, text in lines.items():
        print(f"  {label:<{width}}  {text}")
    return 0


def _count(number: int | None, noun: str) -> str:
    return "" if number is None else f"{number} {noun}{'' if number == 1 else 's'}"


def run_show(args: argparse.Namespace) -> int:
    from workbench.recipe import load_recipe, parse_overrides, recipe_hash, to_yaml

    recipe = load_recipe(args.file, parse_overrides(args.set))
    print(f"# {args.file}, resolved; hash {recipe_hash(recipe)}")
    print(to_yaml(recipe), end="")
    return 0


def run_diff(args: argparse.Namespace) -> int:
    """Prints nothing but a note for equal recipes; exits with 1 when they differ, as diff does."""
    from workbench.recipe import diff, load_recipe

    found = diff(load_recipe(args.a), load_recipe(args.b))
    if not found:
        print("no difference")
        return 0
    width = max(len(item.key) for item in found)
    for item in found:
        print(f"{item.key:<{width}}  {_shown(item.a)} -> {_shown(item.b)}")
    return 1


def _shown(value: Any) -> str:
    return value if value == "(absent)" else json.dumps(value, ensure_ascii=False)
