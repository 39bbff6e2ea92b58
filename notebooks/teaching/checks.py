"""Checks of the exercises: each runs the student's function on made-up cases whose answer is known, and says what is wrong.

They do not look at the study's own numbers, so they say the same on every machine.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

COUNTS = (2, 4, 8, 16)
BUDGET = 8.0  # frames a clip in the mean
CLAIMS = ("choosing helped", "no difference shown", "choosing hurt")
VERDICTS = ("no loss shown", "frame budget", "forgetting", "both", "undecided")


class NotYet(Exception):
    """A gap that is still open, or an answer that is not right yet. Jupyter shows the message alone."""

    def _render_traceback_(self) -> list[str]:
        return [f"NotYet: {self}"]


def need(condition: bool, message: str) -> None:
    """Raise NotYet with the message unless the condition holds."""
    if not condition:
        raise NotYet(message)


def filled(name: str, value: Any) -> Any:
    """The value itself. Raises NotYet where the gap is still open."""
    if value is None or value is ...:
        raise NotYet(
            f"`{name}` gives nothing yet: put your code where the ... stands, then run its cell and this one again"
        )
    return value


def number(name: str, value: Any) -> float:
    """The value as a finite number. Raises NotYet."""
    filled(name, value)
    need(
        isinstance(value, int | float | np.number) and math.isfinite(value),
        f"`{name}` should give one number, it gave {value!r}",
    )
    return float(value)


def good(what: str) -> None:
    print(f"right: {what}")


# ------------------------------------------------------------------ 1: is it the trap, or the frame budget?


def _asked(right: Mapping[str, str]) -> pd.DataFrame:
    """Score rows from a string of 1 and 0 a skill."""
    rows = [
        (f"{skill}-{i}", f"question {i}", skill, mark == "1")
        for skill, marks in right.items()
        for i, mark in enumerate(marks)
    ]
    return pd.DataFrame(rows, columns=["sample_id", "question", "skill", "correct"])


def check_macro(macro: Callable[[pd.DataFrame], float]) -> None:
    """Gap 1 of exercise 1."""
    rows = _asked({"colour": "1111", "count": "10"})
    found = number("macro", macro(rows))
    need(
        not math.isclose(found, 500 / 6),
        "83.3 is the share of all questions: first average within each skill, then over skills",
    )
    need(not math.isclose(found, 0.75), "0.75 is a share: give percent")
    need(math.isclose(found, 75.0), f"colour 4 of 4 and count 1 of 2 should give 75, it gave {found:g}")
    need(math.isclose(macro(_asked({"ocr": "0001"})), 25.0), "one skill with 1 of 4 right should give 25")
    good("every skill counts the same, however often it is asked")


def check_pair(pair: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]) -> None:
    """Gap 2 of exercise 1."""
    before = _asked({"colour": "1100", "count": "01"})
    after = _asked({"colour": "1010", "count": "11"}).sample(frac=1, random_state=3)
    pairs = filled("pair", pair(before, after))
    need(
        isinstance(pairs, pd.DataFrame) and {"sample_id", "skill", "difference"} <= set(pairs.columns),
        "`pair` should give a table with the columns sample_id, skill and difference",
    )
    need(
        len(pairs) == 6,
        f"6 questions were asked twice, so there are 6 pairs; it gave {len(pairs)} "
        "(merge on sample_id, question and skill)",
    )
    by_id = pairs.set_index("sample_id")["difference"].astype(float)
    wanted = {"colour-0": 0, "colour-1": -1, "colour-2": 1, "colour-3": 0, "count-0": 1, "count-1": 0}
    wrong = [name for name, value in wanted.items() if by_id[name] != value]
    need(
        not wrong or not all(by_id[n] == -v for n, v in wanted.items()),
        "the sign is the wrong way round: after minus before, so +1 is a question that was learned",
    )
    need(
        not wrong,
        "the same question must meet itself, whatever the order of the rows: wrong at " + ", ".join(wrong),
    )
    need(
        len(pair(before, after.iloc[:-1])) == 5,
        "a question that only one side was asked has no partner: leave it out",
    )
    good("each question is compared with itself")


def check_interval(interval: Callable[[pd.DataFrame], tuple[float, float]]) -> None:
    """Gap 3 of exercise 1: against the normal approximation, on tables that are large enough for it."""
    one = _pairs({"colour": [1] * 60 + [-1] * 20 + [0] * 320})
    low, high = _two(interval(one))
    centre, half = 10.0, 1.96 * 100 * float(np.std(one["difference"])) / math.sqrt(len(one))
    need(
        low < centre < high,
        f"60 learned and 20 lost of 400 is +10 points, which [{low:.2f}, {high:.2f}] does not hold "
        "(points, not shares?)",
    )
    _wide(low, high, 2 * half, "400 questions of one skill")
    two = _pairs({"colour": [1] * 10 + [0] * 30, "count": [0] * 200 + [-1] * 200})
    low, high = _two(interval(two))
    spread = [
        100 * float(np.std(part["difference"])) / math.sqrt(len(part)) for _, part in two.groupby("skill")
    ]
    half = 1.96 * math.sqrt(sum(s * s for s in spread)) / 2
    need(
        low < -12.5 < high,
        "+25 in one skill and -50 in the other is -12.5 in the mean over skills, "
        f"which [{low:.2f}, {high:.2f}] does not hold",
    )
    _wide(low, high, 2 * half, "40 questions of one skill and 400 of another")
    need(
        _two(interval(one)) == _two(interval(one)),
        "asked twice, it should give the same: fix the seed of the random numbers",
    )
    good("its width is what the spread of the questions demands")


def _pairs(differences: Mapping[str, list[int]]) -> pd.DataFrame:
    rows = [(f"{skill}-{i}", skill, d) for skill, found in differences.items() for i, d in enumerate(found)]
    return pd.DataFrame(rows, columns=["sample_id", "skill", "difference"])


def _two(found: Any) -> tuple[float, float]:
    filled("interval", found)
    need(
        isinstance(found, tuple | list | np.ndarray) and len(found) == 2,
        "`interval` should give two numbers, (low, high)",
    )
    low, high = (number("interval", end) for end in found)
    need(low <= high, "the lower end is above the upper one")
    return low, high


def _wide(low: float, high: float, expected: float, what: str) -> None:
    got = high - low
    hint = "resample the *pairs*, as many as there are, with replacement; take the 2.5% and 97.5% quantiles"
    need(
        0.85 * expected < got < 1.15 * expected,
        f"for {what} it should be about {expected:.1f} points wide, it is {got:.1f}: {hint}",
    )


def check_split(split: Callable[[float, float, float], dict[str, float]]) -> None:
    """Gap 4 of exercise 1."""
    found = filled("split", split(90.0, 80.0, 86.0))
    need(
        isinstance(found, dict) and set(found) == {"loss", "recovered", "remaining"},
        "`split` should give a dict: loss, recovered, remaining",
    )
    for name, value in {"loss": 10.0, "recovered": 6.0, "remaining": 4.0}.items():
        got = number(name, found[name])
        need(
            math.isclose(got, value), f"base 90, own 80, copies 86: {name} should be {value:g}, it is {got:g}"
        )
    other = split(70.0, 71.0, 65.0)
    need(
        math.isclose(other["loss"], other["recovered"] + other["remaining"]),
        "loss is always recovered + remaining",
    )
    need(other["recovered"] < 0, "copies may also make it worse: then recovered is negative")
    good("loss = what copies bring back + what they do not")


def check_verdict(verdict: Callable[..., str]) -> None:
    """Gap 5 of exercise 1: (low, high) of loss, recovered, remaining."""
    cases = {
        ((-2, 3), (1, 4), (-3, 1)): "no loss shown",
        ((2, 6), (1, 5), (-1, 2)): "frame budget",
        ((2, 6), (-1, 2), (1, 5)): "forgetting",
        ((4, 9), (1, 4), (2, 6)): "both",
        ((1, 6), (-1, 4), (-1, 5)): "undecided",
    }
    for (loss, recovered, remaining), answer in cases.items():
        found = filled("verdict", verdict(loss, recovered, remaining))
        need(found in VERDICTS, f"`verdict` should give one of {', '.join(VERDICTS)}; it gave {found!r}")
        need(
            found == answer,
            f"loss {loss}, recovered {recovered}, remaining {remaining}: expected {answer!r}, it gave {found!r}. "
            "What does each interval exclude?",
        )
    good("words claim only what an interval excludes")


# ------------------------------------------------------------------------------ 2: who chooses the frames?


def check_rules(rules: Any, default: Any, questions: list[str], counts: Mapping[str, int]) -> None:
    """Gap 1 of exercise 2: ``counts`` says what each training clip would get."""
    filled("rules", rules)
    filled("default", default)
    need(
        isinstance(rules, dict) and len(rules) > 0,
        "`rules` should be a dict from a word of the question to a number of frames",
    )
    strange = {value for value in (*rules.values(), default) if value not in COUNTS}
    need(
        not strange,
        f"use only {', '.join(map(str, COUNTS))} frames; {sorted(map(str, strange))} is among yours",
    )
    silent = [word for word in rules if not any(_has(question, str(word)) for question in questions)]
    need(
        not silent,
        "no training question has " + ", ".join(map(repr, silent)) + " as whole words: look at them above",
    )
    used = Counter(counts.values())
    need(len(used) > 1, "every clip gets the same number of frames: then nobody reads the question")
    mean = sum(counts.values()) / len(counts)
    need(mean <= BUDGET, f"{mean:.1f} frames a clip in the mean; the budget is {BUDGET:g}")
    good(
        f"{mean:.2f} frames a clip in the mean, "
        + ", ".join(f"{n} clips at {c}" for c, n in sorted(used.items()))
    )


def _has(question: str, words: str) -> bool:
    """As the policy matches: whole words, any case."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", question, re.IGNORECASE) is not None


