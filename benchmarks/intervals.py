"""An interval for a median of repeated measurements."""

from __future__ import annotations

import math

import numpy as np


def median_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Median, and the narrowest symmetric pair of order statistics that covers it with at least 95%."""
    ordered, n = np.sort(values), len(values)
    below = np.cumsum([math.comb(n, i) for i in range(n)]) / 2.0**n  # P(at most i of n lie below the median)
    low = max(0, int(np.searchsorted(below, 0.025)) - 1)
    return float(np.median(ordered)), float(ordered[low]), float(ordered[n - 1 - low])
