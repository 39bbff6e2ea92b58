"""A stand-in for a published model: the architecture of Qwen2.5-VL with few, narrow layers, random weights and a tokenizer
of a few hundred words, as an ordinary model folder.

    rehearsal_host("runs/stand-in", texts=["which way does it move?", "left"])
    model, processor = load_model("runs/stand-in")

For rehearsals: whatever runs on it runs on the real one, with the same code and file layout, in seconds and without a
download. What it answers means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from workbench.models.hosts.loading import attach, make_processor
from workbench.models.hosts.settings import IMAGE, VIDEO, ProcessorFiles

END, PAD = "<|im_end|>", "<|endoftext|>"
MARKS = (PAD, "<|im_start|>", END, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TEMPLATE = """{%- for m in messages -%}
{%- if loop.first and m.role != 'system' -%}
<|im_start|>{{ 'system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
<|im_start|>{{ m.role + '\\n' }}
{%- for part in m.content -%}
{%- if part.type == 'text' -%}{{ part.text }}
{%- else -%}<|vision_start|><|{{ part.type }}_pad|><|vision_end|>{%- endif -%}
{%- endfor -%}<|im_end|>{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>{{ 'assistant\\n' }}{%- endif -%}"""
WIDTH, HEADS, LAYERS = 48, 4, 4
PATCH, MERGE = 4, 2  # a token covers 8 x 8 pixels of a resized frame
LARGEST = 48 * 48  # pixels of a frame


def rehearsal_host(folder: str | Path, texts: Iterable[str] = (), seed: int = 0) -> Path:
    """Write the stand-in to ``folder``, which must be new or empty of other models; returns it.

    Args:
        texts: questions and answers whose words shall be single tokens.
        seed: of the weights.
    """
    path = Path(folder)
    tokenizer = _tokenizer(texts)
    config = _config(tokenizer)
    own: dict[str, Any] = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    own |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    own |= {"size": {"shortest_edge": 16 * 16, "longest_edge": LARGEST}}
    processor = make_processor(config, tokenizer, ProcessorFiles({IMAGE: own, VIDEO: own}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, processor = attach(Qwen2_5_VLForConditionalGeneration(config), processor)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def _tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every word of ``texts`` is one token."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=[AddedToken(mark, special=True, normalized=False) for mark in MARKS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = {
        w for text in (*texts, "system user assistant You are a helpful assistant.") for w in text.split()
    }
    # at the start of a text, of a line and behind a space: three different byte sequences
    inner.train_from_iterator([f"{word}\n{word} {word}" for word in sorted(words)] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=END, pad_token=PAD, chat_template=TEMPLATE,
        additional_special_tokens=[mark for mark in MARKS if mark not in (END, PAD)],
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _config(tokenizer: PreTrainedTokenizerFast) -> Any:
    def mark(name: str) -> Any:
        return tokenizer.convert_tokens_to_ids(name)

    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 2, 2]}
    text = {
        "vocab_size": len(tokenizer), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS // 2, "max_position_embeddings": 4096,
        "rope_parameters": rope, "initializer_range": 0.1, "eos_token_id": mark(END), "bos_token_id": None,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "depth": 3, "num_heads": HEADS, "patch_size": PATCH,
        "window_size": 4 * PATCH, "fullatt_block_indexes": [1], "out_hidden_size": WIDTH, "tokens_per_second": 2,
        "initializer_range": 0.1,
    }  # fmt: skip
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=False,
        image_token_id=mark("<|image_pad|>"),
        video_token_id=mark("<|video_pad|>"),
        vision_start_token_id=mark("<|vision_start|>"),
        vision_end_token_id=mark("<|vision_end|>"),
    )
