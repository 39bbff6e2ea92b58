"""Two gloo processes train like one: same losses, same weights, and only rank 0 writes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.processes import run, run_ranks
from tests.training.studies import RECIPE, TORCHRUN, environment, recipe, rows, until, world
from workbench.runs import Run
from workbench.training.packing import materialise
from workbench.training.ranks import Ranks

ALIGN, SFT = RECIPE["stages"]
ALL = {"encoder": 1.0e-3, "fusion": 1.0e-3, "merger": 1.0e-3, "llm": 1.0e-3}
# Rank 1 gets every second sample: images only in "mixed", text alone in "text", nothing at all in the last
# two.
STAGES = [
    {**ALIGN, "steps": 3, "batch": 5, "checkpoint_every": None},
    {**SFT, "name": "mixed", "data": {"videos": 0.5, "images": 0.5}, "steps": 4, "batch": 2},
    {**SFT, "name": "text", "data": {"videos": 0.5, "text": 0.5}, "steps": 2, "batch": 2},
    {**SFT, "name": "uneven", "steps": 2, "batch": 7, "tokens_per_row": 40, "rows_per_micro_batch": 1},
    {**SFT, "name": "alone", "data": {"videos": 1}, "steps": 2, "batch": 1},
    {**ALIGN, "name": "alone-align", "steps": 2, "batch": 1},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The world with text-only rows and one training clip that is cut short."""
    folder = tmp_path_factory.mktemp("ranks") / "world"
    shutil.copytree(world(), folder)
    lines = (folder / "train" / "images.jsonl").read_text().splitlines()[:12]
    with (folder / "train" / "text.jsonl").open("w") as out:
        for line in lines:
            row = json.loads(line)
            del row["image"]
            for turn in row["conversations"]:
                turn["value"] = turn["value"].replace("<image>", "").strip()
            out.write(json.dumps(row) + "\n")
    clip = sorted((folder / "train" / "clips").iterdir())[0]
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 3])
    return folder


def sources(root: Path) -> dict:
    return {"root": str(root), "sources": {**RECIPE["data"]["sources"], "text": {"path": "train/text.jsonl"}}}


def weights_of(run: Path, stage: str) -> Path:
    return run / "checkpoints" / f"stage-{stage}" / "model" / "model.safetensors"


def test_two_ranks_equal_one(tmp_path, root):
    path = recipe(tmp_path, root, stages=STAGES, data=sources(root))
    assert run(path, tmp_path / "one") == 0
    assert run_ranks("train", path, "--out", tmp_path / "two", "--no-report") == [0, 0]
    one, two = tmp_path / "one" / "runs" / "base-s0", tmp_path / "two" / "tiny" / "runs" / "base-s0"
    expected, found = rows(one), rows(two)
    exact = [
        "step",
        "stage",
        "batch",
        "answer_tokens",
        "visual_tokens",
        *[c for c in found if c[:3] == "lr_"],
    ]
    assert found[exact].equals(expected[exact])
    early = (found["stage"] != "alone-align").to_numpy()
    np.testing.assert_allclose(found["loss"][early], expected["loss"][early], rtol=1e-5)
    # Adam amplifies rounding from step to step, and a fresh alignment head has small second moments
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-3)
    np.testing.assert_allclose(found["grad_norm"], expected["grad_norm"], rtol=1e-3)
    for stage, tolerance in (("mixed", 1e-4), ("uneven", 5e-4)):  # rates are 1e-3
        mine, theirs = (load_file(weights_of(r, stage)) for r in (two, one))
        apart = [(mine[name] - value).abs().flatten() for name, value in theirs.items()]
        # where a gradient is nothing but rounding Adam steps by the whole rate, one way or the other
        assert float((torch.cat(apart) > tolerance).float().mean()) < 1e-4
        assert float(torch.cat(apart).mean()) < 1e-6
    events = [[e for e in Run.open(r).events() if e["kind"] in ("skipped", "stage_end")] for r in (one, two)]
    for ours, other in zip(*events, strict=True):
        for key in (
            "kind",
            "stage",
            "step",
            "sample",
            "visual_tokens",
            "answer_tokens",
            "real_tokens",
            "skipped",
        ):
            assert ours.get(key) == other.get(key), (ours, other)
    kinds = [e["kind"] for e in Run.open(two).events()]
    assert (
        kinds.count("start") == 1 and kinds.count("finish") == 1 and kinds.count("stage_end") == len(STAGES)
    )


