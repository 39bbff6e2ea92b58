"""The copies probe [OURS]: is an image lost, or only shown at the wrong frame budget?

The same images are asked once as they are and once as so many identical copies as the arm would give a video with that question. What
copies bring back is budget miscalibration; what they do not bring back is forgetting.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.frames import FramePlan
from workbench.samples.sample import ClipInfo, ImageRef, Sample, VideoRef


def copies_plan(
    plan: FramePlan, images: Sequence[Sample], policy: Any, clip_frames: int, fps: float, seed: int
) -> FramePlan:
    """Show each image as the number of copies that ``policy`` would plan for a video with the same question.

    Args:
        plan: the images' ordinary plan (one frame each).
        policy: the arm's frame policy; it sees the question and a clip of ``clip_frames`` frames at ``fps``.
    """
    as_videos = [
        Sample(id=s.id, turns=s.turns, media=VideoRef(Path(s.media.path)), source=s.source)
        for s in images
        if isinstance(s.media, ImageRef)
    ]
    info = ClipInfo(frames=clip_frames, fps=fps, duration_s=clip_frames / fps, width=0, height=0)
    asked = policy.requested(as_videos, [info] * len(as_videos), seed)
    return plan.with_copies({s.id: min(frames, clip_frames) for s, (frames, _) in zip(as_videos, asked, strict=True)})
