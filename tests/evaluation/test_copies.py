"""The copies probe shows an image as often as the arm would show frames of a video with that question."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from tests.training.studies import world
from workbench.evaluation.copies import StandInClip, copies_plan
from workbench.evaluation.evaluate import evaluate
from workbench.frames import make_plan, make_policy
from workbench.models.tempflex import new_tempflex
from workbench.recipe.schema import FramesSection
from workbench.samples.reader import FrameReader
from workbench.samples.sample import ClipInfo, ImageRef, Sample, Turn
from workbench.samples.source import load_source

CLIP = ClipInfo(frames=32, fps=8.0, duration_s=4.0, width=32, height=32)


def copies(section: FramesSection, images: list[Sample], clip: ClipInfo = CLIP):
    policy = make_policy(section)
    with FrameReader() as reader:
        plan = make_plan(policy, images, reader)
    return copies_plan(plan, images, lambda samples, stand_in: make_plan(policy, samples, stand_in), clip)


def test_counts_are_those_of_the_arm():
    images = load_source(world() / "test" / "images.jsonl", limit=6)
    assert {copies(FramesSection(policy="fixed", frames=16), images).used(s.id) for s in images} == {16}
    short = dataclasses.replace(CLIP, frames=5)  # no clip of the suite has more than it has
    assert {copies(FramesSection(policy="fixed", frames=16), images, short).used(s.id) for s in images} == {5}
    asked = [
        dataclasses.replace(s, turns=(Turn("how fast is it?" if i % 2 else "which colour?", "x"),))
        for i, s in enumerate(images)
    ]
    rules = FramesSection(policy="keywords", rules={"fast": 8, "colour": 2})
    plan = copies(rules, asked)
    assert [plan.used(s.id) for s in asked] == [2, 8, 2, 8, 2, 8]
    assert all(plan.indices(s.id) == (0,) * plan.used(s.id) for s in asked)


def test_an_image_that_cannot_be_read_stays_a_counted_failure(tmp_path):
    images = load_source(world() / "test" / "images.jsonl", limit=2)
    gone = dataclasses.replace(images[0], id="gone", media=ImageRef(tmp_path / "gone.png"))
    plan = copies(FramesSection(policy="fixed", frames=4), [*images, gone])
    assert [plan.used(s.id) for s in (*images, gone)] == [4, 4, 0] and plan.failures() == {"missing": 1}


def test_the_model_sees_the_same_picture_again_and_again():
    """Without fusion a copied image is a conversation with the same four visual tokens repeated: real frames,
    not a switch.
    """
    images = load_source(world() / "test" / "images.jsonl", limit=4)
    texts = sorted(
        {t for s in images for turn in s.turns for t in (turn.question, turn.answer, *turn.choices)}
    )
    model, processor = new_tempflex("tiny", seed=0, vocab_texts=texts)
    plan = copies(FramesSection(policy="fixed", frames=3), images)
    with FrameReader() as reader:
        table = evaluate(model, processor, images, plan, reader)
        for sample, tokens in zip(images, table["visual_tokens"], strict=True):
            assert sample.media is not None and tokens == 12
            clip = reader.read(sample.media, plan.indices(sample.id))
            assert (clip.frames == clip.frames[0]).all() and len(clip.frames) == 3
            prepared = processor.prepare(sample, clip)
            with torch.no_grad():
                features = model.visual_features(prepared.pixel_values, torch.tensor([prepared.grid]))
            np.testing.assert_allclose(features[:4], features[4:8], atol=1e-6)


def test_the_stand_in_answers_for_every_file(tmp_path):
    assert StandInClip(CLIP).info(ImageRef(tmp_path / "no.png")) == CLIP
