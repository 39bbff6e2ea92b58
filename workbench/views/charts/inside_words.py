"""What captures of several runs say together: changes of attention numbers, masses by frame. Needs no torch.

Sentences follow the rule of all generated text here: a direction only where a 95% interval excludes 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from workbench.captures import Capture, CaptureError
from workbench.evaluation.statistics import holm, mean_interval, paired_difference

TITLES = {
    "visual_mass": "attention on visual tokens",
    "entropy": "entropy of attention over visual tokens (1: uniform)",
    "gini": "Gini coefficient (0: uniform)",
    "top1": "mass of the top 1% of visual tokens",
    "border_mass": "mass at the border of the frame",
    "spread": "spread, in sides of a token",
    "box_mass": "mass in the box of the object asked for",
}
SCATTERED = {"entropy": 1, "gini": -1, "top1": -1, "spread": 1, "box_mass": -1}  # sign of "more scattered"


def expect(capture: Capture, kind: str) -> Capture:
    """The capture itself. Raises CaptureError when it is of another kind."""
    if capture.kind != kind:
        raise CaptureError(
            f"read a capture of kind {kind}", f"it is of kind {capture.kind}", "Give one of that kind"
        )
    return capture


def scatter_changes(captures: Mapping[int, Capture]) -> pd.DataFrame:
    """Change of every scatter number from start to end of training, paired over samples and training seeds.

    Args:
        captures: by training seed; ``attention_scatter`` with ``before`` (``against_start``).

    Returns:
        One row a number: ``number, before, after, difference, low, high, p, p_holm, samples, seeds, chance`` (of box_mass).

    Raises:
        CaptureError: another kind, or one without ``before``.
    """
    for capture in captures.values():
        if "before" not in expect(capture, "attention_scatter").arrays:
            raise CaptureError(
                "compare attention before and after", "the capture has one side", "Use against_start"
            )
    numbers = next(iter(captures.values())).meta["numbers"]
    rows = []
    for name in numbers:
        sides = {side: _long(captures, side, name) for side in ("before", "after")}
        if sides["before"].empty:
            continue
        joined = np.concatenate([table["correct"] for table in sides.values()])
        unit = max(float(np.ptp(joined)), 1e-12)  # intervals of scores are cut at -1 and 1
        scaled = {side: table.assign(correct=table["correct"] / unit) for side, table in sides.items()}
        found = paired_difference(scaled["after"], scaled["before"])
        means = {side: float(table["correct"].mean()) for side, table in sides.items()}
        change = {"difference": found.estimate, "low": found.low, "high": found.high}
        rows.append(
            {"number": name} | means | {key: unit * value for key, value in change.items()}
            | {"p": found.p, "samples": found.n_samples, "seeds": len(captures)}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].tolist())
    shares = [capture.arrays["box_share"] for capture in captures.values() if "box_share" in capture.arrays]
    table["chance"] = float(np.nanmean(np.concatenate(shares))) if shares else np.nan
    return table


def _long(captures: Mapping[int, Capture], side: str, name: str) -> pd.DataFrame:
    """In the columns of a score table; samples that one side lacks are left out of both."""
    parts = []
    for seed, capture in captures.items():
        at = capture.meta["numbers"].index(name)
        there = np.isfinite(capture.arrays["before"][:, at]) & np.isfinite(capture.arrays["after"][:, at])
        part = pd.DataFrame(
            {
                "sample_id": capture.meta["samples"],
                "question": capture.meta["questions"],
                "correct": np.asarray(capture.arrays[side][:, at], dtype=np.float64),
            }
        )
        parts.append(part[there].assign(seed=seed, suite="attention", skill="all"))
    return pd.concat(parts, ignore_index=True)


def scatter_words(changes: pd.DataFrame, arm: str) -> list[str]:
    """What changed in one arm, and whether that is more or less scattered."""
    first = changes.iloc[0]
    seeds = int(first["seeds"])
    n = f"n = {int(first['samples'])} questions × {seeds} seed{'s' if seeds > 1 else ''}"
    sentences, silent, votes = [], [], []
    for row in changes.to_dict("records"):
        if not row["p_holm"] < 0.05:
            silent.append(TITLES[row["number"]])
            continue
        verb = "rises" if row["difference"] > 0 else "falls"
        if row["number"] in SCATTERED:
            votes.append(np.sign(row["difference"]) * SCATTERED[row["number"]])
        sentences.append(
            f"{arm}: {TITLES[row['number']]} {verb} from {row['before']:.3f} to {row['after']:.3f} "
            f"({_signed(row['difference'])} [{_signed(row['low'])}, {_signed(row['high'])}], {n})."
        )
    if silent:
        sentences.append(f"{arm}: no change shown of {'; '.join(silent)} ({n}).")
    if votes and len(set(votes)) == 1:
        more = "more" if votes[0] > 0 else "less"
        sentences.append(f"{arm}: every number of scatter that changed says {more} scattered.")
    elif votes:
        sentences.append(f"{arm}: the numbers that changed do not agree on more or less scattered.")
    if seeds == 1:
        sentences.append(f"{arm}: one training seed; how much two trainings differ is not measured.")
    return sentences


def box_words(changes: pd.DataFrame, arm: str) -> list[str]:
    """Attention to the object asked for against chance, after training."""
    rows = changes[changes["number"] == "box_mass"]
    if rows.empty or not np.isfinite(rows["chance"].iloc[0]):
        return []
    row = rows.iloc[0]
    return [
        f"{arm}: {100 * row['after']:.1f}% of the attention to the picture lies in the box of the object asked for, "
        f"which has {100 * row['chance']:.1f}% of the area."
    ]


def frame_mass(captures: Sequence[Capture]) -> pd.DataFrame:
    """Attention of the kept queries on each frame: rows ``clip, frames, frame, time_s, mass`` (mean over layers,
    heads and queries) of ``temporal_atlas`` captures. Raises CaptureError for another kind.
    """
    rows = []
    for capture in captures:
        segments = expect(capture, "temporal_atlas").meta["segments"]
        masses = np.asarray(capture.arrays["mass"], dtype=np.float64).reshape(-1, len(segments))
        seen = np.isfinite(masses)  # the answer itself is not visible before it
        mass = np.where(seen, masses, 0.0).sum(0) / np.where(seen.any(0), seen.sum(0), np.nan)
        found = [
            (label, value) for label, value in zip(segments, mass, strict=True) if label["kind"] == "frames"
        ]
        for k, (label, value) in enumerate(found):
            rows.append(
                {
                    "clip": capture.meta["sample"]["id"],
                    "frames": len(found),
                    "frame": k,
                    "time_s": float(np.mean(label.get("timestamps") or [k])),
                    "mass": float(value),
                }
            )
    return pd.DataFrame(rows)


def mass_table(masses: pd.DataFrame) -> pd.DataFrame:
    """Mean over clips with a 95% t interval: ``frames, frame, time_s, estimate, low, high, clips``."""
    rows = []
    for (frames, frame), part in masses.groupby(["frames", "frame"]):
        found = mean_interval(part["mass"].tolist())
        rows.append((frames, frame, part["time_s"].mean(), found.estimate, found.low, found.high, len(part)))
    return pd.DataFrame(rows, columns=["frames", "frame", "time_s", "estimate", "low", "high", "clips"])


def mass_words(before: pd.DataFrame, after: pd.DataFrame, arm: str) -> list[str]:
    """Total attention on the video, and its share on the last quarter of frames, before and after, paired by clip."""
    sentences = []
    for n in sorted(set(before["frames"]) & set(after["frames"])):
        sides = []
        for table in (before, after):
            part = table[table["frames"] == n]
            late = part[part["frame"] >= n - max(1, n // 4)].groupby("clip")["mass"].sum()
            total = part.groupby("clip")["mass"].sum()
            sides.append(pd.DataFrame({"total": total, "late": late / total}))
        both = sides[0].join(sides[1], lsuffix="_before", rsuffix="_after", how="inner")
        late_name = "the last frame" if n < 8 else f"the last {n // 4} frames"
        for key, title in (
            ("total", "the answer's attention to the video"),
            ("late", f"of that, the share on {late_name}"),
        ):
            change = mean_interval((both[f"{key}_after"] - both[f"{key}_before"]).tolist())
            verb = "rises" if change.low > 0 else "falls" if change.high < 0 else "shows no change"
            sentences.append(
                f"{arm}, shown {n} frames: {title} {verb}: {both[f'{key}_before'].mean():.3f} to "
                f"{both[f'{key}_after'].mean():.3f} ({_signed(change.estimate)} [{_signed(change.low)}, "
                f"{_signed(change.high)}], n = {len(both)} clips)."
            )
    return sentences


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\u2212")
