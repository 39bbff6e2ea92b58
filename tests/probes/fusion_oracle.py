"""The TFF lens written out: one frame, one patch, one term at a time, in float64. Parameters under our own names."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

FREQUENCIES = (1, 2, 4, 8, 16)


def linear(params: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return params[f"{name}.weight"] @ x + params[f"{name}.bias"]


def memory_weight(a: list[Tensor], f: int, i: int, variant: str, last: int | None = None) -> Tensor:
    """v_{f,i}, every product written out; the release's products run to ``last`` (the final frame if None)."""
    v = 1 - a[i]
    if variant == "paper":
        for j in range(i + 1, f + 1):
            v = v * a[j]
    elif i > 0:
        for j in range(i - 1, (len(a) - 1 if last is None else last) + 1):
            v = v * a[j]
    return v


def effective_frames(v: list[Tensor]) -> list[float]:
    """Of every channel, from the weights of the frames seen."""
    effective = []
    for c in range(len(v[0])):
        total, squares = sum(float(w[c]) for w in v), sum(float(w[c]) ** 2 for w in v)
        effective.append(total**2 / squares if squares else 0.0)
    return effective


def horizon(a: list[Tensor], x: list[Tensor], f: int, variant: str) -> list[float]:
    """effective_frames, past_share, mean_age, mass, future_factor, leak of frame f of one fiber."""
    v = [memory_weight(a, f, i, variant) for i in range(f + 1)]
    dim = len(x[0])
    effective = effective_frames(v)
    total = sum(float(w.sum()) for w in v)
    past = sum(float(w.sum()) for w in v[:-1]) / total
    age = sum((f - i) * float(w.sum()) for i, w in enumerate(v)) / total
    factor, leak = 1.0, 0.0
    if variant == "release":
        product = torch.ones_like(x[0])
        for j in range(f + 1, len(a)):
            product = product * a[j]
        factor = float(product.mean())
        causal = sum(memory_weight(a, f, i, variant, last=f) * x[i] for i in range(f + 1))
        real = sum(w * x_i for w, x_i in zip(v, x, strict=False))
        leak = float((real - causal).norm() / causal.norm())
    return [sum(effective) / dim, past, age, total / dim, factor, leak]


def branches(params: dict[str, Tensor], x: list[Tensor], variant: str) -> dict[str, object]:
    """Of one fiber ``x[f]``: beta, kernel, and local, memory, periodic by frame."""
    frames, dim = len(x), len(x[0])
    mean = sum(x[1:], x[0]) / frames
    kernel = linear(params, "local_out", functional.gelu(linear(params, "local_in", mean))).reshape(3, dim)
    a = [torch.sigmoid(linear(params, "gate", x_f)) for x_f in x]
    out: dict[str, object] = {
        "beta": torch.softmax(linear(params, "blend", mean), 0),
        "kernel": kernel,
        "a": a,
    }
    local, memory, periodic = [], [], []
    for f in range(frames):
        local.append(sum((kernel[j + 1] * x[(f + j) % frames] for j in (-1, 0, 1)), torch.zeros_like(mean)))
        terms = [memory_weight(a, f, i, variant) * x[i] for i in range(f + 1)]
        memory.append(sum(terms[1:], terms[0]))
        cosines = [math.cos(2 * math.pi * w * f / frames) for w in FREQUENCIES]
        if variant == "paper":
            terms = [c * (params["periodic"][w] @ x[f]) for w, c in enumerate(cosines)]
        else:
            terms = [c * x[f] for c in cosines]
        periodic.append(sum(terms[1:], terms[0]))
    return out | {"local": local, "memory": memory, "periodic": periodic}


def through_norm(params: dict[str, Tensor], name: str, u: Tensor, total: Tensor) -> Tensor:
    """u's share of LayerNorm(total), without the bias."""
    scale = torch.sqrt(((total - total.mean()) ** 2).mean() + 1e-5)
    return (u - u.mean()) / scale * params[f"{name}.weight"]


def glu(x: Tensor) -> Tensor:
    half = len(x) // 2
    return x[:half] * torch.sigmoid(x[half:])


