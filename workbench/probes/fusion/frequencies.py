"""What the periodic branch's frequencies mean at a given number of frames. Exact: nothing is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.models.tempflex.fusion_ops import aliased_frequencies, periodic_gains


def frequency_table(frames: int, frequencies: Sequence[int], variant: str) -> dict[str, Any]:
    """How ``frequencies`` fold when a clip has ``frames`` frames; JSON types.

    Returns:
        ``folded``: folded frequency (text, a JSON key) -> who folds onto it, see ``aliased_frequencies``;
        ``distinct``: how many folded values there are, 0 included; ``oscillating``: without 0, that is how many
        different cosines are left; ``constant``: frequencies that are multiples of F, a constant gain of 1;
        ``at_half``: those whose cosine only alternates in sign (folded value F / 2); ``too_fast``: those above F / 2,
        which are seen as slower ones (or as a constant); ``gains``: the release's scalar gain of every frame,
        ``sum_w cos(2 pi w f / F)``, null for the paper, which has a matrix for every w.
    """
    table = aliased_frequencies(frames, tuple(frequencies))
    gains = None
    if variant == "release":
        gains = [round(gain, 12) for gain in periodic_gains(frames, tuple(frequencies)).sum(1).tolist()]
    return {
        "folded": {str(value): list(group) for value, group in table.items()},
        "distinct": len(table),
        "oscillating": len([value for value in table if value > 0]),
        "constant": table.get(0, []),
        "at_half": table.get(frames // 2, []) if frames % 2 == 0 and frames > 1 else [],
        "too_fast": [w for w in frequencies if 2 * w > frames],
        "gains": gains,
    }
