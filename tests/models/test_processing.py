"""Conversations as tokens: labels, open prompts, templates, padding, errors, and the time it takes."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.models import worlds
from workbench.errors import CheckpointError, DataError
from workbench.models.tempflex import TempFlexProcessor, build_word_tokenizer, preset_config


def text(processor, ids):
    return " ".join(processor.tokenizer.convert_ids_to_tokens(ids.tolist()))


def test_labels_are_answers_and_their_end():
    _, processor = worlds.model()
    p = processor.prepare(worlds.sample(1, 2), worlds.clip(1))
    assert text(processor, p.input_ids) == (
        "<visual> <visual> <visual> <visual> what colour comes first ? <ask> red <|im_end|> "
        "which digit is where ? <ask> 3 left <|im_end|>"
    )
    learned = p.labels != -100
    assert torch.equal(p.labels[learned], p.input_ids[learned])
    assert text(processor, p.labels[learned]) == "red <|im_end|> 3 left <|im_end|>"


def test_open_prompt_keeps_earlier_answers_and_labels_nothing():
    _, processor = worlds.model()
    p = processor.prepare(worlds.sample(1, 3), worlds.clip(1), turns=(1, 2), with_answers=False)
    assert (
        text(processor, p.input_ids[4:])
        == "which digit is where ? <ask> 3 left <|im_end|> left or right ? <ask>"
    )
    assert (p.labels == -100).all()
    full = processor.prepare(worlds.sample(1, 3), worlds.clip(1), turns=(1, 2))
    assert torch.equal(full.input_ids[: len(p.input_ids)], p.input_ids)
    assert full.input_ids[len(p.input_ids) :].tolist() == [
        *processor.answer_ids("blue"),
        processor.end_token_id,
    ]


def test_text_only_and_marks_in_questions():
    _, processor = worlds.model()
    p = processor.prepare(worlds.sample(0), None)
    assert p.pixel_values is None and p.grid is None and p.visual_tokens == 0
    s = worlds.sample(0)
    marked = dataclasses.replace(
        s, turns=(dataclasses.replace(s.turns[0], question="<image>\nwhat colour comes first?"),)
    )
    assert torch.equal(processor.prepare(marked, None).input_ids, p.input_ids)


def test_errors():
    _, processor = worlds.model()
    with pytest.raises(DataError, match="no frames"):
        processor.prepare(worlds.sample(4), None)
    with pytest.raises(DataError, match="no turn"):
        processor.prepare(worlds.sample(1), worlds.clip(1), turns=())
    with pytest.raises(CheckpointError, match="visual"):
        TempFlexProcessor(preset_config("tiny", visual_token_id=7), processor.tokenizer)
    model, _ = worlds.model()
    model.processor = None
    with pytest.raises(ValueError, match="processor"):
        model.prepare(worlds.sample(1), worlds.clip(1))


def test_word_tokenizer():
    t = build_word_tokenizer(["Which one's FIRST?", "red"])
    assert t("first RED zebra?").input_ids == t.convert_tokens_to_ids(["first", "red", "<unk>", "?"])
    assert build_word_tokenizer(["red", "which one's first ?"]).get_vocab() == t.get_vocab()
    assert t.decode(t("which red?").input_ids) == "which red ?"
    assert (t.pad_token_id, t.convert_tokens_to_ids("<visual>")) == (0, 2)


def letters(*specials):
    """A character tokenizer with the special tokens of a big model: text comes back exactly."""
    chars = [chr(i) for i in range(32, 127)] + ["\n"]
    t = Tokenizer(models.WordLevel({c: i for i, c in enumerate(chars)}, unk_token="?"))
    t.pre_tokenizer, t.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=t, additional_special_tokens=list(specials))


@pytest.mark.parametrize(
    ("template", "specials", "expected"),
    [
        (
            "qwen3",
            ["<|im_start|>", "<|im_end|>", "<|image_pad|>"],
            "<|im_start|>user\n{v}\nwhat colour comes first?<|im_end|>\n"
            "<|im_start|>assistant\nred<|im_end|>\n"
            "<|im_start|>user\nwhich digit is where?<|im_end|>\n"
            "<|im_start|>assistant\n3 left<|im_end|>",
        ),
        (
            "gemma3",
            ["<bos>", "<start_of_turn>", "<end_of_turn>", "<image_soft_token>"],
            "<bos><start_of_turn>user\n{v}\nwhat colour comes first?<end_of_turn>\n"
            "<start_of_turn>model\nred<end_of_turn>\n"
            "<start_of_turn>user\nwhich digit is where?<end_of_turn>\n"
            "<start_of_turn>model\n3 left<end_of_turn>",
        ),
    ],
)
def test_chat_templates(template, specials, expected):
    tokenizer = letters(*specials)
    mark = specials[-1]
    config = preset_config("tiny", visual_token_id=tokenizer.convert_tokens_to_ids(mark))
    processor = TempFlexProcessor(config, tokenizer, template)
    p = processor.prepare(worlds.sample(2, 2), worlds.clip(2))
    assert tokenizer.decode(p.input_ids) == expected.format(v=mark * 8)
    end = specials[-2]
    assert tokenizer.decode(p.labels[p.labels != -100]) == f"red{end}3 left{end}"
    assert (p.token_map.kind == 3).sum() == 8
    open_prompt = processor.prepare(worlds.sample(2, 2), worlds.clip(2), with_answers=False)
    assert tokenizer.decode(open_prompt.input_ids) == expected.format(v=mark * 8).removesuffix(f"3 left{end}")
    assert processor.decode(p.input_ids[-7:]) == "3 left"


@pytest.mark.parametrize(
    "options", [{}, {"encoding": "tiled", "tile_size": 16}, {"newline": True, "merge": "strip4"}]
)
def test_dummy_is_a_clip_without_loss(options):
    model, processor = worlds.model(**options)
    d = processor.dummy()
    assert d.grid[0] == 2 and (d.labels == -100).all()
    out = model(d.input_ids[None], d.pixel_values, torch.tensor([d.grid]), labels=d.labels[None], num_items=3)
    out.loss.backward()
    assert out.loss.item() == 0.0


def test_batch_pads_on_the_side_asked():
    _, processor = worlds.model()
    prepared = worlds.mixed(processor)
    for side in ("left", "right"):
        batch = processor.batch(prepared, side)
        for p, ids, mask in zip(prepared, batch["input_ids"], batch["attention_mask"], strict=True):
            n = len(p.input_ids)
            kept = ids[-n:] if side == "left" else ids[:n]
            assert torch.equal(kept, p.input_ids) and int(mask.sum()) == n
        assert batch["grids"].tolist() == [list(p.grid) for p in prepared if p.grid]


def test_preparing_is_cheap():
    _, processor = worlds.model()
    sample, clip = worlds.sample(2, 3), worlds.clip(2)
    processor.prepare(sample, clip)
    best = min(_time(lambda: processor.prepare(sample, clip)) for _ in range(200))
    assert best < 0.4e-3


def _time(call):
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
