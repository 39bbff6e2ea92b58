"""The slow way to a knockout: a whole forward pass in which chosen attention edges are hidden.

What suffix replay is checked against, and what is used openly where replay does not hold. H heads, Q queries, K keys.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from workbench.probes.attention_tap import Call, attention_modules
from workbench.probes.attention_visible import visible
from workbench.probes.common import ProbeError

NAME = "workbench_masked"
_hidden: weakref.WeakKeyDictionary[nn.Module, Tensor] = weakref.WeakKeyDictionary()


def refuse_softcap(options: Mapping[str, Any]) -> None:
    """Raises ProbeError for attention that squashes its scores, which fused kernels do not compute."""
    if options.get("softcap") is not None:
        raise ProbeError(
            "knock out attention edges",
            f"this model caps its attention scores at {options['softcap']}, which sdpa does not compute",
            "Such models are not supported",
        )


def masked_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' sdpa function, with the edges hidden that ``hide_edges`` names for this module."""
    refuse_softcap(options)
    hidden = _hidden.get(module)
    if hidden is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    call = Call(0, 0, "sdpa", module, query, key, value, attention_mask, query, options)
    seen, added = visible(call, 0, torch.arange(query.shape[2], device=query.device))
    mask = (seen & ~hidden)[None]
    if added is not None:
        mask = added[None].to(query.dtype).masked_fill(~mask, -torch.inf)
    return sdpa_attention_forward(module, query, key, value, mask, **options)


AttentionInterface.register(NAME, masked_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextlib.contextmanager
def llm_attention(model: Any, name: str) -> Iterator[list[nn.Module]]:
    """The language model's attention computed by the registered function ``name``; gives its modules by depth."""
    modules = attention_modules(model, "llm", None)[1]
    found: list[Any] = [module.config for module in modules]  # layers share theirs
    configs = list({id(config): config for config in found}.values())
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = name
        yield modules
    finally:
        for config, base in zip(configs, before, strict=True):
            config._attn_implementation = base


@contextlib.contextmanager
def hide_edges(model: Any, hidden: Mapping[int, Tensor]) -> Iterator[None]:
    """While open, forward passes of one conversation see none of the edges ``hidden[layer]``: bool ``[Q, K]``."""
    with llm_attention(model, NAME) as modules:
        try:
            for layer, edges in hidden.items():
                _hidden[modules[layer]] = edges
            yield
        finally:
            for layer in hidden:
                _hidden.pop(modules[layer], None)
