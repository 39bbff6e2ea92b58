"""Slow, obvious oracles for Temporal Fiber Fusion: one fiber, one frame, one term at a time, in float64.

``params`` are a layer's tensors: our names for the paper's variant, the release's own names for the
release's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def paper_memory(a: list[Tensor], x: list[Tensor]) -> list[Tensor]:
    """Eq. 2."""
    m, out = torch.zeros_like(x[0]), []
    for a_f, x_f in zip(a, x, strict=True):
        m = a_f * m + (1 - a_f) * x_f
        out.append(m)
    return out


def release_memory(a: list[Tensor], x: list[Tensor]) -> list[Tensor]:
    """m_f = sum_{i<=f} w_i (1 - a_i) x_i, w_0 = 1, w_i = prod_{j>=i-1} a_j: every product written out."""
    frames, out = len(x), []
    for f in range(frames):
        m = torch.zeros_like(x[0])
        for i in range(f + 1):
            w = torch.ones_like(x[0])
            if i > 0:
                for j in range(i - 1, frames):
                    w = w * a[j]
            m = m + w * (1 - a[i]) * x[i]
        out.append(m)
    return out


def _linear(params: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return params[f"{name}.weight"] @ x + params[f"{name}.bias"]


def _layer_norm(params: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    centred = x - x.mean()
    return (
        centred / torch.sqrt((centred**2).mean() + 1e-5) * params[f"{name}.weight"] + params[f"{name}.bias"]
    )


def _glu(x: Tensor) -> Tensor:
    half = len(x) // 2
    return x[:half] * torch.sigmoid(x[half:])


def _layer(
    x_BFPD: Tensor, names: dict[str, str], params: dict[str, Tensor], memory, periodic, refine
) -> Tensor:
    clips, frames, patches, dim = x_BFPD.shape
    z = []
    for b in range(clips):
        y = [[torch.zeros(dim, dtype=x_BFPD.dtype)] * patches for _ in range(frames)]
        for p in range(patches):
            x = [x_BFPD[b, f, p] for f in range(frames)]
            mean = sum(x[1:], x[0]) / frames
            hidden = functional.gelu(_linear(params, names["local_in"], mean))
            kernel = _linear(params, names["local_out"], hidden).reshape(3, dim)
            beta = torch.softmax(_linear(params, names["blend"], mean), 0)
            m = memory([torch.sigmoid(_linear(params, names["gate"], x_f)) for x_f in x], x)
            for f in range(frames):
                local = sum((kernel[j + 1] * x[(f + j) % frames] for j in (-1, 0, 1)), torch.zeros_like(mean))
                y[f][p] = beta[0] * local + beta[1] * m[f] + beta[2] * periodic(f, frames, x[f])
        for f in range(frames):
            context = sum(y[f][1:], y[f][0]) / patches
            for p in range(patches):
                z.append(refine(x_BFPD[b, f, p], y[f][p] + params["gamma"].flatten() * context))
    return torch.stack(z).reshape(x_BFPD.shape)


FREQUENCIES = (1, 2, 4, 8, 16)
PAPER_NAMES = {name: name for name in ("local_in", "local_out", "gate", "blend")}
RELEASE_NAMES = {
    "local_in": "local_gen.0",
    "local_out": "local_gen.2",
    "gate": "mem_gate",
    "blend": "blend_fc",
}


def paper_layer(x_BFPD: Tensor, params: dict[str, Tensor]) -> Tensor:
    """Eq. 1-5 of the paper."""

    def periodic(f: int, frames: int, x: Tensor) -> Tensor:
        terms = [
            math.cos(2 * math.pi * w * f / frames) * (params["periodic"][i] @ x)
            for i, w in enumerate(FREQUENCIES)
        ]
        return sum(terms[1:], terms[0])

    def refine(x: Tensor, y: Tensor) -> Tensor:
        ffn = _glu(_linear(params, "ffn_out", functional.gelu(_linear(params, "ffn_in", y))))
        return x + _layer_norm(params, "norm", y + ffn)

    return _layer(x_BFPD, PAPER_NAMES, params, paper_memory, periodic, refine)


def release_layer(x_BFPD: Tensor, params: dict[str, Tensor]) -> Tensor:
    """The layer of the release of 2025-12, parameters under its own names."""

    def periodic(f: int, frames: int, x: Tensor) -> Tensor:
        return sum(math.cos(2 * math.pi * w * f / frames) for w in FREQUENCIES) * x

    def refine(x: Tensor, y: Tensor) -> Tensor:
        o = x + _layer_norm(params, "norm_fiber", y)
        hidden = functional.gelu(_linear(params, "ffn.0", _layer_norm(params, "norm_ffn", o)))
        return o + _glu(_linear(params, "ffn.2", hidden))

    return _layer(x_BFPD, RELEASE_NAMES, params, release_memory, periodic, refine)


def layer_params(state: dict[str, Tensor], layer: int, double: bool = True) -> dict[str, Tensor]:
    """One layer's tensors out of a stack's state dict."""
    prefix = f"layers.{layer}."
    picked = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {key: value.double() for key, value in picked.items()} if double else picked


def release_state(dim: int, depth: int, seed: int = 0) -> dict[str, Tensor]:
    """A random state dict with the names and shapes of the release's temporal encoder."""
    rng = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"gamma": (1, 1, 1, dim)}
    linear = {
        "local_gen.0": (dim, dim),
        "local_gen.2": (3 * dim, dim),
        "mem_gate": (dim, dim),
        "blend_fc": (3, dim),
    }
    linear |= {"ffn.0": (4 * dim, dim), "ffn.2": (2 * dim, 4 * dim)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in ("norm_fiber", "norm_ffn"):
        shapes |= {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
    return {
        f"layers.{layer}.{name}": torch.randn(shape, generator=rng) * 0.4
        for layer in range(depth)
        for name, shape in shapes.items()
    }