def parts(params: dict[str, Tensor], x: Tensor, addends: list[Tensor], variant: str) -> list[Tensor]:
    """local, memory, periodic, context, ffn, bias of one token, from the four addends of y."""
    y = sum(addends[1:], addends[0])
    if variant == "paper":
        ffn = glu(linear(params, "ffn_out", functional.gelu(linear(params, "ffn_in", y))))
        through = [through_norm(params, "norm", u, y + ffn) for u in (*addends, ffn)]
        return [*through, params["norm.bias"]]
    through = [through_norm(params, "norm", u, y) for u in addends]
    o = x + sum(through[1:], through[0]) + params["norm.bias"]
    normed = through_norm(params, "norm_ffn", o, o) + params["norm_ffn.bias"]
    ffn = glu(linear(params, "ffn_out", functional.gelu(linear(params, "ffn_in", normed))))
    return [*through, ffn, params["norm.bias"]]


def take_apart(params: dict[str, Tensor], x_FPD: Tensor, variant: str) -> dict[str, Tensor]:
    """Everything ``LayerView`` holds of one layer and clip, and ``output`` z."""
    frames, patches, dim = x_FPD.shape
    fibers = [branches(params, list(x_FPD[:, p]), variant) for p in range(patches)]
    names = ("local", "memory", "periodic")
    weighted = [
        [[fiber["beta"][j] * fiber[name][f] for j, name in enumerate(names)] for fiber in fibers]
        for f in range(frames)
    ]
    found: dict[str, list] = {"parts": [], "norms": [], "horizon": [], "output": []}
    for f in range(frames):
        fused = [sum(w[1:], w[0]) for w in weighted[f]]
        context = params["gamma"] * (sum(fused[1:], fused[0]) / patches)
        for p in range(patches):
            x, fiber = x_FPD[f, p], fibers[p]
            pieces = parts(params, x, [*weighted[f][p], context], variant)
            z = x + sum(pieces[1:], pieces[0])
            branch = [fiber[name][f] for name in names]
            found["parts"].append(torch.stack(pieces))
            found["norms"].append(torch.stack([v.norm() for v in (x, *branch, fused[p], context, z - x, z)]))
            row = horizon(fiber["a"], list(x_FPD[:, p]), f, variant)
            found["horizon"].append(torch.tensor(row, dtype=torch.float64))
            found["output"].append(z)
    out = {name: torch.stack(rows).reshape(frames, patches, *rows[0].shape) for name, rows in found.items()}
    update = out["output"] - x_FPD
    out["shares"] = torch.stack(
        [(out["parts"][:, :, k] * update).sum(-1) / update.square().sum(-1) for k in range(6)], dim=-1
    )
    out["beta"] = torch.stack([fiber["beta"] for fiber in fibers])
    out["kernels"] = torch.stack([fiber["kernel"] for fiber in fibers])
    weights = torch.zeros(frames, frames, dtype=torch.float64)
    for f in range(frames):
        for i in range(f + 1):
            weights[f, i] = (
                sum(float(memory_weight(fiber["a"], f, i, variant).mean()) for fiber in fibers) / patches
            )
    last = [[memory_weight(fiber["a"], frames - 1, i, variant) for i in range(frames)] for fiber in fibers]
    channels = torch.tensor([effective_frames(v) for v in last], dtype=torch.float64).mean(0)
    out["horizon_channels"] = channels
    return out | {"memory_weights": weights, "gains": gains(params, frames, dim, variant)}


def gains(params: dict[str, Tensor], frames: int, dim: int, variant: str) -> Tensor:
    """|C_f|_F / sqrt(D), with the matrix made."""
    rows = []
    for f in range(frames):
        combined = torch.zeros(dim, dim, dtype=torch.float64)
        for i, w in enumerate(FREQUENCIES):
            each = params["periodic"][i] if variant == "paper" else torch.eye(dim, dtype=torch.float64)
            combined = combined + math.cos(2 * math.pi * w * f / frames) * each
        rows.append(combined.norm() / math.sqrt(dim))
    return torch.stack(rows)
