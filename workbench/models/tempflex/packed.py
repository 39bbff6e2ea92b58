"""Attention of packed conversations without a mask: ``sdpa_packed``, the default of our language models.

N real positions of all conversations laid end to end (padding is dropped before the first layer), S
conversations, H heads of E channels. A block-diagonal mask over packed rows costs O(row length) for each
position; here each costs its own length:

1. *plan*, once a forward pass: conversations are sorted into few buckets of similar length;
2. *attend*, in each layer: a bucket is gathered into ``[S_b, H, L_b, E]`` and runs plain causal attention.
   Positions that fill it up lie behind the real ones, so causality hides them and no mask is needed, except
   for a sliding window.

When all conversations have one length nothing is gathered. Without a plan (generation, padded batches) it is
transformers' own sdpa function, with the same masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_packed"
_SPREAD = 1.3  # longest over shortest conversation of a bucket


@dataclass(frozen=True)
class Bucket:
    """``places [S_b * L_b]``: which of the N positions stands in each place (its conversation's last, where
    it fills up); ``real [n_b]``: places that are not filling; None when none is."""

    count: int
    length: int
    places: Tensor
    real: Tensor | None


@dataclass(frozen=True)
class Packing:
    """``kept [N]``: real positions of the flattened batch; ``order [N]``: from bucket order back to positions
    (None when they agree); ``cumulative [S + 1]`` int32 and ``longest``: as FlashAttention's varlen kernels
    take lengths."""

    kept: Tensor
    buckets: tuple[Bucket, ...]
    order: Tensor | None
    cumulative: Tensor
    longest: int


def plan_packing(segment_ids: Tensor) -> Packing:
    """Plan for ``segment_ids [B, L]`` (0 = padding). Needs one transfer of S lengths to the host."""
    flat = segment_ids.flatten()
    columns = segment_ids.shape[1]
    new = torch.ones_like(flat, dtype=torch.bool)
    new[1:] = flat[1:] != flat[:-1]
    new[::columns] = True
    kept = flat.nonzero().flatten()
    firsts = new[kept].nonzero().flatten()
    cumulative = torch.cat([firsts, firsts.new_tensor([len(kept)])])
    starts = firsts.tolist()
    lengths = cumulative.diff().tolist()
    buckets, order = _buckets(starts, lengths, flat.device)
    return Packing(kept, buckets, order, cumulative.to(torch.int32), max(lengths, default=0))


def _buckets(
    starts: list[int], lengths: list[int], device: torch.device
) -> tuple[tuple[Bucket, ...], Tensor | None]:
    by_length = sorted(range(len(lengths)), key=lambda i: lengths[i])
    groups: list[list[int]] = []
    for i in by_length:
        if groups and lengths[i] <= max(_SPREAD * lengths[groups[-1][0]], lengths[groups[-1][0]] + 8):
            groups[-1].append(i)
        else:
            groups.append([i])
    buckets, sequence = [], []
    for members in groups:
        members.sort()
        n = torch.tensor([lengths[i] for i in members], device=device)[:, None]
        start = torch.tensor([starts[i] for i in members], device=device)[:, None]
        longest = max(lengths[i] for i in members)
        step = torch.arange(longest, device=device)
        places = (start + torch.minimum(step, n - 1)).flatten()
        full = all(lengths[i] == longest for i in members)
        real = None if full else (step < n).flatten().nonzero().flatten()
        buckets.append(Bucket(len(members), longest, places, real))
        sequence.append(places if real is None else places[real])
    joined = torch.cat(sequence) if sequence else torch.zeros(0, dtype=torch.long, device=device)
    same = len(groups) <= 1  # one bucket keeps the order of the conversations
    return tuple(buckets), None if same else joined.argsort()


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: query ``[1, H, N, E]``, key and value ``[1, H_kv, N, E]`` ->
    ``[1, N, H, E]``."""
    if packing is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    grouped = query.shape[1] != key.shape[1]
    parts = []
    q_NHE, k_NHE, v_NHE = (t[0].transpose(0, 1) for t in (query, key, value))
    for bucket in packing.buckets:
        shape = (bucket.count, bucket.length)
        if bucket.real is None and len(packing.buckets) == 1:
            q, k, v = (t.unflatten(0, shape).transpose(1, 2) for t in (q_NHE, k_NHE, v_NHE))
        else:
            q, k, v = (
                t.index_select(0, bucket.places).unflatten(0, shape).transpose(1, 2)
                for t in (q_NHE, k_NHE, v_NHE)
            )
        mask = None
        if sliding_window is not None and bucket.length > sliding_window:
            step = torch.arange(bucket.length, device=q.device)
            back = step[:, None] - step[None, :]
            mask = (back >= 0) & (back < sliding_window)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=grouped,
        )
        out = out.transpose(1, 2).flatten(0, 1)
        parts.append(out if bucket.real is None else out.index_select(0, bucket.real))
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    return (joined if packing.order is None else joined.index_select(0, packing.order))[None], None


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
