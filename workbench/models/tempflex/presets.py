"""Named configurations: CPU-sized ones that train in seconds, and the full models with their published
numbers.

The text configurations repeat the public ``config.json`` of Qwen3-4B and Gemma-3-4B; the vision one that of
siglip2-so400m-patch16-naflex.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import Gemma3TextConfig, PreTrainedConfig, Qwen3Config

from workbench.errors import RecipeError
from workbench.models.tempflex.configuration import TempFlexConfig, TempFlexVisionConfig

# short names that recipes use -> fields of TempFlexConfig
ALIASES = {"variant": "fusion_variant", "fusion_layers": "fusion_depth"}
RELEASE = {"fusion_variant": "release", "merge": "strip4", "newline": True, "pool_to": 32}
TINY_VOCABULARY = 256  # describing a tiny preset without texts


def _tiny_vision(side: int) -> TempFlexVisionConfig:
    return TempFlexVisionConfig(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        patch_size=8,
        position_rows=side,
        position_cols=side,
        max_patches=256,
        position_std=0.5,
    )


def _tiny_qwen3(vocab_size: int) -> PreTrainedConfig:
    # with the usual initializer_range of .02 a model this narrow never leaves the plateau
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=24,
        tie_word_embeddings=True,
        initializer_range=0.1,
        max_position_embeddings=4096,
        # slow rotations, as in Qwen3-4B: matching by content must not depend on distance
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    )


def _tiny_gemma3(vocab_size: int) -> PreTrainedConfig:
    return Gemma3TextConfig(
        vocab_size=vocab_size,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        query_pre_attn_scalar=24,
        sliding_window=32,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        tie_word_embeddings=True,
        initializer_range=0.1,
        max_position_embeddings=4096,
    )


def _qwen3_4b(vocab_size: int | None) -> PreTrainedConfig:
    return Qwen3Config(
        vocab_size=vocab_size or 151936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
        max_position_embeddings=40960,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        eos_token_id=151645,
        bos_token_id=151643,
    )


def _gemma3_4b(vocab_size: int | None) -> PreTrainedConfig:
    return Gemma3TextConfig(
        vocab_size=vocab_size or 262208,
        hidden_size=2560,
        intermediate_size=10240,
        num_hidden_layers=34,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=1024,
        tie_word_embeddings=True,
        max_position_embeddings=131072,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
        },
        eos_token_id=[1, 106],
    )


def _tiny(text: PreTrainedConfig, side: int, **more: Any) -> dict[str, Any]:
    return {
        "vision_config": _tiny_vision(side),
        "text_config": text,
        "merger_hidden": 192,
        "merger_gain": 8.0,
        "visual_token_id": 2,
        "tile_size": 16,
        **more,
    }


def _full(text: PreTrainedConfig, visual_token_id: int, **more: Any) -> dict[str, Any]:
    return {
        "vision_config": TempFlexVisionConfig(),
        "text_config": text,
        "fusion_depth": 4,
        "visual_token_id": visual_token_id,
        **more,
    }


PRESETS = {
    "tiny": lambda v: _tiny(_tiny_qwen3(v or TINY_VOCABULARY), 4),
    "tiny-gemma3": lambda v: _tiny(_tiny_gemma3(v or TINY_VOCABULARY), 4),
    "tiny-64": lambda v: _tiny(_tiny_qwen3(v or TINY_VOCABULARY), 8),
    "tempflex-qwen3-4b": lambda v: _full(_qwen3_4b(v), 151655),
    "tempflex-qwen3-4b-release": lambda v: _full(_qwen3_4b(v), 151655, **RELEASE),
    "tempflex-gemma3-4b": lambda v: _full(_gemma3_4b(v), 262144),
    "tempflex-gemma3-4b-release": lambda v: _full(_gemma3_4b(v), 262144, **RELEASE),
}
TEMPLATE_OF = {"tiny": "lean", "tempflex-qwen3": "qwen3", "tempflex-gemma3": "gemma3"}


def template_of(preset: str) -> str:
    """Name of the chat template of a preset."""
    return next(template for prefix, template in TEMPLATE_OF.items() if preset.startswith(prefix))


def preset_config(preset: str, vocab_size: int | None = None, **options: Any) -> TempFlexConfig:
    """Configuration of a preset, with ``options`` (fields of ``TempFlexConfig``, or ``variant``,
    ``fusion_layers``) replaced.

    ``fusion_layers=None`` keeps the preset's own depth.

    Raises:
        RecipeError: an unknown preset or option, or a value the configuration refuses.
    """
    if preset not in PRESETS:
        raise RecipeError(
            f"use the model preset {preset!r}",
            "there is none of that name",
            f"choose one of: {', '.join(PRESETS)}",
        )
    values = PRESETS[preset](vocab_size) | apply_aliases(options)
    try:
        return TempFlexConfig(**values)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise RecipeError(
            f"configure {preset}", str(error).replace("\n", " "), "correct the option named"
        ) from error


def apply_aliases(options: dict[str, Any]) -> dict[str, Any]:
    """Options under their configuration names. Raises RecipeError for an unknown one."""
    out = {}
    for name, value in options.items():
        field = ALIASES.get(name, name)
        if field not in TempFlexConfig.__dataclass_fields__:
            known = ", ".join(
                sorted(
                    [
                        "variant",
                        "fusion_layers",
                        "merge",
                        "images",
                        "pool_to",
                        "encoding",
                        "newline",
                        "use_fusion",
                    ]
                )
            )
            raise RecipeError(
                f"set the model option {name!r}", "there is none of that name", f"common options: {known}"
            )
        if not (field == "fusion_depth" and value is None):
            out[field] = value
    return out
