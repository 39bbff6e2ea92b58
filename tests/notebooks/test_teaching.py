"""The class: solutions run through, unsolved exercises stop at every check, and the checks refuse the usual mistakes."""

from __future__ import annotations

import importlib.util
import itertools
import re

import nbformat
import numpy as np
import pytest

from tests.notebooks.conftest import variables
from tests.notebooks.executed import (
    NOTEBOOKS,
    assert_clean,
    assert_stored_clean,
    assert_text_only,
    cell,
    code,
    execute,
    printed,
)  # fmt: skip

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
FOLDER = NOTEBOOKS / "teaching"
EXERCISES = {"1_trap_or_frame_budget": 5, "2_who_chooses_the_frames": 4}  # with their gaps


def is_gap(c) -> bool:
    return "gap" in c.metadata.get("tags", [])


@pytest.fixture(scope="module")
def environment(small_trap):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(small_trap).items():
            patch.setenv(name, value)
        yield


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_passes_every_check(environment, name):
    book, messages = execute(FOLDER / f"{name}_solution.ipynb")
    assert_clean(book)
    assert_text_only(messages)
    checks = [c for c in code(book) if re.search(r"^check_\w+\(", c.source, flags=re.M)]
    assert len(checks) == EXERCISES[name] and all(printed(c).startswith("right: ") for c in checks)
    if name.startswith("1"):
        said = printed(cell(book, "verdict(*three)"))
        assert re.search(r"fixed-2: .*\[.*\]", said) and re.search(r"fixed-16: .*\[.*\]", said)
    else:
        shown = printed(cell(book, '"mine", found, "control"'))
        assert len(re.findall(r"questions: (choosing helped|no difference shown|choosing hurt)", shown)) == 3


@pytest.mark.parametrize("name", EXERCISES)
def test_unsolved_it_stops_at_every_check_with_a_message(environment, name, tmp_path):
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    # what trains is left out: without a policy there is nothing to train, which the check before it has said
    book.cells = [c for c in book.cells if "trained_arms.watch()" not in c.source]
    nbformat.write(book, tmp_path / "exercise.ipynb")
    done, _ = execute(tmp_path / "exercise.ipynb", folder=FOLDER, allow_errors=True)
    checks = [c for c in code(done) if re.search(r"^check_\w+\(", c.source, flags=re.M)]
    assert len(checks) == EXERCISES[name]
    for c in checks:
        (error,) = [o for o in c.outputs if o.output_type == "error"]
        assert error.ename == "NotYet" and "..." in error.evalue
        assert len(error.traceback) == 1 and error.traceback[0].startswith("NotYet: "), (
            "the message alone is shown"
        )


@pytest.mark.parametrize("name", EXERCISES)
def test_exercise_and_solution_differ_in_the_gaps_alone(name):
    books = [nbformat.read(FOLDER / f"{name}{part}.ipynb", as_version=4) for part in ("", "_solution")]
    pairs = list(zip(*(b.cells for b in books), strict=True))
    assert [a.source for a, _ in pairs if not is_gap(a)] == [b.source for _, b in pairs if not is_gap(b)]
    gaps = [(a.source, b.source) for a, b in pairs if is_gap(a)]
    assert len(gaps) == EXERCISES[name]
    assert all(
        "..." in a and a != b and not re.search(r"^\s*(\.\.\.|\w+ = \.\.\.)$", b, flags=re.M) for a, b in gaps
    )
    for path in (FOLDER / f"{name}.ipynb", FOLDER / f"{name}_solution.ipynb"):
        assert_stored_clean(path)


def test_the_lesson_plan_fills_ninety_minutes_and_names_what_is_there():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    spans = [(int(a), int(b)) for a, b in re.findall(r"^\| (\d+)-(\d+) \|", text, flags=re.M)]
    assert spans[0][0] == 0 and spans[-1][1] == 90
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    for name in EXERCISES:
        assert f"`{name}.ipynb`" in text


# ------------------------------------------------------------------------------------- the usual mistakes


