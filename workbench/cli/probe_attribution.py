"""`workbench probe attribution RUN`: which frames made the answer, by several methods, and whether they agree."""

from __future__ import annotations

import argparse
from typing import Any

from workbench.cli.probe import common_arguments, pictures_argument
from workbench.cli.probe_knockout import grid, label

RANKINGS = ("attention", "knockout", "ablation", "ig")


def register(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "attribution",
        help="effect of each frame on the answer beside its attention; rank correlation over samples",
        description="Integrated gradients and ablation (captum), knockout and attention mass of every frame, deletion and "
        "insertion curves. With --limit above 1: agreement of the rankings over samples, with intervals.",
    )
    common_arguments(parser)
    pictures_argument(parser)
    parser.add_argument(
        "--limit", type=int, default=1, help="samples, from the file's beginning (default 1: one map)"
    )
    parser.add_argument(
        "--rankings", type=_rankings, default=RANKINGS, help=f"of {','.join(RANKINGS)} (default: all)"
    )
    parser.add_argument(
        "--grid", type=grid, metavar="RxC", help="parts of each frame, as 2x3 (default: whole)"
    )
    parser.add_argument(
        "--baseline", choices=("mean", "zero"), default="mean", help="what replaces a position"
    )
    parser.add_argument("--steps", type=int, default=32, help="of integrated gradients (default 32)")
    parser.add_argument("--batch", type=int, default=8, help="passes that run together (default 8)")
    parser.add_argument("--curves", action="store_true", help="also deletion and insertion curves")
    parser.set_defaults(func=run)


def _rankings(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    wrong = [word for word in words if word not in RANKINGS]
    if wrong:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is not one of {', '.join(RANKINGS)}")
    return words


def run(args: argparse.Namespace) -> int:
    from workbench.probes.attribution import attribution_map
    from workbench.probes.attribution_agreement import agreement_over
    from workbench.probes.target import open_target

    asked = {
        "grid": args.grid,
        "baseline": args.baseline,
        "steps": args.steps,
        "batch": args.batch,
        "with_curves": args.curves,
    }
    own = ("func", "verb", "command", "rankings", "curves", *asked)
    with open_target(**{k: v for k, v in vars(args).items() if k not in own}) as target:
        if len(target.samples) > 1:
            capture = agreement_over(target, args.rankings, **asked)
            path = capture.save(target.path("attribution-agreement"))
            _show_agreement(capture)
            print(path)
            return 0
        for sample, clip in target.looks():
            path = target.path("attribution", sample)
            capture = attribution_map(
                target.model, target.processor, sample, clip, args.rankings, turn=args.turn, seed=args.seed,
                pictures=args.pictures, path=path, checkpoint=target.checkpoint, recipe_hash=target.recipe_hash, **asked,
            )  # fmt: skip
            _show_map(capture, sample.id)
            print(path)
    return 0


def _show_map(capture: Any, sample: str) -> None:
    meta, names = capture.meta, capture.meta["rankings"]
    print(f"{sample}: effect on log p(answer), and attention mass")
    print(" " * 18 + "".join(f"{name:>11}" for name in names))
    for k, block in enumerate(meta["blocks"]):
        values = capture.arrays["scores"][:, k].tolist()
        cells = (f"{v:>11.4f}" if v == v else f"{'not visible':>11}" for v in values)
        print(f"  {label(block):<16}{''.join(cells)}")
    if "completeness" in meta:
        found = meta["completeness"]
        share = "" if found["relative"] is None else f" ({found['relative']:.1%})"
        print(
            f"completeness error of integrated gradients: {found['error']:+.3g} of {found['difference']:+.3g}{share}, "
            f"{found['steps']} steps, baseline {meta['baseline']}"
        )
        if found["relative"] is None or found["relative"] > 0.05:
            print("  above 5%: give more --steps before reading single positions")
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            rho = capture.arrays["spearman"][i, j]
            said = f"{rho:+.2f}" if rho == rho else "undefined (fewer than three blocks, or all equal)"
            print(f"rank correlation {names[i]} ~ {names[j]}: {said}")
    if meta["curve_names"]:
        print(
            f"{'area under log p':<18}{'deletion':>10}{'insertion':>11}   (small deletion, large insertion: good)"
        )
        for name, row in zip(meta["curve_names"], capture.arrays["auc"][..., 1].tolist(), strict=True):
            print(f"  {name:<16}{row[0]:>10.4f}{row[1]:>11.4f}")


def _show_agreement(capture: Any) -> None:
    meta = capture.meta
    print(f"{len(meta['samples'])} samples, {meta['method']}")
    for pair, row in zip(meta["pairs"], capture.arrays["agreement"].tolist(), strict=True):
        print(f"  {pair[0] + ' ~ ' + pair[1]:<24}{_interval(row)}")
    if meta["curve_names"]:
        print("better than random rankings, in log p (deletion; insertion)")
        for name, rows in zip(meta["rankings"], capture.arrays["auc_gain"].tolist(), strict=True):
            print(f"  {name:<16}" + "; ".join(_interval(row) for row in rows))
    if "completeness" in capture.arrays:
        found = sorted(v for v in capture.arrays["completeness"].tolist() if v == v)
        if found:
            print(f"completeness error: median {found[len(found) // 2]:.1%}, largest {found[-1]:.1%}")
    for reason in meta["left_out"][:3]:
        print(f"left out: {reason}")


def _interval(row: list[float]) -> str:
    mean, low, high, n = row
    if not n:
        return "undefined in every sample"
    return (
        f"{mean:+.3f} [{low:+.3f}, {high:+.3f}] over {n:.0f}" if low == low else f"{mean:+.3f} (one sample)"
    )
