"""Questions, answers and captions about a scene. Every static question is true of every frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .phrasings import IMAGE_CAPTIONS, ask
from .scene import Scene, Track
from .words import COLOUR_NAMES, CORNERS, COUNTS, DIGITS, DIRECTIONS, SPEEDS


@dataclass(frozen=True)
class Question:
    """One question with its answer, all choices, and the smallest number of frames that can answer it."""

    skill: str
    text: str
    answer: str
    choices: tuple[str, ...]
    min_frames: int = 1


def _always(scene: Scene) -> list[Track]:
    """Digits present, in one colour, in every frame."""
    return [t for t in scene.tracks if t.visible.all() and t.new_colour is None]


def _settled(scene: Scene) -> list[Track]:
    """Digits present in one colour and one place in every frame."""
    return [t for t in _always(scene) if not t.moves]


def static_skills(scene: Scene) -> list[str]:
    """The static skills that can be asked truly about every frame of the scene."""
    always = _always(scene)
    possible = {
        "ocr": bool(always),
        "colour": bool(always),
        "where": bool(_settled(scene)),
        "count": bool(scene.tracks) and all(t.visible.all() for t in scene.tracks),
        "comparison": len(always) >= 2,
    }
    return [skill for skill, yes in possible.items() if yes]


def _pick(tracks: list[Track], rng: np.random.Generator) -> Track:
    return tracks[int(rng.integers(len(tracks)))]


def refer(track: Track, rng: np.random.Generator) -> str:
    """ "red digit", "red number" or "seven"; never by a colour that changes."""
    forms = (
        [track.word] if track.new_colour else [f"{track.colour} digit", f"{track.colour} number", track.word]
    )
    return forms[int(rng.integers(len(forms)))]


def _two(
    tracks: tuple[Track, Track], answer_of: dict[str, Track], skill: str, held_out: bool, rng, need: int = 1
) -> Question:
    """A question between two colours; ``answer_of`` maps the asked word ("larger") to the right one."""
    word = tuple(answer_of)[int(rng.integers(2))]
    a, b = (tracks[i].colour for i in rng.permutation(2))
    return Question(skill, ask(skill, held_out, rng, w=word, a=a, b=b), answer_of[word].colour, (a, b), need)


def static_question(scene: Scene, skill: str, held_out: bool, rng: np.random.Generator) -> Question:
    """A question of ``skill`` (one of :func:`static_skills` of this scene) that any single frame answers."""
    if skill == "ocr":
        track = _pick(_always(scene), rng)
        by = track.corner if not track.moves and rng.random() < 0.5 else track.colour
        return Question(skill, ask(skill, held_out, rng, c=by), track.word, DIGITS)
    if skill == "colour":
        track = _pick(_always(scene), rng)
        by = track.word if track.moves else f"{track.corner} digit"
        return Question(skill, ask(skill, held_out, rng, x=by), track.colour, COLOUR_NAMES)
    if skill == "where":
        track = _pick(_settled(scene), rng)
        by = f"{track.colour} {('digit', 'number')[int(rng.integers(2))]}"
        return Question(skill, ask(skill, held_out, rng, x=by), track.corner, CORNERS)
    if skill == "count":
        return Question(skill, ask(skill, held_out, rng), COUNTS[len(scene.tracks) - 1], COUNTS)
    always = _always(scene)
    first, second = (always[i] for i in rng.permutation(len(always))[:2])
    small, large = sorted((first, second), key=lambda t: t.digit)
    return _two((first, second), {"larger": large, "smaller": small}, skill, held_out, rng)


def temporal_question(
    scene: Scene, skill: str, need: int, held_out: bool, rng: np.random.Generator, answer: str = ""
) -> Question:
    """A temporal question that ``need`` frames answer; direction, speed and flash bring their ``answer``."""
    by_role = {t.role: t for t in scene.tracks}
    if skill == "flash":
        return Question(skill, ask(skill, held_out, rng), answer, COUNTS, need)
    if skill == "brief":
        track = by_role["brief"]
        return Question(skill, ask(skill, held_out, rng, c=track.colour), track.word, DIGITS, need)
    if skill == "change":
        track = by_role["change"]
        return Question(
            skill,
            ask(skill, held_out, rng, x=f"{track.corner} digit"),
            str(track.new_colour),
            COLOUR_NAMES,
            need,
        )
    if skill == "order":
        first, last = sorted(
            (t for t in scene.tracks if t.role == "order"), key=lambda t: int(np.argmax(t.visible))
        )
        return _two((first, last), {"first": first, "last": last}, skill, held_out, rng, need)
    choices = DIRECTIONS if skill == "direction" else SPEEDS
    return Question(skill, ask(skill, held_out, rng, x=refer(by_role["mover"], rng)), answer, choices, need)


def image_caption(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """(request, caption): every object, in any order, named by its place or by its colour first.

    Each first word says which object the next words are about, so that a caption is a chain of the lookups
    that questions ask for later (place -> colour and digit, colour -> digit and place). With one fixed order
    and form one base of four tried had not learned to answer "where is the red digit?" in 400 steps; with these
    captions and single questions one of nine had not learned to read digits (docs/study.md).
    """
    tracks = [scene.tracks[i] for i in rng.permutation(len(scene.tracks))]
    key = tuple(IMAGE_CAPTIONS)[int(rng.integers(len(IMAGE_CAPTIONS)))]
    names = {
        "place": [f"{t.corner} {t.colour} {t.word}" for t in tracks],
        "colour": [f"{t.colour} {t.word} {t.corner}" for t in tracks],
    }[key]
    return IMAGE_CAPTIONS[key], ", ".join(names) + "."


def video_caption(scene: Scene, motion: str = "") -> str:
    """Objects that are there all the time, in reading order, then events in the order in which they begin.

    ``motion`` describes the mover, for example ``"moves left"`` or ``"moves up faster"``.
    """
    still, events = [], []
    for track in scene.tracks:
        name = f"{track.colour} {track.word}"
        first = int(np.argmax(track.visible))
        if track.role == "mover":
            events.append((int(np.argmax((track.cells != track.cells[0]).any(axis=1))), f"{name} {motion}"))
        elif track.role == "change":
            events.append((int(track.change_frame or 0), f"{name} {track.corner} becomes {track.new_colour}"))
        elif track.role == "brief":
            events.append((first, f"{name} appears briefly {track.corner}"))
        elif track.role == "order":
            events.append((first, f"{name} appears {track.corner}"))
        else:
            still.append(f"{track.corner} {name}")
    if scene.light is not None:
        runs = scene.light.runs
        events.append((runs[0][0], f"light flashes {COUNTS[len(runs) - 1]} times"))
    return ", ".join(still + [text for _, text in sorted(events)]) + "."
