"""``evaluate`` against an oracle that asks one question at a time, unpacked, with all logits in float64."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.training.studies import world
from workbench.evaluation.evaluate import Packing, evaluate, losses_by_frames, normalise, subset
from workbench.frames import FramePlan, make_plan, make_policy
from workbench.models.tempflex import new_tempflex
from workbench.recipe.schema import FramesSection
from workbench.samples.reader import FrameReader
from workbench.samples.sample import ImageRef, Sample, Turn, VideoRef
from workbench.samples.source import load_source

torch.set_num_threads(1)
LONG = ("the red seven", "the red", "blue two on the left")


def plan_of(samples: list[Sample], reader: FrameReader, frames: int = 4) -> FramePlan:
    return make_plan(make_policy(FramesSection(policy="fixed", frames=frames)), samples, reader)


@pytest.fixture(scope="module")
def bench():
    """A random model and questions of every kind: one-token choices, longer ones (one begins another), free
    answers.
    """
    images = load_source(world() / "test" / "images.jsonl", limit=8)
    videos = load_source(world() / "test" / "videos.jsonl", limit=8)

    def asked(sample: Sample, name: str, turn: Turn) -> Sample:
        return dataclasses.replace(sample, id=f"{sample.id}-{name}", turns=(turn,))

    question = "what colour is the digit on the left ?"
    longer = [
        asked(s, "long", Turn(question, LONG[i % 3], LONG, "long")) for i, s in enumerate([*images, *videos])
    ]
    free = [asked(s, "free", Turn(question, "red seven", (), "free")) for s in [*images[:2], *videos[:2]]]
    text = [Sample("text", (Turn("which digit is red ?", "two", ("two", "seven", "blue"), "text"),))]
    samples = [*videos, *free, *images, *text, *longer]
    texts = {t for s in samples for turn in s.turns for t in (turn.question, turn.answer, *turn.choices)}
    model, processor = new_tempflex("tiny", seed=0, vocab_texts=sorted(texts), fusion_layers=1)
    model.activate_fusion()
    reader = FrameReader()
    yield SimpleNamespace(model=model, processor=processor, samples=samples, reader=reader)
    reader.close()


@torch.no_grad()
def log_probability(bench, sample: Sample, plan: FramePlan, answer: str, end: bool) -> float:
    """Log-probability of one answer after the prompt, a forward pass of its own, float64 log-softmax."""
    clip = bench.reader.read(sample.media, plan.indices(sample.id)) if sample.media is not None else None
    prepared = bench.processor.prepare(sample, clip, turns=(0,), with_answers=False)
    ids = bench.processor.answer_ids(answer) + [bench.processor.end_token_id] * end
    inputs = {"input_ids": torch.cat([prepared.input_ids, torch.tensor(ids)])[None]}
    if prepared.pixel_values is not None:
        inputs |= {"pixel_values": prepared.pixel_values, "grids": torch.tensor([prepared.grid])}
    logits = bench.model.eval()(**inputs).logits[0].double()
    total = 0.0
    for i, token in enumerate(ids):
        line = logits[len(prepared.input_ids) + i - 1]
        total += float(line[token] - torch.logsumexp(line, 0))
    return total


@pytest.mark.parametrize("packing", [Packing(512, 8), Packing(48, 2)])
def test_every_row_equals_the_oracle(bench, packing):
    plan = plan_of(bench.samples, bench.reader)
    bench.model.train()
    table = evaluate(
        bench.model, bench.processor, bench.samples, plan, bench.reader, packing=packing, arm="a", step=3
    )
    assert bench.model.training
    assert table["sample_id"].tolist() == [s.id for s in bench.samples]
    assert (table["arm"] == "a").all() and (table["step"] == 3).all() and table["error"].isna().all()
    for sample, row in zip(bench.samples, table.to_dict("records"), strict=True):
        turn = sample.turns[0]
        assert row["frames_used"] == (0 if sample.media is None else 4 if sample.is_video else 1)
        assert row["visual_tokens"] == 4 * row["frames_used"]
        if not turn.choices:
            expected = log_probability(bench, sample, plan, turn.answer, end=True)
            assert row["log_probability"] == pytest.approx(expected, abs=2e-4)
            assert math.isnan(row["probability"]) and isinstance(row["prediction"], str)
            assert row["correct"] == (normalise(row["prediction"]) == turn.answer)
            continue
        several = any(len(bench.processor.answer_ids(c)) > 1 for c in turn.choices)
        scores = np.array([log_probability(bench, sample, plan, c, several) for c in turn.choices])
        answer = turn.choices.index(turn.answer)
        assert row["log_probability"] == pytest.approx(scores[answer], abs=2e-4)
        assert row["probability"] == pytest.approx(np.exp(scores[answer]) / np.exp(scores).sum(), abs=1e-4)
        assert row["prediction"] == turn.choices[int(scores.argmax())]
        assert row["correct"] == (row["prediction"] == turn.answer)


def test_greedy_answers_equal_a_loop_without_cache(bench):
    samples = [s for s in bench.samples if s.skill == "free"]
    plan = plan_of(samples, bench.reader)
    table = evaluate(bench.model, bench.processor, samples, plan, bench.reader, max_new_tokens=5)
    for sample, said in zip(samples, table["prediction"], strict=True):
        clip = bench.reader.read(sample.media, plan.indices(sample.id))
        prepared = bench.processor.prepare(sample, clip, turns=(0,), with_answers=False)
        ids = prepared.input_ids.tolist()
        with torch.no_grad():
            for _ in range(5):
                out = bench.model(
                    torch.tensor([ids]),
                    prepared.pixel_values,
                    torch.tensor([prepared.grid]),
                    return_logits=True,
                )
                ids.append(int(out.logits[0, -1].argmax()))
                if ids[-1] == bench.processor.end_token_id:
                    break
        assert said == bench.processor.decode(ids[len(prepared.input_ids) :])


def test_what_cannot_be_read_is_counted_and_nothing_else_moves(bench, tmp_path):
    whole = load_source(world() / "test" / "videos.jsonl", limit=6)
    media = whole[2].media
    assert media is not None
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(media.path.read_bytes()[:300])
    samples = [
        *whole[:3],
        dataclasses.replace(whole[0], id="cut", media=VideoRef(cut)),
        dataclasses.replace(whole[1], id="gone", media=ImageRef(tmp_path / "gone.png")),
        *whole[3:],
    ]
    table = evaluate(bench.model, bench.processor, samples, plan_of(samples, bench.reader), bench.reader)
    assert table["sample_id"].tolist() == [s.id for s in samples]
    bad = table[table["sample_id"].isin(["cut", "gone"])]
    assert not bad["correct"].any() and bad["prediction"].isna().all() and bad["probability"].isna().all()
    assert (bad["frames_used"] == 0).all() and bad["error"].str.startswith("cannot ").all()
    alone = evaluate(bench.model, bench.processor, whole, plan_of(whole, bench.reader), bench.reader)
    rest = table[table["error"].isna()].reset_index(drop=True)
    np.testing.assert_allclose(rest["log_probability"], alone["log_probability"], atol=2e-5)


def test_no_question_is_an_empty_table(bench):
    table = evaluate(bench.model, bench.processor, [], plan_of([], bench.reader), bench.reader, suite="x")
    assert len(table) == 0 and {"sample_id", "correct", "error", "suite"} <= set(table)


def test_losses_by_frames_are_those_of_the_answers_at_each_count(bench):
    samples = [s for s in bench.samples if s.is_video][:5] + [s for s in bench.samples if s.skill == "free"][
        -1:
    ]
    plans = {n: plan_of(samples, bench.reader, n) for n in (2, 8)}
    table = losses_by_frames(bench.model, bench.processor, samples, plans, bench.reader)
    assert table["frames"].tolist() == [2] * 6 + [8] * 6
    assert table["sample_id"].tolist() == [s.id for s in samples] * 2
    assert np.isfinite(table["loss"]).all()
    for row in table.to_dict("records"):
        sample = next(s for s in samples if s.id == row["sample_id"])
        turn = sample.turns[0]
        several = not turn.choices or any(len(bench.processor.answer_ids(c)) > 1 for c in turn.choices)
        expected = -log_probability(bench, sample, plans[row["frames"]], turn.answer, several)
        assert row["loss"] == pytest.approx(expected, abs=2e-4)
    assert table.groupby("sample_id")["loss"].nunique().min() == 2  # frames matter


def test_a_subset_keeps_the_balance_of_skills_and_the_order():
    skills = ["a"] * 40 + ["b"] * 10 + ["c"] * 3
    samples = [Sample(str(i), (Turn("q", "x", (), skill),)) for i, skill in enumerate(skills)]
    for limit in (1, 7, 12, 30, 52):
        kept = subset(samples, limit)
        assert len(kept) == limit and [int(s.id) for s in kept] == sorted(int(s.id) for s in kept)
        counts = {skill: sum(s.skill == skill for s in kept) for skill in "abc"}
        for one in "abc":  # nobody has two more than another that has samples left
            for other in "abc":
                assert counts[one] <= counts[other] + 1 or counts[other] == skills.count(other)
    assert subset(samples, None) == samples == subset(samples, 99)


def test_normalise():
    assert normalise('  "The  RED seven." ') == "the red seven" and normalise("3.5") == "3.5"


def test_a_file_path_never_matters(bench):
    """Rows carry ids, never paths: a score table can be published."""
    table = evaluate(
        bench.model, bench.processor, bench.samples[:2], plan_of(bench.samples, bench.reader), bench.reader
    )
    assert str(Path(world())) not in table.to_json()