def test_ctrl_c_stops_both_ranks_at_one_step_and_one_process_goes_on_as_if_alone(tmp_path):
    """torchrun passes Ctrl-C on to its ranks. Resuming does not depend on the number of ranks: batches and losses are
    those of one process that was never stopped.
    """
    stages = [{**SFT, "steps": 60, "batch": 8, "checkpoint_every": None}]
    path = recipe(tmp_path, stages=stages)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*TORCHRUN, "train", str(path), "--out", str(out), "--no-report"],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    base = out / "tiny" / "runs" / "base-s0"
    until(lambda: process.poll() is not None or (base / "metrics" / "tail.jsonl").exists(), 90)
    until(lambda: process.poll() is not None or len(Run.open(base).metrics()) > 3, 30)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    lines = [line for line in said.splitlines() if line.startswith("workbench: ")]
    assert len(lines) == 1 and "is done and saved" in lines[0] and "torchrun" in lines[0], said
    record = Run.open(base)
    last = int(record.metrics()["step"].max())
    assert record.status().state == "interrupted" and 3 < last < 60
    newest = record.latest_checkpoint()
    assert newest is not None and newest.name == f"step-{last:06d}"
    state = json.loads((out / "tiny" / "study.json").read_text())
    assert state["finished"] is None and state["wall_s"] > 0

    assert run(path, out / "tiny") == 0
    assert run(path, tmp_path / "alone") == 0
    alone = tmp_path / "alone" / "runs" / "base-s0"
    found, expected = rows(base), rows(alone)
    assert found["step"].tolist() == list(range(1, 61))  # no step lost where the ranks changed, none twice
    exact = ["stage", "batch", "answer_tokens", "visual_tokens", *[c for c in found if c[:3] == "lr_"]]
    assert found[exact].equals(expected[exact])
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)
    kinds = [e["kind"] for e in Run.open(base).events()]
    assert kinds.count("resume") == 1 and kinds[-1] == "finish" and record.status().state == "finished"
    ends = [[e for e in Run.open(r).events() if e["kind"] == "stage_end"][-1] for r in (base, alone)]
    for key in (
        "steps",
        "visual_tokens",
        "answer_tokens",
        "real_tokens",
    ):  # the first session is not forgotten
        assert ends[0][key] == ends[1][key], key


def test_every_rank_gets_as_many_micro_batches_and_each_has_a_clip():
    """What keeps the reduction of the fusion's gradients from waiting for ever."""
    from types import SimpleNamespace

    from tests.training.test_packing import mixed_samples
    from tests.training.worlds import tiny_model

    _, processor = tiny_model(fusion_layers=1)
    prepared = [processor.prepare(s, c) for s, c in mixed_samples()]
    dummy = materialise([processor.dummy()], [[0]])
    image, film, text = (materialise([prepared[i]], [[0]]) for i in (0, 1, 3))
    ranks = Ranks(SimpleNamespace(process_index=0, num_processes=2))  # type: ignore[arg-type]
    ranks.gather = lambda item: [item, 4]  # type: ignore[method-assign]
    batches = ranks.equalise([image, film, text], dummy, join=True)
    assert len(batches) == 4 and batches[1] is film and batches[3] is dummy
    assert all((batch.grids[:, 0] > 1).any() for batch in batches)
    for whole, before in ((batches[0], image), (batches[2], text)):
        assert whole.answer_tokens == before.answer_tokens and len(whole.rows) == 2
        assert whole.segment_ids[0, : before.input_ids.shape[1]].equal(before.segment_ids[0])
    alone = Ranks(SimpleNamespace(process_index=0, num_processes=1))  # type: ignore[arg-type]
    assert alone.equalise([image], dummy, join=True) == [image]
