"""`workbench data make`: render a world; `workbench data check`: look at every row of a dataset file."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

COUNTS = {  # flag -> (argument of make_glyphworld, default, what it counts)
    "--train-images": ("train_images", 12000, "training images, four or five questions and a caption each"),
    "--train-video-questions": (
        "train_video_questions",
        8000,
        "training questions on clips, about four a clip",
    ),
    "--calibration-questions": (
        "calibration_questions",
        400,
        "questions on clips kept aside to measure labels",
    ),
    "--test-images": ("test_images", 500, "test questions on images, one an image"),
    "--test-video-questions": ("test_video_questions", 550, "test questions on clips"),
}
SHOWN = 20  # errors printed by `check`


def register(subparsers: argparse._SubParsersAction) -> None:
    data = subparsers.add_parser("data", help="make a dataset with known answers, or check one")
    verbs = data.add_subparsers(dest="verb", required=True, metavar="VERB")

    make = verbs.add_parser(
        "make",
        help="render a world of images and clips",
        description="The same arguments give the same bytes. A folder that holds this world is left alone.",
    )
    make.add_argument("world", choices=["glyphworld"], help="handwritten digits on a small canvas")
    make.add_argument("--out", type=Path, required=True, help="the folder to make")
    make.add_argument("--seed", type=int, default=0, metavar="N")
    make.add_argument("--size", choices=["small", "large"], default="small", help="32x32 or 64x64 pixels")
    for flag, (name, default, text) in COUNTS.items():
        make.add_argument(
            flag, dest=name, type=int, default=default, metavar="N", help=f"{text} (default {default})"
        )
    make.add_argument("--no-progress", action="store_true", help="no progress bar")
    make.set_defaults(func=run_make)

    check = verbs.add_parser(
        "check",
        help="check every row of a LLaVA-style JSONL file",
        description=f"Names the first {SHOWN} bad rows by file and line; exit code 2 if there are any.",
    )
    check.add_argument("file", type=Path)
    check.set_defaults(func=run_check)


def run_make(args: argparse.Namespace) -> int:
    from workbench.samples.glyphworld import make_glyphworld

    counts = {name: getattr(args, name) for name, _, _ in COUNTS.values()}
    world = make_glyphworld(args.out, args.seed, args.size, **counts, progress=not args.no_progress)
    if not world.created:
        print(f"{world.path} already holds this world (seed {args.seed}, {args.size}); nothing to do")
        return 0
    rows = ", ".join(f"{count} rows in {name}" for name, count in world.manifest["files"].items())
    print(f"{world.path}: {rows}")
    return 0


def run_check(args: argparse.Namespace) -> int:
    from workbench.errors import DataError
    from workbench.samples.source import declared_skills, scan_source

    skills: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    media = set()
    bad = 0
    for result in scan_source(args.file, declared_skills(args.file)):
        if isinstance(result, DataError):
            bad += 1
            if bad <= SHOWN:
                print(result, file=sys.stderr)
            continue
        kinds["text" if result.media is None else "video" if result.is_video else "image"] += 1
        media.add(result.media)
        skills.update(turn.skill for turn in result.turns)
    if bad > SHOWN:
        print(f"... and {bad - SHOWN} more", file=sys.stderr)
    media.discard(None)
    good = sum(kinds.values())
    if not good and not bad:
        raise DataError("check this file", "it has no rows", "Check the path", where=str(args.file))
    print(f"{args.file}: {good} good rows, {bad} bad; {len(media)} media files")
    print("  rows: " + (", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "none"))
    print(
        "  questions: " + (", ".join(f"{count} {skill}" for skill, count in sorted(skills.items())) or "none")
    )
    return DataError.exit_code if bad else 0
