"""Suffix replay: what a model answers when text may not look at some visual positions, without computing these again.

Axes: P prefix positions (up to the last visual one), S suffix positions (the text behind), B knockouts at once, H query
heads, G key/value heads, r = H / G, E channels a head.

Attention is causal, so text behind the video changes nothing in it: its keys and values are the same in every layer,
whatever that text may look at. In phases:

1. *keep*, one forward pass: every layer's keys and values of the prefix, which of them each suffix position sees, and
   each layer's input at the suffix;
2. *replay*: for many knockouts together, the model's own layers run over the S suffix positions from the first blocked
   layer on. Their attention is computed here, over kept and new keys, with the block hidden in the blocked layers.

A knockout costs S positions instead of P + S, and half of the layers on average. [OURS, science.md section 2]
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from workbench.probes.attention_tap import AttentionTap, Call
from workbench.probes.attention_visible import visible
from workbench.probes.common import ProbeError
from workbench.probes.knockout_masked import llm_attention, refuse_softcap

NAME = "workbench_replay"
SCORE_BYTES = (
    128 << 20
)  # attention scores and logits of the knockouts that run together; on a GPU an eighth of what is free
MOST_ROWS = 64
_running: weakref.WeakKeyDictionary[nn.Module, _Step] = weakref.WeakKeyDictionary()


@dataclass
class KeptLayer:
    """One layer's ``key``, ``value`` ``[G, P, E]`` of the prefix; ``seen`` bool ``[1 or H, S, P + S]``; ``added``
    to the scores or None; ``hidden`` ``[1, S, D]`` its input at the suffix, ``options`` its other arguments."""

    key: Tensor
    value: Tensor
    seen: Tensor
    added: Tensor | None
    scaling: float
    heads: int
    module: nn.Module
    hidden: Tensor = field(default_factory=lambda: torch.empty(0))
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Kept:
    """What one forward pass leaves behind for replay.

    Attributes:
        layers: by depth.
        prefix: P.
        logits: float32 ``[T, V]`` at the asked places.
        seen_prefix: bool ``[layers, P]``: which prefix positions any suffix position sees.
    """

    layers: list[KeptLayer]
    prefix: int
    logits: Tensor
    seen_prefix: np.ndarray


def keep(model: Any, inputs: dict[str, Any], places: np.ndarray, prefix: int) -> Kept:
    """One forward pass of one conversation; see the module.

    Args:
        inputs: of ``model.forward``; one row, no padding.
        places: ``[T]`` positions whose logits are wanted.
        prefix: P.

    Raises:
        ProbeError: attention that looks ahead from the prefix, scores that are capped, or layers that cannot be read.
    """
    n = inputs["input_ids"].shape[1]
    names = model.attention_layers()["llm"]
    blocks = [model.get_submodule(name.rsplit(".", 1)[0]) for name in names]
    arguments: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    layers: list[KeptLayer] = []

    def enter(layer: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            arguments[layer] = (args, kwargs)

        return hook

    def see(call: Call) -> None:
        refuse_softcap(call.options)
        at = torch.arange(prefix - 1, n, device=call.query.device)
        seen, added = visible(call, 0, at)
        if seen[:, 0, prefix:].any():
            raise ProbeError(
                "replay the text alone",
                f"positions of the video see the text behind it in layer {call.layer}",
                "Ask for recompute, which runs a whole forward pass for each knockout",
            )
        layers.append(
            KeptLayer(
                call.key[0, :, :prefix].clone(),
                call.value[0, :, :prefix].clone(),
                seen[:, 1:].clone(),
                None if added is None else added[:, 1:].clone(),
                call.scaling,
                call.query.shape[1],
                blocks[call.layer],
            )
        )

    hooks = [
        block.register_forward_pre_hook(enter(layer), with_kwargs=True) for layer, block in enumerate(blocks)
    ]
    try:
        with AttentionTap(model, see):
            logits = logits_at(model, inputs, places)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, kept in enumerate(layers):
        args, kwargs = arguments[layer]
        hidden = args[0] if args else kwargs["hidden_states"]
        kept.hidden = hidden[:, prefix:].clone()
        kept.options = _suffix_options(kwargs, prefix)
    seen_prefix = torch.stack([kept.seen.any(0).any(0)[:prefix] for kept in layers]).cpu().numpy()
    return Kept(layers, prefix, logits, seen_prefix)


def _suffix_options(kwargs: dict[str, Any], prefix: int) -> dict[str, Any]:
    """A decoder layer's keyword arguments for the suffix alone: rotations cut, masks and caches gone."""
    options: dict[str, Any] = {"attention_mask": None, "past_key_values": None, "use_cache": False}
    rotation = kwargs["position_embeddings"]
    options["position_embeddings"] = tuple(part[..., prefix:, :].clone() for part in rotation)
    if isinstance(kwargs.get("position_ids"), Tensor):
        options["position_ids"] = kwargs["position_ids"][..., prefix:]
    return options


