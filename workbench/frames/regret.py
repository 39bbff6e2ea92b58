"""How good was a plan, where the data set knows the smallest count that can answer? For evaluation only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.errors import DataError
from workbench.frames.plan import FramePlan
from workbench.samples.sample import Sample


@dataclass(frozen=True, slots=True)
class Regret:
    """Frames used against frames needed, over ``n`` videos.

    ``enough`` is the share with at least the frames needed, ``mean_excess`` the mean of ``max(0, used -
    needed)`` and ``mean_shortfall`` of ``max(0, needed - used)``, in frames.
    """

    n: int
    enough: float
    mean_excess: float
    mean_shortfall: float


def policy_regret(plan: FramePlan, samples: Sequence[Sample]) -> Regret:
    """Compare a finished plan with ``Sample.min_frames``; videos without it, or unreadable, are left out.

    Raises:
        DataError: no video of the plan knows its smallest count.
    """
    videos = set(plan.videos()["sample_id"])
    pairs = [(plan.used(s.id), s.min_frames) for s in samples if s.id in videos and s.min_frames is not None]
    if not pairs:
        raise DataError(
            "judge a frame plan",
            "no video of it has `min_frames`",
            "use a data set that knows the smallest count, such as glyphworld",
        )
    used, needed = np.array(pairs).T
    return Regret(
        n=len(pairs),
        enough=float((used >= needed).mean()),
        mean_excess=float(np.maximum(0, used - needed).mean()),
        mean_shortfall=float(np.maximum(0, needed - used).mean()),
    )
