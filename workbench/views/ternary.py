"""Colours of a mixture of three: corners of the Okabe-Ito palette, mixed in OKLab.

A mixture (a, b, c), a + b + c = 1, is rounded to steps of 1/21: 253 colours, so that a map of mixtures is one byte a
cell and uses the same colour tables as every other map (``lib/ternary.js`` has the same index). OKLab (Ottosson 2020)
is a space in which equal distances look about equally large: half way between two corners looks half way, which mixing
RGB values does not give. Of the palette's triples the one used keeps its triangle widest in the worst case of normal
sight, protanopia, deuteranopia and tritanopia, black left out because it vanishes on a dark page (tests/views/test_ternary.py).
"""

from __future__ import annotations

import base64

import numpy as np

STEPS = 21
HIDDEN = 255
CORNERS = ("#56B4E9", "#D55E00", "#F0E442")  # sky blue, vermillion, yellow

_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def linear_of(colour: str) -> np.ndarray:
    """Linear RGB of ``#RRGGBB``, 0 .. 1."""
    c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def oklab(linear: np.ndarray) -> np.ndarray:
    """OKLab of linear RGB, last axis 3."""
    return np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T


def _srgb(lab: np.ndarray) -> np.ndarray:
    """uint8 RGB of OKLab; what sRGB cannot show is clipped."""
    linear = np.clip((lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T, 0, 1)
    return np.rint(
        255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    ).astype(np.uint8)


def grid() -> np.ndarray:
    """The 253 mixtures ``[index, 3]`` in the order of their indices."""
    pairs = [(i, j) for i in range(STEPS + 1) for j in range(STEPS + 1 - i)]
    return np.array([(i, j, STEPS - i - j) for i, j in pairs]) / STEPS


def colours(mixtures: np.ndarray) -> np.ndarray:
    """uint8 RGB of mixtures, last axis 3."""
    corners = oklab(np.array([linear_of(colour) for colour in CORNERS]))
    return _srgb(np.asarray(mixtures, dtype=np.float64) @ corners)


def indices(mixtures: np.ndarray) -> np.ndarray:
    """uint8 index of the nearest mixture of the grid, by largest remainders; 255 where a share is not finite.

    Args:
        mixtures: ``[..., 3]``, shares that sum to 1.
    """
    mixtures = np.asarray(mixtures, dtype=np.float64)
    seen = np.isfinite(mixtures).all(-1)
    scaled = np.where(seen[..., None], mixtures, 1 / 3) * STEPS
    whole = np.floor(scaled + 1e-9).astype(int)
    order = np.argsort(np.argsort(-(scaled - whole), axis=-1, kind="stable"), axis=-1)
    whole += order < (STEPS - whole.sum(-1))[..., None]
    i, j = whole[..., 0], whole[..., 1]
    return np.where(seen, i * (STEPS + 1) - i * (i - 1) // 2 + j, HIDDEN).astype(np.uint8)


def table() -> str:
    """256 RGB triples, base64, as ``colours.table``: mixtures by index, unused ones black."""
    rgb = np.zeros((256, 3), np.uint8)
    rgb[: len(grid())] = colours(grid())
    return base64.b64encode(rgb.tobytes()).decode("ascii")
