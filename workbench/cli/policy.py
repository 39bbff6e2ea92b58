"""`workbench policy plan`: how many frames a recipe gives its samples. `workbench policy show`: a saved
plan.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.frames import FramePlan
    from workbench.recipe import Recipe
    from workbench.recipe.schema import StageSection
    from workbench.samples.sample import Sample


def register(subparsers: argparse._SubParsersAction) -> None:
    policy = subparsers.add_parser("policy", help="how many frames each sample gets, and why")
    verbs = policy.add_subparsers(dest="verb", required=True, metavar="VERB")

    plan = verbs.add_parser(
        "plan",
        help="plan the frames of a recipe's stage or arm",
        description="Opens every video's header, decodes nothing. An arm stands for its last stage.",
    )
    plan.add_argument("recipe", type=Path, metavar="RECIPE")
    plan.add_argument("stage", metavar="STAGE_OR_ARM")
    plan.add_argument("--out", type=Path, metavar="PLAN.parquet", help="save the plan")
    plan.add_argument("--seed", type=int, help="of random policies (default: the recipe's first seed)")
    plan.add_argument(
        "--losses",
        type=Path,
        metavar="LOSSES.parquet",
        help="what a pilot arm measured (its run's losses.parquet), for the policies classifier and oracle",
    )
    plan.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change values of the recipe")
    plan.set_defaults(func=run_plan)

    show = verbs.add_parser("show", help="what a saved plan holds")
    show.add_argument("plan", type=Path, metavar="PLAN.parquet")
    show.set_defaults(func=run_show)


def run_plan(args: argparse.Namespace) -> int:
    from workbench.recipe import load_recipe, parse_overrides
    from workbench.samples.source import load_source

    recipe = load_recipe(args.recipe, parse_overrides(args.set))
    stage = _stage(recipe, args.stage, args.recipe)
    samples: list[Sample] = []
    for name in stage.data:
        section = recipe.data.sources[name]
        path = Path(recipe.data.root) / section.path
        samples += load_source(path, limit=section.limit, skills=section.skills)
    seed = args.seed if args.seed is not None else (recipe.seeds or (recipe.seed,))[0]
    plan = _plan(recipe, stage, samples, seed, args)
    print(_text(plan, samples))
    if args.out is not None:
        plan.save(args.out)
        print(f"{len(plan)} rows in {args.out}")
    return 0


def run_show(args: argparse.Namespace) -> int:
    from workbench.frames import FramePlan

    print(_text(FramePlan.load(args.plan), None))
    return 0


def _stage(recipe: Recipe, name: str, where: Path) -> StageSection:
    from workbench.errors import RecipeError

    if name in recipe.arms:
        return recipe.arms[name].stages[-1]
    for stage in recipe.stages:
        if stage.name == name:
            return stage
    known = [*(stage.name for stage in recipe.stages), *recipe.arms]
    raise RecipeError(
        f"plan the frames of {name!r}",
        "the recipe has no such stage or arm",
        f"Choose of {', '.join(known)}",
        str(where),
    )


def _plan(
    recipe: Recipe, stage: StageSection, samples: list[Sample], seed: int, args: argparse.Namespace
) -> FramePlan:
    import pandas as pd

    from workbench.errors import DataError, RecipeError
    from workbench.frames import fit_from_losses, make_plan, make_policy
    from workbench.samples.reader import FrameReader

    losses = None
    if args.losses is not None:
        try:
            losses = pd.read_parquet(args.losses)
        except (OSError, ValueError) as error:
            raise DataError(
                "read measured losses",
                "no such file" if isinstance(error, FileNotFoundError) else "not a whole Parquet file",
                "give the losses.parquet of a pilot arm's run",
                str(args.losses),
            ) from error

    with FrameReader() as reader:

        def plan(section: StageSection) -> FramePlan:
            frames = section.frames
            classifier = like = None
            if frames.policy in ("classifier", "oracle") and losses is None:
                raise RecipeError(
                    f"plan by the frame policy `{frames.policy}`",
                    "it needs measured losses",
                    f"Give --losses, the losses.parquet in the run of the arm {frames.pilot!r}",
                    str(args.recipe),
                )
            if frames.policy == "classifier" and losses is not None:
                classifier = fit_from_losses(losses, frames.epsilon)
            if frames.policy == "random_matched" and frames.like is not None:
                like = plan(_stage(recipe, frames.like, args.recipe))
            policy = make_policy(frames, classifier=classifier, losses=losses, like=like, seed=seed)
            return make_plan(policy, samples, reader, seed)

        return plan(stage)


def _text(plan: FramePlan, samples: list[Sample] | None) -> str:
    """Histogram by skill (where the samples are known), mean frames, reasons and failures."""
    import pandas as pd

    meta = plan.metadata
    parameters = ", ".join(f"{key} {value}" for key, value in meta.get("parameters", {}).items())
    lines = [f"policy {meta.get('policy', '?')}" + (f": {parameters}" if parameters else "")]
    videos = sum(plan.histogram().values())
    lines.append(
        f"{len(plan)} samples, {videos} readable videos, {plan.mean_frames():.2f} frames a video in the mean"
    )
    counts = list(plan.histogram())
    if videos:
        lines += ["", f"{'skill':<16}" + "".join(f"{c:>7}" for c in counts) + f"{'mean':>9}"]
        if samples is not None:
            used = plan.videos().set_index("sample_id")["used"].to_dict()
            rows = [(turn.skill, used[s.id]) for s in samples if s.id in used for turn in s.turns]
            table = pd.DataFrame(rows, columns=["skill", "used"])
            for skill, part in table.groupby("skill", sort=True):
                cells = "".join(f"{int((part['used'] == c).sum()):>7}" for c in counts)
                lines.append(f"{skill!s:<16}{cells}{part['used'].mean():>9.2f}")
        cells = "".join(f"{n:>7}" for n in plan.histogram().values())
        lines.append(f"{'all videos':<16}{cells}{plan.mean_frames():>9.2f}")
        if samples is not None and any(len(sample.turns) > 1 for sample in samples):
            lines.append("(a conversation counts once for each of its turns' skills)")
    lines += ["", "reasons: " + ", ".join(f"{reason} ({n})" for reason, n in plan.reasons().items())]
    if plan.failures():
        failed = ", ".join(f"{kind} ({n})" for kind, n in plan.failures().items())
        lines.append(f"could not be read, 0 frames: {failed}")
    return "\n".join(lines)
