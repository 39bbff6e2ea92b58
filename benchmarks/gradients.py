"""Streamed gradient products against flattened copies, in one run: `python benchmarks/gradients.py`

Three ways to the same numbers (<g_I, g_V>, |g_I|^2, |g_V|^2 by parameter) from one image and one video batch:

* *bare*: the two backward passes alone, each gradient freed as it arrives: what cannot be saved;
* *streamed*: ours, g_I kept (float32), g_V streamed past it;
* *flattened*: the usual way, both gradients as whole vectors, then dot products by parameter.

Time is processor time of one thread (wall time on a GPU), the ways taking turns in changing order: medians, and the
median of each round's ratio to *bare* with the distribution-free 95% interval of a median. As in the probe itself,
*streamed* keeps each round's copy in the memory of the last one; the first round warms up and does not count. Peak memory is
the growth of the process's resident set over the loaded model, each way in a process of its own (allocated memory on a GPU).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from intervals import median_interval  # beside this script
from transformers import Qwen3Config

from workbench.models.tempflex import TempFlexForConditionalGeneration, new_tempflex
from workbench.models.tempflex.presets import preset_config
from workbench.probes.gradients.parameters import ParameterGroups, parameter_groups
from workbench.probes.gradients.stream import GradientStream, receiving
from workbench.samples.sample import Clip, ImageRef, Sample, Turn, VideoRef
from workbench.training.packing import materialise

WAYS = ("bare", "streamed", "flattened")
MIB = 2**20


def build(width: int, layers: int, conversations: int, frames: int, device: str):
    """Model of about ``layers * 11 width^2`` parameters, and the losses of an image and a video batch."""
    question = Turn("what colour comes first ?", "red")
    _, processor = new_tempflex("tiny", 0, vocab_texts=[question.question, question.answer], fusion_layers=1)
    text = Qwen3Config(
        vocab_size=len(processor.tokenizer), hidden_size=width, intermediate_size=3 * width,
        num_hidden_layers=layers, num_attention_heads=width // 64, num_key_value_heads=width // 128, head_dim=64,
    )  # fmt: skip
    torch.manual_seed(0)
    config = preset_config("tiny", len(processor.tokenizer), fusion_layers=1, text_config=text)
    model = TempFlexForConditionalGeneration(config).to(device).eval()
    rng = np.random.default_rng(0)

    def loss(count: int) -> Callable[[], torch.Tensor]:
        ref = ImageRef(Path("a")) if count == 1 else VideoRef(Path("a"))
        clips = [
            Clip(
                rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), tuple(range(count)), (0.0,) * count
            )
            for _ in range(conversations)
        ]
        prepared = [processor.prepare(Sample("s", (question,), ref), clip) for clip in clips]
        inputs = materialise(prepared, [[i] for i in range(conversations)]).model_inputs(device)
        return lambda: model(**inputs).loss

    return model, parameter_groups(model), loss(1), loss(frames)


def run(way: str, model, probed: ParameterGroups, image, video, stream: GradientStream) -> np.ndarray:
    """``[3, P]``: <g_I, g_V>, |g_I|^2, |g_V|^2; zeros for "bare"."""
    if way == "bare":
        for loss in (image, video):
            with receiving(probed.parameters, lambda index, gradient: None):
                loss().backward()
        return np.zeros((3, len(probed.names)))
    if way == "streamed":
        first, kept = stream.run(image, keep=True)
        second, _ = stream.run(video, {"image": kept})
        stream.reuse(kept)
        return np.stack([second.dots[("image", "plain")], first.squares["plain"], second.squares["plain"]])
    vectors = []
    for loss in (image, video):
        loss().backward()
        found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in probed.parameters]
        vectors.append(torch.cat([g.reshape(-1).float() for g in found]))
        model.zero_grad(set_to_none=True)
    sizes = [p.numel() for p in probed.parameters]
    parts = [vector.split(sizes) for vector in vectors]
    pairs = ((parts[0], parts[1]), (parts[0], parts[0]), (parts[1], parts[1]))
    return np.array([[float(torch.dot(a, b)) for a, b in zip(x, y, strict=True)] for x, y in pairs])


def resident_peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def peak(way: str, args: argparse.Namespace) -> dict[str, int]:
    """Growth of memory over the loaded model, in this process."""
    model, probed, image, video = build(args.width, args.layers, args.batch, args.frames, args.device)
    with torch.no_grad():
        image(), video()  # workspaces and code are loaded now, not measured
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(way, model, probed, image, video, GradientStream(model, probed))
        grown = torch.cuda.max_memory_allocated() - before
    else:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = resident_peak()
        run(way, model, probed, image, video, GradientStream(model, probed))
        grown = resident_peak() - before
    return {"grown": grown, "copy": probed.copy_bytes}


def seconds(args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Seconds of every round, by way."""
    model, probed, image, video = build(args.width, args.layers, args.batch, args.frames, args.device)
    stream = GradientStream(model, probed)
    clock = time.perf_counter if args.device == "cuda" else time.process_time
    wait = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    found = {}
    for turn in range(args.repeats + 1):
        for place in range(len(WAYS)):
            way = WAYS[(place + turn) % len(WAYS)]
            wait()
            began = clock()
            found[way] = run(way, model, probed, image, video, stream)
            wait()
            if turn:  # the first round warms up
                taken[way].append(clock() - began)
    scale = np.abs(found["flattened"]).max(1, keepdims=True)
    difference = np.nanmax(np.abs(found["streamed"] - found["flattened"]) / scale)
    print(f"streamed and flattened agree to {difference:.1e} of the largest")
    return {way: np.array(values) for way, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--peak-of", choices=WAYS, help=argparse.SUPPRESS)  # a child of this script
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peak_of:
        print(json.dumps(peak(args.peak_of, args)))
        return
    peaks = {}
    for way in WAYS:
        # freed memory goes back at once, so that the resident set is what is held and not what was
        returning = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
        command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", way]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, **returning}
        )
        peaks[way] = json.loads(done.stdout.splitlines()[-1])
    copy = peaks["bare"]["copy"]
    print(f"{copy // 4 / 1e6:.1f}M parameters, one gradient copy {copy / MIB:.0f} MiB")
    times = seconds(args)
    print(f"{'way':<12}{'peak over model':>18}{'copies beside activations':>28}{'time':>10}  of bare [95%]")
    for way in WAYS:
        grown = peaks[way]["grown"]
        copies = (grown - peaks["bare"]["grown"]) / copy
        middle, low, high = median_interval(times[way] / times["bare"])
        print(
            f"{way:<12}{grown / MIB:>14.0f} MiB{copies:>28.2f}{np.median(times[way]):>9.2f}s"
            f"  {middle:.3f} [{low:.3f}, {high:.3f}]"
        )


if __name__ == "__main__":
    main()
