"""Attention rows and the temporal atlas against eager ``output_attentions``, in one run: time and peak memory.

Run: python benchmarks/attention.py [--lengths 512 2048 8192] [--width 96] [--pairs 30] [--threads 1]

A language model of 4 layers and 8 heads reads N tokens; float32, CPU. Width 96 is the laptop study's (heads of 24, MLP of
256); another one has heads of an eighth of it, half as many key/value heads and an MLP of three times it. The wider the
model, the smaller attention's share of the time, and so what any way of reading it can save or cost. Each
way runs in a process of its own, whose peak (VmHWM, counted from after loading and a short warm-up) is its working
memory:

    forward   the plain forward pass under SDPA on ready inputs: what costs nothing extra
    rows      exact rows of the last 8 positions, all layers and heads: the whole of ``attention_rows``, from the sample to
              the finished capture with its metadata
    atlas     the forward pass with the mass of every query on 64 segments
    eager     ``output_attentions=True``; the 8 rows are taken from its N x N matrices

Seconds are processor time of one thread (wall time with more), medians. The overhead is the median of rows / forward over
``--pairs`` pairs that run one after the other in one process, the order turning; its interval is the distribution-free one
of a median (order statistics, at least 95%).

Eager runs freely where its N x N matrices fit into half of the free memory. Where they do not, it runs in an address space
of what the process has and ten times the peak of ``rows``: it must end for want of memory, and what it needs is computed by
the formula that the shorter lengths check.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from intervals import median_interval  # beside this script

LAYERS, HEADS, QUERIES, SEGMENTS, STUDY = 4, 8, 8, 64, 96
WAYS = ("forward", "rows", "atlas", "eager")


def build(n: int, width: int) -> tuple[Any, Any, Any]:
    """(model, processor, a text sample of n positions)."""
    from transformers import Qwen3Config

    from workbench.models.tempflex import TempFlexConfig, TempFlexForConditionalGeneration, TempFlexProcessor
    from workbench.models.tempflex.configuration import TempFlexVisionConfig
    from workbench.models.tempflex.tokenizer import build_word_tokenizer
    from workbench.samples.sample import Sample, Turn

    small = width == STUDY
    tokenizer = build_word_tokenizer(["red green blue yellow"])
    text = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=256 if small else 3 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS if small else HEADS // 2,
        head_dim=24 if small else width // HEADS,
        max_position_embeddings=32768,
    )
    vision = TempFlexVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, patch_size=8
    )
    visual = tokenizer.convert_tokens_to_ids("<visual>")
    config = TempFlexConfig(text_config=text, vision_config=vision, visual_token_id=visual)
    model = TempFlexForConditionalGeneration(config).eval()
    processor = TempFlexProcessor(config, tokenizer)
    words = ["red", "green", "blue", "yellow"]

    def sample(length: int) -> Sample:
        return Sample("s", (Turn(" ".join(words[i % 4] for i in range(length)), "red"),))

    extra = len(processor.prepare(sample(8), None).input_ids) - 8
    return model, processor, sample(n - extra)


def peak_mb() -> float:
    """Largest resident memory since the last ``reset_peak``, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


