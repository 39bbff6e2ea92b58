"""Clips that carry several questions, composed so that a quota of questions a skill is met exactly.

Each clip takes the feasible set of temporal skills that are most behind their quota, then static skills
likewise. Space is what limits it: a mover needs a lane of two quadrants, an order pair two, a change or a
brief digit one, the light none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .questions import Question, static_question, static_skills, temporal_question, video_caption
from .scene import GRID, QUADRANTS, Deck, Light, Scene, Track
from .timing import FRAMES, direction_known, draw_times, lane_positions, lit, min_frames, shown
from .words import COUNTS, DIRECTIONS, SPEEDS, STATIC_SKILLS, TEMPORAL_SKILLS

TEMPORAL_SETS = [set(c) for size in (1, 2, 3) for c in combinations(TEMPORAL_SKILLS, size)]


@dataclass(frozen=True)
class ClipPlan:
    """One clip: what is seen, what is asked, its caption and the frames that the caption needs."""

    scene: Scene
    questions: tuple[Question, ...]
    caption: str
    caption_min_frames: int


def quadrants_needed(temporal: set[str]) -> int:
    """How many of the four quadrants the events take."""
    return 2 * _moves(temporal) + 2 * ("order" in temporal) + ("change" in temporal) + ("brief" in temporal)


def compose(
    quota: dict[str, int], deck: Deck, held_out: bool = False, rows_per_clip: int = 4
) -> Iterator[ClipPlan]:
    """Clips until every skill of ``quota`` has its number of questions, ``rows_per_clip`` at most a clip.

    The four answers of ``count`` come equally often. Left to the space that events leave, they would not, and
    a model trained on the clips would lose counting on images to a mere shift of the answers.
    """
    left = Counter({skill: count for skill, count in quota.items() if count > 0})
    counted = dict.fromkeys(range(1, len(COUNTS) + 1), 0)
    while +left:
        ratio = {skill: left[skill] / quota[skill] for skill in +left}
        total = None
        if ratio.get("count", 0.0) >= sum(ratio.values()) / len(ratio):
            total = min(counted, key=lambda n: (counted[n], deck.rng.random()))
            counted[total] += 1
        temporal = _temporal_set(left, ratio, rows_per_clip, total, deck.rng)
        wanted = _static_skills(ratio, temporal, rows_per_clip - len(temporal), total, deck.rng)
        plan = _clip(deck, temporal, wanted, total, held_out)
        for question in plan.questions:
            left[question.skill] -= 1
        yield plan


def _moves(temporal: set[str]) -> bool:
    return bool(temporal & {"direction", "speed"})


def _always(temporal: set[str]) -> int:
    """Digits of the events that are there all the time."""
    return _moves(temporal) + ("change" in temporal)


def _fits(temporal: set[str], total: int | None) -> bool:
    """Is there space for the events, and for exactly ``total`` digits all the time if that is asked?"""
    free = QUADRANTS - quadrants_needed(temporal)
    if total is None:
        return free >= 0
    return not temporal & {"order", "brief"} and _always(temporal) <= total <= _always(temporal) + free


def _behind(ratio: dict[str, float], skills: list[str], rng: np.random.Generator) -> float:
    """How far skills are behind, with a little noise so that all combinations occur."""
    return sum(ratio[skill] for skill in skills) + 0.02 * rng.standard_normal()


def _temporal_set(
    left: Counter, ratio: dict[str, float], rows: int, total: int | None, rng: np.random.Generator
) -> set[str]:
    """The fitting set of temporal skills that is most behind, of the size that keeps the static share."""
    unfilled = [skill for skill in TEMPORAL_SKILLS if left[skill] > 0]
    share = sum(left[skill] for skill in unfilled) / (+left).total()
    room = rows if total is None else rows - 1
    for size in range(min(int(share * rows + rng.random()), 3, room, len(unfilled)), 0, -1):
        sets = [s for s in TEMPORAL_SETS if len(s) == size and s <= set(unfilled) and _fits(s, total)]
        if sets:
            return max(sets, key=lambda s: _behind(ratio, sorted(s), rng))
    return set()


def _static_skills(
    ratio: dict[str, float], temporal: set[str], rows: int, total: int | None, rng: np.random.Generator
) -> set[str]:
    """The static skills to ask: counting if a total is set, then those most behind that the space allows."""
    still = QUADRANTS - quadrants_needed(temporal) if total is None else total - _always(temporal)
    steady = still + _moves(temporal)
    possible = {
        "ocr": steady >= 1,
        "colour": steady >= 1,
        "where": still >= 1 or "change" in temporal,
        "comparison": steady >= 2,
    }
    skills = [skill for skill in STATIC_SKILLS if possible.get(skill) and skill in ratio]
    skills.sort(key=lambda skill: -_behind(ratio, [skill], rng))
    return set((skills if total is None else ["count", *skills])[:rows])


def _clip(deck: Deck, temporal: set[str], static: set[str], total: int | None, held_out: bool) -> ClipPlan:
    rng = deck.rng
    deck.shuffle()
    tracks: list[Track] = []
    light = None
    asked: dict[str, tuple[int, str]] = {}  # temporal skill -> (frames it needs, its answer)
    motion, quadrants = "", rng.permutation(4).tolist()
    always = np.ones(FRAMES, bool)

    if temporal & {"direction", "speed"}:
        mover, motion, quadrants, told = _mover(deck, temporal)
        tracks.append(mover)
        asked.update(told)
    if "change" in temporal:
        (moment,), need = draw_times("change", rng)
        cells = deck.cells(quadrants.pop(), FRAMES)
        tracks.append(deck.track("change", cells, always, new_colour=deck.colour(), change_frame=moment))
        asked["change"] = (need, "")
    if "order" in temporal:
        times, need = draw_times("order", rng)
        for time in times:
            tracks.append(deck.track("order", deck.cells(quadrants.pop(), FRAMES), shown(time)))
        asked["order"] = (need, "")
    if "brief" in temporal:
        (first, last), need = draw_times("brief", rng)
        tracks.append(deck.track("brief", deck.cells(quadrants.pop(), FRAMES), shown(first, last)))
        asked["brief"] = (need, "")
    if "flash" in temporal:
        answer = deck.balanced("flash", COUNTS)
        starts, need = draw_times("flash", rng, str(COUNTS.index(answer) + 1))
        light = Light(int(rng.integers(4)), lit(starts))
        asked["flash"] = (need, answer)

    if total is None:
        still = int(rng.integers(_still_needed(tracks, static), len(quadrants) + 1))
    else:
        still = total - len(tracks)
    for quadrant in quadrants[:still]:
        tracks.append(deck.track("still", deck.cells(quadrant, FRAMES), always))

    scene = Scene(FRAMES, tuple(sorted(tracks, key=_reading_order)), light)
    questions = [
        temporal_question(scene, skill, *told[:1], held_out, rng, answer=told[1])
        for skill, told in sorted(asked.items())
        if skill in temporal
    ]
    possible = static_skills(scene)
    questions += [static_question(scene, skill, held_out, rng) for skill in possible if skill in static]
    need = max([need for need, _ in asked.values()], default=1)
    return ClipPlan(
        scene,
        tuple(questions[i] for i in rng.permutation(len(questions))),
        video_caption(scene, motion),
        need,
    )


def _mover(deck: Deck, temporal: set[str]) -> tuple[Track, str, list[int], dict[str, tuple[int, str]]]:
    """A digit that crosses the canvas: track, words for the caption, free quadrants, needs of its questions.

    Asked for its speed it gets faster or slower; otherwise it is steady.
    """
    rng = deck.rng
    half = int(rng.integers(2))
    way = deck.balanced("direction", DIRECTIONS)
    vertical, backward = way in ("up", "down"), way in ("left", "up")
    told = {}
    if "speed" in temporal:
        speed = deck.balanced("speed", SPEEDS)
        hops, need = draw_times("speed", rng, speed)
        told["speed"] = (need, speed)
    else:
        speed, (hops, need) = "", draw_times("direction", rng)
    position = lane_positions(hops)
    along = GRID - 1 - position if backward else position
    across = np.full(FRAMES, 2 * half + int(rng.integers(2)))
    cells = np.stack([along, across] if vertical else [across, along], axis=1)
    if "direction" in temporal:
        told["direction"] = (_direction_need(position), way)
    lane = {half, half + 2} if vertical else {2 * half, 2 * half + 1}
    free = [int(q) for q in rng.permutation(4) if int(q) not in lane]
    track = deck.track("mover", cells, np.ones(FRAMES, bool))
    return track, f"moves {way} {speed}".strip(), free, told


def _direction_need(position: np.ndarray) -> int:
    need = min_frames(lambda at: direction_known(position, at))
    assert need is not None  # all 32 frames show every hop
    return need


def _still_needed(tracks: list[Track], static: set[str]) -> int:
    """Digits that must stand still all the time for the static questions to have an object."""
    movers = sum(t.role == "mover" for t in tracks)
    placed = sum(t.role == "change" for t in tracks)
    needs = [0]
    if static & {"ocr", "colour"}:
        needs.append(1 - movers)
    if "where" in static:
        needs.append(1 - placed)
    if "comparison" in static:
        needs.append(2 - movers)
    return max(needs)


def _reading_order(track: Track) -> tuple[int, int]:
    row, column = track.cells[0]
    return int(row) // 2, int(column) // 2
