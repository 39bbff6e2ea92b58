"""Mixtures of three as colours: even to the eye, told apart without full colour vision, one byte each."""

from __future__ import annotations

import base64
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.views import ternary

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
PALETTE = {  # Okabe and Ito
    **{"orange": "#E69F00", "sky blue": "#56B4E9", "bluish green": "#009E73", "yellow": "#F0E442"},
    **{"blue": "#0072B2", "vermillion": "#D55E00", "reddish purple": "#CC79A7"},
}


def hexed(rgb) -> str:
    return "#" + bytes(np.rint(rgb).astype(np.uint8)).hex().upper()


def height(colours: tuple[str, ...]) -> float:
    """The smallest height of the triangle of three colours in OKLab, over kinds of sight: 0 when two look alike."""
    worst = np.inf
    for matrix in SIGHT.values():
        a, b, c = (ternary.oklab(np.clip(matrix @ ternary.linear_of(colour), 0, 1)) for colour in colours)
        sides = [np.linalg.norm(x - y) for x, y in ((a, b), (b, c), (c, a))]
        worst = min(worst, float(np.linalg.norm(np.cross(b - a, c - a)) / max(sides)))
    return worst


def test_no_other_corners_of_the_palette_stay_wider_apart_for_every_kind_of_sight():
    own = height(ternary.CORNERS)
    assert own > 0.15
    assert own >= max(height(three) for three in itertools.combinations(PALETTE.values(), 3)) - 1e-9


@pytest.mark.parametrize("sight", SIGHT)
def test_half_way_between_two_corners_looks_half_way(sight):
    corners = ternary.colours(np.eye(3)) / 255
    for i, j in ((0, 1), (1, 2), (2, 0)):
        middle = ternary.colours((np.eye(3)[i] + np.eye(3)[j])[None] / 2)[0] / 255
        a, m, b = (
            ternary.oklab(
                np.clip(
                    SIGHT[sight] @ ternary.linear_of(hexed(255 * c)),
                    0,
                    1,
                )
            )
            for c in (corners[i], middle, corners[j])
        )
        share = np.linalg.norm(m - a) / (np.linalg.norm(m - a) + np.linalg.norm(m - b))
        assert 0.38 < share < 0.62


def test_a_pure_branch_has_the_colour_of_its_corner():
    for share, colour in zip(np.eye(3), ternary.CORNERS, strict=True):
        assert hexed(ternary.colours(share[None])[0]) == colour


def test_every_mixture_of_the_grid_has_its_own_index():
    assert ternary.indices(ternary.grid()).tolist() == list(range(253))
    rgb = np.frombuffer(base64.b64decode(ternary.table()), np.uint8).reshape(256, 3)
    assert np.array_equal(rgb[:253], ternary.colours(ternary.grid()))


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda v: sum(v) > 0.01))
def test_a_mixture_is_shown_as_one_at_most_a_step_away(values):
    mixture = np.array(values) / sum(values)
    shown = ternary.grid()[ternary.indices(mixture)]
    assert np.abs(shown - mixture).max() <= 1 / ternary.STEPS
    assert shown.sum() == pytest.approx(1)


def test_what_is_missing_is_hidden_and_no_colour():
    assert ternary.indices(np.array([[np.nan, 0.5, 0.5], [1, 0, 0]])).tolist() == [255, 252]
