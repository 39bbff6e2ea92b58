"""The two colour scales of all maps, as the browser gets them; readable without colour vision and in grey.

Sequential (attention, masses, norms): viridis. Diverging, centred at 0 (differences, gradients, attributions): RdBu
turned round, blue is less and red is more. Both are matplotlib's, so that a page and a paper figure agree.
"""

from __future__ import annotations

import base64
import functools

import numpy as np

SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"


@functools.cache
def table(name: str) -> str:
    """256 RGB triples of a scale, base64."""
    from workbench.views.stills import matplotlib

    colours = matplotlib().colormaps[name](np.linspace(0, 1, 255))[:, :3]
    rgb = np.vstack([np.rint(colours * 255), np.zeros((1, 3))]).astype(np.uint8)
    return base64.b64encode(rgb.tobytes()).decode("ascii")


def tables() -> dict[str, str]:
    """Both scales, for a view's data."""
    return {"sequential": table(SEQUENTIAL), "diverging": table(DIVERGING)}
