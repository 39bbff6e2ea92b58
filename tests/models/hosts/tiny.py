"""Tiny random stock models with a tokenizer trained on the spot: ``tiny_host(kind, seed) -> (model, processor)``.

They have the architecture of the published models with few, narrow layers, the same placeholders and conversations in
the same format; vision settings are small, so that a frame is a handful of tokens. Nothing is downloaded.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from workbench.models.hosts.loading import HOSTS, attach, make_processor
from workbench.models.hosts.settings import IMAGE, VIDEO, ProcessorFiles
from workbench.samples.sample import Clip, ImageRef, Sample, Turn, VideoRef

KINDS = tuple(HOSTS)
WORDS = (
    "what colour comes first ? which digit is where ? red blue green yellow left right top bottom 0 1 2 3 4 5 6 7 8 9 "
    "is the to of and moves first last seven two three one how many frames does it show before after < > seconds . "
    "system user assistant USER ASSISTANT You are a helpful assistant"
)
MARKS = {
    "qwen": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
             "<|image_pad|>", "<|video_pad|>"),
    "llama": ("<unk>", "<s>", "</s>", "<pad>", "<image>", "<video>"),
    "onevision": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"),
}  # fmt: skip

QWEN2_5 = """{%- if messages[0].role != 'system' -%}
<|im_start|>system
You are a helpful assistant.<|im_end|>{{ '\\n' }}
{%- endif -%}
{%- for m in messages -%}
<|im_start|>{{ m.role }}{{ '\\n' }}
{%- for c in m.content -%}
{%- if c.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif c.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>
{%- else -%}{{ c.text }}{%- endif -%}
{%- endfor -%}
<|im_end|>{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\\n' }}{%- endif -%}"""
QWEN3 = QWEN2_5[QWEN2_5.index("{%- for m") :]  # no default system message
LLAVA = """{%- for m in messages -%}
{%- if m.role != 'system' -%}{{ m.role | upper }}: {% endif -%}
{%- for c in m.content -%}{%- if c.type in ('image', 'video') -%}<{{ c.type }}>{{ '\\n' }}{%- endif -%}{%- endfor -%}
{%- for c in m.content -%}{%- if c.type == 'text' -%}{{ c.text }} {% endif -%}{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}ASSISTANT:{%- endif -%}"""
ONEVISION = """{%- for m in messages -%}
<|im_start|>{{ m.role }} {% for c in m.content -%}{%- if c.type in ('image', 'video') -%}<{{ c.type }}>{%- endif -%}
{%- endfor -%}
{%- for c in m.content -%}{%- if c.type == 'text' -%}{{ '\\n' + c.text }}{%- endif -%}{%- endfor -%}
<|im_end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\\n' }}{%- endif -%}"""
TEMPLATES = {
    "qwen2_5_vl": QWEN2_5,
    "qwen3_vl": QWEN3,
    "llava": LLAVA,
    "llava_next_video": LLAVA,
    "llava_onevision": ONEVISION,
}
FAMILY = {"qwen2_5_vl": "qwen", "qwen3_vl": "qwen", "llava": "llama", "llava_next_video": "llama"}


@lru_cache(maxsize=8)
def _trained(family: str, texts: tuple[str, ...]) -> str:
    """A byte-level BPE of the words and ``texts``, as JSON."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = [AddedToken(mark, special=True, normalized=False) for mark in MARKS[family]]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = sorted({word for text in (WORDS, *texts) for word in text.split()})
    tokenizer.train_from_iterator([f"{word} {word} \n{word}" for word in words] * 3, trainer)
    if family == "llama":
        bos = ("<s>", tokenizer.token_to_id("<s>"))
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[bos])
    return tokenizer.to_str()


def tiny_tokenizer(kind: str, texts: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Tokenizer with the host's marks and chat template; ``texts`` add words that become single tokens."""
    family = FAMILY.get(kind, "onevision")
    bos, eos, pad = ("<s>", "</s>", "<pad>") if family == "llama" else (None, "<|im_end|>", "<|endoftext|>")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(family, texts)),
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        additional_special_tokens=[mark for mark in MARKS[family] if mark not in (bos, eos, pad, "<unk>")],
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATES[kind],
    )


def _text(kind: str, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.1,
    }
    if kind.startswith("qwen"):
        text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 2, 2]}}
    if kind == "qwen3_vl":
        text |= {"head_dim": 12}
        text["rope_parameters"]["mrope_interleaved"] = True
    if kind.startswith("llava"):
        text["model_type"] = "qwen2" if kind == "llava_onevision" else "llama"
    return text


