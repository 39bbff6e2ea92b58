"""The slow, obvious way to a knockout: eager attention over the whole conversation, with chosen scores at minus
infinity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from workbench.probes.attention import inputs_of


def answer_logs(logits: torch.Tensor, prepared: Any) -> np.ndarray:
    """log p of each labelled token, from logits ``[N, V]``."""
    places = (prepared.labels[1:] != -100).nonzero().flatten()
    logs = logits.double().log_softmax(-1)
    return np.array([float(logs[p, prepared.input_ids[p + 1]]) for p in places.tolist()])


def eager_logs(model: Any, prepared: Any, hidden: Mapping[int, np.ndarray] | None = None) -> np.ndarray:
    """log p of each answer token when layer i does not see the edges ``hidden[i]`` (bool [N, N])."""
    names = model.attention_layers()["llm"]
    config = model.get_submodule(names[0]).config
    before = config._attn_implementation

    def hide(edges: np.ndarray):
        def hook(_module: Any, args: Any, kwargs: dict[str, Any]):
            mask = kwargs["attention_mask"].clone()
            mask[:, :, torch.from_numpy(edges)] = torch.finfo(mask.dtype).min
            return args, kwargs | {"attention_mask": mask}

        return hook

    hooks = [
        model.get_submodule(names[layer]).register_forward_pre_hook(hide(edges), with_kwargs=True)
        for layer, edges in (hidden or {}).items()
    ]
    config._attn_implementation = "eager"
    try:
        with torch.no_grad():
            logits = model.eval()(**inputs_of(prepared, model), use_cache=False).logits[0]
    finally:
        for hook in hooks:
            hook.remove()
        config._attn_implementation = before
    return answer_logs(logits, prepared)


def text_behind(prepared: Any) -> np.ndarray:
    """Bool [N]: everything behind the last position that is visual or a newline."""
    kinds = prepared.token_map.kind
    last = max(i for i, kind in enumerate(kinds) if kind in (3, 4))
    return np.arange(len(kinds)) > last


def slow_map(
    model: Any, prepared: Any, windows, block_of: np.ndarray, queries: np.ndarray | None
) -> np.ndarray:
    """Deltas [window, block], one eager forward pass each; ``queries`` None: every position outside the block."""
    baseline = eager_logs(model, prepared).sum()
    found = np.zeros((len(windows), block_of.max() + 1))
    for w, (first, stop) in enumerate(windows):
        for block in range(found.shape[1]):
            mine = block_of == block
            edges = (~mine if queries is None else queries)[:, None] & mine[None]
            found[w, block] = eager_logs(model, prepared, dict.fromkeys(range(first, stop), edges)).sum()
    return found - baseline
