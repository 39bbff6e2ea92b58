"""The closed vocabulary of answers. One word an answer, so that a word-level tokenizer scores one position.

Quadrants are named by compass words, as on a map: "top left" would need two words.
"""

from __future__ import annotations

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COUNTS = ("one", "two", "three", "four")
CORNERS = ("northwest", "northeast", "southwest", "southeast")  # index = 2 * (lower half) + (right half)
DIRECTIONS = ("left", "right", "up", "down")
SPEEDS = ("faster", "slower")

COLOURS: dict[str, tuple[float, float, float]] = {  # RGB in [0, 1]
    "red": (1.0, 0.15, 0.15),
    "green": (0.1, 0.9, 0.2),
    "blue": (0.25, 0.4, 1.0),
    "yellow": (1.0, 0.9, 0.1),
    "purple": (0.9, 0.2, 0.95),
    "cyan": (0.1, 0.9, 0.95),
}
COLOUR_NAMES = tuple(COLOURS)

STATIC_SKILLS = ("ocr", "colour", "where", "count", "comparison")  # one frame, or one image, answers
TEMPORAL_SKILLS = ("direction", "order", "speed", "change", "brief", "flash")
IMAGE_SKILLS = STATIC_SKILLS
SKILLS = (*STATIC_SKILLS, *TEMPORAL_SKILLS, "caption")
