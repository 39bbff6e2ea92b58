"""What the numbers of a fusion capture are called, in the order they are stored. Needs no torch."""

from __future__ import annotations

BRANCHES = ("local", "memory", "periodic")
PARTS = (*BRANCHES, "context", "ffn", "bias")
NORMS = ("input", *BRANCHES, "fused", "context", "refine", "output")
HORIZON = ("effective_frames", "past_share", "mean_age", "mass", "future_factor", "leak")
TAPS = ("mean -1", "mean 0", "mean +1", "norm -1", "norm 0", "norm +1")
# one clip in one layer
NUMBERS = (
    *("update", "offset"),
    *(f"beta_{name}" for name in BRANCHES),
    *(f"share_{name}" for name in PARTS),
    *("effective_frames", "past_share", "mean_age", "mass", "leak"),
)
BOUNDS = ("estimate", "low", "high")
KIND = "fusion"

MEANING = {
    "update": "|z - x| / |x| of the layer over the clip",
    "offset": "|mean u|^2 / mean |u|^2 of the update u = z - x over frames and places: 1 when all are shifted alike",
    "beta_": "softmax share of a branch, mean over places",
    "share_": "<part, z - x> / |z - x|^2 over the clip: parts add up to 1, a part may be negative",
    "effective_frames": "mean over channels of (sum_i v)^2 / sum_i v^2 of the memory's weights v; last frame, mean "
    "over places",
    "past_share": "share of the last frame's memory weight that lies on earlier frames, mean over places",
    "mean_age": "mean age in frames of the last frame's memory by weight, mean over places",
    "mass": "sum of the last frame's memory weights, mean over channels and places",
    "leak": "change of the memory by the gates of later frames, over its norm; mean over frames and places; 0 for the "
    "paper",
}
METHOD = (
    "means over clips or images with 95% Student t intervals; they cover the choice of clips and images of one "
    "checkpoint, not another training seed"
)
