"""`workbench probe gradients RUN`: do video gradients fight the image skill, in which modules, at which frame counts?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workbench.cli.probe import common_arguments


def register(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "gradients",
        help="image against video gradients: shared and temporal parts, conflict by module, frame and patch",
        description="Draws pairs of image and video batches from the run's own training data, with equal answer "
        "lengths, and writes cosines, shares, interference and conflict rates with intervals over the pairs.",
    )
    common_arguments(parser, samples=False)
    parser.add_argument("--frames", type=_counts, default=(2, 4, 8, 16), help="counts (default 2,4,8,16)")
    parser.add_argument("--pairs", type=int, default=8, help="batch pairs (default 8)")
    parser.add_argument("--batch", type=int, default=16, help="conversations a batch (default 16)")
    parser.add_argument("--groups", type=_names, help="module groups, e.g. merger,llm.0 (default: all)")
    parser.add_argument("--images", metavar="SOURCE", help="of the recipe (default: its first trained on)")
    parser.add_argument("--videos", metavar="SOURCE", help="of the recipe (default: its last trained on)")
    parser.add_argument("--image-data", type=Path, metavar="FILE", help="JSONL instead of a source")
    parser.add_argument("--video-data", type=Path, metavar="FILE", help="JSONL instead of a source")
    parser.add_argument("--subspace", type=int, default=4, help="held-out image batches; 0: none (default 4)")
    parser.add_argument("--copies", type=int, default=1, help="gradients kept at a time (default 1)")
    parser.add_argument("--no-map", action="store_true", help="without the per-frame conflict map")
    parser.add_argument("--no-step", action="store_true", help="without the one-step check")
    parser.add_argument("--no-adam", action="store_true", help="without the Adam metric")
    parser.add_argument("--seed", type=int, default=0, help="of batches, shuffles and resamples (default 0)")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    from workbench.probes.gradients import gradient_probe, words
    from workbench.probes.gradients.parameters import refuse_shards
    from workbench.probes.gradients.sources import RunSources, find
    from workbench.probes.target import open_target
    from workbench.samples.reader import FrameReader

    refuse_shards(args.run)
    sources = RunSources.of(args.run) if (args.run / "run.json").is_file() else None
    images = find(sources, args.images, args.image_data, video=False)
    videos = find(sources, args.videos, args.video_data, video=True)
    target = open_target(
        args.run,
        checkpoint=args.checkpoint,
        data=args.image_data or args.video_data or images[0],
        limit=0,
        out=args.out,
        name=args.name,
        precision=args.precision,
        threads=args.threads,
    )
    adam = None
    if sources is not None and not args.no_adam:
        adam = sources.adam(target.checkpoint.name)
        if adam is None:
            print(f"{target.checkpoint.name} has no optimizer state: without the Adam metric")
    with target, FrameReader(cache=None if sources is None else sources.frame_cache()) as reader:
        capture = gradient_probe(
            target.model,
            target.processor,
            images[1],
            videos[1],
            frames=args.frames,
            pairs=args.pairs,
            batch=args.batch,
            groups=args.groups,
            subspace=args.subspace,
            adam=adam,
            check_steps=not args.no_step,
            map_conflicts=not args.no_map,
            copies=args.copies,
            reader=reader,
            seed=args.seed,
            checkpoint=target.checkpoint,
            recipe_hash=target.recipe_hash,
            progress=_show if sys.stderr.isatty() else None,
        )
    path = capture.save(target.path("gradients"))
    print("\n".join(words(capture)))
    print(f"{capture.meta['cost']['passes']} passes in {capture.meta['cost']['seconds']:.0f} s: {path}")
    return 0


def _show(phase: str, done: int, total: int) -> None:
    print(f"\r{phase}: {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))
