"""``StockModel``: a transformers model held unchanged, and what callers ask of a model that it answers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from workbench.models.tempflex.modeling import without_bars
from workbench.models.tempflex.packed import NAME as PACKED


class StockModel(nn.Module):
    """Parameters keep their names behind ``host.``; the language model's "sdpa" takes the form that needs no mask."""

    host: Any

    def __init__(self, host: PreTrainedModel) -> None:
        super().__init__()
        self.host = host
        if self.language_model.config._attn_implementation in (None, "sdpa"):
            self.language_model.set_attn_implementation(PACKED)

    @property
    def config(self) -> Any:
        return self.host.config

    @property
    def generation_config(self) -> Any:
        return self.host.generation_config

    @property
    def device(self) -> torch.device:
        return self.host.device

    @property
    def dtype(self) -> torch.dtype:
        return self.host.dtype

    @property
    def language_model(self) -> Any:
        return self.host.model.language_model

    @property
    def lm_head(self) -> nn.Linear:
        return self.host.lm_head

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_attn_implementation(self, implementation: str | dict[str, str]) -> None:
        """As in transformers; where "sdpa" is asked for, the language model takes the form of it that needs no
        mask."""
        self.host.set_attn_implementation(implementation)
        if self.language_model.config._attn_implementation == "sdpa":
            self.language_model.set_attn_implementation(PACKED)

    def activation_checkpointing_enable(self, options: dict[str, Any] | None = None) -> None:
        self.host.activation_checkpointing_enable(options)

    def save_pretrained(self, directory: str | Path) -> None:
        """The stock model's folder, as transformers writes and reads it."""
        with without_bars():
            self.host.save_pretrained(directory)
