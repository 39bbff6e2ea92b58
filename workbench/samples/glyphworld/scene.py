"""What is on the canvas: digits on a 4x4 grid of cells, at most one a quadrant, and a light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import numpy as np

from .words import COLOUR_NAMES, CORNERS, DIGITS

T = TypeVar("T")
GRID = 4  # cells a side; a quadrant is 2x2 cells
QUADRANTS = 4


@dataclass(frozen=True, eq=False)
class Track:
    """One digit through F frames.

    ``cells`` int ``[F, 2]`` (row, column), ``visible`` bool ``[F]``; ``glyph`` indexes ``load_digits``.
    """

    role: str  # "still" | "mover" | "change" | "order" | "brief"
    digit: int
    colour: str
    glyph: int
    cells: np.ndarray
    visible: np.ndarray
    new_colour: str | None = None
    change_frame: int | None = None

    @property
    def word(self) -> str:
        return DIGITS[self.digit]

    @property
    def moves(self) -> bool:
        return bool((self.cells != self.cells[0]).any())

    @property
    def corner(self) -> str:
        """The quadrant of the first frame, as a compass word."""
        row, column = self.cells[0] // 2
        return CORNERS[2 * int(row) + int(column)]


@dataclass(frozen=True, eq=False)
class Light:
    """A quadrant whose background is bright in the frames ``on`` (bool ``[F]``)."""

    quadrant: int
    on: np.ndarray

    @property
    def runs(self) -> list[tuple[int, int]]:
        """First and last frame of every flash."""
        edge = np.diff(np.concatenate(([0], self.on.astype(int), [0])))
        return list(
            zip(np.flatnonzero(edge == 1).tolist(), (np.flatnonzero(edge == -1) - 1).tolist(), strict=True)
        )


@dataclass(frozen=True, eq=False)
class Scene:
    """All tracks of one image (F = 1) or clip."""

    frames: int
    tracks: tuple[Track, ...]
    light: Light | None = None


@dataclass
class Deck:
    """Draws digits, colours and glyphs of one split without repeating a digit or colour in a scene."""

    glyphs: dict[int, np.ndarray]  # digit -> indices into load_digits
    rng: np.random.Generator
    _digits: list[int] = field(default_factory=list)
    _colours: list[str] = field(default_factory=list)
    _bags: dict[str, list] = field(default_factory=dict)

    def balanced(self, name: str, options: Sequence[T]) -> T:
        """A random option such that all have come equally often after every ``len(options)`` draws."""
        bag = self._bags.get(name) or [options[i] for i in self.rng.permutation(len(options))]
        self._bags[name] = bag[1:]
        return bag[0]

    def shuffle(self) -> None:
        """Start a new scene."""
        self._digits = self.rng.permutation(10).tolist()
        self._colours = [COLOUR_NAMES[i] for i in self.rng.permutation(len(COLOUR_NAMES))]

    def colour(self) -> str:
        return self._colours.pop()

    def track(self, role: str, cells: np.ndarray, visible: np.ndarray, **more) -> Track:
        digit = self._digits.pop()
        glyph = int(self.rng.choice(self.glyphs[digit]))
        return Track(role, digit, self.colour(), glyph, cells, visible, **more)

    def cells(self, quadrant: int, frames: int) -> np.ndarray:
        """A random cell of the quadrant, kept for all frames: int ``[F, 2]``."""
        inner = self.rng.integers(2, size=2)
        return np.tile(np.array([2 * (quadrant // 2), 2 * (quadrant % 2)]) + inner, (frames, 1))


def image_scene(deck: Deck, objects: int) -> Scene:
    """``objects`` (1 to 4) digits in different quadrants, in reading order of the quadrants."""
    deck.shuffle()
    quadrants = sorted(deck.rng.permutation(4)[:objects].tolist())
    return Scene(1, tuple(deck.track("still", deck.cells(q, 1), np.ones(1, bool)) for q in quadrants))


@cache
def glyph_split() -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Train (1,347) and test (450) glyph indices of load_digits by digit; the same split in every world."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    label = load_digits().target
    parts = train_test_split(np.arange(len(label)), test_size=450, stratify=label, random_state=0)
    train, test = ({digit: np.sort(part[label[part] == digit]) for digit in range(10)} for part in parts)
    return train, test
