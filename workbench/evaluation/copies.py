"""The copies probe [OURS]: is an image lost, or only shown at the wrong frame budget?

The same images are asked once as they are and once as so many identical copies as the arm would give a video
with that question. What copies bring back is budget miscalibration; what they do not bring back is
forgetting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workbench.frames import FramePlan
from workbench.samples.sample import ClipInfo, ImageRef, MediaRef, Sample, VideoRef


@dataclass(frozen=True)
class StandInClip:
    """Answers ``info`` for every file with the clip that the images stand in for."""

    clip: ClipInfo

    def info(self, ref: MediaRef, /) -> ClipInfo:
        return self.clip


def copies_plan(
    plan: FramePlan,
    images: Sequence[Sample],
    plan_videos: Callable[[list[Sample], StandInClip], FramePlan],
    clip: ClipInfo,
) -> FramePlan:
    """Show each image as the number of copies the arm would plan for a video with the same question.

    Args:
        plan: the images' ordinary plan (one frame each).
        plan_videos: the arm's own way from samples to a plan.
        clip: the video that the image stands in for; bounds the number of copies.
    """
    as_videos = [
        dataclasses.replace(s, media=VideoRef(s.media.path))
        for s in images
        if isinstance(s.media, ImageRef) and plan.used(s.id)  # one that cannot be read stays a failure
    ]
    planned = plan_videos(as_videos, StandInClip(clip))
    return plan.with_copies({s.id: planned.used(s.id) for s in as_videos})
