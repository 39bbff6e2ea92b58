"""Attention rows and the temporal atlas against eager ``output_attentions``, in one run: time and peak memory.

Run: python benchmarks/attention.py [--lengths 512 2048 8192] [--width 96] [--repeats 5] [--threads 1]

A language model of 4 layers and 8 heads reads N tokens; float32, CPU. Width 96 is the laptop study's (heads of 24, MLP of
256); another one has heads of an eighth of it, half as many key/value heads and an MLP of three times it. The wider the
model, the smaller attention's share of the time, and so what any way of reading it can save or cost. Each
way runs in a process of its own, whose peak (VmHWM, counted from after loading and a short warm-up) is its working
memory:

    forward   the plain forward pass under SDPA: what costs nothing extra
    rows      the same with exact rows of the last 8 positions, all layers and heads (``attention_rows``)
    atlas     the same with the mass of every query on 64 segments
    eager     ``output_attentions=True``; the 8 rows are taken from its N x N matrices

``rows`` and ``forward`` alternate in one process, so that their ratio (the overhead) is not that of two moments. Eager
runs only where its N x N matrices fit into half of the free memory; its memory is computed otherwise, and said so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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


def measure(way: str, n: int, width: int, repeats: int, threads: int) -> dict[str, float]:
    """One way in this process: median seconds, MB above what was there before, and for rows the overhead."""
    import numpy as np
    import torch

    from workbench.probes.attention import attention_rows, inputs_of

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, processor, sample = build(n, width)
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

    if way == "eager":
        model.language_model.set_attn_implementation("eager")
    run = {"forward": forward, "rows": rows, "atlas": atlas, "eager": eager}[way]
    short = torch.zeros(1, 16, dtype=torch.long)
    with torch.inference_mode():
        model(short, use_cache=False)
    before = reset_peak()
    run()
    used = peak_mb() - before
    times: dict[str, list[float]] = {way: [], "forward": []}
    for _ in range(repeats):
        for name, call in {"forward": forward, way: run}.items() if way == "rows" else {way: run}.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    found = {"s": float(np.median(times[way])), "mb": used}
    if way == "rows":
        pairs = np.array(times["rows"]) / np.array(times["forward"])
        kept = attention_rows(model, processor, sample, None, queries)
        found |= {"overhead": float(np.median(pairs)) - 1, "kept_mb": kept.arrays["rows"].nbytes / 1e6}
        if n <= 2048:
            model.language_model.set_attn_implementation("eager")
            found["difference"] = float(np.abs(np.nan_to_num(kept.arrays["rows"]) - eager()).max())
    return found


def eager_bytes(n: int) -> int:
    """What eager attention holds at its peak: all layers' weights, and scores and their softmax of one layer."""
    return (LAYERS + 2) * HEADS * n * n * 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--width", type=int, default=STUDY)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args.lengths[0], args.width, args.repeats, args.threads)))
        return
    import psutil

    from workbench.probes.attention_size import kept_bytes

    print(
        f"{LAYERS} layers, {HEADS} heads, width {args.width}, {QUERIES} rows, {args.threads} thread(s), median of {args.repeats}\n"
    )
    print(f"{'N':>6} {'way':<8} {'seconds':>9} {'peak MB':>9}")
    for n in args.lengths:
        found: dict[str, dict[str, float]] = {}
        for way in WAYS:
            if way == "eager" and eager_bytes(n) > psutil.virtual_memory().available / 2:
                found[way] = {"mb": eager_bytes(n) / 1e6}
                print(
                    f"{n:>6} {way:<8} {'not run':>9} {found[way]['mb']:>9,.0f} (computed: {LAYERS} + 2 matrices H x N x N)"
                )
                continue
            command = [
                sys.executable,
                __file__,
                "--way",
                way,
                "--lengths",
                str(n),
                "--repeats",
                str(args.repeats),
            ]
            done = subprocess.run(
                [*command, "--threads", str(args.threads), "--width", str(args.width)],
                check=True,
                capture_output=True,
                text=True,
            )
            found[way] = json.loads(done.stdout.splitlines()[-1])
            print(f"{n:>6} {way:<8} {found[way]['s']:>9.3f} {found[way]['mb']:>9,.1f}", flush=True)
        rows, eager = found["rows"], found["eager"]
        speed = f"{eager['s'] / rows['s']:.1f}x faster, " if "s" in eager else ""
        memory = f"{eager['mb'] / rows['mb']:.1f}x less memory than eager"
        check = f"; rows differ by {rows['difference']:.1e}" if "difference" in rows else ""
        kept = f"{rows['kept_mb']:.2f} MB kept (formula {kept_bytes(LAYERS, HEADS, QUERIES, n) / 1e6:.2f})"
        print(f"       rows: {speed}{memory}; {rows['overhead']:+.1%} over the forward pass; {kept}{check}\n")
    print("kept at 16,384 positions, 36 layers, 32 heads:")
    for queries, heads, store in (
        (1, 32, "float32"),
        (5, 32, "uint8"),
        (8, 32, "uint8"),
        (8, 1, "float32"),
        (64, 1, "uint8"),
    ):
        size = kept_bytes(36, heads, queries, 16384, store) / 1e6
        print(
            f"  {queries:>2} queries, {'all heads' if heads > 1 else 'mean of heads'}, {store:<8} {size:>7.1f} MB"
        )


if __name__ == "__main__":
    main()
