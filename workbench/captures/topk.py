"""Attention rows in half a byte a key: the largest ones singly, the rest by blocks of neighbours. Needs no torch.

For long conversations, where few keys carry a row. Eight bits of the row's largest value (``uint8``) are no help there: next
to a sink of 0.5 every one of 16,000 ordinary tokens (6e-5) becomes 0. Here [OURS], of a row of K keys,

1. the k = max(64, K / 16) largest values are kept in float16 as shares of the row's largest, and where they are in a bitmap;
2. all others lie between 0 and the largest of them, ``cut``: of every 16 neighbours the mean is kept, float16, as a share of
   ``cut``. So sums over frames are nearly exact, and nothing is off by more than ``cut``, which the capture states a row.

What is kept of rows ``[..., K]``, by the ending of the array's name:

| ending | | |
|---|---|---|
| (none) | float16 ``[..., k]`` | the listed values / max, in the order of their keys; 0 behind the last |
| ``_bits`` | uint8 ``[..., 2, ceil(K/8)]`` | bitmaps (most significant bit first): which keys are visible, which of them listed |
| ``_rest`` | float16 ``[..., ceil(K/16)]`` | mean of a block's visible, unlisted values / cut |
| ``_max``, ``_cut`` | float32 ``[...]`` | the largest value, and the largest that is not listed |
| ``_keys`` | int64 ``[]`` | K |
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BLOCK, LISTED_SHARE, LISTED_LEAST = 16, 16, 64
# axes of each part behind those of the row
PART_AXES = {
    "": ("listed",),
    "_bits": ("bitmap", "byte"),
    "_rest": ("block",),
    "_max": (),
    "_cut": (),
}


def listed_keys(keys: int) -> int:
    """How many values of a row of K keys are kept singly."""
    return min(keys, max(LISTED_LEAST, -(-keys // LISTED_SHARE)))


def row_bytes(keys: int) -> int:
    """Bytes that a row of K keys takes: about K / 2."""
    return 2 * listed_keys(keys) + 2 * -(-keys // 8) + 2 * -(-keys // BLOCK) + 4 + 4


def encode_topk(weights: np.ndarray) -> dict[str, np.ndarray]:
    """Rows float32 ``[..., K]``, not negative, NaN where not visible -> parts by ending (see above)."""
    n, k = weights.shape[-1], listed_keys(weights.shape[-1])
    visible = ~np.isnan(weights)
    shown = np.where(visible, weights, np.float32(-1))
    listed = np.zeros(weights.shape, dtype=bool)
    np.put_along_axis(listed, np.argpartition(shown, n - k, axis=-1)[..., n - k :], True, axis=-1)
    listed &= visible
    top = shown.max(-1, initial=0.0)
    other = visible & ~listed
    rest = np.where(other, weights, np.float32(0))
    cut = rest.max(-1, initial=0.0)

    blocks = -(-n // BLOCK)
    fill = [(0, 0)] * (weights.ndim - 1) + [(0, blocks * BLOCK - n)]
    shape = (*weights.shape[:-1], blocks, BLOCK)
    counts = np.pad(other, fill).reshape(shape).sum(-1)
    means = np.pad(rest, fill).reshape(shape).sum(-1, dtype=np.float64) / np.maximum(1, counts)

    values = np.zeros((*weights.shape[:-1], k), dtype=np.float32)
    values[np.arange(k) < listed.sum(-1, keepdims=True)] = weights[listed]
    return {
        "": (values / np.where(top > 0, top, 1)[..., None]).astype(np.float16),
        "_bits": np.packbits(np.stack([visible, listed], axis=-2), axis=-1),
        "_rest": (means / np.where(cut > 0, cut, 1)[..., None]).astype(np.float16),
        "_max": top.astype(np.float32),
        "_cut": cut.astype(np.float32),
        "_keys": np.asarray(n, dtype=np.int64),
    }


def decode_topk(parts: Mapping[str, np.ndarray], keys: int) -> np.ndarray:
    """The inverse: float32 ``[..., K]``, NaN where not visible; unlisted keys have their block's mean."""
    bits = np.unpackbits(parts["_bits"], axis=-1, count=keys).astype(bool)
    visible, listed = bits[..., 0, :], bits[..., 1, :]
    rest = parts["_rest"].astype(np.float32) * parts["_cut"][..., None]
    found = np.repeat(rest, BLOCK, axis=-1)[..., :keys]
    values = parts[""].astype(np.float32) * parts["_max"][..., None]
    found[listed] = values[np.arange(values.shape[-1]) < listed.sum(-1, keepdims=True)]
    found[~visible] = np.nan
    return found
