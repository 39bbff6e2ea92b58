"""Exact attention rows from what an attention function was given, checked against what it returned.

Axes: H query heads (h those chosen), G key/value heads, R chosen queries, K keys, E channels a head, D model width.

    A[h, r, :] = softmax(q_r K^T * scale + mask)        in float32, whatever the model computes in     (science.md 2)

Memory: a block of rows at a time, so the N x N matrix never exists.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.probes.attention_tap import Call
from workbench.probes.attention_visible import visible
from workbench.probes.common import ProbeError

BLOCK = 1 << 23  # scores computed at once (32 MiB in float32)
# what |A V - O| may be, as a share of the largest |V|: rounding of the kernel's own sums and of its output
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2, torch.float64: 1e-4}


@dataclass(frozen=True, slots=True)
class Rows:
    """A block of rows: ``weights`` float32 ``[h, R, K]``, NaN where a key is not visible; ``start``: index of its first
    row among those asked for; ``error``: max |A V - O|; ``largest``: max |V|."""

    weights: Tensor
    start: int
    error: float
    largest: float


def exact_rows(
    call: Call,
    places: Tensor,
    row: int = 0,
    heads: Sequence[int] | None = None,
    keys: slice = slice(None),
    block: int = BLOCK,
) -> Iterator[Rows]:
    """Rows of the queries at ``places`` ``[R]`` of batch row ``row``, a block at a time.

    Args:
        heads: query heads; None for all.
        keys: only these keys are looked at; the others must not be visible (another conversation's).
    """
    places = places.to(call.query.device)
    chosen, kv = _heads(call, heads)
    k = call.key[row, :, keys].float()
    v = call.value[row, :, keys].float()
    if kv is not None:
        k, v = k[kv], v[kv]
    n_heads, n_keys = len(chosen), k.shape[1]
    step = max(1, block // max(1, n_heads * n_keys))
    softcap = call.options.get("softcap")
    # not abs().max(), which is ten times slower on the strided values that models hand over
    largest = torch.stack(torch.aminmax(v)).abs().max() if v.numel() else v.new_zeros(())
    for start in range(0, len(places), step):
        at = places[start : start + step]
        # gathered along the axis that is outermost in memory
        q = call.query[row].transpose(0, 1).index_select(0, at).transpose(0, 1).float()
        q = q if kv is None else q[chosen]
        scores = _by_group(q * call.scaling, k.transpose(1, 2))
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        seen, added = visible(call, row, at)
        seen = _of_heads(seen, chosen)[..., keys]
        if added is not None:
            scores += _of_heads(added, chosen)[..., keys]
        # masks are added: a small table that is broadcast over heads, where filling would walk over every score.
        # A query that sees nothing comes out as NaN, which is what its keys shall be
        weights = scores.add_(_table(seen, -math.inf)).softmax(-1)
        got = _by_group(weights, v)
        expected = call.output[row].index_select(0, at).transpose(0, 1).float()
        expected = expected if kv is None else expected[chosen]
        off = torch.where(seen.any(-1, keepdim=True), (got - expected).abs(), 0.0)
        found = torch.stack([off.max() if off.numel() else largest * 0, largest]).tolist()  # one transfer
        yield Rows(weights.add_(_table(seen, math.nan)), start, *found)


def check(layer: int, where: str, error: float, largest: float, dtype: torch.dtype) -> None:
    """Refuse rows that do not explain the output of their layer. Raises ProbeError with the numbers."""
    allowed = TOLERANCE.get(dtype, 1e-4) * max(largest, 1e-6)
    if not error <= allowed:  # NaN is refused as well
        raise ProbeError(
            f"trust the attention rows of layer {layer} of the {where}",
            f"A V differs from the layer's own output by {error:.3g} (allowed: {allowed:.3g} in {dtype})",
            "The layer's mask or softmax is not what its arguments say; its attention cannot be shown",
        )


def value_norms(
    call: Call,
    row: int = 0,
    heads: Sequence[int] | None = None,
    keys: slice = slice(None),
    factors: Sequence[Tensor] | None = None,
) -> Tensor:
    """|v_j W_O| for each chosen head and key, float32 ``[h, K]``: how much a key's value moves the residual stream.

    A norm-weighted map is this times the attention [Kobayashi et al. 2020, "Attention is not only a weight"]. With
    W_O[h] = Q R, |v W_O[h]| = |R v|: E x E instead of D x E.

    Args:
        factors: ``output_factors`` of the call, where a layer is called often.

    Raises:
        ProbeError: the attention module has no linear output projection of a known name.
    """
    chosen, kv = _heads(call, heads)
    factors = output_factors(call, heads) if factors is None else factors
    v = call.value[row, :, keys].float()
    norms = []
    for i, head in enumerate(chosen):
        source = v[head // call.grouped if kv is None else kv[i]]
        norms.append(torch.linalg.vector_norm(source @ factors[i].T, dim=-1))
    return torch.stack(norms)


def output_factors(call: Call, heads: Sequence[int] | None = None) -> list[Tensor]:
    """R of W_O[h] = Q R for each chosen head, float32 ``[E, E]``. Raises ProbeError."""
    weight, size = output_projection(call.module).weight.float(), call.value.shape[-1]
    slices = (weight[:, head * size : (head + 1) * size] for head in _heads(call, heads)[0])
    return [torch.linalg.qr(part, mode="r").R for part in slices]


def output_projection(module: nn.Module) -> nn.Linear:
    """W_O of an attention module. Raises ProbeError."""
    for name in ("o_proj", "out_proj", "out", "proj"):
        found = getattr(module, name, None)
        if isinstance(found, nn.Linear):
            return found
    raise ProbeError(
        "weigh attention by value norms",
        f"{type(module).__name__} has no output projection of a known name",
        "Leave value_norms out",
    )


def _heads(call: Call, heads: Sequence[int] | None) -> tuple[list[int], list[int] | None]:
    """Chosen query heads, and the key/value head of each (None when all are taken, in groups).

    Raises ProbeError for a head that is not there.
    """
    n = call.query.shape[1]
    if heads is None or list(heads) == list(range(n)):
        return list(range(n)), None
    wrong = [head for head in heads if not 0 <= head < n]
    if wrong or not len(heads):
        raise ProbeError(
            f"look at head {wrong[0] if wrong else '(none named)'}",
            f"there are heads 0 to {n - 1}",
            "Choose others",
        )
    return list(heads), [head // call.grouped for head in heads]


def _by_group(q_hRE: Tensor, k_GEK: Tensor) -> Tensor:
    """Batched product where ``len(q) // len(k)`` heads share a key/value head: ``[h, R, K]``."""
    h, r, e = q_hRE.shape
    g = len(k_GEK)
    return torch.bmm(q_hRE.reshape(g, h // g * r, e), k_GEK).view(h, r, -1)


def _table(seen: Tensor, hidden: float) -> Tensor:
    """0 where a key is seen, ``hidden`` elsewhere."""
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, hidden)


def _of_heads(table: Tensor, chosen: list[int]) -> Tensor:
    return table if len(table) == 1 else table[chosen]
