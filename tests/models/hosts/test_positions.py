"""M-RoPE: our positions of packed rows equal the stock model's of each conversation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.hosts.tiny import clip, sample, tiny_host
from workbench.models.hosts.processing import frame_times
from workbench.samples.sample import Clip
from workbench.training.packing import materialise

torch.set_num_threads(1)
HOSTS = {kind: tiny_host(kind) for kind in ("qwen2_5_vl", "qwen3_vl")}
MEDIA = st.tuples(
    st.integers(0, 7),
    st.integers(8, 48),
    st.integers(8, 48),
    st.sampled_from([0.04, 0.5, 1.3]),
    st.booleans(),
)


@pytest.mark.parametrize("kind", HOSTS)
@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.lists(MEDIA, min_size=1, max_size=3), min_size=1, max_size=2))
def test_mrope_equals_the_stock_model(kind, rows):
    model, processor = HOSTS[kind]
    prepared, layout = [], []
    for row in rows:
        layout.append(list(range(len(prepared), len(prepared) + len(row))))
        for frames, width, height, spacing, video in row:
            shown = clip(frames, width, height, spacing_s=spacing) if frames else None
            prepared.append(
                processor.prepare(sample(frames, 2, frames > 1 or (video and frames == 1)), shown)
            )
    batch = materialise(prepared, layout)
    got = model.rope_positions(batch.input_ids, batch.grids, batch.segment_ids)
    assert got.shape == (3, *batch.input_ids.shape)
    assert not got[:, batch.segment_ids == 0].any()
    for index, row, start in batch.starts():
        p = prepared[index]
        here = got[:, row, start : start + len(p)]
        if p.grid is None:
            assert torch.equal(here, torch.arange(len(p)).expand(3, -1))
            continue
        inputs = model.stock_inputs(p.input_ids[None], p.pixel_values, torch.tensor([p.grid]))
        named = {name: value for name, value in inputs.items() if not name.startswith("pixel_values")}
        if "second_per_grid_ts" in named:
            named["second_per_grid_ts"] = [p.grid[3] / 1e6]
        expected, _ = model.host.model.get_rope_index(p.input_ids[None], **named)
        assert torch.equal(here, expected[:, 0])


def test_time_comes_from_the_frames_actually_used():
    """Qwen2.5-VL: twice the spacing, twice the temporal step; the frames' own clock, not a nominal rate."""
    model, processor = HOSTS["qwen2_5_vl"]
    for spacing in (0.5, 1.0, 3.0):
        p = processor.prepare(sample(6), clip(6, spacing_s=spacing))
        positions = model.rope_positions(
            p.input_ids[None], torch.tensor([p.grid]), torch.ones(1, len(p)).long()
        )
        visual = positions[0, 0, p.token_map.visual]
        per_patch = model.config.vision_config.tokens_per_second * 2 * spacing
        assert visual.unique().diff().tolist() == [per_patch, per_patch]


def test_times_of_qwen3_in_the_text():
    processor = HOSTS["qwen3_vl"][1]
    p = processor.prepare(sample(5), clip(5, spacing_s=1.5))
    text = processor.tokenizer.decode(p.input_ids)
    # pairs (0, 1.5), (3, 4.5), and the last frame with itself
    for said in ("<0.8 seconds>", "<3.8 seconds>", "<6.0 seconds>"):
        assert text.count(said) == 1


def test_copies_of_an_image_have_a_nominal_clock():
    frames = clip(4).frames
    assert frame_times(Clip(frames, (0,) * 4, (0.0,) * 4)) == [0.0, 0.5, 1.0, 1.5]
    assert frame_times(Clip(frames[:1], (7,), (3.5,))) == [3.5]
    assert frame_times(Clip(frames, (0, 1, 2, 3), (0.0, 0.1, 0.7, 0.9))) == [0.0, 0.1, 0.7, 0.9]
