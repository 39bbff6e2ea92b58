"""Packing changes nothing but the cost: loss, logits and gradients equal those of one conversation at a
time."""

from __future__ import annotations

import pytest
import torch
from transformers import AttentionInterface

from tests.models import worlds
from workbench.training.packing import pack

CASES = {
    "qwen3-paper": ("tiny", {}),
    "qwen3-release": ("tiny", {"variant": "release", "merge": "strip4", "newline": True, "pool_to": 4}),
    "gemma3-paper": ("tiny-gemma3", {}),
    "gemma3-release": ("tiny-gemma3", {"variant": "release", "images": "bypass", "newline": True}),
    "no-fusion": ("tiny", {"fusion_layers": 0}),
}


def one_by_one(model, prepared):
    """Slow oracle: every conversation alone, plain causal attention, all logits, the loss written out."""
    answers = sum(int((p.labels[1:] != -100).sum()) for p in prepared)
    logits, total = [], 0.0
    for p in prepared:
        grids = None if p.grid is None else torch.tensor([p.grid])
        out = model(p.input_ids[None], p.pixel_values, grids, use_cache=False).logits[0]
        logits.append(out)
        for i in range(1, len(p.input_ids)):
            if p.labels[i] != -100:
                total = total - out[i - 1].log_softmax(-1)[p.labels[i]] / answers
    return logits, total


@pytest.mark.parametrize("implementation", ["sdpa_packed", "sdpa", "eager"])
@pytest.mark.parametrize("case", CASES)
def test_packed_equals_unpacked(case, implementation):
    preset, options = CASES[case]
    model, processor = worlds.model(preset, **options)
    prepared = worlds.mixed(processor)
    model.language_model.set_attn_implementation(implementation)

    expected_logits, expected = one_by_one(model, prepared)
    expected.backward()
    expected_grads = worlds.gradients(model)
    model.zero_grad()

    (batch,) = pack(prepared, 160, 8, processor.pad_token_id)
    assert len(batch.rows) > 1 and bool((batch.segment_ids == 0).any()) and int(batch.segment_ids.max()) > 1
    items = sum(int((p.labels[1:] != -100).sum()) for p in prepared)
    out = model(**batch.model_inputs(), num_items=items, return_logits=True)
    out.loss.backward()

    torch.testing.assert_close(out.loss, expected, rtol=1e-5, atol=1e-5)
    assert out.logits.isfinite().all()
    for index, row, start in batch.starts():
        got = out.logits[row, start : start + len(prepared[index].input_ids)]
        torch.testing.assert_close(got, expected_logits[index], rtol=1e-5, atol=1e-5)
    grads = worlds.gradients(model)
    assert grads.keys() == expected_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(
            grad, expected_grads[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_varlen_kernels_get_the_lengths():
    """The FlashAttention path, with a loop over cumulative lengths in the kernel's place."""
    model, processor = worlds.model("tiny")
    prepared = worlds.mixed(processor)
    (batch,) = pack(prepared, 160, 8, processor.pad_token_id)
    expected = model(**batch.model_inputs()).loss
    calls = []

    def flash_reference(module, q, k, v, mask, scaling=None, cu_seq_lens_q=None, max_length_q=None, **_):
        assert mask is None and int(cu_seq_lens_q.diff().max()) == max_length_q
        calls.append(len(cu_seq_lens_q) - 1)
        out = torch.empty_like(q)
        for a, b in zip(cu_seq_lens_q[:-1].tolist(), cu_seq_lens_q[1:].tolist(), strict=True):
            for h in range(q.shape[1]):
                scores = (q[0, h, a:b] @ k[0, h, a:b].T) * scaling
                scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))
                out[0, h, a:b] = scores.softmax(-1) @ v[0, h, a:b]
        return out.transpose(1, 2), None

    AttentionInterface.register("test_flash_reference", flash_reference)
    model.language_model.config._attn_implementation = "test_flash_reference"
    torch.testing.assert_close(model(**batch.model_inputs()).loss, expected, rtol=1e-5, atol=1e-5)
    assert calls == [len(prepared)] * 3


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("preset", ["tiny", "tiny-gemma3"])
def test_padded_equals_alone(preset, side):
    model, processor = worlds.model(preset)
    prepared = worlds.mixed(processor)
    batch = processor.batch(prepared, side)
    logits = model(**batch, use_cache=False).logits
    for p, row, mask in zip(prepared, logits, batch["attention_mask"].bool(), strict=True):
        grids = None if p.grid is None else torch.tensor([p.grid])
        alone = model(p.input_ids[None], p.pixel_values, grids, use_cache=False).logits[0]
        torch.testing.assert_close(row[mask], alone, rtol=1e-5, atol=1e-5)


def test_logits_at_and_loss_defaults():
    model, processor = worlds.model()
    prepared = worlds.mixed(processor)
    (batch,) = pack(prepared, 160, 8, processor.pad_token_id)
    inputs = batch.model_inputs()
    full = model(**inputs, return_logits=True)
    at = torch.tensor([[0, 3], [1, 5], [0, 20]])
    labels = inputs.pop("labels")
    torch.testing.assert_close(
        model.logits_at(**inputs, at=at), full.logits[at[:, 0], at[:, 1]], rtol=1e-5, atol=1e-5
    )
    assert model(**inputs, labels=labels).logits is None
    items = int((labels != -100).sum())  # packing never labels the first token of a conversation
    torch.testing.assert_close(model(**inputs, labels=labels, num_items=2 * items).loss * 2, full.loss)
    nothing = model(**inputs, labels=torch.full_like(labels, -100))
    nothing.loss.backward()
    assert nothing.loss.item() == 0.0


def test_gradient_checkpointing_changes_nothing():
    model, processor = worlds.model(pool_to=4)
    (batch,) = pack(worlds.mixed(processor), 200, 8, processor.pad_token_id)
    model.train()
    model(**batch.model_inputs()).loss.backward()
    expected = worlds.gradients(model)
    model.zero_grad()
    model.activation_checkpointing_enable()
    assert model.gradient_checkpointing and model.encoder.layers[0].gradient_checkpointing
    model(**batch.model_inputs()).loss.backward()
    for name, grad in worlds.gradients(model).items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b | {"grids": None}, "belong together"),
        (lambda b: b | {"grids": b["grids"] + torch.tensor([1, 0, 0])}, "placeholders"),
        (lambda b: b | {"input_ids": b["input_ids"].clamp(min=3)}, "placeholders"),
        (lambda b: b | {"pixel_values": b["pixel_values"][:-1]}, "patches"),
        (lambda b: b | {"attention_mask": torch.ones_like(b["input_ids"])}, "not both"),
        (lambda b: b | {"position_ids": None}, "position_ids"),
    ],
)
def test_inconsistent_batches_are_refused(change, message):
    model, processor = worlds.model()
    (batch,) = pack(worlds.mixed(processor), 300, 8, processor.pad_token_id)
    with pytest.raises(ValueError, match=message):
        model(**change(batch.model_inputs()))
