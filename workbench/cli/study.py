"""`workbench study`: train every arm and seed of a recipe in parallel, evaluate, report. `workbench train`:
one recipe, one seed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

DEFAULT = "recipes/laptop/trap.yaml"


def register(subparsers: argparse._SubParsersAction) -> None:
    study = subparsers.add_parser(
        "study",
        help="train all arms and seeds of a recipe, evaluate and report",
        description="Runs go to OUT/<recipe name>; the same command resumes what was interrupted.",
    )
    study.add_argument("recipes", nargs="*", type=Path, default=[Path(DEFAULT)], metavar="RECIPE")
    study.add_argument("--quick", action="store_true", help="the recipe's quick section: one seed, few arms")
    study.add_argument("--arms", nargs="+", metavar="ARM", help="only these arms (and the ones they need)")
    study.add_argument("--seeds", nargs="+", type=int, metavar="N")
    _common(study)
    study.set_defaults(func=run_study)
    train = subparsers.add_parser(
        "train",
        help="train a recipe's stages with one seed",
        description="The stages of a recipe, one after the other.",
    )
    train.add_argument("recipes", nargs=1, type=Path, metavar="RECIPE")
    train.add_argument("--seed", type=int)
    _common(train)
    train.set_defaults(func=run_train)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="folder of the runs (default: the recipe's `output`)")
    parser.add_argument("--name", help="of the study below OUT (default: the recipe's)")
    parser.add_argument(
        "--workers", type=int, help="processes at once (default: the recipe's machine.workers)"
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change recipe values")
    parser.add_argument("--no-report", action="store_true", help="do not write report.html")


def run_study(args: argparse.Namespace) -> int:
    return _run(args, args.seeds, args.arms, args.quick)


def run_train(args: argparse.Namespace) -> int:
    return _run(args, [args.seed] if args.seed is not None else None, [], False)


def _run(args: argparse.Namespace, seeds: list[int] | None, arms: list[str] | None, quick: bool) -> int:
    from workbench.recipe import parse_overrides
    from workbench.study import run_recipes

    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    program = "workbench" if ranks == "1" else f"torchrun --nproc_per_node {ranks} -m workbench"
    command = f"{program} {shlex.join(sys.argv[1:])}"
    run_recipes(
        args.recipes,
        overrides=parse_overrides(args.set),
        out=args.out,
        seeds=seeds,
        arms=arms,
        quick=quick,
        workers=args.workers,
        command=command,
        name=args.name,
        report=not args.no_report,
    )
    return 0
