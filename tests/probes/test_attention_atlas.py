"""The temporal atlas is the exact rows, summed; encoder maps are eager attention, put into raster order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.probes.attention_worlds import ALL, OURS, assert_rows, eager, world
from workbench.captures import Capture
from workbench.probes import atlas as atlas_module
from workbench.probes.atlas import segments_of, temporal_atlas
from workbench.probes.attention import Look, attention_rows, inputs_of
from workbench.probes.attention_tap import AttentionTap
from workbench.probes.common import ProbeError

OUTPUTS = ("out.weight", "out_proj.weight", "proj.weight")  # of encoders


@pytest.fixture(scope="module", params=ALL)
def any_world(request):
    return world(request.param)


@pytest.mark.parametrize("heads", [None, [1], "mean"])
def test_atlas_is_the_rows_summed(any_world, heads, monkeypatch):
    monkeypatch.setattr(atlas_module, "QUERIES_AT_ONCE", 50)
    model, processor, sample, clip = any_world
    rows = attention_rows(model, processor, sample(14), clip(14), "all", heads=heads).arrays["rows"]
    atlas = temporal_atlas(model, processor, sample(14), clip(14), look=Look(heads=heads))
    of = segments_of(atlas.token_map).of
    onehot = np.eye(of.max() + 1)[of]
    visible = ~np.isnan(rows) @ onehot > 0
    expected = np.where(visible, np.nan_to_num(rows) @ onehot, np.nan)
    np.testing.assert_array_equal(np.isnan(atlas.arrays["mass"]), ~visible)
    np.testing.assert_allclose(atlas.arrays["mass"], expected, atol=2e-6)
    assert atlas.arrays["sizes"].tolist() == onehot.sum(0).tolist()
    assert max(atlas.arrays["self_check"].max(), atlas.arrays["sum_check"].max()) < 1e-5
    for source in range(onehot.shape[1]):  # the mean over the queries of a segment that see the other one
        mine = expected[:, :, of == source]
        seen = ~np.isnan(mine).all(2)
        mean = np.nansum(mine, 2) / np.maximum(1, (~np.isnan(mine)).sum(2))
        np.testing.assert_allclose(
            atlas.arrays["segment_mass"][:, :, source], np.where(seen, mean, np.nan), atol=2e-6
        )


def test_segments_say_what_they_are(tmp_path):
    model, processor, sample, clip = world("tempflex-release")  # 12 frames averaged to 4, newlines
    path = tmp_path / "a.safetensors"
    atlas = temporal_atlas(model, processor, sample(12), clip(12), "answer", path=path)
    segments, token_map = atlas.meta["segments"], atlas.token_map
    kinds = [segment["kind"] for segment in segments]
    assert kinds == ["frames"] * 4 + ["question", "answer", "template"]
    assert [segment["span"] for segment in segments[:4]] == [[0, 3], [3, 6], [6, 9], [9, 12]]
    assert segments[1]["indices"] == [9, 12, 15] and segments[1]["timestamps"] == [1.5, 2.0, 2.5]
    of = segments_of(token_map).of
    for position in (*token_map.where("newline"), *token_map.visual):
        assert tuple(token_map.frame_span[position]) == tuple(segments[of[position]]["span"])
    whole = temporal_atlas(model, processor, sample(12), clip(12))
    answers = atlas.arrays["queries"]
    np.testing.assert_array_equal(Capture.load(path).arrays["mass"], whole.arrays["mass"][:, :, answers])
    np.testing.assert_array_equal(atlas.arrays["segment_mass"], whole.arrays["segment_mass"])


def test_half_precision_and_what_is_refused():
    model, processor, sample, clip = world("tempflex-gemma3")
    model = model.to(torch.bfloat16)
    atlas = temporal_atlas(model, processor, sample(12), clip(12))
    rows = attention_rows(model, processor, sample(12), clip(12), "all").arrays["rows"]
    of = segments_of(atlas.token_map).of
    np.testing.assert_allclose(
        np.nan_to_num(atlas.arrays["mass"]), np.nan_to_num(rows) @ np.eye(of.max() + 1)[of], atol=2e-6
    )
    with pytest.raises(ProbeError, match="kept in float32"):
        temporal_atlas(model, processor, sample(2), clip(2), look=Look(store="uint8"))


# ---------------------------------------------------------------------------------------------------- the encoder


def encoder_calls(model, prepared):
    """One forward pass's calls in the encoder, where each layer makes one."""
    calls = []
    with torch.no_grad(), AttentionTap(model, calls.append, "encoder"):
        model.eval()(**inputs_of(prepared, model), use_cache=False)
    return calls


def slow_norms(call):
    """|v W_O| of one call by the product itself: [pictures, H, positions]."""
    weight = next(w for n, w in call.module.named_parameters() if n in OUTPUTS).detach().double()
    pictures, heads, n, size = call.value.shape
    norms = np.zeros((pictures, heads, n))
    for picture, head, place in np.ndindex(pictures, heads, n):
        part = weight[:, head * size : (head + 1) * size]
        norms[picture, head, place] = (part @ call.value[picture, head, place].double()).norm()
    return norms


