"""From inner products to the three decompositions g_V = s + t (science.md section 2 [OURS]). Needs no torch.

(a) projection     s = (<g_V, g_I> / |g_I|^2) g_I
(b) subspace       s = projection of g_V on the span of m held-out image gradients G_j: s = sum a_j G_j with
                   (Gram of G) a = (<g_V, G_j>)_j
(c) counterfactual s = gradient of the same questions on a changed clip (frozen: one frame repeated; shuffled)

t is always g_V - s. Everything reported follows from inner products, so no gradient is ever added up. In (a)
<g_I, t> = 0 and cos(g_I, s) = +-1 *by construction*: it says how much is shared, never whether t conflicts.

A comparison uses the parameters that *every* gradient in it reaches; where there are none the numbers are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

DEFINITIONS = ("projection", "subspace", "frozen", "shuffled", "static_frozen")
PARTS = ("cos_s", "cos_t", "share_s", "share_t", "interference_s", "interference_t")
NOTHING = 1e-12  # |t|^2 below this share of |g_V|^2 is rounding
RANK_TOLERANCE = 1e-10  # eigenvalues of the Gram matrix below this share of the largest are not a direction


class Products(Protocol):
    """Per-parameter inner products: the part of ``gram.Gram`` that is needed here."""

    def square(self, source, metric: str = "plain", /) -> np.ndarray: ...
    def dot(self, a, b, metric: str = "plain", /) -> np.ndarray: ...


Fraction = tuple[float, float]  # numerator and denominator: means over pairs are taken of each
NONE: Fraction = (float("nan"), float("nan"))
SQUARED = ("share_s", "share_t")  # statistics whose fraction is that of the squares


@dataclass(frozen=True)
class Parts:
    """A decomposition of one video gradient in one group, against one image gradient, as fractions.

    Attributes:
        cos_s, cos_t: cosine of the image gradient with the shared and the temporal part, over 1.
        share_s, share_t: |s|^2 over |g_V|^2 and |t|^2 over |g_V|^2; they add up to 1 only in (a) and (b).
        interference_s, interference_t: <g_I, s> and <g_I, t> over |g_I|^2; they add up to the whole.
    """

    cos_s: Fraction = NONE
    cos_t: Fraction = NONE
    share_s: Fraction = NONE
    share_t: Fraction = NONE
    interference_s: Fraction = NONE
    interference_t: Fraction = NONE

    def as_row(self) -> list[Fraction]:
        return [getattr(self, name) for name in PARTS]


def parts_of(ii: float, vv: float, iv: float, ss: float, i_s: float, v_s: float) -> Parts:
    """Parts from the inner products of g_I, g_V and s; NaN where one is missing or a length is 0."""
    tt = vv + ss - 2 * v_s
    if tt <= NOTHING * max(vv, ss):  # rounding: s is g_V
        tt = 0.0
    i_t = iv - i_s
    return Parts(cosine(i_s, ii, ss), cosine(i_t, ii, tt), (ss, vv), (tt, vv), (i_s, ii), (i_t, ii))


def cosine(dot: float, a: float, b: float) -> Fraction:
    """dot / sqrt(a b), over 1; NaN when a length is 0 or missing."""
    if not (a > 0 and b > 0):
        return NONE
    return float(min(1.0, max(-1.0, dot / np.sqrt(a) / np.sqrt(b)))), 1.0


def projection(ii: float, vv: float, iv: float) -> Parts:
    """(a). cos(g_I, s) is the sign of <g_I, g_V>, cos(g_I, t) is 0, by construction."""
    if not (ii > 0 and vv > 0):
        return Parts()
    ss = iv * iv / ii
    return Parts(
        (float(np.sign(iv)), 1.0), (0.0, 1.0), (ss, vv), (max(0.0, vv - ss), vv), (iv, ii), (0.0, ii)
    )


def subspace(ii: float, vv: float, iv: float, i_G: np.ndarray, v_G: np.ndarray, gram_GG: np.ndarray) -> Parts:
    """(b), from <g_I, G_j> ``[m]``, <g_V, G_j> ``[m]`` and the Gram matrix ``[m, m]``."""
    everything = (ii, vv, iv, *i_G, *v_G, *gram_GG.ravel())
    if not len(i_G) or not np.isfinite(everything).all():
        return Parts()
    values, vectors = np.linalg.eigh((gram_GG + gram_GG.T) / 2)
    real = values > RANK_TOLERANCE * max(float(values[-1]), 0.0)
    if not real.any():
        return Parts()
    v_E = vectors[:, real].T @ v_G / np.sqrt(values[real])  # coordinates in an orthonormal basis of the span
    i_E = vectors[:, real].T @ i_G / np.sqrt(values[real])
    ss = float(v_E @ v_E)
    return parts_of(ii, vv, iv, ss, float(i_E @ v_E), ss)


class GroupSums:
    """Sums of per-parameter products over one group, over the parameters that all named gradients reach."""

    def __init__(self, products: Products, members: np.ndarray, metric: str) -> None:
        self._products, self._members, self._metric = products, members, metric

    def __call__(self, edges: Sequence[tuple]) -> list[float]:
        """<a, b> for every (a, b) over the common parameters; all NaN when there are none."""
        names = dict.fromkeys(source for edge in edges for source in edge)
        common = np.ones(len(self._members), dtype=bool)
        for source in names:
            common &= np.isfinite(self._products.square(source, self._metric)[self._members])
        if not common.any():
            return [float("nan")] * len(edges)
        at = self._members[common]
        return [float(self._products.dot(a, b, self._metric)[at].sum()) for a, b in edges]
