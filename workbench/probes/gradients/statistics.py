"""From a probe's inner products to the arrays of its capture. Needs no torch.

Axes: S statistics, M metrics (plain, adam), B batch pairs, G groups, N frame counts; "bound" is (estimate, low,
high). The statistics are those of ``STATISTICS``; a number that cannot be had is NaN, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from workbench.probes.gradients import definitions
from workbench.probes.gradients.definitions import (
    DEFINITIONS,
    NONE,
    PARTS,
    SQUARED,
    Fraction,
    GroupSums,
    Products,
    cosine,
)
from workbench.probes.gradients.intervals import (
    change_intervals,
    fraction_intervals,
    ratio_interval,
    share_interval,
)

COMMON = (
    *("cos", "interference", "image_ceiling", "video_ceiling", "image_norm", "video_norm"),
    *("static_cos", "static_interference"),
)
STATISTICS = (*COMMON, *(f"{definition}.{part}" for definition in DEFINITIONS for part in PARTS))
_SQUARED = [i for i, s in enumerate(STATISTICS) if s.endswith(("_norm", *SQUARED))]
# what each is, for reading a capture; shares and cosines have no unit, norms are nats per unit of the parameters
MEANING = {
    "cos": "cos(g_I, g_V)",
    "interference": "<g_I, g_V> / |g_I|^2",
    "image_ceiling": "noise ceiling: cos(g_I', g_I'') of two image batches",
    "video_ceiling": "noise ceiling: cos(g_V', g_V'') of two video batches with equally many frames",
    "image_norm": "|g_I|",
    "video_norm": "|g_V|",
    "static_cos": "cos(g_I, g_V) for videos whose questions one frame answers",
    "static_interference": "<g_I, g_V> / |g_I|^2 for those videos",
    "cos_s": "cos(g_I, s)",
    "cos_t": "cos(g_I, t)",
    "share_s": "|s| / |g_V|",
    "share_t": "|t| / |g_V|",
    "interference_s": "<g_I, s> / |g_I|^2",
    "interference_t": "<g_I, t> / |g_I|^2",
}


@dataclass(frozen=True)
class Design:
    """What was measured.

    Attributes:
        pairs: batch pairs B.
        frames: counts N.
        counterfactuals: of "frozen", "shuffled".
        static: whether videos with static questions were measured too.
        held_out: image batches m of the subspace; 0 for none.
        metrics: "plain", and "adam" if there was an optimizer state.
        groups: name -> indices of parameters.
    """

    pairs: int
    frames: tuple[int, ...]
    counterfactuals: tuple[str, ...]
    static: bool
    held_out: int
    metrics: tuple[str, ...]
    groups: dict[str, np.ndarray] = field(repr=False)

    def edges(self) -> list[tuple[tuple, tuple]]:
        """Inner products to measure, (kept, streamed), grouped by what is kept."""
        found: list[tuple[tuple, tuple]] = []
        for b in range(self.pairs):
            image = ("image", b)
            found.append((image, ("other", b)))
            for n in self.frames:
                changed = [(kind, b, n) for kind in self.counterfactuals]
                video, following = ("video", b, n), ("video", (b + 1) % self.pairs, n)
                found += [(image, source) for source in (video, *changed)]
                found += [(video, source) for source in changed]
                if following != video:
                    found.append((video, following))
                if self.static:
                    static, frozen = ("static", b, n), ("static_frozen", b, n)
                    found += [(image, static), (image, frozen), (static, frozen)]
        for j in range(self.held_out):
            kept = ("held_out", j)
            found += [(kept, ("held_out", k)) for k in range(j + 1, self.held_out)]
            for b in range(self.pairs):
                found.append((kept, ("image", b)))
                found += [(kept, ("video", b, n)) for n in self.frames]
        # all products of one kept gradient together
        order = {kept: i for i, kept in enumerate(dict.fromkeys(a for a, _ in found))}
        return sorted(dict.fromkeys(found), key=lambda edge: order[edge[0]])


def pair_fractions(products: Products, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Numerators and denominators of every statistic of every pair: float64 ``[S, M, B, G, N]`` each."""
    shape = (len(STATISTICS), len(design.metrics), design.pairs, len(design.groups), len(design.frames))
    tops, bottoms = np.full(shape, np.nan), np.full(shape, np.nan)
    for m, metric in enumerate(design.metrics):
        for g, members in enumerate(design.groups.values()):
            sums = GroupSums(products, members, metric)
            for b in range(design.pairs):
                for n, frames in enumerate(design.frames):
                    found = np.array(_one(sums, design, b, frames))
                    tops[:, m, b, g, n], bottoms[:, m, b, g, n] = found.T
    return tops, bottoms


