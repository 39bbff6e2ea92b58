"""Temporal atlas: how much of its attention every query gives to each segment (frame, question, answer ...), exactly.

Axes: H heads, N positions, S segments, E channels a head, Q a block of queries.

    mass[h, i, s] = sum over positions j of segment s of A[h, i, j]

which is one more attention call whose values are the one-hot segments: O(N S) memory, and the N x N matrix never exists.
Values are E segments at a time, because fused kernels want values as wide as keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.captures import Capture, capture_to
from workbench.models.tokenmap import ANSWER, KINDS, NEWLINE, QUESTION, SYSTEM, VISUAL, TokenMap
from workbench.probes.attention import (
    Look,
    head_count,
    head_list,
    inputs_of,
    looking,
    token_texts,
)
from workbench.probes.attention_keeping import CHECK_UNIT, look_meta, refuse_if_too_large
from workbench.probes.attention_math import check, exact_rows
from workbench.probes.attention_queries import query_positions
from workbench.probes.attention_tap import AttentionTap, Call, attention_modules
from workbench.probes.attention_visible import visible
from workbench.probes.common import ProbeError
from workbench.probes.pictures import add_pictures
from workbench.samples.sample import Clip, Sample

KIND = "temporal_atlas"
QUERIES_AT_ONCE = 512
CHECKED = 4  # rows a layer whose A V is compared with the layer's own output
# |sum over segments - 1| a query may show: rounding of N additions in float32
SUM_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Segments:
    """``of [N]``: the segment of each position; ``labels``: {"kind": "frames", "span": [a, b]} or {"kind": ...}."""

    of: np.ndarray
    labels: list[dict[str, Any]]


def segments_of(token_map: TokenMap) -> Segments:
    """System, each frame (or frames merged into one), question, answer, template; what does not occur is left out.

    Newlines belong to their frame. Order: system, frames in time, question, answer, template.
    """
    of = np.full(len(token_map), -1)
    labels: list[dict[str, Any]] = []

    def add(label: dict[str, Any], mine: np.ndarray) -> None:
        if mine.any():
            of[mine] = len(labels)
            labels.append(label)

    kind = token_map.kind
    add({"kind": "system"}, kind == SYSTEM)
    framed = ((kind == VISUAL) | (kind == NEWLINE)) & (token_map.frame_span[:, 0] >= 0)
    for start, stop in np.unique(token_map.frame_span[framed], axis=0).tolist():
        mine = framed & (token_map.frame_span == (start, stop)).all(1)
        label: dict[str, Any] = {"kind": "frames", "span": [start, stop]}
        if token_map.frame_indices:
            label["indices"] = list(token_map.frame_indices[start:stop])
            label["timestamps"] = list(token_map.timestamps_s[start:stop])
        add(label, mine)
    for name, number in (("question", QUESTION), ("answer", ANSWER)):
        add({"kind": name}, kind == number)
    for number in np.unique(kind[of < 0]).tolist():
        add({"kind": KINDS[number]}, (of < 0) & (kind == number))
    return Segments(of, labels)


def temporal_atlas(
    model: Any,
    processor: Any,
    sample: Sample,
    clip: Clip | None,
    queries: str | Sequence[int] = "all",
    look: Look | None = None,
    *,
    path: str | Path | None = None,
) -> Capture:
    """Attention mass of every query on every segment, all layers and heads.

    Args:
        queries: whose masses are kept one by one (see ``query_positions``); ``segment_mass`` always covers all.
        look: layers, heads, turn, checkpoint, pictures (``store`` and ``norms`` do not apply).

    Returns:
        ``mass`` [layer, head, query, segment], NaN where a query sees nothing of a segment; ``segment_mass`` [layer,
        head, from, segment]: the same averaged over the queries of each segment; ``queries``; ``sizes`` [segment] in
        positions; ``self_check`` [layer] = max |A V - O| of a few rows, ``sum_check`` [layer] = max |sum - 1|. The
        metadata's ``segments`` say what each is.

    Raises:
        ProbeError: see ``attention_rows``.
    """
    look = look or Look()
    if look.store not in ("auto", "float32") or look.norms:
        raise ProbeError("make an atlas", "it is kept in float32, without norms", "Leave store and norms out")
    prepared = processor.prepare(sample, clip, turns=(look.turn,))
    segments = segments_of(prepared.token_map)
    positions = query_positions(prepared.token_map, queries)
    layers, modules = attention_modules(model, "llm", look.layers)
    n_heads = head_count(modules[0])
    listed, average = head_list(look.heads, n_heads)
    n, s = len(prepared), len(segments.labels)
    heads = 1 if average else len(listed)
    kept = 4 * len(layers) * heads * (len(positions) + s) * s
    working = 4 * len(listed) * n * s * 2 + QUERIES_AT_ONCE * n * 8
    refuse_if_too_large(f"make an atlas of {sample.id}", kept, working, path)
    of_segment = ("layer", "head", "query", "segment")
    meta = look_meta(
        model, look, sample, clip, prepared,
        layers=layers,
        heads="mean" if average else listed,
        heads_of_model=n_heads,
        arrays={
            "mass": (of_segment, "attention probability summed over a segment; NaN where nothing of it is visible"),
            "segment_mass": (
                ("layer", "head", "from", "segment"),
                "mean of mass over the queries of a segment that see the other",
            ),
            "queries": (("query",), "position"),
            "sizes": (("segment",), "positions"),
            "self_check": (("layer",), f"max |A V - O| of {CHECKED} rows, {CHECK_UNIT}"),
            "sum_check": (("layer",), "max |sum of mass over segments - 1|"),
        },
        queries=queries if isinstance(queries, str) else "positions",
        segments=segments.labels,
        tokens=token_texts(processor, prepared),
    )  # fmt: skip
    device = next(model.parameters()).device
    onehot = F.one_hot(torch.from_numpy(segments.of), s).float().to(device)
    spot = torch.linspace(0, n - 1, min(CHECKED, n)).long()
    with capture_to(path, KIND, meta) as writer:
        writer.add("queries", positions)
        add_pictures(writer, clip, look.pictures)
        writer.add("sizes", np.bincount(segments.of, minlength=s))

        def see(call: Call) -> None:
            mass, off = segment_mass(call, onehot, None if average else listed)
            error = largest = 0.0
            for block in exact_rows(call, spot, 0, None if average else listed):
                error, largest = max(error, block.error), max(largest, block.largest)
            check(call.layer, "llm", error, largest, call.output.dtype)
            if not off <= SUM_TOLERANCE:
                raise ProbeError(
                    f"trust the atlas of layer {call.layer}",
                    f"the masses of a query add up to 1 only within {off:.2g}",
                    "The layer's softmax is not what its arguments say",
                )
            mass = mass.mean(0, keepdim=True) if average else mass
            between = torch.einsum("ns,hnt->hst", onehot, mass.nan_to_num(0.0))
            seen = torch.einsum("ns,hnt->hst", onehot, (~mass.isnan()).float())
            between = torch.where(seen > 0, between / seen, torch.nan)
            writer.append("mass", mass[:, torch.from_numpy(positions).to(mass.device)].cpu().numpy())
            writer.append("segment_mass", between.cpu().numpy())
            writer.append("self_check", np.asarray(error))
            writer.append("sum_check", np.asarray(off))

        with looking(model), AttentionTap(model, see, "llm", layers):
            model(**inputs_of(prepared, model), use_cache=False, return_logits=False)
        return writer.finish()


def segment_mass(call: Call, onehot: Tensor, heads: Sequence[int] | None = None) -> tuple[Tensor, float]:
    """Mass of all queries of one call (one conversation, batch row 0) on segments ``onehot [K, S]``.

    Returns:
        float32 ``[H, N, S]`` with NaN where nothing of a segment is visible, and max |sum - 1|.
    """
    n_heads, n = call.query.shape[1], call.query.shape[2]
    chosen = list(range(n_heads)) if heads is None else list(heads)
    size, s = call.key.shape[-1], onehot.shape[1]
    softcap = call.options.get("softcap")
    k = call.key[:1].float()
    k = k[:, [head // call.grouped for head in chosen]]
    wide = F.pad(onehot, (0, -s % size))
    out = torch.empty(len(chosen), n, s, device=k.device)
    off = 0.0
    for start in range(0, n, QUERIES_AT_ONCE):
        at = torch.arange(start, min(n, start + QUERIES_AT_ONCE), device=k.device)
        seen, added = visible(call, 0, at)
        if softcap is not None:  # fused kernels know none: rows, then sums
            for block in exact_rows(call, at, 0, heads):
                rows = slice(start + block.start, start + block.start + block.weights.shape[1])
                out[:, rows] = block.weights.nan_to_num(0.0) @ onehot
        else:
            q = call.query[:1, :, at].float()[:, chosen]
            mask = seen if len(seen) == 1 else seen[chosen]
            # causal blocks need no keys behind their last query: half the work
            last = int(mask.any(1).any(0).nonzero().max()) + 1 if mask.any() else 1
            bias = None if added is None else (added if len(added) == 1 else added[chosen])[..., :last]
            shown = mask[None, ..., :last]
            full = shown if bias is None else bias[None].masked_fill(~shown, -torch.inf)
            for first in range(0, s, size):
                values = wide[:last, first : first + size].expand(1, len(chosen), last, size)
                part = F.scaled_dot_product_attention(
                    q, k[:, :, :last], values, attn_mask=full, scale=call.scaling
                )
                keep = min(size, s - first)
                out[:, at, first : first + keep] = part[0, :, :, :keep]
        counts = (seen.float() @ onehot).expand(len(chosen), -1, -1)
        sighted = counts.sum(-1) > 0
        sums = out[:, at].sum(-1)
        off = max(off, float(((sums - 1).abs() * sighted).nan_to_num(torch.inf).max()))
        out[:, at] = torch.where(counts > 0, out[:, at], torch.nan)
    return out, off
