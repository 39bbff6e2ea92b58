"""`workbench evaluate CHECKPOINT DATA.jsonl`: score a saved model on any dataset file, with intervals over
samples.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def register(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="score a checkpoint on a dataset file",
        description="Scores every question of DATA at a fixed number of frames a video (images: --copies).",
    )
    parser.add_argument(
        "checkpoint", help="a model folder (…/checkpoints/NAME/model, or NAME itself), or a hub name"
    )
    parser.add_argument("data", type=Path, help="LLaVA-style JSONL")
    parser.add_argument("--frames", type=int, default=16, help="frames a video (default 16)")
    parser.add_argument(
        "--copies", type=int, default=1, help="show every image as so many copies (the copies probe)"
    )
    parser.add_argument("--limit", type=int, help="at most so many questions, balanced over skills")
    parser.add_argument("--out", type=Path, help="write one row a question (Parquet)")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    from workbench.evaluation.evaluate import evaluate, subset
    from workbench.evaluation.statistics import skill_intervals
    from workbench.frames import make_plan, make_policy
    from workbench.models import load_model
    from workbench.recipe.schema import FramesSection
    from workbench.samples.reader import FrameReader
    from workbench.samples.source import load_source

    model, processor = load_model(args.checkpoint)
    samples = subset(load_source(args.data), args.limit)
    with FrameReader() as reader:
        plan = make_plan(make_policy(FramesSection(policy="fixed", frames=args.frames)), samples, reader)
        if args.copies > 1:
            plan = plan.with_copies(
                {s.id: args.copies for s in samples if s.media is not None and not s.is_video}
            )
        table = evaluate(
            model, processor, samples, plan, reader, suite=args.data.stem, step=0, condition="own"
        )
    lines = [f"{'skill':<16}{'n':>6}{'accuracy':>10}   95% interval (over samples of one model)"]
    for row in skill_intervals(table):
        lines.append(f"{row.skill:<16}{row.n:>6}{row.accuracy:>10.3f}   [{row.low:.3f}, {row.high:.3f}]")
    print("\n".join(lines))
    failed = int(table["error"].notna().sum())
    if failed:
        first = table["error"].dropna().iloc[0]
        print(f"{failed} of {len(table)} questions could not be shown (counted as wrong); first: {first}")
    if args.out is not None:
        table.to_parquet(args.out)
        print(f"{len(table)} rows in {args.out}")
    return 0