@pytest.mark.parametrize("name", [*OURS, "llava", "llava_next_video", "llava_onevision"])
@pytest.mark.parametrize("frames", [1, 5])
def test_encoder_rows_equal_eager_attention(name, frames):
    model, processor, sample, clip = world(name)
    prepared = processor.prepare(sample(frames), clip(frames), turns=(0,))
    full = eager(model, "encoder", **inputs_of(prepared, model))  # [layers, pictures, H, S, S]
    f, rows, cols = (int(n) for n in prepared.grid[:3])
    patches, pictures = rows * cols, full.shape[1]
    length = patches * f // pictures
    extra = full.shape[-1] - length  # CLIP: a class token in front
    queries = [0, f * patches - 1, patches // 2]
    capture = attention_rows(
        model, processor, sample(frames), clip(frames), queries, where="encoder", norms=True
    )
    assert capture.arrays["self_check"].max() < 1e-5
    calls = encoder_calls(model, prepared)
    norms = np.stack([slow_norms(call)[..., extra:] for call in calls]).transpose(0, 2, 1, 3)
    norms = norms.reshape(len(full), full.shape[2], f, patches)
    np.testing.assert_allclose(capture.arrays["value_norms"], norms, rtol=1e-4, atol=1e-6)
    for row, query in enumerate(queries):
        picture, place = query // length, query % length
        expected = np.zeros((*full.shape[:1], full.shape[2], patches))
        first = picture * length % patches
        expected[..., first : first + length] = full[:, picture, :, extra + place, extra:]
        assert_rows(capture.arrays["rows"][:, :, row], expected)
        if extra:
            mass = capture.arrays["class_mass"][:, :, row]
            np.testing.assert_allclose(mass, full[:, picture, :, extra + place, 0], atol=2e-6)
    mean = attention_rows(model, processor, sample(frames), clip(frames), where="encoder").arrays["received"]
    own = full[..., extra:, extra:].mean(3)  # over queries: [layers, pictures, H, length]
    own = own.reshape(len(full), f, pictures // f, full.shape[2], length).transpose(0, 3, 1, 2, 4)
    own = own.reshape(len(full), -1, f, patches)
    np.testing.assert_allclose(mean, own, atol=2e-6)
    # averaged over heads: the weighted map itself
    for asked, maps in (("mean", own), (queries, None)):
        capture = attention_rows(
            model, processor, sample(frames), clip(frames), asked, None, "mean", "encoder", norms=True
        )
        got = capture.arrays["norm_weighted"]
        if maps is None:
            at = np.array(queries)
            rows_all = attention_rows(
                model, processor, sample(frames), clip(frames), queries, where="encoder"
            )
            maps = rows_all.arrays["rows"]
            expected = (maps * norms[:, :, at // patches]).mean(1, keepdims=True)
        else:
            expected = (maps * norms).mean(1, keepdims=True)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_encoder_rows_of_windows_and_cells(name):
    """The encoder's order is found again from what enters its first block: independent of the layout's formulas."""
    model, processor, sample, clip = world(name)
    prepared = processor.prepare(sample(5), clip(5), turns=(0,))
    t, rows, cols = (int(n) for n in prepared.grid[:3])
    patches = rows * cols
    raster = np.concatenate([prepared.token_map.patches[i] for i in prepared.token_map.visual]).reshape(t, -1)
    entered, calls = [], []
    visual = model.encoder
    embedded = visual.patch_embed.register_forward_hook(lambda m, a, out: entered.append(out.clone()))
    first = visual.blocks[0].register_forward_pre_hook(lambda m, a: entered.append(a[0].clone()))
    with torch.no_grad(), AttentionTap(model, calls.append, "encoder"):
        model.eval()(**inputs_of(prepared, model), use_cache=False)
    embedded.remove()
    first.remove()
    if name == "qwen2_5_vl":
        order = torch.cdist(entered[1], entered[0]).argmin(1).numpy()  # encoder place -> row of pixel_values
        assert sorted(order) == list(range(t * patches)) and (order != np.arange(len(order))).any()
    else:
        order = np.arange(t * patches)
    frame, patch = order // patches, raster.ravel()[order]
    queries = [0, 7, patches + 3, t * patches - 1]
    capture = attention_rows(model, processor, sample(5), clip(5), queries, where="encoder", norms=True)
    for layer in range(3):
        at, mine = 0, [call for call in calls if call.layer == layer]
        expected = np.zeros((4, len(queries), patches))
        for call in mine:  # each sees all of itself
            weights = (call.query @ call.key.transpose(-1, -2) * call.scaling).softmax(-1)[0].numpy()
            here = slice(at, at + weights.shape[-1])
            at = here.stop
            norms = capture.arrays["value_norms"][layer][:, frame[here], patch[here]]
            np.testing.assert_allclose(norms, slow_norms(call)[0], rtol=1e-4, atol=1e-6)
            for row, query in enumerate(queries):
                for place in np.flatnonzero(frame[here] * patches + patch[here] == query):
                    assert (frame[here] == query // patches).all()
                    expected[:, row, patch[here]] = weights[:, place]
        assert_rows(capture.arrays["rows"][layer], expected)
    if name == "qwen2_5_vl":  # 16-pixel windows of 4 x 4 patches, but for layer 1, which sees the whole frame
        seen = ~np.isnan(capture.arrays["rows"][:, 0, 1])
        r, c = np.divmod(np.arange(patches), cols)
        assert (seen[0] == ((r // 4 == 7 // cols // 4) & (c // 4 == 7 % cols // 4))).all() and seen[1].all()


@pytest.mark.parametrize(
    ("queries", "frames", "message"),
    [
        ("answer", 3, "it knows no text"),
        ([9999], 3, "look from patch 9999"),
        ("mean", 0, "no image or video"),
    ],
)
def test_encoder_refuses(queries, frames, message):
    model, processor, sample, clip = world("tempflex")
    with pytest.raises(ProbeError, match=message):
        attention_rows(
            model, processor, sample(frames), clip(frames) if frames else None, queries, where="encoder"
        )
