"""Packing puts every conversation in exactly once, and nothing sees anything else."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.worlds import clip, tiny_model
from workbench.samples.sample import ImageRef, Sample, Turn, VideoRef
from workbench.training.packing import IGNORE, materialise, pack, plan_rows


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.integers(8, 64))
def test_rows_hold_everything_once_and_never_overflow(lengths, capacity):
    rows = plan_rows(lengths, capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    for row in rows:
        assert len(row) == 1 or sum(lengths[i] for i in row) <= capacity
    # no two rows could have been one: best fit leaves at most one row less than half full
    fills = sorted(sum(lengths[i] for i in row) for row in rows)
    assert sum(2 * fill <= capacity for fill in fills) <= 1


def mixed_samples() -> list[tuple[Sample, object]]:
    def turns(n):
        words = ["red", "blue", "seven", "two"]
        return tuple(Turn(f"what colour is the {words[(i + n) % 4]}", words[(i + 1) % 4]) for i in range(n))

    image, film = ImageRef("i.png"), VideoRef("v.mkv")
    return [
        (Sample("a", turns(1), image), clip(1)),
        (Sample("b", turns(2), film), clip(16)),
        (Sample("c", turns(1), film), clip(2)),
        (Sample("d", turns(3)), None),
        (Sample("e", turns(1), film), clip(5, height=48, width=32)),
        (Sample("f", turns(4), image), clip(1, height=16, width=48)),
    ]


@pytest.mark.parametrize("fusion", [0, 1])
def test_packed_losses_and_gradients_equal_one_by_one(fusion):
    """The promise of the whole room: packed conversations train like those on their own (1e-5, float32)."""
    model, processor = tiny_model(fusion_layers=fusion)
    if fusion:
        model.activate_fusion()
    prepared = [processor.prepare(s, c) for s, c in mixed_samples()]
    answers = sum(int((p.labels != IGNORE).sum()) for p in prepared)
    model.zero_grad()
    alone = 0.0
    for item in prepared:
        loss = model(**materialise([item], [[0]]).model_inputs(), num_items=answers).loss
        loss.backward()
        alone += loss.item()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    together = 0.0
    batches = pack(prepared, tokens_per_row=160, rows_per_micro_batch=2)
    assert any(len(row) > 1 for batch in batches for row in batch.rows)
    for batch in batches:
        loss = model(**batch.model_inputs(), num_items=answers).loss
        loss.backward()
        together += loss.item()
    assert together == pytest.approx(alone, rel=1e-5)
    got = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert got.keys() == expected.keys()
    for name, gradient in got.items():
        scale = expected[name].abs().max().clamp(min=1.0)
        torch.testing.assert_close(gradient / scale, expected[name] / scale, atol=1e-5, rtol=1e-5, msg=name)


def test_changing_one_conversation_leaves_its_neighbours_alone():
    model, processor = tiny_model()
    prepared = [processor.prepare(s, c) for s, c in mixed_samples()]
    batch = materialise(prepared, [list(range(len(prepared)))])
    with torch.no_grad():
        before = model(**batch.model_inputs(), return_logits=True).logits
        batch.pixel_values[: prepared[0].pixel_values.shape[0]] = 0.9  # the image of the first conversation
        after = model(**batch.model_inputs(), return_logits=True).logits
    changed = (before - after).abs().amax(-1)[0] > 1e-6
    assert changed[batch.segment_ids[0] == 1].any()
    assert not changed[batch.segment_ids[0] > 1].any()


def test_positions_restart_and_first_tokens_are_nobodys_target():
    _, processor = tiny_model()
    prepared = [processor.prepare(s, c) for s, c in mixed_samples()]
    batch = materialise(prepared, [[0, 2], [1]])
    for index, row, start in batch.starts():
        assert batch.position_ids[row, start] == 0 and batch.labels[row, start] == IGNORE
        length = len(prepared[index])
        np.testing.assert_array_equal(batch.input_ids[row, start : start + length], prepared[index].input_ids)
    assert batch.real_tokens == sum(len(prepared[i]) for i in (0, 1, 2))
    assert batch.grids.tolist() == [list(prepared[i].grid) for i in (0, 2, 1)]
