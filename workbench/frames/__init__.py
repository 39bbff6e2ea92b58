"""Frame policies (how many frames a question deserves) and frame plans (how many each sample got, and
why).
"""

from workbench.frames.classifier import (
    FrameClassifier,
    HeldOut,
    fit_classifier,
    fit_from_losses,
    held_out_agreement,
    held_out_predictions,
)
from workbench.frames.factory import check_settings, make_policy
from workbench.frames.labels import labels_from_losses
from workbench.frames.make import FramePolicy, content_hash, make_plan
from workbench.frames.plan import FramePlan
from workbench.frames.regret import Regret, policy_regret
from workbench.frames.sampling import midpoint_indices

__all__ = [
    "FrameClassifier",
    "FramePlan",
    "FramePolicy",
    "HeldOut",
    "Regret",
    "check_settings",
    "content_hash",
    "fit_classifier",
    "fit_from_losses",
    "held_out_agreement",
    "held_out_predictions",
    "labels_from_losses",
    "make_plan",
    "make_policy",
    "midpoint_indices",
    "policy_regret",
]
