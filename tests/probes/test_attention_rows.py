"""Attention rows equal eager attention wherever a model can be run, and refuse when they would not."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
import torch
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from tests.probes.attention_worlds import ALL, assert_rows, eager, set_attention, world
from workbench.captures import Capture
from workbench.captures import rows as rows_module
from workbench.captures.rows import rows_of
from workbench.models.tempflex.packed import NAME as PACKED
from workbench.probes import attention_math
from workbench.probes.attention import Look, attention_rows, inputs_of
from workbench.probes.attention_packed import attention_rows_packed, generation_rows
from workbench.probes.attention_size import check_room, kept_bytes
from workbench.probes.attention_tap import MARK, AttentionTap, tapped_name
from workbench.probes.common import ProbeError
from workbench.samples.sample import Sample, Turn
from workbench.training.packing import pack


@pytest.fixture(scope="module", params=ALL)
def any_world(request):
    return world(request.param)


@pytest.fixture(scope="module")
def ours():
    return world("tempflex")


@pytest.fixture(scope="module")
def sliding():
    return world("tempflex-gemma3")


@pytest.mark.parametrize("frames", [1, 9])
def test_rows_equal_eager_attention(any_world, frames):
    model, processor, sample, clip = any_world
    capture = attention_rows(model, processor, sample(frames), clip(frames), "text")
    prepared = processor.prepare(sample(frames), clip(frames), turns=(0,))
    full = eager(model, **inputs_of(prepared, model))[:, 0]
    assert_rows(capture.arrays["rows"], full[:, :, capture.arrays["queries"]])
    assert capture.arrays["self_check"].shape == (len(full),) and capture.arrays["self_check"].max() < 1e-5
    assert capture.token_map == prepared.token_map
    assert processor.tokenizer.convert_tokens_to_ids(capture.meta["tokens"]) == prepared.input_ids.tolist()


def test_looking_changes_nothing(any_world):
    model, processor, sample, clip = any_world
    inputs = inputs_of(processor.prepare(sample(5), clip(5)), model)
    configs = [model.get_submodule(names[0]).config for names in model.attention_layers().values()]
    before = [config._attn_implementation for config in configs]
    with torch.no_grad():
        expected = model.eval()(**inputs).logits
        seen = []
        with AttentionTap(model, seen.append), AttentionTap(model, seen.append, "encoder"):
            got = model(**inputs).logits
    assert len(seen) >= sum(map(len, model.attention_layers().values()))
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert [config._attn_implementation for config in configs] == before


def tapped_logits_equal_plain_ones(model, batch):
    with torch.no_grad():
        expected = model.eval()(**batch, use_cache=False).logits
        with AttentionTap(model, lambda call: None):
            got = model(**batch, use_cache=False).logits
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(got[real], expected[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["tempflex", "tempflex-gemma3", "qwen2_5_vl", "llava"])
def test_a_mask_function_that_is_not_registered_is_noticed(name, monkeypatch):
    model, processor, sample, clip = world(name)
    prepared = [processor.prepare(sample(f), clip(f), turns=(0,)) for f in (12, 3)]
    batch = processor.batch(prepared, "left")
    tapped_logits_equal_plain_ones(model, batch)

    import workbench.probes.attention_tap as tap

    def without_masks(base):
        name = tapped_name(base)
        monkeypatch.delitem(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping, name)
        return name

    monkeypatch.setattr(tap, "tapped_name", without_masks)
    with pytest.raises(AssertionError):
        tapped_logits_equal_plain_ones(model, batch)
    if name == "tempflex-gemma3":  # a window that the kernel was not told of shows in |A V - O| of every row
        with pytest.raises(ProbeError, match="A V differs"):
            attention_rows(model, processor, sample(12), clip(12), "text")


def test_no_mask_function_at_all_is_refused():
    AttentionInterface.register("test_own_attention", lambda *_, **__: None)
    with pytest.raises(ProbeError, match="no mask function is registered"):
        tapped_name("test_own_attention")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["tempflex", "tempflex-gemma3", "qwen3_vl", "llava_onevision"])
def test_padded_batches(name, side):
    model, processor, sample, clip = world(name)
    prepared = [processor.prepare(sample(f), clip(f)) for f in (12, 1, 4)]
    batch = processor.batch(prepared, side)
    full = eager(model, **batch)
    found = []

    def see(call):
        for row, mask in enumerate(batch["attention_mask"].bool()):
            places = mask.nonzero().flatten()
            blocks = list(attention_math.exact_rows(call, places, row))
            weights = np.concatenate([block.weights.numpy() for block in blocks], axis=1)
            expected = full[call.layer, row][:, places.numpy()]
            assert_rows(weights, expected)
            found.append(max(block.error for block in blocks))

    with torch.no_grad(), AttentionTap(model, see):
        model(**batch, use_cache=False)
    assert len(found) == 3 * len(full) and max(found) < 1e-5


def flash_reference(module, q, k, v, mask, scaling=None, cu_seq_lens_q=None, sliding_window=None, **_):
    """FlashAttention's varlen interface, spelled out."""
    assert mask is None
    out = torch.empty_like(q)
    group = q.shape[1] // k.shape[1]
    for a, b in zip(cu_seq_lens_q[:-1].tolist(), cu_seq_lens_q[1:].tolist(), strict=True):
        hidden = torch.ones(b - a, b - a).triu(1).bool()
        if sliding_window is not None:
            hidden |= torch.ones(b - a, b - a).tril(-sliding_window).bool()
        for h in range(q.shape[1]):
            scores = (q[0, h, a:b] @ k[0, h // group, a:b].T * scaling).masked_fill(hidden, -torch.inf)
            out[0, h, a:b] = scores.softmax(-1) @ v[0, h // group, a:b]
    return out.transpose(1, 2), None


@pytest.mark.parametrize("implementation", [PACKED, "sdpa", "flash_reference"])
@pytest.mark.parametrize("name", ["tempflex", "tempflex-gemma3", "qwen2_5_vl"])
def test_packed_batches_equal_each_alone(name, implementation):
    model, processor, sample, clip = world(name)
    samples = [(sample(f), clip(f)) for f in (5, 12, 1, 7)]
    alone = [attention_rows(model, processor, *pair, "text", norms=True) for pair in samples]
    AttentionInterface.register("flash_reference", flash_reference)
    ALL_MASK_ATTENTION_FUNCTIONS.register("flash_reference", lambda *_, **__: None)
    model.language_model.config._attn_implementation = implementation
    together = attention_rows_packed(
        model, processor, samples, "text", Look(norms=True), tokens_per_row=150, rows_per_micro_batch=2
    )
    for one, other in zip(alone, together, strict=True):
        assert one.meta["sample"] == other.meta["sample"] and one.token_map == other.token_map
        assert_rows(other.arrays["rows"], np.nan_to_num(one.arrays["rows"]), atol=1e-5)
        np.testing.assert_allclose(
            other.arrays["value_norms"], one.arrays["value_norms"], rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("name", ["tempflex", "tempflex-gemma3", "qwen3_vl", "llava"])
def test_generated_tokens_look_as_in_one_forward_pass(name):
    model, processor, sample, clip = world(name)
    capture = generation_rows(model, processor, sample(12), clip(12), max_new_tokens=5)
    generated = torch.from_numpy(np.array(capture.arrays["generated"]))
    prepared = processor.prepare(sample(12), clip(12), turns=(0,), with_answers=False)
    inputs = inputs_of(prepared, model)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], generated[None, :-1]], dim=1)
    full = eager(model, **inputs)[:, 0]
    n, steps = len(prepared), len(generated)
    expected = full[:, :, n - 1 : n - 1 + steps].transpose(2, 0, 1, 3)
    assert_rows(capture.arrays["rows"], expected, atol=1e-5)
    assert capture.arrays["self_check"].shape == (steps, len(full))
    assert capture.meta["text"] == processor.decode(generated)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_those_of_what_the_kernel_was_given(sliding, dtype):
    model, processor, sample, clip = world("tempflex-gemma3")
    model = model.to(dtype).eval()
    prepared = processor.prepare(sample(12), clip(12), turns=(0,))
    calls = []
    with torch.no_grad(), AttentionTap(model, calls.append):
        model(**inputs_of(prepared, model), use_cache=False)
    capture = attention_rows(model, processor, sample(12), clip(12), "all")
    n = len(prepared)
    for call, rows in zip(calls, capture.arrays["rows"], strict=True):
        assert call.query.dtype == dtype and rows.dtype == np.float32
        window = call.options["sliding_window"] or n
        for head in range(rows.shape[0]):
            q, k = call.query[0, head].double(), call.key[0, head // 2].double()
            for i in (0, 3, 40, n - 1):
                keys = range(max(0, i - window + 1), i + 1)
                scores = torch.stack([(q[i] * k[j]).sum() * call.scaling for j in keys])
                np.testing.assert_allclose(rows[head, i, list(keys)], scores.softmax(0), rtol=2e-5, atol=1e-7)
                assert np.isnan(np.delete(rows[head, i], list(keys))).all()
    assert 0 < capture.arrays["self_check"].max() < 0.05  # rounding of the model's own output


def test_rows_that_do_not_explain_the_output_are_refused(ours, tmp_path):
    model, processor, sample, clip = ours

    def wrong(module, query, key, value, attention_mask, **kwargs):
        from workbench.models.tempflex.packed import packed_attention

        output, _ = packed_attention(module, query, key, value, attention_mask, **kwargs)
        return output + 0.01 * (module.layer_idx == 1), None

    AttentionInterface.register("test_wrong", wrong)
    ALL_MASK_ATTENTION_FUNCTIONS.register("test_wrong", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    config = model.language_model.config
    config._attn_implementation = "test_wrong"
    try:
        with pytest.raises(
            ProbeError, match=r"layer 1 of the llm: A V differs from the layer's own output by 0\.01"
        ):
            attention_rows(model, processor, sample(3), clip(3), path=tmp_path / "a.safetensors")
    finally:
        config._attn_implementation = PACKED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("heads", [None, [2, 0], "mean"])
@pytest.mark.parametrize("store", ["float32", "float16", "uint8", "topk"])
def test_choices_of_layers_heads_and_store(sliding, tmp_path, heads, store):
    model, processor, sample, clip = sliding
    everything = attention_rows(model, processor, sample(9), clip(9), "text", norms=True)
    capture = attention_rows(
        model, processor, sample(9), clip(9), "text", [0, -1], heads, store=store, norms=True,
        path=tmp_path / "a.safetensors",
    )  # fmt: skip
    assert (
        capture.meta["layers"] == [0, 2] and Capture.load(tmp_path / "a.safetensors").kind == "attention_rows"
    )
    full = everything.arrays["rows"][[0, 2]]
    weighted = full * everything.arrays["value_norms"][[0, 2]][:, :, None]
    if heads == "mean":
        full, weighted = full.mean(1, keepdims=True), weighted.mean(1, keepdims=True)
        got_weighted = rows_of(capture.arrays, name="norm_weighted")
    else:
        full, weighted = (full, weighted) if heads is None else (full[:, [0, 2]], weighted[:, [0, 2]])
        got_weighted = rows_of(capture.arrays) * capture.arrays["value_norms"][:, :, None]
    got = rows_of(capture.arrays)
    assert got.shape == full.shape
    top, weighted_top = (np.nanmax(array, axis=-1, keepdims=True) for array in (full, weighted))
    if heads != "mean":  # the rows are rounded, not the product
        weighted_top = top * capture.arrays["value_norms"][:, :, None]
    cut, weighted_cut = 0 * top, 0 * weighted_top  # what topk may be off by
    if store == "topk":
        cut = capture.arrays["rows_cut"][..., None]
        weighted_cut = cut * weighted_top / np.maximum(top, 1e-9)
        if heads == "mean":
            weighted_cut = capture.arrays["norm_weighted_cut"][..., None]
    for a, b, most, off in ((got, full, top, cut), (got_weighted, weighted, weighted_top, weighted_cut)):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        allowed = {
            "float32": 1e-6 * most,
            "float16": 2.0**-11 * b + 1e-7,
            "uint8": most / 508 * 1.001 + 1e-7,
            "topk": np.maximum(2.0**-11 * b, off) + 1e-7,
        }[store]
        assert (np.nan_to_num(np.abs(a - b)) <= np.nan_to_num(allowed)).all()


@pytest.mark.parametrize("store", ["float32", "float16", "uint8", "topk"])
def test_the_formula_of_kept_bytes_is_what_is_kept(ours, store):
    model, processor, sample, clip = ours
    for queries, layers, heads, frames in (
        ("answer", None, None, 3),
        ("text", [1], None, 9),
        ("all", None, "mean", 5),
    ):
        capture = attention_rows(
            model, processor, sample(frames), clip(frames), queries, layers, heads, store=store
        )
        shape = rows_of(capture.arrays).shape
        named = {k: v for k, v in capture.arrays.items() if k.startswith("rows") or k == "self_check"}
        assert sum(v.nbytes for v in named.values()) == kept_bytes(*shape, store)
    # the size the design promises, at 16,384 positions, 36 layers, 32 heads: one row exactly, eight in topk
    assert kept_bytes(36, 32, 1, 16384, "float32") < 100e6 and kept_bytes(36, 32, 8, 16384, "topk") < 100e6
    assert kept_bytes(36, 1, 8, 16384, "float32") < 100e6


def test_auto_is_exact_until_rows_grow_large(ours, monkeypatch):
    model, processor, sample, clip = ours
    exact = attention_rows(model, processor, sample(40), clip(40), "text")
    assert exact.meta["store"] == "float32" and exact.arrays["rows"].dtype == np.float32
    monkeypatch.setattr(rows_module, "AUTO_BYTES", exact.arrays["rows"].nbytes - 1)
    packed = attention_rows(model, processor, sample(40), clip(40), "text")
    assert packed.meta["store"] == "topk" and packed.nbytes < exact.nbytes
    full, back = exact.arrays["rows"], rows_of(packed.arrays)
    cut = packed.arrays["rows_cut"][..., None]
    assert (
        np.nan_to_num(np.abs(back - full)) <= np.maximum(cut, np.nan_to_num(full) * 2.0**-11) + 1e-7
    ).all()
    assert full.shape[-1] > 100 and (cut > 0).any()


def test_value_norms_against_the_product_itself(any_world):
    model, processor, sample, clip = any_world
    capture = attention_rows(model, processor, sample(3), clip(3), norms=True)
    prepared = processor.prepare(sample(3), clip(3), turns=(0,))
    calls = []
    with torch.no_grad(), AttentionTap(model, calls.append):
        model(**inputs_of(prepared, model), use_cache=False)
    for call, norms in zip(calls, capture.arrays["value_norms"], strict=True):
        weight = call.module.o_proj.weight.detach()
        for head, got in enumerate(norms):
            part = weight[:, head * call.value.shape[-1] : (head + 1) * call.value.shape[-1]]
            expected = (call.value[0, head // call.grouped] @ part.T).norm(dim=-1)
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"layers": [7]}, "look into layer 7 of the llm: it has the layers 0 to 2"),
        ({"layers": []}, "none named"),
        ({"heads": [8]}, "look at head 8: there are heads 0 to 7"),
        ({"heads": "best"}, "look at heads 'best'"),
        ({"where": "fusion"}, "the model has encoder, llm"),
        ({"queries": "title"}, "no such group of queries"),
        ({"queries": [500]}, "look from position 500"),
        ({"queries": []}, "none given"),
    ],
)
def test_what_is_not_there_is_refused(ours, choice, message):
    model, processor, sample, clip = ours
    with pytest.raises(ProbeError, match=message):
        attention_rows(model, processor, sample(3), clip(3), **choice)


def test_a_sample_without_an_answer(ours):
    model, processor, *_ = ours
    silent = Sample("silent", (Turn("what colour comes first?", ""),), None)
    for queries in ("answer", "predict"):
        with pytest.raises(ProbeError, match="look from the answer of this sample"):
            attention_rows(model, processor, silent, None, queries)
    assert attention_rows(model, processor, silent, None, "question").arrays["rows"].shape[2] > 2


def test_queries_by_name(ours):
    model, processor, sample, clip = ours
    prepared = processor.prepare(sample(3), clip(3), turns=(0,))
    find = lambda queries: attention_rows(model, processor, sample(3), clip(3), queries).arrays["queries"]  # noqa: E731
    answer, kind = find("answer"), prepared.token_map.kind
    assert processor.decode(prepared.input_ids[answer]) == sample(3).answer
    assert find("predict").tolist() == (answer - 1).tolist() and (kind[find("question")] == 1).all()
    assert find("all").tolist() == list(range(len(prepared)))
    assert set(find("text")) | set(prepared.token_map.visual) == set(range(len(prepared)))
    assert find([-1, 0]).tolist() == [len(prepared) - 1, 0]


def test_what_does_not_fit_says_how_large_it_is(ours, monkeypatch, tmp_path):
    model, processor, sample, clip = ours
    free = psutil.virtual_memory()._replace(available=100 * 2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(
        ProbeError, match=r"needs 1\d\d MiB of memory .* 100 MiB are free\. Ask for fewer queries"
    ):
        attention_rows(model, processor, sample(64), clip(64), "all")
    kept, small = kept_bytes(36, 32, 64, 16384), kept_bytes(36, 32, 64, 16384, "topk")
    with pytest.raises(ProbeError, match=r"4\.5 GiB on disk.*; store='topk' keeps 577 MiB instead"):
        check_room("take rows", kept, 0, 2**30, 2**30, small)
    check_room("take rows", small, 0, 2**30, 2**30, small)


def test_an_architecture_with_its_own_attention_is_refused():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(8, 2)

        def attention_layers(self):
            return {"llm": ["attention"]}

    with pytest.raises(ProbeError, match="MultiheadAttention does not call transformers' AttentionInterface"):
        AttentionTap(Own(), lambda call: None)


def test_layers_that_never_came_by_are_reported(ours):
    model, *_ = ours
    with pytest.raises(ProbeError, match="does not call"), AttentionTap(model, lambda call: None):
        pass
    with AttentionTap(model, lambda call: None) as tap:
        with (
            pytest.raises(ProbeError, match="another probe is looking"),
            AttentionTap(model, lambda call: None),
        ):
            pass
        tap._turns = dict.fromkeys(tap.layers, 1)
    assert not model.language_model.config._attn_implementation.endswith(MARK)


def test_training_mode_comes_back_and_nothing_keeps_gradients(ours):
    model, processor, sample, clip = ours
    model.train()
    attention_rows(model, processor, sample(3), clip(3))
    assert model.training and all(p.grad is None for p in model.parameters())
    model.eval()


def test_pack_order_of_captures(ours):
    """Captures come in the order of the samples, whatever order packing chose."""
    model, processor, sample, clip = ours
    sizes = (1, 12, 3, 8, 5)
    (batch, *_) = pack([processor.prepare(sample(f), clip(f)) for f in sizes], 150, 8, processor.pad_token_id)
    assert [index for index, *_ in batch.starts()] != sorted(index for index, *_ in batch.starts())
    captures = attention_rows_packed(
        model, processor, [(sample(f), clip(f)) for f in sizes], tokens_per_row=150
    )
    assert [capture.meta["sample"]["id"] for capture in captures] == [f"s{f}" for f in sizes]
    set_attention(model, "sdpa")
