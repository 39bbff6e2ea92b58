"""Which keys a query sees in one attention call: from masks, causality, packing, padding and sliding windows.

Every way in which an implementation is told its mask ends here as a bool table for chosen queries, so that rows can
say "not visible" instead of 0. R chosen queries, K keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.probes.attention_tap import Call
from workbench.probes.common import ProbeError


def visible(call: Call, row: int, places: Tensor) -> tuple[Tensor, Tensor | None]:
    """What queries at ``places`` of batch row ``row`` see.

    Args:
        places: int64 ``[R]``, query indices of the call (under packing: among all kept positions).

    Returns:
        bool ``[1 or H, R, K]``, and what is added to the scaled scores, ``[1 or H, R, K]`` float32, or None.

    Raises:
        ProbeError: the call adds attention sinks or such, which rows would have to know.
    """
    if call.options.get("s_aux") is not None:
        raise ProbeError(
            "compute attention rows",
            "this model adds learned sinks to its softmax",
            "Such models are not supported",
        )
    bias = call.options.get("position_bias")
    added = None if bias is None else bias[min(row, len(bias) - 1)][:, places].float()
    # with a packing plan the mask is a stand-in that the attention function never reads
    mask = None if call.options.get("packing") is not None else call.mask
    if mask is not None and mask.dim() == 4:
        table = mask[min(row, len(mask) - 1)][:, places, : call.key.shape[2]]
        if mask.dtype == torch.bool:
            return table, added
        seen = table > torch.finfo(mask.dtype).min / 2
        numbers = table.float().masked_fill(~seen, 0.0)
        return seen, numbers if added is None else numbers + added
    seen = _geometry(call, places)
    if mask is not None:  # int [B, K] with 1 for real keys
        seen = seen & mask[row].bool()[None, : call.key.shape[2]]
    return seen[None], added


def _geometry(call: Call, places: Tensor) -> Tensor:
    """Without a 4-dimensional mask: causality, conversations laid end to end, sliding window; bool ``[R, K]``."""
    n_queries, n_keys = call.query.shape[2], call.key.shape[2]
    keys = torch.arange(n_keys, device=places.device)
    bounds = cumulative_lengths(call)
    causal = call.options.get("is_causal")
    causal = bool(getattr(call.module, "is_causal", True) if causal is None else causal)
    # sdpa crops the keys of a first step into a fixed cache to its queries; everybody else aligns at the end
    upper_left = call.base.startswith("sdpa") and n_queries > 1
    at = (places + (0 if upper_left else n_keys - n_queries))[:, None]
    seen = keys[None, :] <= at if causal else torch.ones_like(at * keys, dtype=torch.bool)
    if bounds is not None:
        segment = torch.bucketize(keys, bounds[1:].long(), right=True)
        seen = seen & (segment[None, :] == segment[at.flatten()][:, None])
    window = call.options.get("sliding_window")
    if window is not None and causal:
        seen = seen & (keys[None, :] > at - window)
    return seen


def cumulative_lengths(call: Call) -> Tensor | None:
    """``[S + 1]`` bounds of conversations (or pictures) laid end to end in one batch row, None when there are none."""
    packing = call.options.get("packing")
    return packing.cumulative if packing is not None else call.options.get("cu_seq_lens_q")
