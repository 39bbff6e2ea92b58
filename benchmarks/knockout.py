"""Knockouts by suffix replay against one full forward pass each, in one run.

Run: python benchmarks/knockout.py [--frames 16] [--suffix 32] [--repeats 3] [--threads 1] [--layers 4]

A language model of 4 layers and 8 heads (Qwen3, width 512, 4 key/value heads of 64) reads 128 visual tokens a frame and a
text suffix; float32, CPU. The map hides every frame in every layer and in all layers. Full forward passes of three kinds:

    whole     frames through the encoder, and the language model with a mask (what the map is checked against)
    masked    the language model alone, from kept embeddings, with a mask
    plain     the same without a mask: the fastest full forward pass there is, though it knocks nothing out

The map includes preparing the sample and the forward pass that keeps keys and values. All ways alternate. Seconds are of
the processor, all threads together.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config

from workbench.models.tempflex import TempFlexConfig, TempFlexForConditionalGeneration, TempFlexProcessor
from workbench.models.tempflex.configuration import TempFlexVisionConfig
from workbench.models.tempflex.tokenizer import build_word_tokenizer
from workbench.probes.attention import inputs_of, looking
from workbench.probes.knockout import knockout_map
from workbench.probes.knockout_cells import answer_places, cut_of, frame_blocks
from workbench.probes.knockout_masked import hide_edges
from workbench.probes.knockout_replay import logits_at
from workbench.samples.sample import Clip, Sample, Turn, VideoRef

TOKENS_A_FRAME, CHECKED = 128, 6


def build(frames: int, suffix: int, layers: int) -> tuple[Any, Any, Sample, Clip]:
    """(model, processor, sample, clip) with 128 visual tokens a frame and so many positions behind them."""
    torch.manual_seed(0)
    tokenizer = build_word_tokenizer(["red green blue yellow"])
    text = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=32768,
        initializer_range=0.05,
    )
    vision = TempFlexVisionConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        patch_size=8,
        max_patches=512,
    )
    visual = tokenizer.convert_tokens_to_ids("<visual>")
    config = TempFlexConfig(text_config=text, vision_config=vision, visual_token_id=visual, fusion_depth=0)
    model, processor = TempFlexForConditionalGeneration(config).eval(), TempFlexProcessor(config, tokenizer)
    pixels = np.random.default_rng(0).integers(0, 256, (frames, 128, 256, 3), dtype=np.uint8)
    clip = Clip(pixels, tuple(range(frames)), tuple(float(i) for i in range(frames)))

    def sample(words: int) -> Sample:
        return Sample(
            "s", (Turn(" ".join(["red", "green"][i % 2] for i in range(words)), "blue"),), VideoRef(Path("v"))
        )

    token_map = processor.prepare(sample(1), clip).token_map
    own = len(token_map) - cut_of(token_map, "text").prefix - 1
    return model, processor, sample(suffix - own), clip


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds and result: on a busy machine the wall's say more about the others."""
    began = time.process_time()
    result = run()
    return time.process_time() - began, result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--suffix", type=int, default=32)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, processor, sample, clip = build(args.frames, args.suffix, args.layers)
    prepared = processor.prepare(sample, clip)
    blocks, cut = frame_blocks(prepared.token_map), cut_of(prepared.token_map, "text")
    places = answer_places(prepared.labels.numpy(), sample.id)
    inputs = inputs_of(prepared, model)
    visual = len(prepared.token_map.visual)
    assert visual == TOKENS_A_FRAME * args.frames and len(prepared) - cut.prefix == args.suffix
    with looking(model):
        embeds = model.embed(**inputs)
    hidden = torch.from_numpy(cut.queries[:, None] & (blocks.of == 0)[None])
    everywhere = dict.fromkeys(range(args.layers), hidden)
    keep = torch.from_numpy(places)

    def language() -> None:
        model(inputs_embeds=embeds, use_cache=False, logits_to_keep=keep)

    def masked(whole: bool) -> None:
        with hide_edges(model, everywhere):
            if whole:
                logits_at(model, inputs, places)
            else:
                language()

    ways: dict[str, Callable[[], Any]] = {
        "whole": lambda: masked(True),
        "masked": lambda: masked(False),
        "plain": language,
        "map": lambda: knockout_map(model, processor, sample, clip, "single,all", checks=0),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    capture: Any = None
    with looking(model):
        for repeat in range(args.repeats + 1):  # the first round warms up
            for name, way in ways.items():
                took, result = timed(way)
                capture = result if name == "map" else capture
                if repeat:
                    seconds[name].append(took)
    cells = capture.arrays["deltas"].size
    checked = knockout_map(model, processor, sample, clip, "single,all", checks=CHECKED).meta["max_error"]
    print(
        f"{visual} visual tokens, {args.suffix} behind them, {args.layers} layers, {args.threads} thread(s)"
    )
    each = statistics.median(seconds["map"]) / cells
    print(f"map of {cells} knockouts: {each * cells:.2f} s, {each * 1e3:.2f} ms a knockout; "
          f"largest difference from {CHECKED} whole passes {checked:.1e}")  # fmt: skip
    for name in ("whole", "masked", "plain"):
        full = statistics.median(seconds[name])
        spread = f"{min(seconds[name]) * 1e3:.0f}-{max(seconds[name]) * 1e3:.0f}"
        print(
            f"{name:>7} full forward {full * 1e3:8.1f} ms ({spread}): {full / each:6.1f}x a replayed knockout"
        )


if __name__ == "__main__":
    main()