@pytest.fixture(scope="module")
def checks():
    spec = importlib.util.spec_from_file_location("teaching_checks", FOLDER / "checks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def merged(before, after):
    both = before.merge(after, on=["sample_id", "question", "skill"], suffixes=("_b", "_a"))
    return both.assign(difference=both["correct_a"].astype(int) - both["correct_b"].astype(int))


def resampled(scale=100.0, share=1.0, by_skill=True, seed=0, low=0.025):
    def interval(pairs):
        rng = np.random.default_rng(seed)
        values, skills = pairs["difference"].to_numpy(float), pairs["skill"].to_numpy()
        means = []
        for _ in range(600):
            drawn = rng.integers(len(values), size=max(1, int(share * len(values))))
            part, skill = values[drawn], skills[drawn]
            means.append(np.mean([part[skill == s].mean() for s in set(skill)]) if by_skill else part.mean())
        return tuple(scale * np.quantile(means, [low, 1 - low]))

    return interval


def deal_by(order):
    return lambda counts, rng: dict(zip(counts, order(list(counts.values()), rng), strict=True))


WRONG = {
    "check_macro": [
        (lambda rows: None, r"\.\.\."),
        (lambda rows: 100 * rows["correct"].mean(), "share of all questions"),
        (lambda rows: rows.groupby("skill")["correct"].mean().mean(), "give percent"),
        (lambda rows: rows.groupby("skill")["correct"].mean(), "one number"),
    ],
    "check_pair": [
        (lambda b, a: None, r"\.\.\."),
        (lambda b, a: merged(a, b), "sign"),
        (lambda b, a: b.assign(difference=a["correct"].to_numpy().astype(int) - b["correct"].astype(int)), "itself"),
        (lambda b, a: b.merge(a, on="skill").assign(difference=0), "columns|pairs"),
    ],
    "check_interval": [
        (lambda pairs: None, r"\.\.\."),
        (resampled(scale=1.0), "points, not shares"),
        (resampled(share=0.25), "wide"),
        (resampled(by_skill=False), "mean over skills"),
        (resampled(low=0.16), "wide"),
        (lambda pairs: resampled(seed=None)(pairs), "fixed seed|fix the seed|twice"),
    ],
    "check_split": [
        (lambda base, own, copies: None, r"\.\.\."),
        (lambda base, own, copies: {"loss": own - base, "recovered": copies - own, "remaining": base - copies}, "loss"),
        (lambda base, own, copies: {"loss": base - own, "recovered": abs(copies - own), "remaining": base - copies}, "al"),
    ],
    "check_verdict": [
        (lambda loss, recovered, remaining: None, r"\.\.\."),
        (lambda loss, recovered, remaining: "forgetting" if sum(remaining) > 0 else "frame budget", "no loss shown"),
    ],
    "check_deal": [
        (lambda counts, rng: None, r"\.\.\."),
        (lambda counts, rng: dict(counts), "differently"),
        (deal_by(lambda values, rng: rng.choice([2, 16], size=len(values)).tolist()), "histogram"),
        (deal_by(lambda values, rng: np.roll(values, int(rng.integers(3))).tolist()), "chance"),
    ],
    "check_enough": [
        (lambda used, needed: None, r"\.\.\."),
        (lambda used, needed: float(np.mean(np.array(used) > np.array(needed))), "at least"),
        (lambda used, needed: 100.0, "three of four"),
    ],
    "check_claim": [
        (lambda low, high: None, r"\.\.\."),
        (lambda low, high: "choosing helped" if low + high > 0 else "choosing hurt", "no difference shown"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "which"), [(n, i) for n, found in WRONG.items() for i in range(len(found))])
def test_a_check_refuses_a_usual_mistake(checks, name, which):
    answer, message = WRONG[name][which]
    with pytest.raises(checks.NotYet, match=message):
        getattr(checks, name)(answer)


def test_rules_are_checked_for_budget_words_and_variety(checks):
    questions = ["what is red?", "which digit appears briefly?"]
    good = {"a": 2, "b": 16, "c": 2}
    checks.check_rules({"briefly": 16}, 2, questions, good)
    for rules, default, counts, message in (
        (..., ..., {}, r"\.\.\."),
        ({"briefly": 16}, 3, good, "only 2, 4, 8, 16"),
        ({"brief": 16}, 2, good, "whole words"),
        ({"briefly": 16}, 2, {"a": 16, "b": 16}, "same number"),
        ({"briefly": 16}, 2, {"a": 16, "b": 16, "c": 2}, "budget"),
    ):
        with pytest.raises(checks.NotYet, match=message):
            checks.check_rules(rules, default, questions, counts)


def test_the_checks_know_nothing_of_the_study():
    text = (FOLDER / "checks.py").read_text(encoding="utf-8")
    assert "workbench" not in text
