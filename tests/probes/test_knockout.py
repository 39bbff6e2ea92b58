"""Knockout maps against eager forward passes with a dense mask, on every kind of model."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AttentionInterface

from tests.probes.attention_worlds import ALL, eager, world
from tests.probes.knockout_worlds import eager_logs, slow_map, text_behind
from workbench.captures import Capture
from workbench.models.tokenmap import QUESTION
from workbench.probes import knockout_replay
from workbench.probes.attention import inputs_of
from workbench.probes.common import ProbeError
from workbench.probes.knockout import RECOMPUTE, REPLAY, _refuse_if_too_large, knockout_map, knockout_prepared
from workbench.probes.knockout_cells import frame_blocks, layer_windows
from workbench.probes.knockout_masked import masked_attention


@pytest.mark.parametrize("name", ALL)
def test_replay_equals_eager_forward_passes_with_a_mask(name):
    model, processor, sample, clip = world(name)
    config = model.get_submodule(model.attention_layers()["llm"][0]).config
    before = config._attn_implementation
    capture = knockout_map(model, processor, sample(5), clip(5), "single,2,all", checks=3)
    assert config._attn_implementation == before and capture.meta["method"] == REPLAY
    prepared = processor.prepare(sample(5), clip(5), turns=(0,))
    pairs = [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (0, 3)]
    assert capture.arrays["windows"].tolist() == [list(pair) for pair in pairs]
    slow = slow_map(model, prepared, pairs, capture.arrays["block_of"], text_behind(prepared))
    deltas = capture.arrays["deltas"]
    seen = np.isfinite(deltas)
    np.testing.assert_allclose(deltas[seen], slow[seen], atol=2e-5)
    assert (slow[~seen] == 0).all() and np.abs(slow).max() > 0.01
    np.testing.assert_allclose(capture.arrays["token_deltas"].sum(-1), deltas)
    # the baseline is the loss the trainer sees
    inputs = inputs_of(prepared, model)
    with torch.no_grad():
        loss = float(model(**inputs, labels=prepared.labels[None], num_items=1).loss)
    assert capture.meta["baseline_logprob"] == pytest.approx(-loss, abs=1e-4)
    assert capture.meta["answer_tokens"] == int((prepared.labels != -100).sum())
    assert capture.arrays["spot_error"].shape == (3,) and capture.arrays["spot_error"].max() < 1e-4


@pytest.mark.parametrize("name", ["tempflex-release", "qwen2_5_vl", "llava"])
def test_parts_of_frames(name):
    model, processor, sample, clip = world(name)
    capture = knockout_map(model, processor, sample(2), clip(2), [(1, 3)], (2, 2), checks=0)
    prepared = processor.prepare(sample(2), clip(2), turns=(0,))
    slow = slow_map(model, prepared, [(1, 3)], capture.arrays["block_of"], text_behind(prepared))
    np.testing.assert_allclose(capture.arrays["deltas"], slow, atol=2e-5)
    rows = {(b["span"][0], b["row"], b["col"]) for b in capture.meta["blocks"]}
    assert len(rows) == len(capture.meta["blocks"]) > 3


def test_what_no_text_sees_is_not_visible_instead_of_zero():
    model, processor, sample, clip = world("tempflex-gemma3")  # window of 32 in the layers 0 and 1
    capture = knockout_map(model, processor, sample(9), clip(9), "single,all")
    prepared = processor.prepare(sample(9), clip(9), turns=(0,))
    weights = eager(model, **inputs_of(prepared, model))[:, 0]
    text = text_behind(prepared)
    for w, (first, stop) in enumerate(capture.arrays["windows"].tolist()):
        for block in range(len(capture.meta["blocks"])):
            mine = capture.arrays["block_of"] == block
            visible = (weights[first:stop][:, :, text][..., mine] > 0).any()
            assert np.isnan(capture.arrays["deltas"][w, block]) == (not visible)
    assert np.isnan(capture.arrays["deltas"][0]).any() and np.isfinite(capture.arrays["deltas"][-1]).all()


@pytest.mark.parametrize("name", ["tempflex", "tempflex-gemma3", "qwen3_vl", "llava"])
def test_recomputation_is_the_same_for_text_and_the_only_way_for_video(name):
    model, processor, sample, clip = world(name)
    given = (model, processor, sample(4), clip(4), "2,all")
    fast, slow = knockout_map(*given), knockout_map(*given, recompute=True)
    assert slow.meta["method"] == RECOMPUTE and slow.meta["max_error"] is None
    seen = np.isfinite(fast.arrays["deltas"])
    np.testing.assert_allclose(fast.arrays["deltas"][seen], slow.arrays["deltas"][seen], atol=2e-5)
    with pytest.raises(ProbeError, match=r"changes the keys and values of the frames behind.*recompute=True"):
        knockout_map(*given, edges="all")
    whole = knockout_map(*given, edges="all", recompute=True)
    prepared = processor.prepare(sample(4), clip(4), turns=(0,))
    pairs = whole.arrays["windows"].tolist()
    expected = slow_map(model, prepared, pairs, whole.arrays["block_of"], None)
    np.testing.assert_allclose(whole.arrays["deltas"], expected, atol=2e-5)
    assert np.abs(whole.arrays["deltas"] - slow.arrays["deltas"]).max() > 1e-3  # later frames pass it on
    assert whole.meta["edges"] != slow.meta["edges"]


def test_questions_between_frames_need_recomputation():
    model, processor, sample, clip = world(
        "llava"
    )  # a line end stands between frames: taken as a question here
    prepared = processor.prepare(sample(3), clip(3), turns=(0,))
    token_map, kind = prepared.token_map, prepared.token_map.kind.copy()
    visual = token_map.visual
    between = [p for p in range(visual[0], visual[-1]) if p not in set(visual.tolist())]
    kind[between[0]] = QUESTION
    mixed = dataclasses.replace(prepared, token_map=dataclasses.replace(token_map, kind=kind))
    with pytest.raises(ProbeError, match="1 text positions stand between visual ones"):
        knockout_prepared(model, mixed, "all")
    capture = knockout_prepared(model, mixed, "all", recompute=True)
    queries = text_behind(prepared)
    queries[between[0]] = True
    expected = slow_map(model, prepared, [(0, 3)], capture.arrays["block_of"], queries)
    np.testing.assert_allclose(capture.arrays["deltas"], expected, atol=2e-5)
    assert capture.meta["template_inside_media"] == 1  # the other line end, which still sees


def test_batches_of_any_size_give_the_same(monkeypatch):
    model, processor, sample, clip = world("qwen2_5_vl")
    given = (model, processor, sample(6), clip(6), "single,2")
    whole = knockout_map(*given, checks=0).arrays["deltas"]
    for rows in (1, 4):
        monkeypatch.setattr(knockout_replay, "MOST_ROWS", rows)
        np.testing.assert_allclose(knockout_map(*given, checks=0).arrays["deltas"], whole, atol=1e-6)


def test_a_wrong_replay_is_refused():
    model, processor, sample, clip = world("tempflex-gemma3")
    wrong = lambda module, q, k, v, mask, **o: knockout_replay.replay_attention(module, q, 2 * k, v, mask)  # noqa: E731
    AttentionInterface.register(knockout_replay.NAME, wrong)
    try:
        with pytest.raises(ProbeError, match="replay differs from the whole forward pass"):
            knockout_map(model, processor, sample(4), clip(4))
    finally:
        AttentionInterface.register(knockout_replay.NAME, knockout_replay.replay_attention)


def test_half_precision_keeps_its_own_tolerance():
    model, processor, sample, clip = world("tempflex")
    exact = knockout_map(model, processor, sample(4), clip(4), "all").arrays["deltas"]
    capture = knockout_map(model.bfloat16(), processor, sample(4), clip(4), "all")
    assert capture.meta["model"]["dtype"] == "bfloat16"
    np.testing.assert_allclose(capture.arrays["deltas"], exact, atol=0.15)


def test_refusals():
    model, processor, sample, clip = world("tempflex")
    with pytest.raises(ProbeError, match="the conversation has no image or video"):
        knockout_map(model, processor, sample(0), None)
    with pytest.raises(ProbeError, match="the model has the layers 0 to 2"):
        knockout_map(model, processor, sample(2), clip(2), [(1, 9)])
    with pytest.raises(ProbeError, match="there are two kinds"):
        knockout_map(model, processor, sample(2), clip(2), edges="video")
    with pytest.raises(ProbeError, match="it has the questions 0 to 0"):
        knockout_map(model, processor, sample(2), clip(2), turn=1)
    prepared = processor.prepare(sample(2), clip(2), with_answers=False)
    with pytest.raises(ProbeError, match="no answer tokens"):
        knockout_prepared(model, prepared)
    with pytest.raises(ProbeError, match=r"take [\d,.]+ GiB, .* are free.*fewer frames"):
        _refuse_if_too_large(model, "s", 10**12, 3)
    with pytest.raises(ProbeError, match="caps its attention scores at 50"):
        masked_attention(model, *[torch.zeros(1, 1, 2, 4)] * 3, None, softcap=50.0)
    with torch.no_grad():
        model.language_model.norm.weight.fill_(float("nan"))
    with pytest.raises(ProbeError, match="its log-probability is not finite"):
        knockout_map(model, processor, sample(2), clip(2))


def test_a_map_from_a_file_says_everything(tmp_path):
    model, processor, sample, clip = world("llava_onevision")
    path = tmp_path / "k.safetensors"
    made = knockout_map(model, processor, sample(3), clip(3), seed=7, path=path)
    capture = Capture.load(path)
    np.testing.assert_array_equal(capture.arrays["deltas"], made.arrays["deltas"])
    assert capture.kind == "knockout" and capture.meta["seed"] == 7 and capture.meta["sample"]["id"] == "s3"
    spans = [block["span"] for block in capture.meta["blocks"]]
    assert spans == [[0, 1], [1, 2], [2, 3]] and capture.meta["frames"]["indices"] == [0, 3, 6]
    positions = capture.meta["positions"]
    assert positions["prefix"] + positions["suffix"] == len(capture.token_map)
    assert str(tmp_path) not in json.dumps(capture.meta)


@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_every_visual_position_lies_in_one_block(frames, rows, cols, which):
    name = ("tempflex", "tempflex-release", "qwen2_5_vl", "llava_next_video")[which - 1]
    token_map = prepared_map(name, frames)
    blocks = frame_blocks(token_map, (rows, cols))
    assert (blocks.of[token_map.visual] >= 0).all()
    others = np.setdiff1d(np.arange(len(token_map)), token_map.visual)
    assert (blocks.of[others] == -1).all()
    for i, label in enumerate(blocks.labels):
        for position in blocks.members(i):
            assert token_map.frame_span[position].tolist() == label["span"]
            x0, _, x1, _ = token_map.boxes[position]
            middle = (x0 + x1) / 2 / token_map.frame_size[0] * cols
            assert label["col"] <= middle < label["col"] + 1


_MAPS: dict = {}


def prepared_map(name: str, frames: int):
    if name not in _MAPS:
        _, processor, sample, clip = world(name)
        _MAPS[name] = [processor.prepare(sample(f), clip(f), turns=(0,)).token_map for f in range(1, 8)]
    return _MAPS[name][frames - 1]


@given(st.integers(1, 40), st.integers(1, 40))
def test_windows_of_layers(layers, width):
    if width > layers:
        with pytest.raises(ProbeError, match="layers"):
            layer_windows(width, layers)
        return
    assert layer_windows(str(width), layers) == [(i, i + width) for i in range(layers - width + 1)]
    assert layer_windows(f"all,0-{width - 1}", layers) == list(dict.fromkeys([(0, layers), (0, width)]))
    default = layer_windows(None, layers)
    assert (0, layers) in default and len(set(default)) == len(default)


def test_words_that_are_no_window():
    for word in ("some", "1-2-3", "3-1", "0", "-1"):
        with pytest.raises(ProbeError):
            layer_windows(word, 4)


def test_the_oracle_hides_what_it_is_told():
    model, processor, sample, clip = world("tempflex")
    prepared = processor.prepare(sample(3), clip(3), turns=(0,))
    n = len(prepared)
    assert (
        np.abs(eager_logs(model, prepared, {0: np.zeros((n, n), bool)}) - eager_logs(model, prepared)).max()
        < 1e-9
    )
