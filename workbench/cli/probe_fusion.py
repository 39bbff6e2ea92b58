"""`workbench probe fusion RUN`: what Temporal Fiber Fusion does to frames, patches and still images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from workbench.cli.probe import common_arguments, pictures_argument


def register(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "fusion",
        help="what each branch of the temporal fusion does to each frame and patch",
        description="Branches, memory, frequencies and the effect on still images; docs/tff.md, 'The lens'. Videos and "
        "images are the first of the recipe's suites (of FILE with --data, of one suite with --suite).",
    )
    common_arguments(parser)
    pictures_argument(parser)
    parser.add_argument(
        "--sweep",
        type=_counts,
        metavar="N,N,...",
        help="frame counts every video is shown at (default: 2,4,8,16 and --frames)",
    )
    parser.add_argument("--videos", type=int, default=16, metavar="N", help="videos (default 16)")
    parser.add_argument("--images", type=int, default=64, metavar="N", help="still images (default 64)")
    parser.add_argument("--kernels", action="store_true", help="keep the local kernels whole")
    parser.add_argument("--parts", action="store_true", help="keep the parts of every output as vectors")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="a fusion capture of another checkpoint: also print the change from it, paired",
    )
    parser.set_defaults(func=run)


def _counts(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 2,4,8") from None


def run(args: argparse.Namespace) -> int:
    from workbench.captures import Capture
    from workbench.probes.fusion.probe import fusion_probe
    from workbench.probes.fusion.sentences import comparison_words, words
    from workbench.probes.fusion.stack import fusion_of
    from workbench.probes.target import open_target

    options = {k: v for k, v in vars(args).items() if k not in ("func", "verb", "command")}
    with open_target(**options | {"limit": None}) as target:
        fusion_of(target.model)  # before anything is read
        path = target.path("fusion")
        capture = fusion_probe(
            target.model,
            target.processor,
            _samples(args, target),
            frames=sorted({*(args.sweep or (2, 4, 8, 16)), *([args.frames] if args.frames else [])}),
            kernels=args.kernels,
            parts=args.parts,
            seed=args.seed,
            path=path,
            checkpoint=target.checkpoint,
            recipe_hash=target.recipe_hash,
            pictures=args.pictures,
        )
    for sentence in words(capture, args.frames):
        print(sentence)
    for reason in capture.meta["left_out"][:3]:
        print(f"left out: {reason}")
    if args.against is not None:
        print(f"\nCompared with {args.against.name}:")
        for sentence in comparison_words(Capture.load(args.against), capture):
            print(sentence)
    worst = max(float(capture.arrays[f"check_{n}"].max()) for n in capture.meta["frame_counts"])
    print(f"{path}  {capture.nbytes / 1e6:,.2f} MB, self-check max |x + parts - z| / max |z| = {worst:.2g}")
    return 0


def _samples(args: argparse.Namespace, target: Any) -> list[Any]:
    """The first videos and images: those named, of the file or suite named, or of all suites of the recipe."""
    from workbench.recipe import load_recipe
    from workbench.samples.source import load_source

    found = list(target.samples)
    if not args.sample and args.data is None and args.suite is None and target.run is not None:
        recipe, found = load_recipe(target.run / "recipe.yaml"), []
        for name in recipe.evaluation.suites.values():
            source = recipe.data.sources[name]
            found += load_source(Path(recipe.data.root) / source.path, skills=source.skills)
    if args.sample:
        return found
    distinct: dict[Any, Any] = {}  # several samples may ask about one clip
    for sample in found:
        if sample.media is not None:
            distinct.setdefault(sample.media, sample)
    videos = [s for s in distinct.values() if s.is_video]
    images = [s for s in distinct.values() if not s.is_video]
    return videos[: args.videos] + images[: args.images]