def _vision(kind: str) -> dict[str, Any]:
    size: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.1}
    if kind == "qwen2_5_vl":
        own = {"depth": 3, "num_heads": 4, "patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]}
        return size | own | {"out_hidden_size": 48, "tokens_per_second": 2}
    if kind == "qwen3_vl":
        own = {"depth": 3, "num_heads": 4, "patch_size": 4, "num_position_embeddings": 16}
        return size | own | {"out_hidden_size": 48, "deepstack_visual_indexes": [0, 1]}
    tower = {"num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 16, "patch_size": 4}
    if kind == "llava_onevision":
        # 5 patches a side: halving rounds up, as the published 27
        own = {"image_size": 20, "vision_use_head": False, "model_type": "siglip_vision_model"}
        return size | tower | own
    return size | tower | {"model_type": "clip_vision_model", "projection_dim": 32}


def tiny_config(kind: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Configuration of a tiny host with the ids of ``tokenizer``."""

    def ids(**names: str) -> dict[str, int]:
        return {field: tokenizer.convert_tokens_to_ids(mark) for field, mark in names.items()}

    more: dict[str, Any]
    if kind.startswith("qwen"):
        more = ids(
            image_token_id="<|image_pad|>",
            video_token_id="<|video_pad|>",
            vision_start_token_id="<|vision_start|>",
            vision_end_token_id="<|vision_end|>",
        )
    else:
        more = ids(image_token_index="<image>", video_token_index="<video>")
    if kind == "llava":
        more.pop("video_token_index")
    if kind == "llava_next_video":
        more["image_grid_pinpoints"] = [[16, 32], [32, 16], [32, 32], [48, 16], [16, 48]]
    if kind == "llava_onevision":
        more |= {"image_grid_pinpoints": [[20 * r, 20 * c] for r in (1, 2, 3) for c in (1, 2, 3)]}
        more |= {"vision_aspect_ratio": "anyres_max_3"}
    name = {"qwen2_5_vl": "Qwen2_5_VLConfig", "qwen3_vl": "Qwen3VLConfig", "llava": "LlavaConfig"}.get(
        kind, "LlavaNextVideoConfig" if kind == "llava_next_video" else "LlavaOnevisionConfig"
    )
    config = getattr(transformers, name)(
        text_config=_text(kind, tokenizer),
        vision_config=_vision(kind),
        tie_word_embeddings=kind == "qwen3_vl",
        **more,
    )
    return config


def tiny_files(kind: str) -> ProcessorFiles:
    """Picture settings that go with the tiny vision towers."""
    if kind.startswith("qwen"):
        own = {
            "patch_size": 4,
            "merge_size": 2,
            "temporal_patch_size": 2,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        }
        image = own | {"size": {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}}
        frames = 8 if kind == "qwen3_vl" else 1  # bounds of the whole video there, of a frame here
        video = own | {"size": {"shortest_edge": 16 * 16, "longest_edge": 32 * 32 * frames}}
        return ProcessorFiles({IMAGE: image, VIDEO: video})
    if kind == "llava_onevision":
        return ProcessorFiles({IMAGE: {"size": {"height": 20, "width": 20}}})
    return ProcessorFiles({IMAGE: {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}})


def tiny_host(kind: str, seed: int = 0, texts: tuple[str, ...] = (), **config: Any):
    """(model, processor) of one of ``KINDS``; the same seed gives the same weights. ``config``: attributes of the
    configuration to change."""
    tokenizer = tiny_tokenizer(kind, texts)
    made = tiny_config(kind, tokenizer)
    for name, value in config.items():
        setattr(made, name, value)
    processor = make_processor(made, tokenizer, tiny_files(kind))
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    stock = getattr(transformers, HOSTS[kind].stock)(made)
    torch.random.set_rng_state(state)
    return attach(stock, processor)


def clip(frames: int, width: int = 32, height: int = 24, seed: int = 0, spacing_s: float = 0.5) -> Clip:
    """Noise; every third frame of a source."""
    rng = np.random.default_rng([seed, frames, width, height])
    pixels = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Clip(pixels, tuple(range(0, 3 * frames, 3)), tuple(spacing_s * i for i in range(frames)))


def sample(frames: int, turns: int = 1, video: bool | None = None) -> Sample:
    """A conversation about an image (1 frame, unless ``video``), a video or nothing (0)."""
    asked = (
        Turn("what colour comes first?", "red"),
        Turn("which digit is where?", "3 left"),
        Turn("how many frames does it show?", "two"),
    )
    is_video = frames > 1 if video is None else video
    ref = None if frames == 0 else VideoRef(Path("a")) if is_video else ImageRef(Path("a"))
    return Sample(f"s{frames}", asked[:turns], ref)


def mixed(
    processor, sizes=((1, 32, 24), (5, 32, 24), (0, 0, 0), (2, 40, 24), (1, 24, 40), (8, 24, 24), (5, 32, 24))
):
    """Prepared conversations: images, short and long clips of several shapes, text only."""
    return [
        processor.prepare(sample(f, 1 + i % 3), clip(f, w, h, seed=i) if f else None)
        for i, (f, w, h) in enumerate(sizes)
    ]
