"""`workbench probe attention|atlas|scatter RUN`: where chosen tokens look, exactly; numbers on how scattered it is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from workbench.cli.probe import common_arguments, pictures_argument


def register(verbs: argparse._SubParsersAction) -> None:
    rows = verbs.add_parser(
        "attention",
        help="what the answer, the question or all text look at",
        description="Exact attention rows, checked in every layer against the layer's own output.",
    )
    common_arguments(rows)
    pictures_argument(rows)
    rows.add_argument(
        "--where", choices=("llm", "encoder", "generation"), default="llm", help="which part looks"
    )
    rows.add_argument(
        "--queries",
        help="answer (default), predict, question, text, all, or positions (--queries=-1,3); encoder: mean or patches",
    )
    _layers_heads(rows)
    rows.add_argument(
        "--store",
        choices=("auto", "float32", "float16", "uint8", "topk"),
        default="auto",
        help="how rows are kept: float32 exactly; topk half a byte a key, the largest exactly (auto: float32 up to 100 MB)",
    )
    rows.add_argument(
        "--norms", action="store_true", help="also |v W_O| of every key, for norm-weighted maps"
    )
    rows.add_argument(
        "--tokens", type=int, default=16, help="with --where generation: at most so many (default 16)"
    )
    rows.set_defaults(func=run_rows)

    atlas = verbs.add_parser(
        "atlas", help="attention mass on every frame, question and answer, of every query"
    )
    common_arguments(atlas)
    pictures_argument(atlas)
    atlas.add_argument("--queries", default="all", help="whose masses are kept one by one (default all)")
    _layers_heads(atlas)
    atlas.set_defaults(func=run_atlas)

    scatter = verbs.add_parser(
        "scatter",
        help="how scattered attention is over a set of samples; before and after another checkpoint",
        description="Entropy, Gini, mass in the object's box, top 1%%, border, spread: means over layers, heads and "
        "queries for each sample, then over samples with intervals.",
    )
    common_arguments(scatter)
    scatter.add_argument(
        "--limit", type=int, default=64, help="samples, from the file's beginning (default 64)"
    )
    scatter.add_argument(
        "--against", type=Path, metavar="RUN", help="compare: this run's checkpoint comes before"
    )
    scatter.add_argument("--against-checkpoint", metavar="NAME", help="of that run (default: the newest)")
    scatter.add_argument("--queries", default="answer", help="whose rows (default: answer)")
    scatter.add_argument(
        "--boxes", choices=("asked", "all", "none"), default="asked", help="objects for the box mass"
    )
    _layers_heads(scatter)
    scatter.set_defaults(func=run_scatter)


def _layers_heads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layers", type=_numbers, help="as 0,5 or --layers=-1 (default: all)")
    parser.add_argument("--heads", type=_heads, help="as 0,3, or mean (default: all)")


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 0,5,-1") from None


def _heads(text: str) -> list[int] | str:
    return text if text == "mean" else _numbers(text)


def _queries(text: str | None) -> Any:
    return _numbers(text) if text and (text[0].isdigit() or text[0] == "-") else text


def _target(args: argparse.Namespace, **changes: Any) -> Any:
    from workbench.probes.target import open_target

    return open_target(
        **{k: v for k, v in vars(args).items() if k not in ("func", "verb", "command")} | changes
    )


def _look(args: argparse.Namespace, target: Any, **more: Any) -> Any:
    from workbench.probes.attention import Look

    return Look(
        args.layers,
        args.heads,
        turn=args.turn,
        checkpoint=target.checkpoint,
        recipe_hash=target.recipe_hash,
        pictures=args.pictures,
        **more,
    )


def run_rows(args: argparse.Namespace) -> int:
    from workbench.probes.attention import attention_rows
    from workbench.probes.attention_packed import generation_rows

    with _target(args) as target:
        for sample, clip in target.looks():
            look = _look(args, target, store=args.store, norms=args.norms)
            if args.where == "generation":
                path = target.path("generation", sample)
                capture = generation_rows(
                    target.model, target.processor, sample, clip, args.tokens, look=look, path=path
                )
                print(f"{sample.id}: {capture.meta['text']!r}")
            else:
                path = target.path("attention" if args.where == "llm" else "encoder", sample)
                capture = attention_rows(
                    target.model, target.processor, sample, clip, _queries(args.queries), args.layers, args.heads,
                    args.where, store=args.store, norms=args.norms, turn=args.turn, path=path, pictures=args.pictures,
                    checkpoint=target.checkpoint, recipe_hash=target.recipe_hash,
                )  # fmt: skip
            _said(capture, path)
    return 0


def run_atlas(args: argparse.Namespace) -> int:
    import numpy as np

    from workbench.probes.atlas import temporal_atlas

    with _target(args) as target:
        for sample, clip in target.looks():
            path = target.path("atlas", sample)
            look = _look(args, target)
            capture = temporal_atlas(
                target.model, target.processor, sample, clip, _queries(args.queries), look, path=path
            )
            names = [_segment(label) for label in capture.meta["segments"]]
            with np.errstate(invalid="ignore"):
                last = np.nanmean(capture.arrays["mass"][:, :, -1], axis=(0, 1))
            print(f"{sample.id}: last query kept, mean over layers and heads")
            for name, value in zip(names, last, strict=True):
                print(f"  {name:<16} {value:>7.1%}" if value == value else f"  {name:<16} not visible")
            _said(capture, path)
    return 0


def _segment(label: dict[str, Any]) -> str:
    if label["kind"] != "frames":
        return str(label["kind"])
    start, stop = label["span"]
    return f"frame {start}" if stop == start + 1 else f"frames {start}-{stop - 1}"


def run_scatter(args: argparse.Namespace) -> int:
    from workbench.probes.attention_pairs import scatter_capture, scatter_over

    asked = {
        "queries": _queries(args.queries),
        "layers": args.layers,
        "heads": args.heads,
        "boxes": args.boxes,
    }
    with _target(args, limit=args.limit) as target:
        now = scatter_over(target, **asked)
    before, earlier = None, None
    if args.against is not None:
        with _target(args, run=args.against, checkpoint=args.against_checkpoint, limit=args.limit) as other:
            before, earlier = scatter_over(other, **asked), other.checkpoint
    capture, table = scatter_capture(target, now, before, earlier, **asked)
    path = capture.save(target.path("scatter"))
    if table is None:
        print(f"{len(now)} samples, {target.checkpoint.name}")
        for name in capture.meta["numbers"]:
            print(f"  {name:<14}{now[name].mean():>9.4f}")
    else:
        print(f"{'number':<14}{'before':>9}{'after':>9}{'change':>9}   95% interval")
        for name, row in zip(table["number"], capture.arrays["change"].tolist(), strict=True):
            then, now_, change, low, high, _, corrected = row
            mark = " *" if corrected < 0.05 else ""
            print(f"{name:<14}{then:>9.4f}{now_:>9.4f}{change:>+9.4f}   [{low:+.4f}, {high:+.4f}]{mark}")
        print(f"* shown at 5% for all {len(table)} numbers together (Holm); {table['method'].iloc[0]}")
    if "box_share" in now:
        print(f"chance for box_mass (the boxes' share of the area): {now['box_share'].mean():.4f}")
    for reason in now.attrs.get("left_out", [])[:3]:
        print(f"left out: {reason}")
    print(path)
    return 0


def _said(capture: Any, path: Path) -> None:
    worst = float(capture.arrays["self_check"].max())
    print(f"{path}  {capture.nbytes / 1e6:,.2f} MB, self-check max |A V - O| = {worst:.2g}")