def logits_at(model: Any, inputs: dict[str, Any], places: np.ndarray) -> Tensor:
    """Logits float32 ``[T, V]`` of one whole forward pass at positions ``places``."""
    at = torch.from_numpy(places)
    rows = torch.stack([torch.zeros_like(at), at], 1).to(inputs["input_ids"].device)
    return model.logits_at(at=rows, **inputs).float()


def final_logits(model: Any, hidden: Tensor) -> Tensor:
    """Logits float32 of the language model's normed output: head and, where the model has one, its softcap."""
    logits = model.get_output_embeddings()(hidden)
    softcap = getattr(model.language_model.config, "final_logit_softcapping", None)
    return (logits if softcap is None else torch.tanh(logits / softcap) * softcap).float()


@dataclass
class _Step:
    """One layer of one batch of knockouts: ``hidden`` bool ``[B, P]`` (None: nothing is)."""

    kept: KeptLayer
    hidden: Tensor | None


def replay_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """Attention of the suffix over kept prefix and own keys: query ``[B, H, S, E]`` -> ``[B, S, H, E]``.

    The prefix is shared by all B, so its scores are one product of ``[B r S, E]`` and ``[E, P]`` for each of G heads.
    """
    step = _running[module]
    kept = step.kept
    (b, h, s, e), g = query.shape, key.shape[1]
    r, p = h // g, kept.key.shape[1]
    q_GBrSE = (query * kept.scaling).view(b, g, r, s, e).transpose(0, 1)
    scores = torch.empty(g, b, r, s, p + s, dtype=torch.float32, device=query.device)
    flat = torch.bmm(q_GBrSE.reshape(g, b * r * s, e), kept.key.transpose(1, 2))
    scores[..., :p] = flat.view(g, b, r, s, p)
    own = torch.matmul(q_GBrSE.reshape(g, b, r * s, e), key.transpose(0, 1).transpose(-1, -2))
    scores[..., p:] = own.view(g, b, r, s, s)
    if kept.added is not None:
        scores += _by_group(kept.added, g)
    seen = _by_group(kept.seen, g)
    scores[..., p:].masked_fill_(~seen[..., p:], -torch.inf)
    if not bool(kept.seen[..., :p].all()):
        scores[..., :p].masked_fill_(~seen[..., :p], -torch.inf)
    if step.hidden is not None:
        scores[..., :p].masked_fill_(step.hidden[None, :, None, None, :], -torch.inf)
    weights = scores.softmax(-1).to(query.dtype)
    out = torch.bmm(weights[..., :p].reshape(g, b * r * s, p), kept.value).view(g, b, r * s, e)
    out = out + torch.matmul(weights[..., p:].reshape(g, b, r * s, s), value.transpose(0, 1))
    return out.view(g, b, r, s, e).permute(1, 3, 0, 2, 4).reshape(b, s, h, e), None


def _by_group(table: Tensor, groups: int) -> Tensor:
    """``[1 or H, S, K]`` -> ``[1 or G, 1, 1 or r, S, K]``."""
    return table[None, None] if len(table) == 1 else table.unflatten(0, (groups, -1))[:, None]


AttentionInterface.register(NAME, replay_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def rows_at_once(kept: Kept, logits: int) -> int:
    """Knockouts that run together: what the memory of their scores and ``logits`` numbers each allows."""
    layer = kept.layers[0]
    scores = layer.heads * layer.seen.shape[1] * layer.seen.shape[2]
    room = SCORE_BYTES
    if layer.key.is_cuda:
        room = max(room, torch.cuda.mem_get_info(layer.key.device)[0] // 8)
    return max(1, min(MOST_ROWS, room // (4 * (scores + logits))))


def replay(
    model: Any, kept: Kept, places: np.ndarray, cells: Sequence[tuple[tuple[int, int], Tensor]]
) -> Tensor:
    """Logits float32 ``[B, T, V]`` of a batch of knockouts, each (window of layers, hidden bool ``[P]``).

    Args:
        places: ``[T]`` positions of the conversation, all in the suffix.
    """
    first = min(window[0] for window, _ in cells)
    hidden_BP = torch.stack([block for _, block in cells])
    x = kept.layers[first].hidden.expand(len(cells), -1, -1)
    with llm_attention(model, NAME) as modules:
        try:
            for layer in range(first, len(kept.layers)):
                step = kept.layers[layer]
                on = [a <= layer < b for (a, b), _ in cells]
                hidden = hidden_BP & torch.tensor(on, device=x.device)[:, None] if any(on) else None
                _running[modules[layer]] = _Step(step, hidden)
                out = step.module(x, **step.options)
                x = out[0] if isinstance(out, tuple) else out
        finally:
            for module in modules:
                _running.pop(module, None)
    x = x[:, torch.from_numpy(places - kept.prefix).to(x.device)]
    return final_logits(model, model.language_model.norm(x))
