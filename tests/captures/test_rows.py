"""Stored rows come back within the error that the capture states, and take the bytes that the formula says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workbench.captures import Capture
from workbench.captures.rows import (
    AUTO_BYTES,
    chosen_store,
    encode,
    part_axes,
    part_unit,
    rows_of,
    store_bytes,
)
from workbench.captures.topk import BLOCK, LISTED_LEAST, LISTED_SHARE

STORES = ("float32", "float16", "uint8", "topk")
AXES = ("layer", "head", "query", "key")


def stored(rows: np.ndarray, store: str) -> dict[str, np.ndarray]:
    """Arrays of a capture that holds ``rows`` [layer, head, query, key]."""
    parts = [encode(layer, store) for layer in rows]
    return {f"rows{ending}": np.stack([part[ending] for part in parts]) for ending in parts[0]}


def attention(seed: int, layers: int, heads: int, queries: int, keys: int, sharp: float) -> np.ndarray:
    """Softmax rows with a sink and a causal edge."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, sharp, (layers, heads, queries, keys))
    scores[..., 0] += 4
    scores[..., np.arange(keys)[None] > keys - queries + np.arange(queries)[:, None]] = -np.inf
    rows = np.exp(scores - scores.max(-1, keepdims=True))
    rows = (rows / rows.sum(-1, keepdims=True)).astype(np.float32)
    rows[np.isinf(scores)] = np.nan
    return rows


def check_topk(rows: np.ndarray, arrays: dict[str, np.ndarray], back: np.ndarray) -> None:
    """Every promise of topk.py, one row after the other."""
    for at in np.ndindex(rows.shape[:-1]):
        row, got = rows[at].astype(np.float64), back[at].astype(np.float64)
        seen = np.flatnonzero(~np.isnan(row))
        order = sorted(seen, key=lambda i: -row[i])
        k = min(len(row), max(LISTED_LEAST, math.ceil(len(row) / LISTED_SHARE)))
        cut = row[order[k]] if len(order) > k else 0.0
        top = row[order[0]] if order else 0.0
        assert arrays["rows_cut"][at] == np.float32(cut) and arrays["rows_max"][at] == np.float32(top)
        larger = row[seen] > cut  # these are listed whatever is done about equal ones
        off = np.abs(got - row)[seen]
        assert (off[larger] <= np.maximum(row[seen][larger] * 2.0**-11, top * 2.0**-25) * 1.0001).all()
        assert (off[~larger] <= max(cut * 1.001, top * 2.0**-25)).all()
        for start in range(0, len(row), BLOCK):  # sums over neighbours are those of the row
            block = slice(start, start + BLOCK)
            allowed = np.nansum(row[block]) * 2.0**-11 + BLOCK * (cut + top) * 2.0**-25
            assert abs(np.nansum(got[block]) - np.nansum(row[block])) <= allowed * 1.001 + 1e-44


@given(
    st.lists(st.floats(0, 1, width=32) | st.just(math.nan), min_size=1, max_size=12),
    st.integers(1, 40),
    st.sampled_from(STORES),
)
@example([math.nan], 3, "topk")
@example([2.0**-149, 0.0], 70, "uint8")
@example([0.5], 40, "topk")  # equal values on both sides of the cut
def test_stored_rows_come_back_within_the_stated_error(values, times, store):
    rows = np.tile(np.array(values, dtype=np.float32), times)[None, None, None]
    arrays = stored(rows, store)
    back = rows_of(arrays)
    assert back.dtype == np.float32 and back.shape == rows.shape
    np.testing.assert_array_equal(np.isnan(back), np.isnan(rows))
    if store == "topk":
        check_topk(rows, arrays, back)
        return
    top = np.nan_to_num(rows).max()
    allowed = {
        "float32": 0 * rows,
        "float16": np.maximum(rows * 2.0**-11, 2.0**-25),
        "uint8": top / 508 * 1.0001 + 2.0**-149 + 0 * rows,
    }
    assert (np.abs(back - rows) <= allowed[store])[~np.isnan(rows)].all()


@pytest.mark.parametrize("keys", [1, 63, 64, 65, 1025, 4096])
@pytest.mark.parametrize("sharp", [0.5, 3.0])
def test_topk_of_long_rows(keys, sharp):
    rows = attention(keys, 2, 2, min(3, keys), keys, sharp)
    arrays = stored(rows, "topk")
    check_topk(rows, arrays, rows_of(arrays))
    np.testing.assert_allclose(np.nansum(rows_of(arrays), -1), 1, atol=1e-3)


@pytest.mark.parametrize("store", STORES)
def test_any_place_is_read_alone(store):
    rows = attention(0, 3, 4, 5, 200, 1.0)
    arrays = stored(rows, store)
    whole = rows_of(arrays)
    for at in (1, -1, slice(1, 3), (2, 1), (0, slice(None), 4), (1, slice(1, 3), slice(0, 2))):
        np.testing.assert_array_equal(rows_of(arrays, at), whole[at])


@pytest.mark.parametrize("store", STORES)
def test_bytes_are_those_of_the_formula_and_every_part_is_described(store, tmp_path):
    for keys in (5, 64, 129, 2000):
        rows = attention(1, 3, 2, 4, keys, 1.0)
        arrays = stored(rows, store)
        counted = {name: array for name, array in arrays.items() if name != "rows_keys"}
        assert sum(array.nbytes for array in counted.values()) == store_bytes(3 * 2 * 4, keys, store)
        axes = {name: part_axes(AXES, name.removeprefix("rows"), store) for name in arrays}
        units = {name: part_unit("share", name.removeprefix("rows"), store) for name in arrays}
        path = Capture("attention_rows", arrays, {"axes": axes, "units": units}).save(
            tmp_path / "a.safetensors"
        )
        np.testing.assert_array_equal(rows_of(Capture.load(path).arrays, 2), rows_of(arrays)[2])


def test_long_conversations_are_kept_in_less_than_100_mb():
    rows, keys = 36 * 32 * 8, 16384
    assert store_bytes(rows, keys, "uint8") > 100e6 > store_bytes(rows, keys, "topk") == 75_571_200
    assert chosen_store("auto", rows, keys) == "topk" and chosen_store("float32", rows, keys) == "float32"
    assert chosen_store("auto", rows // 8, keys) == "float32" and AUTO_BYTES == 100e6


def test_topk_keeps_what_uint8_loses_beside_a_sink():
    """A sink of a half, and the rest spread over 8,192 tokens: a frame's mass is gone in uint8, not in topk."""
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.full(8192, 2.0), (1, 1, 1)).astype(np.float32) / 2
    rows[..., 0] += 0.5
    frame = slice(1024, 2048)
    true = rows[..., frame].sum()
    assert rows_of(stored(rows, "uint8"))[..., frame].sum() == 0
    assert rows_of(stored(rows, "topk"))[..., frame].sum() == pytest.approx(true, rel=1e-3)
