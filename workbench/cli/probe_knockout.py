"""`workbench probe knockout RUN`: what changes in the answer when text may not look at a frame."""

from __future__ import annotations

import argparse
from typing import Any

from workbench.cli.probe import common_arguments, pictures_argument


def register(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "knockout",
        help="change of the answer's log-probability when text may not look at a frame",
        description="Text behind the video is replayed on kept keys and values; some cells are checked by whole forward "
        "passes with a mask.",
    )
    common_arguments(parser)
    pictures_argument(parser)
    parser.add_argument(
        "--windows",
        help="of layers: single, all, a width, first-last, joined by commas (default: runs of a quarter, and all)",
    )
    parser.add_argument(
        "--grid", type=grid, metavar="RxC", help="parts of each frame, as 2x3 (default: whole)"
    )
    parser.add_argument(
        "--edges",
        choices=("text", "all"),
        default="text",
        help="who may not look: text (default), or all that follows, with --recompute",
    )
    parser.add_argument("--recompute", action="store_true", help="a whole forward pass for each cell (slow)")
    parser.add_argument(
        "--checks", type=int, default=4, help="cells checked by whole forward passes (default 4)"
    )
    parser.set_defaults(func=run)


def grid(text: str) -> tuple[int, int]:
    """``2x3`` -> (2, 3)."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not rows x columns such as 2x3")
    return int(parts[0]), int(parts[1])


def label(block: dict[str, Any]) -> str:
    """Words for a block of a knockout or attribution capture."""
    start, stop = block["span"]
    frames = f"frame {start}" if stop == start + 1 else f"frames {start}-{stop - 1}"
    return frames if "row" not in block else f"{frames} ({block['row']},{block['col']})"


def run(args: argparse.Namespace) -> int:
    from workbench.probes.knockout import knockout_map
    from workbench.probes.target import open_target

    own = ("func", "verb", "command", "windows", "grid", "edges", "recompute", "checks")
    with open_target(**{k: v for k, v in vars(args).items() if k not in own}) as target:
        for sample, clip in target.looks():
            path = target.path("knockout", sample)
            capture = knockout_map(
                target.model, target.processor, sample, clip, args.windows, args.grid, args.edges,
                recompute=args.recompute, checks=args.checks, turn=args.turn, seed=args.seed, path=path,
                pictures=args.pictures,
                checkpoint=target.checkpoint, recipe_hash=target.recipe_hash,
            )  # fmt: skip
            _show(capture, sample.id)
            print(path)
    return 0


def _show(capture: Any, sample: str) -> None:
    meta, deltas = capture.meta, capture.arrays["deltas"]
    widest = max(range(len(deltas)), key=lambda w: int(capture.arrays["windows"][w] @ (-1, 1)))
    first, stop = capture.arrays["windows"][widest].tolist()
    print(f"{sample}: log p(answer) = {meta['baseline_logprob']:.4f} over {meta['answer_tokens']} tokens")
    print(f"  {meta['edges']}, {deltas.shape[0]} windows x {deltas.shape[1]} blocks, {meta['method']}, "
          f"{meta['seconds']:.2f} s")  # fmt: skip
    print(f"  change when hidden in the layers {first} to {stop - 1}:")
    for block, value in zip(meta["blocks"], deltas[widest].tolist(), strict=True):
        print(
            f"    {label(block):<18} {value:+9.4f}"
            if value == value
            else f"    {label(block):<18} not visible"
        )
    if meta["max_error"] is not None:
        checked = len(capture.arrays["spot_error"])
        print(f"  {checked} cells by whole forward passes: largest difference {meta['max_error']:.2g}")
