"""The model as transformers sees it: generation, saving, loading, presets, errors of bad checkpoints."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from tests.models import worlds
from workbench.errors import CheckpointError, RecipeError
from workbench.models.tempflex import (
    TempFlexForConditionalGeneration,
    load_tempflex,
    new_tempflex,
    preset_config,
    save_tempflex,
)
from workbench.models.videolm import VideoLM

PROMPTS = (1, 4, 0, 2)


def prompts(processor, counts=PROMPTS):
    return [
        processor.prepare(worlds.sample(f, 2), worlds.clip(f) if f else None, with_answers=False)
        for f in counts
    ]


@pytest.mark.parametrize("preset", ["tiny", "tiny-gemma3"])
def test_generate_is_the_argmax_of_forward(preset):
    model, processor = worlds.model(preset)
    model.eval()
    model.generation_config.eos_token_id = None  # compare every step
    prepared = prompts(processor)
    out = model.generate(**processor.batch(prepared), max_new_tokens=6, do_sample=False)
    for p, row in zip(prepared, out, strict=True):
        ids = p.input_ids
        grids = None if p.grid is None else torch.tensor([p.grid])
        for _ in range(6):  # oracle: the whole forward pass again for each token, without a cache
            logits = model(ids[None], p.pixel_values, grids, use_cache=False).logits[0, -1]
            ids = torch.cat([ids, logits.argmax()[None]])
        assert row[-6:].tolist() == ids[-6:].tolist()


def test_visual_features_are_computed_at_prefill_only():
    model, processor = worlds.model()
    seen = []
    model.encoder.register_forward_hook(lambda *_: seen.append(1))
    model.generation_config.eos_token_id = None
    model.eval().generate(**processor.batch(prompts(processor, (4,))), max_new_tokens=5, do_sample=False)
    assert len(seen) == 1


def test_several_answers_and_beams_keep_their_media():
    model, processor = worlds.model()
    model.eval()
    batch = processor.batch(prompts(processor, (1, 0, 3)))
    alone = model.generate(**batch, max_new_tokens=3, do_sample=False)
    torch.manual_seed(0)
    several = model.generate(
        **batch, max_new_tokens=3, do_sample=True, top_k=1, num_return_sequences=2
    )  # top_k=1: greedy
    assert several[::2].tolist() == several[1::2].tolist() == alone.tolist()
    assert len(model.generate(**batch, max_new_tokens=3, num_beams=3, do_sample=False)) == 3


def test_same_seed_same_weights():
    a, b, c = (worlds.model(seed=s)[0].state_dict() for s in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["encoder.position_embedding"], c["encoder.position_embedding"])
    assert a["encoder.position_embedding"].std() == pytest.approx(0.5, rel=0.15)
    assert a["language_model.layers.0.mlp.up_proj.weight"].std() == pytest.approx(0.1, rel=0.05)


def test_module_groups_cover_every_parameter_once():
    for options in ({}, {"fusion_layers": 0}, {"variant": "release", "newline": True}):
        model, _ = worlds.model(**options)
        groups = model.module_groups()
        names = [n for members in groups.values() for n in members]
        assert sorted(names) == sorted(n for n, _ in model.named_parameters()) and len(set(names)) == len(
            names
        )
        assert bool(groups["fusion"]) == bool(model.config.fusion_depth)
        assert ("newline" in groups["merger"]) == model.config.newline
        assert not any("lm_head" in n for n in names)  # tied to the embeddings
        assert isinstance(model, VideoLM)
    layers = model.attention_layers()
    assert [len(v) for v in layers.values()] == [2, 3]
    assert all(model.get_submodule(n) is not None for members in layers.values() for n in members)


@pytest.mark.parametrize(
    "options", [{}, {"variant": "release", "merge": "strip4", "newline": True, "pool_to": 2}]
)
@pytest.mark.parametrize("preset", ["tiny", "tiny-gemma3"])
def test_save_and_load(tmp_path, preset, options):
    model, processor = worlds.model(preset, **options)
    save_tempflex(model, processor, tmp_path)
    again, processor_again = load_tempflex(tmp_path)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    assert again.lm_head.weight is again.language_model.embed_tokens.weight
    a, b = processor.batch(prompts(processor)), processor_again.batch(prompts(processor_again))
    assert all(torch.equal(a[k], b[k]) for k in a)
    torch.testing.assert_close(model.eval()(**a).logits, again(**b).logits, rtol=0, atol=0)
    auto = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert isinstance(auto, TempFlexForConditionalGeneration)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.vision_config.position_std == 0.5 and config.merge == model.config.merge
    assert config.text_config.layer_types == model.config.text_config.layer_types
    assert again.generation_config.eos_token_id == processor.end_token_id
    assert again.prepare(worlds.sample(1), worlds.clip(1)).grid == (1, 4, 4)


def test_stage_three_adds_a_fusion(tmp_path):
    model, processor = worlds.model(fusion_layers=0)
    save_tempflex(model, processor, tmp_path / "base")
    with pytest.raises(ValueError, match="no Temporal Fiber Fusion"):
        model.activate_fusion()
    fused, _ = load_tempflex(
        tmp_path / "base",
        seed=3,
        fusion_layers=2,
        variant="release",
        use_fusion=False,
        images="bypass",
        pool_to=4,
    )
    same, _ = load_tempflex(tmp_path / "base", seed=3, fusion_layers=2, variant="release")
    other, _ = load_tempflex(tmp_path / "base", seed=4, fusion_layers=2, variant="release")
    weight = "fusion.layers.1.gate.weight"
    assert torch.equal(fused.state_dict()[weight], same.state_dict()[weight])
    assert not torch.equal(fused.state_dict()[weight], other.state_dict()[weight])
    batch = processor.batch(prompts(processor))
    base = model.eval()(**batch).logits
    fused.config.pool_to = None
    assert torch.equal(fused(**batch).logits, base)  # not active yet
    fused.activate_fusion()
    changed = fused(**batch).logits
    lone = processor.batch(prompts(processor, (1,)))
    assert not torch.allclose(changed, base) and torch.equal(
        fused(**lone).logits, model(**lone).logits
    )  # bypass
    fused.config.images = "through"
    assert not torch.allclose(fused(**lone).logits, model(**lone).logits)
    save_tempflex(fused, processor, tmp_path / "fused")
    again, _ = load_tempflex(tmp_path / "fused", images="through")
    assert torch.equal(again(**batch).logits, fused(**batch).logits)


@pytest.fixture
def saved(tmp_path):
    model, processor = worlds.model()
    save_tempflex(model, processor, tmp_path)
    return tmp_path


def rewrite(path, change):
    file = path / "model.safetensors"
    state = load_file(file)
    save_file(change(state), file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda p: (p / "model.safetensors").write_bytes((p / "model.safetensors").read_bytes()[:-500]),
            "cut short",
        ),
        (lambda p: (p / "model.safetensors").write_bytes(b""), "cut short"),
        (lambda p: (p / "model.safetensors").unlink(), r"no \*\.safetensors"),
        (lambda p: (p / "config.json").write_text("{"), r"config\.json"),
        (lambda p: (p / "config.json").unlink(), r"no config\.json"),
        (lambda p: (p / "config.json").write_text('{"model_type": "llama"}'), "'llama' model"),
        (
            lambda p: rewrite(p, lambda s: {k: v for k, v in s.items() if k != "merger.mlp_in.bias"}),
            "mlp_in.bias is missing",
        ),
        (lambda p: rewrite(p, lambda s: s | {"extra.weight": torch.zeros(1)}), "extra.weight is left over"),
        (
            lambda p: rewrite(p, lambda s: s | {"merger.mlp_in.bias": torch.zeros(7)}),
            r"merger.mlp_in.bias has shape \[7\], not \[192\]",
        ),
        (lambda p: edit(p, fusion_variant="release"), "norm_ffn"),
        (lambda p: edit(p, fusion_depth=2), r"fusion\.layers\.1"),
        (lambda p: (p / "tokenizer.json").unlink(), "processor"),
        (lambda p: (p / "tempflex_processor.json").write_text("[]"), "processor"),
    ],
)
def test_bad_checkpoints_say_what_is_wrong(saved, damage, message):
    damage(saved)
    with pytest.raises(CheckpointError, match=message):
        load_tempflex(saved)


def edit(path, **values):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | values))


def test_overrides_that_need_other_weights_are_refused(saved):
    for override in ({"variant": "release"}, {"fusion_layers": 3}, {"merge": "strip4"}, {"newline": True}):
        with pytest.raises(CheckpointError, match="not"):
            load_tempflex(saved, **override)
    with pytest.raises(CheckpointError, match="images"):
        load_tempflex(saved, images="sideways")
    with pytest.raises(RecipeError, match="imagez"):
        load_tempflex(saved, imagez="bypass")
    model, _ = load_tempflex(saved, variant="paper", fusion_layers=1, merge="2x2", images="bypass", pool_to=3)
    assert (model.config.images, model.config.pool_to) == ("bypass", 3)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("tempflex-qwen3-4b", 4.02), ("tempflex-gemma3-4b", 3.88), ("tempflex-qwen3-4b-release", 4.02)],
)
def test_full_models_on_the_meta_device(name, billions):
    with torch.device("meta"):
        model = TempFlexForConditionalGeneration(preset_config(name))
    count = {
        g: sum(model.get_parameter(n).numel() for n in names) for g, names in model.module_groups().items()
    }
    assert count["llm"] == pytest.approx(billions * 1e9, rel=0.002)
    assert count["encoder"] == pytest.approx(412e6, rel=0.01)  # so400m without its pooling head
    per_layer = 22_582_659 if name.endswith("release") else 21_250_947
    assert count["fusion"] == 4 * per_layer
    assert all(p.is_meta for p in model.parameters())


def test_attention_is_switchable():
    model, processor = worlds.model("tiny-gemma3")
    batch = processor.batch(prompts(processor))
    real = batch["attention_mask"].bool()  # what padding computes is nobody's business
    expected = model.eval()(**batch).logits[real]

    def names():
        return tuple(part.config._attn_implementation for part in (model.language_model, model.encoder))

    assert names() == ("sdpa_packed", "sdpa")
    model.set_attn_implementation("eager")
    assert names() == ("eager", "eager")
    torch.testing.assert_close(model(**batch).logits[real], expected, rtol=1e-5, atol=1e-5)
    model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    assert names() == ("eager", "sdpa")
    model.set_attn_implementation("sdpa")
    assert names() == ("sdpa_packed", "sdpa")


def test_presets_and_options_that_do_not_exist():
    for call, message in [
        (lambda: preset_config("huge"), "tiny"),
        (lambda: preset_config("tiny", fussion=1), "common options"),
        (lambda: preset_config("tiny", merge="3x3"), "merge"),
        (lambda: preset_config("tiny", pool_to=0), "pool_to"),
        (lambda: new_tempflex("tiny", 0), "exactly one"),
        (lambda: new_tempflex("nothing", 0, vocab_texts=["a"]), "preset"),
    ]:
        with pytest.raises(RecipeError, match=message):
            call()
    assert preset_config("tempflex-qwen3-4b", fusion_layers=None).fusion_depth == 4
