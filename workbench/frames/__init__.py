"""Frame policies (how many frames a question deserves) and frame plans (how many each sample got, and
why).
"""

from workbench.frames.factory import check_settings, make_policy
from workbench.frames.make import FramePolicy, content_hash, make_plan
from workbench.frames.plan import FramePlan
from workbench.frames.sampling import midpoint_indices

__all__ = [
    "FramePlan",
    "FramePolicy",
    "check_settings",
    "content_hash",
    "make_plan",
    "make_policy",
    "midpoint_indices",
]