def reset_peak() -> float:
    """Begin to count the peak anew; returns where it stands."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()


def limit_address_space(mb: float) -> None:
    """From here on this process may reserve so many MB more."""
    status = Path("/proc/self/status").read_text()
    now = int(next(line for line in status.splitlines() if line.startswith("VmSize")).split()[1]) * 1024
    most = now + int(mb * 1e6)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One way in this process: median seconds, MB above what was there before, and for rows the overhead."""
    import torch

    from workbench.probes.attention import attention_rows, inputs_of

    way, n = args.way, args.lengths[0]
    clock = time.process_time if args.threads == 1 else time.perf_counter
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model, processor, sample = build(n, args.width)
    queries = list(range(n - QUERIES, n))
    prepared = processor.prepare(sample, None)
    assert len(prepared) == n
    inputs = inputs_of(prepared, model)

    def forward() -> None:
        with torch.inference_mode():
            model(**inputs, use_cache=False, return_logits=False)

    def rows() -> Any:
        return attention_rows(model, processor, sample, None, queries)

    def eager() -> np.ndarray:
        with torch.inference_mode():
            out = model(**inputs, use_cache=False, return_logits=False, output_attentions=True)
        return torch.stack([layer[0, :, -QUERIES:] for layer in out.attentions]).numpy()

    def atlas() -> Any:
        from workbench.probes.atlas import segment_mass
        from workbench.probes.attention_tap import AttentionTap

        onehot = torch.eye(SEGMENTS)[torch.arange(n) * SEGMENTS // n]
        found = []
        with (
            torch.inference_mode(),
            AttentionTap(model, lambda call: found.append(segment_mass(call, onehot)[1])),
        ):
            model(**inputs, use_cache=False, return_logits=False)
        return found

    def timed(call: Callable[[], Any]) -> float:
        start = clock()
        call()
        return clock() - start

    if way == "eager":
        model.language_model.set_attn_implementation("eager")
    run = {"forward": forward, "rows": rows, "atlas": atlas, "eager": eager}[way]
    short = torch.zeros(1, 16, dtype=torch.long)
    with torch.inference_mode():
        model(short, use_cache=False)
    if args.most_mb:
        limit_address_space(args.most_mb)
        try:
            run()
        except (RuntimeError, MemoryError) as error:
            return {"refused": str(error).splitlines()[0].split(": ")[-1]}
    before = reset_peak()
    run()
    found: dict[str, Any] = {"mb": peak_mb() - before}
    if way != "rows":
        return found | {"s": float(np.median([timed(run) for _ in range(args.repeats)]))}
    pairs = np.empty((args.pairs, 2))
    for i in range(args.pairs):
        for column in (0, 1) if i % 2 else (1, 0):
            pairs[i, column] = timed((forward, rows)[column])
    kept = attention_rows(model, processor, sample, None, queries)
    found |= {"s": float(np.median(pairs[:, 1])), "forward_s": float(np.median(pairs[:, 0]))}
    found |= {"overhead": median_interval(pairs[:, 1] / pairs[:, 0] - 1)}
    found |= {"kept_mb": kept.arrays["rows"].nbytes / 1e6}
    if n <= 2048:
        model.language_model.set_attn_implementation("eager")
        found["difference"] = float(np.abs(np.nan_to_num(kept.arrays["rows"]) - eager()).max())
    return found


def eager_bytes(n: int) -> int:
    """What eager attention holds at its peak: all layers' weights, and scores and their softmax of one layer."""
    return (LAYERS + 2) * HEADS * n * n * 4


def child(way: str, n: int, width: int, args: argparse.Namespace, most_mb: float = 0.0) -> dict[str, Any]:
    """``measure`` in a process of its own; long sequences are timed less often."""
    often = 1 if n <= 2048 else 5
    numbers = {
        "--lengths": n, "--width": width, "--threads": args.threads, "--most-mb": most_mb,
        "--repeats": max(1, args.repeats // often), "--pairs": max(6, args.pairs // often),
    }  # fmt: skip
    words = [str(word) for pair in numbers.items() for word in pair]
    done = subprocess.run(
        [sys.executable, __file__, "--way", way, *words], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def said(overhead: list[float]) -> str:
    middle, low, high = overhead
    return f"{middle:+.1%} [{low:+.1%}, {high:+.1%}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="*", default=[512, 2048, 8192])
    parser.add_argument("--width", type=int, default=STUDY)
    parser.add_argument(
        "--overheads", type=int, nargs="*", default=[256, 512], help="further widths at which the overhead at N=2048 is taken"
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--most-mb", type=float, default=0.0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args)))
        return
    print(f"{LAYERS} layers, {HEADS} heads, width {args.width}, {QUERIES} rows, {args.threads} thread(s)\n")
    print(f"{'N':>6} {'way':<8} {'seconds':>9} {'peak MB':>9}")
    for n in args.lengths:
        compare(n, args)
    if args.overheads:
        print(f"overhead of 8 rows over the plain forward pass at N=2048, {args.pairs // 2} pairs:")
    args.pairs //= 2
    for width in args.overheads:
        rows = child("rows", 2048, width, args)
        print(f"  width {width:>4}: {said(rows['overhead'])} of {rows['forward_s']:.3f} s", flush=True)
    kept_table()


def compare(n: int, args: argparse.Namespace) -> None:
    """All ways at one length, printed."""
    import psutil

    from workbench.probes.attention_size import kept_bytes

    found: dict[str, dict[str, Any]] = {}
    computed = eager_bytes(n) / 1e6
    for way in WAYS:
        fits = way != "eager" or computed * 1e6 < psutil.virtual_memory().available / 2
        most = 0.0 if fits else 10 * found["rows"]["mb"]
        found[way] = child(way, n, args.width, args, most)
        if "refused" in found[way]:
            print(f"{n:>6} {way:<8} {'-':>9} {computed:>9,.0f} (computed: {LAYERS} + 2 matrices H x N x N)")
            print(
                f"       with {most:,.0f} MB, ten times what rows needed, it ended: {found[way]['refused']}"
            )
        else:
            note = f" (formula {computed:,.0f})" if way == "eager" else ""
            print(f"{n:>6} {way:<8} {found[way]['s']:>9.3f} {found[way]['mb']:>9,.1f}{note}", flush=True)
    rows, eager = found["rows"], found["eager"]
    speed = f"{eager['s'] / rows['s']:.1f}x faster, " if "s" in eager else ""
    memory = f"{eager.get('mb', computed) / rows['mb']:.1f}x less memory than eager"
    check = f"; rows differ by {rows['difference']:.1e}" if "difference" in rows else ""
    kept = f"{rows['kept_mb']:.2f} MB kept (formula {kept_bytes(LAYERS, HEADS, QUERIES, n) / 1e6:.2f})"
    print(
        f"       rows: {speed}{memory}; {said(rows['overhead'])} over the forward pass; {kept}{check}\n",
        flush=True,
    )


def kept_table() -> None:
    """What captures of long conversations take."""
    from workbench.probes.attention_size import kept_bytes

    print("kept at 16,384 positions, 36 layers, 32 heads:")
    for queries, heads, store in (
        (1, 32, "float32"),
        (8, 32, "float32"),
        (8, 32, "uint8"),
        (8, 32, "topk"),
        (8, 1, "float32"),
    ):
        size = kept_bytes(36, heads, queries, 16384, store) / 1e6
        which = "all heads" if heads > 1 else "mean of heads"
        print(f"  {queries:>2} queries, {which}, {store:<8} {size:>7.1f} MB")


if __name__ == "__main__":
    main()
