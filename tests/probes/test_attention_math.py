"""Rows, visibility and the atlas against float64 loops, on shapes nobody chose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from workbench.probes.atlas import segment_mass
from workbench.probes.attention_math import exact_rows
from workbench.probes.attention_tap import Call
from workbench.probes.common import ProbeError


class Module(nn.Module):
    def __init__(self, groups: int, causal: bool = True) -> None:
        super().__init__()
        self.num_key_value_groups, self.is_causal = groups, causal


@st.composite
def calls(draw):
    """An sdpa call as a model would make it, and what each query sees (bool ``[B, Q, K]``, spelled out)."""
    batch, groups, kv = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    n_queries = draw(st.integers(1, 7))
    past = draw(st.integers(0, 3)) if n_queries == 1 else 0
    n_keys, size = n_queries + past, draw(st.integers(1, 6))
    causal = draw(st.booleans()) or past > 0
    window = draw(st.none() | st.integers(1, 5)) if causal else None
    padding = draw(st.lists(st.integers(0, n_keys - 1), min_size=batch, max_size=batch))
    masked = window is not None or any(padding)
    seen = np.zeros((batch, n_queries, n_keys), dtype=bool)
    for b in range(batch):
        for i in range(n_queries):
            for j in range(n_keys):
                at = i + past
                near = (j <= at and (window is None or j > at - window)) if causal else True
                seen[b, i, j] = near and j >= padding[b]
    form = draw(st.sampled_from(("bool", "float", "heads")))
    mask = None
    if masked:
        mask = torch.from_numpy(seen)[:, None]
        if form == "heads":
            mask = mask.expand(batch, groups * kv, -1, -1)
        if form == "float":
            mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    q, k, v = (
        3 * torch.randn(batch, heads, n, size, generator=generator)
        for heads, n in ((groups * kv, n_queries), (kv, n_keys), (kv, n_keys))
    )
    scaling = draw(st.sampled_from((1.0, size**-0.5)))
    module = Module(groups, causal)
    options = {"scaling": scaling, "dropout": 0.0}
    output, _ = sdpa_attention_forward(module, q, k, v, mask, **options)
    return Call(0, 0, "sdpa", module, q, k, v, mask, output, options), seen


def slow_rows(call: Call, seen: np.ndarray, row: int) -> np.ndarray:
    """float64 ``[H, Q, K]``, NaN where not seen."""
    q, k = call.query[row].double().numpy(), call.key[row].double().numpy()
    out = np.full((q.shape[0], q.shape[1], k.shape[1]), np.nan)
    for h in range(q.shape[0]):
        for i in range(q.shape[1]):
            keys = [j for j in range(k.shape[1]) if seen[row, i, j]]
            scores = [
                sum(a * b for a, b in zip(q[h, i], k[h // call.grouped, j], strict=True)) * call.scaling
                for j in keys
            ]
            total = sum(math.exp(s - max(scores)) for s in scores)
            for j, s in zip(keys, scores, strict=True):
                out[h, i, j] = math.exp(s - max(scores)) / total
    return out


@settings(max_examples=80, deadline=None)
@given(made=calls(), data=st.data())
def test_rows_equal_loops(made, data):
    call, seen = made
    row = data.draw(st.integers(0, len(seen) - 1))
    places = data.draw(st.lists(st.integers(0, seen.shape[1] - 1), min_size=1, max_size=4))
    heads = data.draw(st.none() | st.lists(st.integers(0, call.query.shape[1] - 1), min_size=1, max_size=3))
    block = data.draw(st.sampled_from((1, 1 << 23)))
    expected = slow_rows(call, seen, row)[:, places]
    expected = expected if heads is None else expected[heads]
    found = list(exact_rows(call, torch.tensor(places), row, heads, block=block))
    got = torch.cat([rows.weights for rows in found], dim=1).numpy()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert max(rows.error for rows in found) < 1e-4
    assert [rows.start for rows in found] == list(range(0, len(places), 1 if block == 1 else len(places)))


@settings(max_examples=60, deadline=None)
@given(made=calls(), data=st.data())
def test_segment_mass_equals_loops(made, data):
    call, seen = made
    n = seen.shape[2]
    if seen.shape[1] != n:  # an atlas is made of whole conversations
        return
    count = data.draw(st.integers(1, 9))
    of = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=n, max_size=n)))
    got, off = segment_mass(call, torch.eye(count)[torch.from_numpy(of)])
    rows = slow_rows(call, seen, 0)
    for s in range(count):
        part = rows[..., of == s]
        nothing = np.isnan(part).all(-1) if part.shape[-1] else np.ones(part.shape[:-1], dtype=bool)
        np.testing.assert_array_equal(np.isnan(got[..., s].numpy()), nothing)
        np.testing.assert_allclose(np.nan_to_num(got[..., s].numpy()), np.nansum(part, -1), atol=1e-5)
    assert off < 1e-5


def test_a_query_that_sees_nothing_has_no_row():
    q = torch.randn(1, 1, 2, 4)
    mask = torch.tensor([[[[False, False], [True, False]]]])
    output = torch.zeros(1, 2, 1, 4)
    output[0, 1, 0] = q[0, 0, 0]
    call = Call(0, 0, "sdpa", Module(1), q, q, q, mask, output, {})
    (rows,) = exact_rows(call, torch.tensor([0, 1]))
    assert rows.weights[0, 0].isnan().all() and rows.weights[0, 1, 0] == 1 and rows.error < 1e-6


def test_soft_capping_and_learned_sinks():
    torch.manual_seed(0)
    q = 4 * torch.randn(1, 2, 5, 4)
    scores = torch.tanh(q @ q.transpose(-1, -2) * 0.5 / 3) * 3
    expected = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf).softmax(-1)
    options = {"scaling": 0.5, "softcap": 3.0}
    call = Call(0, 0, "flash_attention_2", Module(1), q, q, q, None, (expected @ q).transpose(1, 2), options)
    (rows,) = exact_rows(call, torch.arange(5))
    torch.testing.assert_close(rows.weights.nan_to_num(0.0), expected[0])
    assert rows.error < 1e-5
    onehot = torch.eye(5)[:, :3]
    mass, _ = segment_mass(call, torch.cat([onehot, 1 - onehot.sum(1, keepdim=True)], dim=1))
    torch.testing.assert_close(mass[..., :3].nan_to_num(0.0), (expected @ onehot)[0])
    with pytest.raises(ProbeError, match="learned sinks"):
        list(exact_rows(Call(0, 0, "sdpa", Module(1), q, q, q, None, q, {"s_aux": q}), torch.arange(2)))
