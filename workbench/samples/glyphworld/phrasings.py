"""Several phrasings a skill; some are held out for the test split.

A held-out phrasing is another sentence made only of words that occur in training phrasings (of any skill),
so a word-level tokenizer built from training text knows all its words. Slots: ``{x}`` an object by colour
("red digit"), by place ("northwest digit") or by name ("seven"), ``{c}`` a colour or a corner, ``{a}`` and ``{b}`` two colours,
``{w}`` the word asked about ("larger", "first").
"""

from __future__ import annotations

import re

import numpy as np

PHRASINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "ocr": {
        "train": (
            "what digit is {c}?",
            "which number is {c}?",
            "read the {c} digit.",
            "what is the {c} number?",
            "name the {c} digit.",
        ),
        "test": ("which digit is {c}?", "what is the {c} digit?", "read the {c} number."),
    },
    "colour": {
        "train": (
            "what colour is the {x}?",
            "which colour does the {x} have?",
            "name the colour of the {x}.",
            "the {x} is what colour?",
        ),
        "test": ("which colour is the {x}?", "what is the colour of the {x}?"),
    },
    "where": {
        "train": (
            "where is the {x}?",
            "in which corner is the {x}?",
            "which corner has the {x}?",
            "find the {x}.",
            "name the corner of the {x}.",
        ),
        "test": (
            "what corner is the {x} in?",
            "what is the corner of the {x}?",
            "find the corner of the {x}.",
        ),
    },
    "count": {
        "train": (
            "how many digits are there?",
            "count the digits.",
            "how many numbers do you see?",
            "what is the number of digits?",
        ),
        "test": ("how many digits do you see?", "count the numbers.", "how many numbers are there?"),
    },
    "comparison": {
        "train": (
            "which is {w}, {a} or {b}?",
            "is the {a} or {b} digit {w}?",
            "what number is {w}, {a} or {b}?",
            "name the {w} digit, {a} or {b}.",
        ),
        "test": ("which digit is {w}, {a} or {b}?", "is {a} or {b} the {w} number?"),
    },
    "direction": {
        "train": (
            "which way does the {x} move?",
            "what direction does the {x} take?",
            "where does the {x} go?",
            "the {x} moves which way?",
        ),
        "test": ("which direction does the {x} move?", "what way does the {x} go?"),
    },
    "order": {
        "train": (
            "which appears {w}, {a} or {b}?",
            "what colour comes {w}, {a} or {b}?",
            "does {a} or {b} appear {w}?",
            "is {a} or {b} the {w} to come?",
        ),
        "test": ("which colour appears {w}, {a} or {b}?", "what digit comes {w}, {a} or {b}?"),
    },
    "speed": {
        "train": (
            "does the {x} get faster or slower?",
            "how does the speed of the {x} change?",
            "faster or slower: how does the {x} move?",
            "the {x} moves faster or slower?",
        ),
        "test": ("does the {x} move faster or slower?", "how does the {x} change speed?"),
    },
    "change": {
        "train": (
            "what colour does the {x} become?",
            "which colour does the {x} change to?",
            "the {x} becomes what colour?",
            "name the new colour of the {x}.",
        ),
        "test": ("what colour does the {x} change to?", "which colour does the {x} become?"),
    },
    "brief": {
        "train": (
            "which {c} digit appears briefly?",
            "what {c} number comes and goes?",
            "which {c} digit do you see briefly?",
            "what {c} digit appears for a moment?",
        ),
        "test": (
            "what {c} digit comes and goes?",
            "which {c} number appears for a moment?",
            "which {c} number do you see briefly?",
        ),
    },
    "flash": {
        "train": (
            "how many times does the light flash?",
            "count the flashes.",
            "how many flashes are there?",
            "how often does the light flash?",
        ),
        "test": (
            "how many flashes do you see?",
            "what is the number of flashes?",
            "count the times the light flashes.",
        ),
    },
}

IMAGE_CAPTIONS = {"place": "describe the image by place.", "colour": "describe the image by colour."}
VIDEO_CAPTION = "describe the video."


def ask(skill: str, held_out: bool, rng: np.random.Generator, **words: str) -> str:
    """One phrasing of ``skill``, its slots filled from ``words``."""
    sentences = PHRASINGS[skill]["test" if held_out else "train"]
    return sentences[int(rng.integers(len(sentences)))].format(**words)


def vocabulary(held_out: bool) -> set[str]:
    """The fixed words of all training (or held-out) phrasings, without slots and punctuation."""
    part = "test" if held_out else "train"
    text = " ".join(sentence for by_part in PHRASINGS.values() for sentence in by_part[part])
    return set(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", " ", text)))
