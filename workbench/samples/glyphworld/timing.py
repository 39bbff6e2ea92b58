"""When things happen in a clip, and the smallest frame count that can tell.

``min_frames`` is never guessed: for n in 1, 2, 4, 8, 16, 32 the frames that midpoint sampling takes are
looked at, and n is enough when they determine the answer; the result is the smallest n that is enough
together with every larger one. Event times are drawn from complete enumerations sorted by that number, so
each skill's demand for frames is a choice (``DEMAND``) and not an accident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import combinations

import numpy as np

FRAMES = 32
FPS = 8
SAMPLE_COUNTS = (1, 2, 4, 8, 16, 32)
LANE = 4  # cells a mover passes

# share of the questions of a skill that need n frames: {n: weight}
DEMAND: dict[str, dict[int, float]] = {
    "direction": {2: 1.0},
    "change": {2: 0.6, 4: 0.4},
    "order": {2: 0.1, 4: 0.35, 8: 0.55},
    "speed": {4: 0.4, 8: 0.6},
    "brief": {4: 0.15, 8: 0.35, 16: 0.5},
    "flash": {8: 0.4, 16: 0.6},
}

Times = tuple[int, ...]


@cache
def midpoints(n: int, frames: int = FRAMES) -> Times:
    """The n frame indices of midpoint sampling, ``floor((i + 0.5) * frames / n)``."""
    return tuple((2 * i + 1) * frames // (2 * n) for i in range(n))


def min_frames(determined: Callable[[Sequence[int]], bool]) -> int | None:
    """Smallest n whose sampled frames determine the answer, as every larger n does; None if 32 do not."""
    best = None
    for n in reversed(SAMPLE_COUNTS):
        if not determined(midpoints(n)):
            break
        best = n
    return best


def shown(first: int, last: int = FRAMES - 1) -> np.ndarray:
    """Visibility bool ``[32]``: frames ``first`` to ``last``, both included."""
    frame = np.arange(FRAMES)
    return (frame >= first) & (frame <= last)


def lit(starts: Times, length: int = 2) -> np.ndarray:
    """Bool ``[32]``: a light that is on for ``length`` frames from each start."""
    frame = np.arange(FRAMES)
    return np.any([(frame >= s) & (frame < s + length) for s in starts], axis=0)


def lane_positions(hops: Times) -> np.ndarray:
    """Position along the lane, int ``[32]``, of a mover that steps one cell at each of ``hops``."""
    return np.searchsorted(np.asarray(hops), np.arange(FRAMES), side="right")


def direction_known(position: np.ndarray, at: Sequence[int]) -> bool:
    """Two different places seen."""
    return len(set(position[list(at)].tolist())) > 1


def order_known(first: np.ndarray, second: np.ndarray, at: Sequence[int]) -> bool:
    """A frame in which one of the two is there and the other is not yet."""
    index = list(at)
    return bool((first[index] & ~second[index]).any())


def change_known(moment: int, at: Sequence[int]) -> bool:
    """Seen before and after the change: one colour alone could be the old one."""
    return min(at) < moment <= max(at)


def brief_known(visible: np.ndarray, at: Sequence[int]) -> bool:
    """Seen at all: the question names its colour, and no other digit of the scene has it."""
    return bool(visible[list(at)].any())


def flash_known(light: np.ndarray, at: Sequence[int]) -> bool:
    """As many bright runs among the sampled frames as there are flashes (sampling can only lose runs)."""
    return _runs(light[list(at)]) == _runs(light)


def _runs(on: np.ndarray) -> int:
    return int(np.count_nonzero(on & ~np.concatenate(([False], on[:-1]))))


@cache
def _speed_family() -> tuple[list[tuple[str, Times]], np.ndarray, np.ndarray]:
    """All movers that change: (answer, hops); positions, both directions, ``[2M, 32]``; faster? ``[2M]``."""
    family: list[tuple[str, Times]] = []
    for long in range(10, 15):
        for short in range(3, 6):
            for start in range(2, FRAMES - 2 - long - short):
                family.append(("faster", (start, start + long, start + long + short)))
                family.append(("slower", (start, start + short, start + long + short)))
    forward = np.stack([lane_positions(hops) for _, hops in family])
    faster = np.array([answer == "faster" for answer, _ in family])
    return family, np.concatenate([forward, LANE - 1 - forward]), np.concatenate([faster, faster])


def speed_known(position: np.ndarray, at: Sequence[int]) -> bool:
    """Every mover of the world that would look the same at these frames has the same answer."""
    _, positions, faster = _speed_family()
    index = list(at)
    same = (positions[:, index] == position[index]).all(axis=1)
    return bool(faster[same].all() or not faster[same].any())


@cache
def schedules(skill: str, answer: str = "") -> dict[int, list[Times]]:
    """All event times of a skill (those with ``answer`` for speed and flash), sorted by the frames they need.

    The times are, for direction and speed, three hops; for order, two appearances; for change, the first
    frame of the new colour; for brief, the first and last frame; for flash, the starts of flashes two
    frames long.
    """
    table: dict[int, list[Times]] = {}
    for times, determined in _enumerate(skill, answer):
        need = min_frames(determined)
        if need in DEMAND[skill]:
            table.setdefault(int(need), []).append(times)
    return table


def _enumerate(skill: str, answer: str) -> Iterator[tuple[Times, Callable[[Sequence[int]], bool]]]:
    """Every schedule with its test "do the frames at these indices determine the answer?"."""
    if skill == "direction":
        for dwell in range(6, 11):
            for start in range(3, FRAMES - 3 - 2 * dwell):
                hops = (start, start + dwell, start + 2 * dwell)
                yield hops, partial(direction_known, lane_positions(hops))
    elif skill == "speed":
        for kind, schedule in _speed_family()[0]:
            if kind == answer:
                yield schedule, partial(speed_known, lane_positions(schedule))
    elif skill == "order":
        for first in range(1, FRAMES - 3):
            for second in range(first + 1, min(first + 17, FRAMES - 1)):
                yield (first, second), partial(order_known, shown(first), shown(second))
    elif skill == "change":
        for moment in range(3, FRAMES - 2):
            yield (moment,), partial(change_known, moment)
    elif skill == "brief":
        for first in range(1, FRAMES - 3):
            for last in range(first, min(first + 8, FRAMES - 2)):
                yield (first, last), partial(brief_known, shown(first, last))
    elif skill == "flash":
        flashes = int(answer)
        for gaps in combinations(range(1, FRAMES - 2 - 3 * (flashes - 1)), flashes):
            starts = tuple(start + 3 * i for i, start in enumerate(gaps))
            yield starts, partial(flash_known, lit(starts))


def draw_times(skill: str, rng: np.random.Generator, answer: str = "") -> tuple[Times, int]:
    """Event times and the frames they need, with the shares of ``DEMAND``."""
    table = schedules(skill, answer)
    needs = sorted(table)
    weight = np.array([DEMAND[skill][need] for need in needs])
    need = needs[int(rng.choice(len(needs), p=weight / weight.sum()))]
    times = table[need]
    return times[int(rng.integers(len(times)))], need
