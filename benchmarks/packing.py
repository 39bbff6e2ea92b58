"""Packed against padded training steps on the same samples, in one run: `python benchmarks/packing.py`

Samples are the study's (glyph world, tiny TempFlex): images and clips of 2 to 16 frames in one batch of 32. Padding
is done as the usual trainer does it, one conversation a row, padded to the longest. Steps of both alternate, so that
noise of the machine hits both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from workbench.frames import make_plan, make_policy
from workbench.models.tempflex import new_tempflex
from workbench.recipe.schema import FramesSection
from workbench.samples.glyphworld import make_glyphworld
from workbench.samples.reader import FrameReader
from workbench.samples.source import load_source
from workbench.training.batches import BatchPlan
from workbench.training.packing import PackedBatch, pack, pad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument(
        "--images", type=float, default=0.33, help="share of images (the image-replay arm: 0.33)"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "world"
        make_glyphworld(
            root,
            seed=0,
            train_images=300,
            train_video_questions=480,
            calibration_questions=40,
            test_images=20,
            test_video_questions=22,
            progress=False,
        )
        sources = {name: load_source(root / "train" / f"{name}.jsonl") for name in ("images", "videos")}
        shares = {"images": args.images, "videos": 1 - args.images}
        batches = BatchPlan(
            sources,
            {k: v for k, v in shares.items() if v > 0},
            32,
            seed=0,
            stage="b",
            steps=args.steps,
            turns=1,
        )
        texts = {t for s in batches.samples() for turn in s.turns for t in (turn.question, turn.answer)}
        model, processor = new_tempflex("tiny", seed=0, vocab_texts=sorted(texts), fusion_layers=0)
        with FrameReader() as reader:
            policy = make_policy(FramesSection(policy="uniform_choice", choices=(2, 4, 8, 16)))
            plan = make_plan(policy, batches.samples(), reader)

            def prepare(step: int) -> list:
                return [
                    processor.prepare(
                        v.sample, reader.read(v.sample.media, plan.indices(v.sample.id)), turns=v.turns
                    )
                    for v in batches.step(step)
                ]

            steps = [prepare(step) for step in range(args.steps)]

    def inputs(batch: PackedBatch, padded: bool) -> dict:
        found = batch.model_inputs()
        if padded:  # as everywhere: an attention mask over the padding
            found["attention_mask"] = (found.pop("segment_ids") > 0).long()
        return found

    def run(layout: list[PackedBatch], answers: int, padded: bool) -> float:
        began = time.perf_counter()
        for batch in layout:
            model(**inputs(batch, padded), num_items=answers).loss.backward()
        model.zero_grad()
        return time.perf_counter() - began

    times: dict[str, list[float]] = {"packed": [], "padded": []}
    real = places = padded_places = 0
    losses = []
    for index, prepared in enumerate(steps):
        packed, padded = (
            pack(prepared, 256, 16, processor.pad_token_id),
            [pad(prepared, processor.pad_token_id)],
        )
        answers = padded[0].answer_tokens
        with torch.no_grad():
            losses.append(
                [
                    sum(float(model(**inputs(b, way is padded), num_items=answers).loss) for b in way)
                    for way in (packed, padded)
                ]
            )
        for name, layout in (
            (("packed", packed), ("padded", padded))
            if index % 2
            else (("padded", padded), ("packed", packed))
        ):
            times[name].append(run(layout, answers, name == "padded"))
        real += padded[0].real_tokens
        places += sum(b.places for b in packed)
        padded_places += padded[0].places
    worst = max(abs(a - b) / b for a, b in losses)
    per_second = {name: real / args.steps / statistics.median(values) for name, values in times.items()}
    print(f"{args.steps} steps of 32 conversations, {args.images:.0%} images, 2-16 frames, one thread")
    print(f"padding share: packed {1 - real / places:.1%}, padded {1 - real / padded_places:.1%}")
    print(f"real tokens/s: packed {per_second['packed']:.0f}, padded {per_second['padded']:.0f}")
    print(f"largest relative difference of the loss: {worst:.1e}")
    print(f"ratio packed / padded: {per_second['packed'] / per_second['padded']:.2f}")


if __name__ == "__main__":
    main()