def check_deal(deal: Callable[[dict[str, int], np.random.Generator], dict[str, int]]) -> None:
    """Gap 2 of exercise 2."""
    counts = {f"clip-{i:03d}": (16 if i < 50 else 2) for i in range(200)}
    given = dict(counts)
    dealt = filled("deal", deal(given, np.random.default_rng(0)))
    need(
        isinstance(dealt, dict) and set(dealt) == set(counts),
        "`deal` should give every clip a count, and no other clip",
    )
    need(given == counts, "`deal` must leave the plan that it is given as it is")
    need(
        Counter(dealt.values()) == Counter(counts.values()),
        "the histogram must stay: as many clips at each count",
    )
    overlaps = []
    for seed in range(40):
        again = deal(dict(counts), np.random.default_rng(seed))
        overlaps.append(sum(again[name] == 16 for name in list(counts)[:50]))
    need(len(set(overlaps)) > 1, "another random generator should deal differently")
    expected, error = 12.5, math.sqrt(50 * 0.25 * 0.75 * 150 / 199 / 40)  # hypergeometric, mean of 40
    need(
        abs(float(np.mean(overlaps)) - expected) < 5 * error,
        f"of 50 clips that had 16 frames {np.mean(overlaps):.1f} get them again, by chance it is {expected}: "
        "the deal still knows who they are",
    )
    good("the same counts, and nobody knows to whom they went")


def check_enough(enough: Callable[[list[int], list[int]], float]) -> None:
    """Gap 3 of exercise 2."""
    found = number("enough", enough([2, 4, 16, 8], [1, 8, 16, 4]))
    need(
        not math.isclose(found, 0.5),
        "a clip with exactly the frames it needs has enough: at least, not more than",
    )
    need(
        math.isclose(found, 0.75),
        f"used 2, 4, 16, 8 and needed 1, 8, 16, 4: three of four have enough, 0.75; it gave {found:g}",
    )
    good("used against needed")


def check_claim(claim: Callable[[float, float], str]) -> None:
    """Gap 4 of exercise 2."""
    for (low, high), answer in {
        (1, 5): CLAIMS[0],
        (-2, 3): CLAIMS[1],
        (-6, -1): CLAIMS[2],
        (0, 4): CLAIMS[1],
    }.items():
        found = filled("claim", claim(low, high))
        need(found in CLAIMS, f"`claim` should give one of {', '.join(CLAIMS)}; it gave {found!r}")
        need(found == answer, f"[{low}, {high}] should give {answer!r}, it gave {found!r}")
    good("no direction without an interval that excludes zero")
