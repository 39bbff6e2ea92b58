"""A host's forward pass: packed rows equal conversations on their own, and both equal the untouched stock model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.hosts.tiny import KINDS, clip, mixed, sample, tiny_host
from workbench.errors import RecipeError
from workbench.models.hosts.rows import text_positions
from workbench.models.videolm import VideoLM
from workbench.training.packing import pack

torch.set_num_threads(1)


def stock_logits(model, prepared):
    """The stock model's own forward pass over one conversation."""
    ids = prepared.input_ids[None]
    media = {}
    if prepared.grid is not None:
        media = model.stock_inputs(ids, prepared.pixel_values, torch.tensor([prepared.grid]))
    return model.host(input_ids=ids, attention_mask=torch.ones_like(ids), **media).logits[0]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def one_by_one(model, prepared):
    """Slow oracle: the stock model on every conversation alone, all logits, the loss written out."""
    answers = sum(int((p.labels[1:] != -100).sum()) for p in prepared)
    logits, total = [], 0.0
    for p in prepared:
        out = stock_logits(model, p)
        logits.append(out)
        for i in range(1, len(p)):
            if p.labels[i] != -100:
                total = total - out[i - 1].log_softmax(-1)[p.labels[i]] / answers
    return logits, total


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_the_stock_model(kind, implementation):
    model, processor = tiny_host(kind)
    assert isinstance(model, VideoLM)
    prepared = mixed(processor)
    expected_logits, expected = one_by_one(model, prepared)
    expected.backward()
    expected_grads = gradients(model)
    model.zero_grad()
    if implementation == "eager":
        model.language_model.set_attn_implementation("eager")
    (batch,) = pack(prepared, 250, 8, processor.pad_token_id)
    assert len(batch.rows) > 1 and bool((batch.segment_ids == 0).any()) and int(batch.segment_ids.max()) > 1
    items = sum(int((p.labels[1:] != -100).sum()) for p in prepared)
    out = model(**batch.model_inputs(), num_items=items, return_logits=True)
    out.loss.backward()
    torch.testing.assert_close(out.loss, expected, rtol=1e-5, atol=1e-5)
    for index, row, start in batch.starts():
        got = out.logits[row, start : start + len(prepared[index])]
        torch.testing.assert_close(got, expected_logits[index], rtol=1e-5, atol=1e-5)
    grads = gradients(model)
    assert grads.keys() == expected_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(
            grad, expected_grads[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_and_checkpointing_change_nothing(kind):
    model, processor = tiny_host(kind)
    prepared = mixed(processor)
    (batch,) = pack(prepared, 10_000, 8, processor.pad_token_id)
    inputs = batch.model_inputs()
    with torch.no_grad():
        before = model(**inputs, return_logits=True).logits
        changed = dict(inputs)
        changed["pixel_values"] = inputs["pixel_values"].clone()
        first = next(prepared[i] for i in batch.rows[0] if prepared[i].grid is not None)
        changed["pixel_values"][: len(first.pixel_values)] += 0.5
        after = model(**changed, return_logits=True).logits
    segment = 1 + [prepared[i].grid is not None for i in batch.rows[0]].index(True)
    moved = (before - after).abs().amax(-1)[0] > 1e-6
    assert moved[batch.segment_ids[0] == segment].any() and not moved[batch.segment_ids[0] != segment].any()

    loss = model(**inputs).loss
    loss.backward()
    plain = gradients(model)
    model.zero_grad()
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    again = model(**inputs).loss
    again.backward()
    torch.testing.assert_close(again, loss)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, plain[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kind", KINDS)
def test_padded_and_logits_at(kind):
    model, processor = tiny_host(kind)
    prepared = mixed(processor)
    with torch.no_grad():
        alone = [stock_logits(model, p) for p in prepared]
        for side in ("left", "right"):
            batch = processor.batch(prepared, side)
            logits = model(**batch).logits
            for expected, row, mask in zip(alone, logits, batch["attention_mask"].bool(), strict=True):
                torch.testing.assert_close(row[mask], expected, rtol=1e-5, atol=1e-5)
        (packed,) = pack(prepared, 250, 8, processor.pad_token_id)
        inputs = packed.model_inputs()
        del inputs["labels"]
        at = torch.tensor([[0, 5], [1, 9], [0, 40]])
        whole = model(**inputs).logits
        torch.testing.assert_close(model.logits_at(at=at, **inputs), whole[at[:, 0], at[:, 1]])


@pytest.mark.parametrize("frames", [0, 1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_generate_equals_greedy_forward_passes(kind, frames):
    model, processor = tiny_host(kind, seed=3)
    prepared = processor.prepare(sample(frames), clip(frames) if frames else None, with_answers=False)
    media = {}
    if frames:
        media = {"pixel_values": prepared.pixel_values, "grids": torch.tensor([prepared.grid])}
    ids = prepared.input_ids[None]
    out = model.generate(ids, **media, max_new_tokens=5, do_sample=False)
    with torch.no_grad():
        for _ in range(out.shape[1] - ids.shape[1]):
            ids = torch.cat([ids, model(ids, **media).logits[:, -1].argmax(-1, keepdim=True)], 1)
    assert out.tolist() == ids.tolist()
    forced = model.generate(
        prepared.input_ids[None], **media, max_new_tokens=5, do_sample=False, suppress_tokens=[
            t for t in range(model.config.get_text_config().vocab_size) if t != processor.end_token_id
        ],
    )  # fmt: skip
    assert forced[0, len(prepared) :].tolist() == [processor.end_token_id]


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_inputs(kind):
    model, processor = tiny_host(kind)
    prepared = processor.prepare(sample(4), clip(4))
    grids = torch.tensor([prepared.grid])
    with pytest.raises(ValueError, match="belong together"):
        model(prepared.input_ids[None], prepared.pixel_values)
    with pytest.raises(ValueError, match="its 0 media give 0"):
        model(prepared.input_ids[None])
    cut = torch.arange(len(prepared)) != int(prepared.token_map.visual[0])
    with pytest.raises(ValueError, match="never cut a conversation"):
        model(prepared.input_ids[None, cut], prepared.pixel_values, grids)
    with pytest.raises(ValueError, match="not both"):
        ones = torch.ones(1, len(prepared), dtype=torch.long)
        model(prepared.input_ids[None], prepared.pixel_values, grids, ones, ones, ones)
    with pytest.raises(RecipeError, match="fusion"):
        model.activate_fusion()
    with pytest.raises(RecipeError, match="objective: sft"):
        _ = model.encoder_width


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(1, 6), max_size=4), min_size=1, max_size=4))
def test_text_positions(rows):
    width = max(1, *(sum(row) for row in rows)) + 1
    segments = torch.zeros(len(rows), width, dtype=torch.long)
    expected = torch.zeros_like(segments)
    for b, row in enumerate(rows):
        at = 0
        for i, n in enumerate(row):
            segments[b, at : at + n], expected[b, at : at + n] = i + 1, torch.arange(n)
            at += n
    assert torch.equal(text_positions(segments), expected)
