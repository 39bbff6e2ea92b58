"""The token map against the pixels themselves: which positions change when a patch of a frame changes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.models import worlds
from workbench.models.tempflex.merger import merged_cells
from workbench.models.tokenmap import KINDS, TokenMap

CASES = {
    "image": (1, {}),
    "clip": (3, {}),
    "newline": (3, {"newline": True}),
    "pooled": (5, {"pool_to": 2, "newline": True}),
    "strips": (2, {"merge": "strip4"}),
}


@pytest.mark.parametrize("case", CASES)
def test_map_agrees_with_what_reaches_the_language_model(case):
    """Brute force: paint one patch of one frame; the features that move are at the positions the map says.

    An encoder without attention between patches (its output projections zeroed) keeps patches apart.
    """
    frames, options = CASES[case]
    model, processor = worlds.model(fusion_layers=0, **options)
    for layer in model.encoder.layers:
        torch.nn.init.zeros_(layer.attention.out.weight)
    clip = worlds.clip(frames, 48, 32)
    prepared = processor.prepare(worlds.sample(frames, 2), clip)
    tm, grid = prepared.token_map, prepared.grid
    assert grid == (frames, 4, 6) and len(tm) == len(prepared.input_ids)
    base = model.visual_features(prepared.pixel_values, [grid]).detach()
    positions = torch.cat([(prepared.input_ids == 2).nonzero().flatten()])
    assert len(base) == len(positions) == prepared.visual_tokens
    for f in range(frames):
        for patch in range(24):
            changed = prepared.pixel_values.clone()
            changed[f * 24 + patch] += 1.0
            moved = (model.visual_features(changed, [grid]).detach() - base).abs().amax(-1) > 1e-7
            for n, position in enumerate(positions.tolist()):
                said = clip.indices[f] in tm.frames(position) and (divmod(patch, 6) in tm.rows_cols(position))
                assert bool(moved[n]) == said, (f, patch, n)


@pytest.mark.parametrize("merge", ["2x2", "strip4"])
def test_boxes_and_times(merge):
    _, processor = worlds.model(merge=merge, pool_to=2, newline=True)
    clip = worlds.clip(5, 50, 30)  # resized to 48 x 32: boxes are in source pixels
    tm = processor.prepare(worlds.sample(5), clip).token_map
    assert tm.grid == (5, 4, 6) and tm.frame_size == (50, 30)
    cells = merged_cells(4, 6, merge)
    visual = tm.visual
    assert len(visual) == 2 * len(cells) and len(tm.where("newline")) == 2
    for n, position in enumerate(visual):
        cell = cells[n % len(cells)]
        assert tm.rows_cols(position) == cell
        box = [
            min(c for _, c in cell) * 50 / 6,
            min(r for r, _ in cell) * 30 / 4,
            (max(c for _, c in cell) + 1) * 50 / 6,
            (max(r for r, _ in cell) + 1) * 30 / 4,
        ]
        np.testing.assert_allclose(tm.boxes[position], box, rtol=1e-6)
        first = n < len(cells)  # 5 frames averaged to 2: frames 0-2 and 2-4
        assert tm.frames(position) == ((0, 3, 6) if first else (6, 9, 12))
        assert tm.time_span(position) == ((0.0, 1.0) if first else (1.0, 2.0))
    assert tm.frames(tm.where("newline")[0]) == (0, 3, 6) and tm.rows_cols(tm.where("newline")[0]) == []
    text = tm.where("question")[0]
    assert tm.frames(text) == () and tm.time_span(text) is None and (tm.boxes[text] == -1).all()


def test_tiled_boxes_cover_the_picture_twice():
    _, processor = worlds.model(encoding="tiled", tile_size=16)
    tm = processor.prepare(worlds.sample(1), worlds.clip(1, 60, 33)).token_map
    boxes = tm.boxes[tm.visual]
    np.testing.assert_allclose(boxes[0], [0, 0, 60, 33])  # the global view is one merged cell
    area = ((boxes[1:, 2] - boxes[1:, 0]) * (boxes[1:, 3] - boxes[1:, 1])).sum()
    assert area == pytest.approx(60 * 33)
    np.testing.assert_allclose(boxes[2], [15, 0, 30, 16.5])  # 4 x 2 tiles, raster order


def test_kinds_and_turns_of_a_conversation():
    _, processor = worlds.model()
    p = processor.prepare(worlds.sample(1, 3), worlds.clip(1), turns=(0, 2))
    kinds = [KINDS[k] for k in p.token_map.kind]
    words = [str(processor.tokenizer.convert_ids_to_tokens(int(i))) for i in p.input_ids]
    told = list(zip(words, kinds, p.token_map.turn.tolist(), strict=True))
    assert told[:4] == [("<visual>", "visual", -1)] * 4
    assert told[4:] == [
        *[(w, "question", 0) for w in ("what", "colour", "comes", "first", "?")],
        ("<ask>", "template", 0),
        ("red", "answer", 0),
        ("<|im_end|>", "template", 0),
        *[(w, "question", 2) for w in ("left", "or", "right", "?")],
        ("<ask>", "template", 2),
        ("blue", "answer", 2),
        ("<|im_end|>", "template", 2),
    ]


@pytest.mark.parametrize("frames", [0, 1, 4])
def test_json_round_trip(frames):
    _, processor = worlds.model(newline=True)
    tm = processor.prepare(worlds.sample(frames), worlds.clip(frames) if frames else None).token_map
    again = TokenMap.from_json(tm.to_json())
    columns = {
        name: getattr(tm, name).tolist() for name in ("kind", "turn", "frame_span", "patches", "boxes")
    }
    plainly = json.dumps(columns, separators=(",", ":"))[:-1]
    assert tm.to_json().startswith(plainly + ',"frame_indices":')
    assert again == tm and again.boxes.dtype == np.float32 and again.patches.shape == (len(tm), 4)
    assert again.frame_indices == tm.frame_indices and again.grid == tm.grid
    with pytest.raises(ValueError, match="nothing"):
        tm.where("nothing")
