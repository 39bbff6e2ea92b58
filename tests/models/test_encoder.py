"""Our vision tower against transformers' Siglip2VisionModel, and the position table against its
definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Siglip2VisionConfig, Siglip2VisionModel

from tests.models import worlds
from workbench.models.tempflex import NaFlexEncoder, TempFlexVisionConfig
from workbench.models.tempflex.encoder import from_siglip2, resize_table

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "patch_size": 4,
}


@pytest.fixture(scope="module")
def siglip():
    torch.manual_seed(0)
    model = Siglip2VisionModel(Siglip2VisionConfig(**SIZES, num_patches=256, vision_use_head=False)).eval()
    with torch.no_grad():
        for p in model.parameters():  # nothing may hide behind zeros and ones
            p.add_(torch.randn_like(p) * 0.1)
    return model


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize(("rows", "cols"), [(16, 16), (4, 4), (2, 10), (6, 22), (24, 18), (1, 7)])
def test_same_features_as_siglip2(siglip, rows, cols, implementation):
    encoder = NaFlexEncoder(TempFlexVisionConfig(**SIZES)).eval()
    encoder.load_state_dict(from_siglip2(siglip.state_dict(), encoder.config))
    encoder.set_attn_implementation(implementation)
    patches = torch.randn(3, rows * cols, 48)
    mask = torch.ones(3, rows * cols, dtype=torch.long)
    expected = siglip(patches, mask, torch.tensor([[rows, cols]] * 3)).last_hidden_state
    torch.testing.assert_close(encoder(patches, rows, cols), expected, rtol=1e-5, atol=1e-5)


def test_missing_weight_is_named(siglip):
    state = siglip.state_dict()
    gone = next(k for k in state if k.endswith("layers.1.self_attn.k_proj.weight"))
    del state[gone]
    with pytest.raises(KeyError, match=r"layers\.1\.self_attn\.k_proj\.weight"):
        from_siglip2(state, TempFlexVisionConfig(**SIZES))


def bilinear(table: np.ndarray, to: tuple[int, int], antialias: bool) -> np.ndarray:
    """Slow oracle in float64: a triangle filter over source entries, widened when shrinking if
    antialiased."""
    out = table.astype(np.float64)
    for axis in (0, 1):
        n, m = out.shape[axis], to[axis]
        scale = n / m
        width = max(scale, 1.0) if antialias else 1.0
        rows = []
        for i in range(m):
            centre = (i + 0.5) * scale
            if antialias:
                weights = np.array([max(0.0, 1 - abs((j + 0.5 - centre) / width)) for j in range(n)])
            else:
                at = min(max(centre - 0.5, 0.0), n - 1.0)
                weights = np.array([max(0.0, 1 - abs(j - at)) for j in range(n)])
            rows.append(np.tensordot(weights / weights.sum(), out, axes=(0, axis)))
        out = np.moveaxis(np.stack(rows), 0, axis)
    return out


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("to", [(16, 16), (4, 6), (23, 40), (7, 31)])
def test_position_table_resize(to, antialias):
    table = torch.randn(16, 16, 3)
    got = resize_table(table.view(256, 3), (16, 16), to, antialias).view(*to, 3)
    np.testing.assert_allclose(got.numpy(), bilinear(table.numpy(), to, antialias), rtol=0, atol=1e-5)


def test_extended_table_starts_as_the_pretrained_one(siglip):
    config = TempFlexVisionConfig(**SIZES, position_rows=32, position_cols=64, interpolation="extended")
    encoder = NaFlexEncoder(config)
    encoder.load_state_dict(from_siglip2(siglip.state_dict(), config))
    assert encoder.position_embedding.shape == (2048, 32)
    pretrained = siglip.state_dict()
    table = next(v for k, v in pretrained.items() if "position_embedding" in k).view(16, 16, 32).numpy()
    np.testing.assert_allclose(
        encoder.positions(32, 64).detach().view(32, 64, 32).numpy(),
        bilinear(table, (32, 64), False),
        atol=1e-5,
    )


def test_tiles_are_encoded_apart():
    model, processor = worlds.model(encoding="tiled", tile_size=16)
    a = processor.prepare(worlds.sample(1), worlds.clip(1, 32, 16))
    assert a.grid == (1, 6, 2)  # a global view and two tiles, each 2 x 2 patches
    pixels = a.pixel_values.clone()
    pixels[8:] += 1.0  # the last tile only
    (_, before), (_, after) = (
        next(model.encode(a.pixel_values, [a.grid])),
        next(model.encode(pixels, [a.grid])),
    )
    changed = (before != after).any(-1)[0, 0]
    assert changed.tolist() == [False] * 8 + [True] * 4