def quotients(tops: np.ndarray, bottoms: np.ndarray) -> np.ndarray:
    """The statistics themselves, first axis S: the fraction, or its root where it is one of squares."""
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(bottoms > 0, tops / bottoms, np.nan)
    values[_SQUARED] = np.sqrt(values[_SQUARED])
    return values


def _one(sums: GroupSums, design: Design, b: int, n: int) -> list[Fraction]:
    image, other, video = ("image", b), ("other", b), ("video", b, n)
    following = ("video", (b + 1) % design.pairs, n)
    found: dict[str, Fraction] = dict.fromkeys(STATISTICS, NONE)
    ii, vv, iv = sums([(image, image), (video, video), (image, video)])
    found["cos"], found["interference"] = cosine(iv, ii, vv), (iv, ii)
    found["image_norm"], found["video_norm"] = (ii, 1.0), (vv, 1.0)
    i1, i2, i12 = sums([(image, image), (other, other), (image, other)])
    found["image_ceiling"] = cosine(i12, i1, i2)
    if design.pairs > 1:
        v1, v2, v12 = sums([(video, video), (following, following), (video, following)])
        found["video_ceiling"] = cosine(v12, v1, v2)
    parts = {"projection": definitions.projection(ii, vv, iv)}
    if design.held_out:
        parts["subspace"] = _subspace(sums, design, image, video)
    for kind in design.counterfactuals:
        parts[kind] = _counterfactual(sums, image, video, (kind, b, n))
    if design.static:
        static = ("static", b, n)
        ii, vv, iv = sums([(image, image), (static, static), (image, static)])
        found["static_cos"], found["static_interference"] = cosine(iv, ii, vv), (iv, ii)
        parts["static_frozen"] = _counterfactual(sums, image, static, ("static_frozen", b, n))
    for name, part in parts.items():
        found |= {f"{name}.{what}": value for what, value in zip(PARTS, part.as_row(), strict=True)}
    return list(found.values())


def _counterfactual(sums: GroupSums, image: tuple, video: tuple, changed: tuple) -> definitions.Parts:
    edges = [(image, image), (video, video), (image, video), (changed, changed), (image, changed)]
    return definitions.parts_of(*sums([*edges, (video, changed)]))


def _subspace(sums: GroupSums, design: Design, image: tuple, video: tuple) -> definitions.Parts:
    basis = [("held_out", j) for j in range(design.held_out)]
    m = len(basis)
    edges = [(image, image), (video, video), (image, video)]
    edges += [(image, g) for g in basis] + [(video, g) for g in basis]
    edges += [(g, h) for g in basis for h in basis]
    values = sums(edges)
    i_G, v_G = np.array(values[3 : 3 + m]), np.array(values[3 + m : 3 + 2 * m])
    return definitions.subspace(
        values[0], values[1], values[2], i_G, v_G, np.array(values[3 + 2 * m :]).reshape(m, m)
    )


