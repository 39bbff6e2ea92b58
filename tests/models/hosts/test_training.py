"""Video-SFT of a stock model through the real trainer and evaluator, and through a recipe's ``model.checkpoint``."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from tests.models.hosts.tiny import KINDS, tiny_host
from tests.training import studies
from workbench.errors import RecipeError
from workbench.evaluation.evaluate import Packing, evaluate
from workbench.frames import make_plan, make_policy
from workbench.models import load_model
from workbench.recipe import load_recipe
from workbench.recipe.schema import FramesSection, MachineSection, StageSection
from workbench.runs import Run
from workbench.samples.reader import FrameReader
from workbench.samples.sample import Sample
from workbench.samples.source import load_source
from workbench.study.tasks import make_tasks
from workbench.study.worker import run_task
from workbench.training.loop import Trainer

torch.set_num_threads(1)
RATES = {"encoder": 1e-3, "merger": 1e-3, "llm": 1e-3}


def data() -> tuple[list[Sample], list[Sample], tuple[str, ...]]:
    """Questions of the small world: images, videos, and every text in them."""
    folder = studies.world()
    images = load_source(folder / "train" / "images.jsonl", limit=16)
    videos = load_source(folder / "train" / "videos.jsonl", limit=16)
    turns = [turn for s in (*images, *videos) for turn in s.turns]
    return images, videos, tuple(sorted({text for t in turns for text in (t.question, t.answer, *t.choices)}))


def stage(**changes) -> StageSection:
    made = {
        "name": "sft",
        "train": RATES,
        "data": {"videos": 0.75, "images": 0.25},
        "frames": {"policy": "fixed", "frames": 4},
        "steps": 6,
        "batch": 4,
        "turns": 1,
        "tokens_per_row": 400,
        "rows_per_micro_batch": 2,
        "optimizer": {"warmup": 0.0},
    }
    return StageSection.model_validate(made | changes)


def trained(tmp_path, kind, sections, reader, seed=0):
    images, videos, texts = data()
    model, processor = tiny_host(kind, seed, texts)
    run = Run.create(tmp_path / kind, "name: host\n", {"arm": "video", "seed": 0})
    trainer = Trainer(
        run,
        sections,
        model,
        processor,
        {"images": images, "videos": videos},
        reader,
        lambda section, samples: make_plan(make_policy(section.frames), samples, reader),
        seed=seed,
        machine=MachineSection(),
    )
    return run, model, processor, trainer


@pytest.mark.parametrize("kind", KINDS)
def test_video_sft_and_evaluation(kind, tmp_path):
    with FrameReader() as reader:
        steps = 16 if kind == "qwen2_5_vl" else 3
        run, model, _, trainer = trained(tmp_path, kind, [stage(steps=steps)], reader)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        trainer.train()
        metrics = run.metrics()
        assert len(metrics) == steps and metrics["loss"].map(math.isfinite).all()
        assert (metrics["visual_tokens"] > 0).all()
        if kind == "qwen2_5_vl":
            assert metrics["loss"][-4:].mean() < 0.75 * metrics["loss"][:2].mean()
        groups = model.module_groups()
        for name, value in model.named_parameters():
            if name in groups.get("unused", ()):
                assert torch.equal(value, before[name])
        for group in RATES:
            assert any(not torch.equal(model.get_parameter(n), before[n]) for n in groups[group])
        # the run's checkpoint is a model folder like any other
        again, processor_again = load_model(run.latest_checkpoint())
        for name, value in again.named_parameters():
            assert torch.equal(value, model.get_parameter(name))
        images, videos, _ = data()
        samples = [*videos[:6], *images[:4]]
        plan = make_plan(make_policy(FramesSection(policy="fixed", frames=3)), samples, reader)
        packed = evaluate(again, processor_again, samples, plan, reader, packing=Packing(500, 4))
        alone = evaluate(again, processor_again, samples, plan, reader, packing=Packing(1, 1))
        assert packed["error"].isna().all() and (packed["visual_tokens"] > 0).all()
        pd.testing.assert_frame_equal(packed, alone, atol=1e-4)


def test_stages_a_host_cannot_train(tmp_path):
    with FrameReader() as reader:
        for i, (section, said) in enumerate(
            (
                (stage(train={"fusion": 1e-3}), "fusion"),
                (stage(objective="align", data={"images": 1.0}, train={"encoder": 1e-3}), "objective: sft"),
            )
        ):
            *_, trainer = trained(tmp_path / str(i), "qwen2_5_vl", [section], reader)
            with pytest.raises(RecipeError, match=said):
                trainer.train()


def test_a_recipe_starts_from_a_host(tmp_path):
    """A study's task with ``model.checkpoint``: trained, scored, resumed as finished; and an override that means
    nothing to a host."""
    _, _, texts = data()
    model, processor = tiny_host("qwen2_5_vl", 1, texts)
    model.save_pretrained(tmp_path / "host")
    processor.save_pretrained(tmp_path / "host")
    sft = stage(steps=3, data={"videos": 1.0}).model_dump(mode="json", exclude_none=True)
    suites = {"suites": {"image": "image_test", "video": "video_test"}, "limit": 4}

    def run(name: str, **arm) -> Run:
        folder = studies.recipe(
            tmp_path / name,
            model={"checkpoint": str(tmp_path / "host")},
            stages=[],
            arms={"video": {"stages": [sft], **arm}},
            seeds=[0],
            evaluation=suites,
        ).parent
        (folder / "study.json").write_text('{"seeds": [0]}')
        base, video = make_tasks(load_recipe(folder / "recipe.yaml"))
        run_task(folder, base, "again")
        run_task(folder, video, "again")
        return Run.open(folder / "runs" / video.id)

    done = run("plain")
    assert done.status().state == "finished" and len(done.metrics()) == 3
    scores = done.scores()
    assert set(scores["suite"]) == {"image", "video"} and scores["error"].isna().all()
    assert load_model(done.latest_checkpoint())[0].config.model_type == "qwen2_5_vl"
    with pytest.raises(RecipeError, match="is a switch of our own models"):
        run("switched", model={"images": "bypass"})
