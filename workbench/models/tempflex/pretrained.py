"""Start a TempFlex model from published parts: a SigLIP2-NaFlex encoder and a Qwen3 or Gemma3 language model.

Fusion and merger are new; stage 1 aligns them. Parts are read with transformers from a local folder or a hub name, as safetensors,
never with ``trust_remote_code``.
"""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from workbench.errors import CheckpointError
from workbench.models.tempflex.encoder import from_siglip2
from workbench.models.tempflex.modeling import TempFlexForConditionalGeneration

SAFE = {"use_safetensors": True, "trust_remote_code": False}


def load_encoder(model: TempFlexForConditionalGeneration, source: str) -> None:
    """Copy the vision tower of a SigLIP2-NaFlex checkpoint into ``model.encoder``.

    Raises:
        CheckpointError: it cannot be read, is another kind of model, or has other sizes.
    """
    asked = f"take the encoder from {source}"
    try:
        kind = AutoConfig.from_pretrained(source).model_type
        if kind not in ("siglip2", "siglip2_vision_model"):
            raise CheckpointError(asked, f"it is a {kind!r} model", "give a SigLIP2 NaFlex checkpoint")
        part = AutoModel.from_pretrained(source, dtype=model.dtype, **SAFE)
        state = getattr(part, "vision_model", part).state_dict()
        model.encoder.load_state_dict(from_siglip2(state, model.config.vision_config))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            asked, _first_line(error), "check the name and its sizes against the preset"
        ) from error


def load_language_model(model: TempFlexForConditionalGeneration, source: str) -> None:
    """Copy a causal language model of the preset's family into ``model.language_model`` (its head included).

    Raises:
        CheckpointError: it cannot be read, is of another family, or has other sizes.
    """
    asked = f"take the language model from {source}"
    ours = model.config.text_config
    try:
        found = AutoConfig.from_pretrained(source).get_text_config()
        if found.model_type != ours.model_type:
            raise CheckpointError(
                asked, f"it is {found.model_type!r}, the preset needs {ours.model_type!r}", "change one"
            )
        part = AutoModel.from_pretrained(source, dtype=model.dtype, **SAFE)
        decoder = getattr(part, "language_model", part)
        model.language_model.load_state_dict(decoder.state_dict())
        if not model.config.tie_word_embeddings:
            raise CheckpointError(
                asked, "its output head is not tied to its embeddings", "use a preset with tied weights"
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            asked, _first_line(error), "check the name and its sizes against the preset"
        ) from error
    model.tie_weights()


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a language model. Raises CheckpointError when it cannot be read."""
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"load the tokenizer of {source}", _first_line(error), "give a local folder or hub name"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


@torch.no_grad()
def load_parts(
    model: TempFlexForConditionalGeneration, encoder: str | None, language_model: str | None
) -> None:
    """Both parts, each optional."""
    if encoder is not None:
        load_encoder(model, encoder)
    if language_model is not None:
        load_language_model(model, language_model)