@dataclass(frozen=True)
class Summary:
    """Over pairs; "bound" is (estimate, low, high).

    Attributes:
        estimates: ratios of means (cosines: means), ``[S, M, G, N, bound]``.
        trend: each at the largest frame count minus at the smallest, paired, ``[S, M, G, bound]``.
        pairs_used: pairs behind each, ``[S, M, G, N]``.
        conflict: share of pairs with <g_I, g_V> < 0, Wilson, ``[M, G, N, bound]``.
        signal: share of an image gradient's square that another batch repeats,
            mean <g_I', g_I''> / mean |g_I|^2, ``[M, G, bound]``; the signal-to-noise ratio is signal / (1 - signal).
        corrected_cos: mean <g_I, g_V> / sqrt(mean <g_I', g_I''> mean <g_V', g_V''>), ``[M, G, N, bound]``: the
            cosine that batches without noise would have. NaN where either signal is not shown to be positive.
    """

    estimates: np.ndarray
    trend: np.ndarray
    pairs_used: np.ndarray
    conflict: np.ndarray
    signal: np.ndarray
    corrected_cos: np.ndarray


def summarise(
    tops: np.ndarray, bottoms: np.ndarray, products: Products, design: Design, seed: int = 0
) -> Summary:
    """Estimates with 95% intervals over pairs, from ``pair_fractions``."""
    tops, bottoms = np.moveaxis(tops, 2, -1), np.moveaxis(bottoms, 2, -1)  # pairs last
    flat = fraction_intervals(tops.reshape(-1, design.pairs), bottoms.reshape(-1, design.pairs), seed)
    estimates = flat.reshape(*tops.shape[:-1], 3)
    estimates[_SQUARED] = np.sqrt(estimates[_SQUARED])
    few, many = int(np.argmin(design.frames)), int(np.argmax(design.frames))
    roots = np.zeros(tops.shape[:3], dtype=bool)
    roots[_SQUARED] = True
    ends = [tuple(x[..., n, :].reshape(-1, design.pairs) for x in (tops, bottoms)) for n in (few, many)]
    trend = change_intervals((ends[0][0], ends[0][1]), (ends[1][0], ends[1][1]), roots.ravel(), seed)
    used = (np.isfinite(tops) & np.isfinite(bottoms)).sum(-1).astype(np.int32)
    m_n, g_n, n_n = len(design.metrics), len(design.groups), len(design.frames)
    conflict = np.full((m_n, g_n, n_n, 3), np.nan)
    signal, corrected = np.full((m_n, g_n, 3), np.nan), np.full((m_n, g_n, n_n, 3), np.nan)
    cos = tops[STATISTICS.index("cos")]
    for m, metric in enumerate(design.metrics):
        for g, members in enumerate(design.groups.values()):
            sums = GroupSums(products, members, metric)
            image = np.array(
                [
                    sums([(("image", b), ("other", b)), (("image", b),) * 2, (("other", b),) * 2])
                    for b in range(design.pairs)
                ]
            )
            repeated, squares = image[:, 0], image[:, 1:].mean(1)
            signal[m, g] = ratio_interval(repeated, [squares], seed)
            for n, frames in enumerate(design.frames):
                there = cos[m, g, n][np.isfinite(cos[m, g, n])]
                conflict[m, g, n] = share_interval(int((there < 0).sum()), len(there))
                if design.pairs > 1:
                    corrected[m, g, n] = _corrected(sums, design, frames, repeated, signal[m, g], seed)
    return Summary(estimates, trend.reshape(*tops.shape[:3], 3), used, conflict, signal, corrected)


def _corrected(
    sums: GroupSums, design: Design, frames: int, repeated_B: np.ndarray, signal: np.ndarray, seed: int
) -> tuple[float, float, float]:
    rows = []
    for b in range(design.pairs):
        video, following = ("video", b, frames), ("video", (b + 1) % design.pairs, frames)
        rows.append(sums([(("image", b), video), (video, following), (video, video)]))
    iv_B, vv_B, v2_B = np.array(rows).T
    video_signal = ratio_interval(vv_B, [v2_B], seed)
    # a converged base has almost no image gradient: divided by its noise the cosine would explode
    if not (signal[1] > 0 and video_signal[1] > 0):
        return (float("nan"),) * 3
    return ratio_interval(iv_B, [repeated_B, vv_B], seed)
