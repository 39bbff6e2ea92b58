"""Saving and loading hosts through the one door, and what it says when it cannot."""

from __future__ import annotations

import argparse
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.models import worlds
from tests.models.hosts.tiny import KINDS, clip, mixed, sample, tiny_host
from workbench.cli import model as commands
from workbench.errors import CheckpointError, RecipeError
from workbench.models import load_model
from workbench.models.hosts import HOSTS, load_host
from workbench.models.hosts.settings import IMAGE, PROCESSOR, VIDEO
from workbench.models.tempflex import save_tempflex
from workbench.training.packing import pack


def save(kind, path, **options):
    model, processor = tiny_host(kind, **options)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return model, processor


def logits(model, processor):
    (batch,) = pack(mixed(processor), 400, 8, processor.pad_token_id)
    with torch.no_grad():
        return model(**batch.model_inputs(), return_logits=True).logits


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind, tmp_path):
    model, processor = save(kind, tmp_path / "checkpoint" / "model", seed=5)
    again, processor_again = load_model(tmp_path / "checkpoint")  # as a run's checkpoint holds it
    assert type(again) is type(model) and not again.training and again.processor is processor_again
    assert torch.equal(logits(model, processor), logits(again, processor_again))
    config = json.loads((tmp_path / "checkpoint/model/config.json").read_text())
    assert config["model_type"] == kind and config["architectures"] == [HOSTS[kind].stock]
    # the folder is an ordinary one: transformers reads it without us
    stock = getattr(transformers, HOSTS[kind].stock).from_pretrained(tmp_path / "checkpoint" / "model")
    assert {n for n, _ in stock.named_parameters()} == {
        n.removeprefix("host.") for n, _ in model.named_parameters()
    }
    half, _ = load_model(tmp_path / "checkpoint", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_of_processor_files(kind, tmp_path):
    """Files of transformers 5 (one file with both processors) and of 4 (a file each, older names) say the same."""
    _, processor = save(kind, tmp_path)
    files = {name: json.loads((tmp_path / name).read_text()) for name in processor.files.files}
    template = processor.tokenizer.chat_template
    expected = [p.pixel_values for p in mixed(processor) if p.grid]
    for name in files:
        (tmp_path / name).unlink()
    nested = {"image_processor": files[IMAGE]} | ({"video_processor": files[VIDEO]} if VIDEO in files else {})
    (tmp_path / PROCESSOR).write_text(json.dumps(nested))
    tokenizer_config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    tokenizer_config.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="no chat template"):
        load_host(tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    _, again = load_host(tmp_path)
    for a, b in zip(expected, (p.pixel_values for p in mixed(again) if p.grid), strict=True):
        assert torch.equal(a, b)
    again.save_pretrained(tmp_path / "copy")  # and are written back with a checkpoint
    assert json.loads((tmp_path / "copy" / PROCESSOR).read_text()) == nested
    assert (tmp_path / "copy" / "chat_template.jinja").read_text() == template


def test_older_names_and_switches_of_settings():
    from workbench.models.hosts.settings import PictureSettings, picture_settings

    default = PictureSettings({"shortest_edge": 1, "longest_edge": 2})
    made = picture_settings({"min_pixels": 3136, "max_pixels": 12845056}, default)
    assert made.size == {"shortest_edge": 3136, "longest_edge": 12845056}
    assert picture_settings({"size": 336, "crop_size": 224, "do_center_crop": True}, default).crop == (
        224,
        224,
    )
    assert picture_settings({"crop_size": 224, "do_center_crop": False}, default).crop is None
    assert picture_settings({"do_pad": True}, default).pad_square is False
    assert picture_settings({"do_pad": True}, default, pads_to_square=True).pad_square is True
    with pytest.raises(CheckpointError, match="do_resize"):
        picture_settings({"do_resize": False}, default)


def test_what_the_door_says(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        load_model(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="does not say its model_type"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "idefics3"}')
    with pytest.raises(CheckpointError, match="idefics3") as caught:
        load_model(tmp_path)
    assert all(name in str(caught.value) for name in (*HOSTS, "tempflex"))
    save("qwen2_5_vl", tmp_path / "a")
    with pytest.raises(RecipeError, match="images"):
        load_model(tmp_path / "a", images="bypass")
    load_model(tmp_path / "a", images=None)
    for file in (tmp_path / "a").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_model(tmp_path / "a")
    ours, ours_processor = worlds.model()
    save_tempflex(ours, ours_processor, tmp_path / "b")
    assert load_model(tmp_path / "b", images="bypass")[0].config.images == "bypass"


def test_a_hub_name(monkeypatch, tmp_path):
    """Without network: an answer in seconds, and a downloaded snapshot is found in the cache."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="hub cannot be reached"):
        load_model("nobody/nothing")
    with pytest.raises(CheckpointError, match="hub"):
        load_model("no such/na me/at all")
    entry = tmp_path / "models--somebody--tiny"
    model, processor = save("qwen3_vl", entry / "snapshots" / "0123")
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("0123")
    again, processor_again = load_model("somebody/tiny")
    assert torch.equal(logits(model, processor), logits(again, processor_again))


def test_weights_that_do_not_fit(tmp_path):
    save("llava_onevision", tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    some = next(name for name in whole if name.endswith("layers.0.self_attn.q_proj.weight"))
    save_file({n: v for n, v in whole.items() if n != some}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="is missing"):
        load_host(tmp_path)
    save_file(whole | {some: whole[some][:3].contiguous()}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"has shape \[3, "):
        load_host(tmp_path)
    save_file(whole, file, {"format": "pt"})
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        load_host(tmp_path)
    file.unlink()
    torch.save(whole, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickles are not read"):
        load_host(tmp_path)


def test_a_tokenizer_of_another_model(tmp_path):
    save("qwen2_5_vl", tmp_path)
    _, other = tiny_host("llava")
    other.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="placeholder"):
        load_host(tmp_path)


def test_pictures_of_another_size(tmp_path):
    save("llava", tmp_path)
    settings = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    (tmp_path / IMAGE).write_text(json.dumps(settings))
    _, processor = load_host(tmp_path)
    with pytest.raises(CheckpointError, match="its vision tower takes 16x16"):
        processor.prepare(sample(1), clip(1))
    (tmp_path / IMAGE).write_text("nothing")
    with pytest.raises(CheckpointError, match="not readable JSON"):
        load_host(tmp_path)


def test_own_system_message():
    from workbench.models.hosts import make_processor

    _, given = tiny_host("qwen2_5_vl")
    processor = make_processor(given.config, given.tokenizer, given.files, system="show red first")
    p = processor.prepare(sample(1), clip(1))
    said = processor.tokenizer.decode(p.input_ids[p.token_map.where("system")])
    assert "show red first" in said and "helpful" not in said


def test_describe(capsys, tmp_path):
    parser = argparse.ArgumentParser()
    commands.register(parser.add_subparsers(dest="group"))

    def describe(path):
        args = parser.parse_args(["model", "describe", str(path)])
        assert args.func(args) == 0
        table = (line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  "))
        return {cells[0]: cells[1:] for cells in table}

    model, _ = save("llava", tmp_path / "model")
    table = describe(tmp_path)
    count = sum(p.numel() for p in model.parameters())
    assert table["total"][0] == f"{count:,}" and {"encoder", "merger", "llm", "unused"} <= set(table)
    assert "clip_vision_model," in table["encoder"]
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"model_type": "llava"', '"model_type": "blip-2"'))
    with pytest.raises(CheckpointError, match="Supported are TempFlex"):
        describe(tmp_path)
