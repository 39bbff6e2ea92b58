"""Encodings against the paper's published token counts, and patches against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workbench.models.tempflex.encodings import (
    patchify,
    place,
    pooled_ranges,
    published_tokens,
    unpatchify,
    visual_tokens,
)
from workbench.models.tempflex.presets import preset_config
from workbench.models.tempflex.visual import pool_time

FULL = 8192


@pytest.mark.parametrize(
    ("size", "encoding", "published"),
    [
        ((1280, 720), "fixed", 576),
        ((1280, 720), "tiled", 4032),
        ((1280, 720), "native", 900),
        ((768, 768), "native", 576),
        ((1448, 1448), "native", 2048),
        ((1152, 1152), "tiled", 5760),  # 576 (K + 1); the figure counts 729 a tile
    ],
)
def test_published_table(size, encoding, published):
    assert published_tokens(*size, encoding) == published
    placed = place(*size, encoding, 16, FULL)
    # native: sides are rounded to whole merged cells; the others are published before merging
    assert (
        placed.tokens == pytest.approx(published, rel=0.03)
        if encoding == "native"
        else placed.patches == published
    )


def test_native_examples():
    assert (place(1280, 720, "native", 16, FULL).rows, place(1280, 720, "native", 16, FULL).cols) == (46, 80)
    assert place(1448, 1448, "native", 16, FULL).tokens == 45 * 45
    assert place(4000, 4000, "native", 16, FULL).tokens == 45 * 45  # the cap
    assert place(1, 1, "native", 16, FULL).tokens == 1


@given(
    st.integers(1, 6000),
    st.integers(1, 6000),
    st.sampled_from([4, 16, 256, 8192]),
    st.sampled_from([8, 14, 16]),
)
@settings(max_examples=300, deadline=None)
def test_native_keeps_cap_shape_and_cells(width, height, cap, patch):
    p = place(width, height, "native", patch, cap)
    assert p.rows % 2 == 0 and p.cols % 2 == 0 and 4 <= p.patches <= max(4, cap)
    fits = round(width / (2 * patch)) * round(height / (2 * patch)) * 4 <= cap
    if fits and width >= 2 * patch and height >= 2 * patch:  # rounding only
        assert abs(p.cols * patch - width) <= patch and abs(p.rows * patch - height) <= patch
    if min(p.rows, p.cols) > 40:  # aspect is kept up to rounding
        assert p.rows / p.cols == pytest.approx(height / width, rel=0.06)


def loop_patches(frames: np.ndarray, p: int) -> np.ndarray:
    """Slow oracle: one patch after the other, (y, x, channel) inside."""
    out = []
    for frame in frames.astype(np.float64):
        for y in range(0, frame.shape[0], p):
            for x in range(0, frame.shape[1], p):
                out.append(frame[y : y + p, x : x + p].reshape(-1) / 127.5 - 1)
    return np.array(out)


@pytest.mark.parametrize("size", [(32, 32), (48, 16)])
def test_patchify_without_resizing(size):
    frames = np.random.default_rng(0).integers(0, 256, (3, size[1], size[0], 3), dtype=np.uint8)
    placed = place(*size, "native", 8, 256)
    got = patchify(frames, placed)
    np.testing.assert_allclose(got.numpy(), loop_patches(frames, 8), atol=1e-6)
    assert got.is_contiguous() and got.dtype == torch.float32
    grid = (3, placed.rows, placed.cols)
    np.testing.assert_array_equal(unpatchify(got, grid, 8), frames)


def test_patchify_resizes_as_pil():
    frames = np.random.default_rng(0).integers(0, 256, (2, 37, 61, 3), dtype=np.uint8)
    placed = place(61, 37, "native", 8, 256)
    assert (placed.rows, placed.cols) == (4, 8)
    resized = np.stack(
        [np.asarray(Image.fromarray(f).resize((64, 32), Image.Resampling.BILINEAR)) for f in frames]
    )
    np.testing.assert_allclose(patchify(frames, placed).numpy(), loop_patches(resized, 8), atol=1e-6)


def test_tiles_hold_the_right_pixels():
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    placed = place(48, 32, "tiled", 8, 256, tile_size=16)
    assert placed.tiles == (2, 3) and placed.views == 7 and (placed.rows, placed.cols) == (14, 2)
    pixels = unpatchify(patchify(frames, placed), (2, 14, 2), 8)
    for f in range(2):
        whole = Image.fromarray(frames[f]).resize((16, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(pixels[f, :16], np.asarray(whole))
        for k, (r, c) in enumerate([(r, c) for r in range(2) for c in range(3)], start=1):
            np.testing.assert_array_equal(
                pixels[f, 16 * k : 16 * k + 16], frames[f, 16 * r : 16 * r + 16, 16 * c : 16 * c + 16]
            )


@pytest.mark.parametrize("frames", [1, 2, 5, 8, 12, 33, 64])
@pytest.mark.parametrize("to", [None, 1, 4, 8, 32])
def test_pooling_is_the_mean_of_its_ranges(frames, to):
    x = torch.randn(2, frames, 3, 4, dtype=torch.float64)
    expected = torch.stack([x[:, a:b].mean(1) for a, b in pooled_ranges(frames, to)], dim=1)
    torch.testing.assert_close(pool_time(x, to), expected)
    covered = {i for a, b in pooled_ranges(frames, to) for i in range(a, b)}
    assert covered == set(range(frames))
    assert visual_tokens((frames, 4, 6), to, True) == len(expected[0]) * 7


def test_token_rule_is_the_one_the_full_models_use():
    vision = preset_config("tempflex-qwen3-4b").vision_config
    assert (vision.patch_size, vision.max_patches) == (16, FULL)
