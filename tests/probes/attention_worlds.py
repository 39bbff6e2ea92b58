"""Models of every kind with a sample, and slow ways to the same attention, for the tests of this room."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.models import worlds
from tests.models.hosts import tiny

OURS = {
    "tempflex": ("tiny", {}),
    "tempflex-release": ("tiny", {"variant": "release", "merge": "strip4", "newline": True, "pool_to": 4}),
    "tempflex-gemma3": (
        "tiny-gemma3",
        {"newline": True},
    ),  # sliding window of 32, two key/value heads of four
}
ALL = (*OURS, *tiny.KINDS)


def world(name: str) -> tuple[Any, Any, Any, Any]:
    """(model, processor, sample of F frames, clip of F frames)."""
    if name in OURS:
        preset, options = OURS[name]
        return *worlds.model(preset, **options), worlds.sample, lambda f: worlds.clip(f, 48, 32)
    return *tiny.tiny_host(name), tiny.sample, lambda f: tiny.clip(f, 40, 24)


def set_attention(model: Any, name: str) -> None:
    (model.host if hasattr(model, "host") else model).set_attn_implementation(name)


def eager(model: Any, where: str = "llm", **inputs: Any) -> np.ndarray:
    """Weights of a forward pass under eager attention, ``[layers, B, H, Q, K]``: N x N and 0 where not visible."""
    found: dict[int, torch.Tensor] = {}
    names = model.attention_layers()[where]
    config = model.get_submodule(names[0]).config  # shared by all layers
    before = config._attn_implementation

    def keep(layer: int, module: Any):
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            if isinstance(output, tuple):
                found[layer] = output[1]
            else:  # our encoder returns no weights: from its projections [T, P, 3 * H * E]
                q, k, _ = output.unflatten(-1, (3, module.heads, -1)).transpose(1, 3).unbind(2)
                found[layer] = (q @ k.transpose(-1, -2) * module.scaling).softmax(-1)

        return hook

    hooks = []
    for i, name in enumerate(names):
        module = model.get_submodule(name)
        hooks.append(getattr(module, "qkv", module).register_forward_hook(keep(i, module)))
    config._attn_implementation = "eager"
    try:
        with torch.no_grad():
            model.eval()(**inputs, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
        config._attn_implementation = before
    return torch.stack([found[i] for i in range(len(names))]).float().numpy()


def assert_rows(rows: np.ndarray, expected: np.ndarray, atol: float = 2e-6) -> None:
    """Equal where visible; NaN exactly where the slow way has nothing."""
    np.testing.assert_array_equal(np.isnan(rows), expected == 0)
    np.testing.assert_allclose(np.nan_to_num(rows), expected, atol=atol, rtol=0)
