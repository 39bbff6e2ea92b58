"""Intervals: against slow loops, and by counting how often they cover the truth in a simulated world."""

import math
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workbench.errors import DataError
from workbench.evaluation.statistics import (
    flips,
    holm,
    macro_scores,
    mean_interval,
    paired_difference,
    skill_intervals,
    skill_scores,
)

SKILLS = ("ocr", "count", "where", "colour")


def table(correct_SQ, questions_a_sample=1, **columns):
    """A score table from right/wrong by seed and question; skills go round, neighbours share a sample."""
    right = np.asarray(correct_SQ)
    n_seeds, n_questions = right.shape
    questions = np.arange(n_questions)

    def every_seed(values):
        return np.tile(np.array(values, dtype=object), n_seeds)

    return pd.DataFrame(
        {
            "seed": np.repeat(np.arange(n_seeds), n_questions),
            "suite": "image",
            "skill": every_seed([SKILLS[q % 4] for q in questions]),
            "sample_id": every_seed([f"s{q // questions_a_sample}" for q in questions]),
            "question": every_seed([f"q{q}" for q in questions]),
            "correct": right.ravel(),
            "arm": "a",
            "step": 240,
            "condition": "own",
            **columns,
        }
    )


def world(rng, n_seeds, n_questions, seed_sd, question_sd, noise=1.0, effect=0.3, a_sample=1):
    """Two arms whose answers depend on seed, sample and chance; arm a shifts the latent score by effect."""
    sample = np.arange(n_questions) // a_sample
    ease = rng.normal(0, 0.7, n_questions)
    shift = effect + rng.normal(0, seed_sd, (n_seeds, 1)) + rng.normal(0, question_sd, n_questions)[sample]
    both = ease + rng.normal(0, 0.3, (n_seeds, 1))
    a = both + shift + rng.normal(0, noise, (n_seeds, n_questions)) > 0
    b = both + rng.normal(0, noise, (n_seeds, n_questions)) > 0
    return a, b


# -- levels ----------------------------------------------------------------------------------------


def test_mean_interval_equals_scipy():
    values = {0: 0.81, 1: 0.78, 2: 0.9, 3: 0.85, 4: 0.8}
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 4, np.mean(list(values.values())), stats.sem(list(values.values())))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.sd == pytest.approx(np.std(list(values.values()), ddof=1)) and found.n_seeds == 5
    wide = mean_interval(list(values.values()), level=0.99)
    assert wide.estimate == found.estimate and wide.low < found.low
    alone = mean_interval([0.5])
    assert alone.estimate == 0.5 and math.isnan(alone.low) and math.isnan(alone.high)
    for wrong in ([], [0.5, math.nan]):
        with pytest.raises(ValueError, match="finite"):
            mean_interval(wrong)


def test_skill_and_macro_scores_by_hand():
    rows = [("ocr", True)] * 3 + [("ocr", False)] + [("count", False)] * 2
    scores = pd.DataFrame(rows, columns=["skill", "correct"]).assign(
        arm="a", seed=0, step=1, condition="own", suite="image"
    )
    by_skill = skill_scores(scores).set_index("skill")
    assert by_skill["score"].to_dict() == {"count": 0.0, "ocr": 0.75}
    assert by_skill["n"].to_dict() == {"count": 2, "ocr": 4}
    assert macro_scores(scores)["score"].tolist() == [0.375]  # not 3 of 6
    without = macro_scores(scores, exclude={"count"})
    assert without["score"].tolist() == [0.75] and without["n"].tolist() == [4]
    two = pd.concat([scores, scores.assign(arm="b", correct=True)])
    assert macro_scores(two).set_index("arm")["score"].to_dict() == {"a": 0.375, "b": 1.0}


def test_skill_intervals_are_wilsons_and_widen_with_clusters():
    scores = table([[True] * 30 + [False] * 10])
    for row in skill_intervals(scores):
        part = scores[scores["skill"] == row.skill]["correct"]
        wilson = stats.binomtest(int(part.sum()), len(part)).proportion_ci(0.95, "wilson")
        assert (row.low, row.high) == pytest.approx((wilson.low, wilson.high), rel=1e-9)
        assert (row.n, row.accuracy) == (10, part.mean())
    assert [row.skill for row in skill_intervals(scores)] == sorted(SKILLS)
    one_skill = scores.assign(skill="ocr").sort_values("correct", ignore_index=True)
    fours = one_skill.assign(
        sample_id=[f"s{i // 10}" for i in range(40)]
    )  # ten questions a sample, all alike
    alone, together = skill_intervals(one_skill)[0], skill_intervals(fours)[0]
    assert together.accuracy == alone.accuracy == 0.75
    assert together.high - together.low > 2 * (alone.high - alone.low)
    perfect = skill_intervals(one_skill.assign(correct=True))[0]
    assert perfect.high == 1.0 and 0.9 < perfect.low < 0.95


# -- differences -----------------------------------------------------------------------------------


def slow_difference(a, b, exclude=()):
    """Macro average of paired differences, by loops over dictionaries."""
    keys = ["seed", "suite", "skill", "sample_id", "question"]
    right_b = {tuple(r[k] for k in keys): r["correct"] for _, r in b.iterrows()}
    seeds: dict = {}
    for _, row in a.iterrows():
        key = tuple(row[k] for k in keys)
        if key in right_b and row["skill"] not in exclude:
            found = seeds.setdefault(row["seed"], {}).setdefault(row["skill"], [])
            found.append(float(row["correct"]) - float(right_b[key]))
    means = [np.mean([np.mean(v) for v in skills.values()]) for skills in seeds.values()]
    return float(np.mean(means))


def slow_errors(a, b, draws, rng):
    """Standard errors of the bootstrap over seeds, over clusters and over both, one resample at a time."""
    pairs = a.merge(b[["seed", "question", "correct"]], on=["seed", "question"], suffixes=("", "_b"))
    pairs["d"] = pairs["correct"].astype(float) - pairs["correct_b"].astype(float)
    seeds, clusters = sorted(pairs["seed"].unique()), sorted(pairs["sample_id"].unique())
    cells = {
        key: list(zip(part["skill"], part["d"], strict=True))
        for key, part in pairs.groupby(["seed", "sample_id"])
    }

    def value(some_seeds, some_clusters):
        by_seed = []
        for s in some_seeds:
            skills: dict = {}
            for c in some_clusters:
                for skill, d in cells.get((s, c), []):
                    skills.setdefault(skill, []).append(d)
            by_seed.append(np.mean([np.mean(v) for v in skills.values()]))
        return np.mean(by_seed)

    errors = []
    for draw_seeds, draw_clusters in ((True, False), (False, True), (True, True)):
        values = [
            value(
                rng.choice(seeds, len(seeds)) if draw_seeds else seeds,
                rng.choice(clusters, len(clusters)) if draw_clusters else clusters,
            )
            for _ in range(draws)
        ]
        errors.append(float(np.std(values)))
    return errors


def test_difference_equals_loops():
    rng = np.random.default_rng(0)
    right_a, right_b = world(rng, 4, 60, 0.4, 0.5, a_sample=2)
    a, b = table(right_a, 2), table(right_b, 2)
    b = b.drop(index=[3, 70]).sample(frac=1, random_state=0)  # two questions unpaired, order irrelevant
    found = paired_difference(a, b, resamples=4000)
    assert found.estimate == pytest.approx(slow_difference(a, b))
    assert (found.n_samples, found.n_seeds, found.n_unpaired) == (30, 4, 2)
    seeds, clusters, both = slow_errors(a, b, 1500, rng)
    part_seeds = seeds**2 * 4 / 3  # A + C
    part_clusters = clusters**2 * 30 / 29  # B + C
    interaction = (both**2 - seeds**2 - part_clusters) * 4 / 3
    rest = part_clusters - min(max(interaction, 0), part_clusters)
    freedom = (part_seeds + rest) ** 2 / (part_seeds**2 / 3 + rest**2 / 29)
    width = 2 * stats.t.ppf(0.975, freedom) * math.sqrt(part_seeds + rest)
    assert found.high - found.low == pytest.approx(width, rel=0.08)
    assert found.low < found.estimate < found.high
    partly = paired_difference(a, b, exclude={"count"})
    assert partly.estimate == pytest.approx(slow_difference(a, b, {"count"}))


def test_one_seed_equals_a_loop_bootstrap_over_samples():
    rng = np.random.default_rng(1)
    right_a, right_b = world(rng, 1, 200, 0.0, 0.5, a_sample=2)
    a, b = table(right_a, 2), table(right_b, 2)
    found = paired_difference(a, b, resamples=4000)
    _, clusters, _ = slow_errors(a, b, 1500, rng)
    assert found.high - found.low == pytest.approx(2 * 1.984 * clusters, rel=0.06)
    assert "samples only" in found.method and "one seed" in found.method


def test_method_says_what_the_interval_covers():
    right_a, right_b = world(np.random.default_rng(0), 5, 40, 0.2, 0.2)

    def method(n):
        return paired_difference(table(right_a[:n]), table(right_b[:n]), resamples=100).method

    assert "too few" in method(2) and "2 seeds" in method(2)
    assert "too few" not in method(3) and "5 seeds" in method(5) and "40 clusters" in method(5)


def test_the_same_arguments_give_the_same_interval_and_arms_change_places():
    right_a, right_b = world(np.random.default_rng(2), 5, 80, 0.3, 0.3)
    a, b = table(right_a), table(right_b)
    first = paired_difference(a, b)
    assert paired_difference(a.sample(frac=1, random_state=1), b) == first
    turned = paired_difference(b, a)
    assert turned.estimate == pytest.approx(-first.estimate)
    assert (turned.low, turned.high) == pytest.approx((-first.high, -first.low))
    assert turned.p == pytest.approx(first.p)
    wide = paired_difference(a, b, level=0.99)
    assert wide.low < first.low and wide.high > first.high


def test_p_values_agree_with_intervals_and_no_difference_has_none():
    rng = np.random.default_rng(3)
    strong = paired_difference(*map(table, world(rng, 5, 200, 0.05, 0.2, effect=1.0)))
    assert strong.shown and strong.low > 0 and strong.p < 0.01
    same = table(rng.random((5, 40)) > 0.5)
    nothing = paired_difference(same, same)
    assert (nothing.estimate, nothing.low, nothing.high, nothing.p) == (0, 0, 0, 1)
    assert not nothing.shown
    sure = paired_difference(same.assign(correct=True), same.assign(correct=False))
    assert (sure.estimate, sure.low, sure.high, sure.p) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("n_seeds", "seed_sd", "question_sd", "a_sample"),
    [(5, 0.0, 0.6, 1), (5, 0.4, 0.0, 1), (5, 0.2, 0.6, 4), (3, 0.2, 0.5, 1)],
)
def test_ninety_five_percent_intervals_cover(n_seeds, seed_sd, question_sd, a_sample):
    """New seeds and new questions each time; the truth is the mean difference of a very large world."""
    big = np.random.default_rng(10**6)
    truth = float(
        np.mean(
            [
                a.mean() - b.mean()
                for a, b in (world(big, 40, 200, seed_sd, question_sd, a_sample=a_sample) for _ in range(40))
            ]
        )
    )
    covered = 0
    for trial in range(120):
        a, b = world(np.random.default_rng(trial), n_seeds, 96, seed_sd, question_sd, a_sample=a_sample)
        found = paired_difference(table(a, a_sample), table(b, a_sample), resamples=150, seed=trial)
        covered += found.low <= truth <= found.high
    assert 0.90 <= covered / 120 <= 0.99, covered / 120


def test_fast_enough_for_a_report():
    right_a, right_b = world(np.random.default_rng(0), 5, 500, 0.3, 0.3)
    a, b = table(right_a), table(right_b)
    paired_difference(a, b, resamples=10)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        paired_difference(a, b)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3


def test_clusters_can_be_media():
    rng = np.random.default_rng(4)
    right_a, right_b = world(rng, 3, 120, 0.0, 1.0, noise=0.2, a_sample=6)
    a = table(right_a, media=[f"m{q // 6}" for _ in range(3) for q in range(120)])
    b = table(right_b)
    by_sample, by_media = paired_difference(a, b), paired_difference(a, b, cluster="media")
    assert (by_sample.n_samples, by_media.n_samples) == (120, 20)
    assert by_media.estimate == pytest.approx(by_sample.estimate)
    assert by_media.high - by_media.low > 1.3 * (by_sample.high - by_sample.low)


def test_tables_that_cannot_be_compared_are_refused():
    a = table([[True] * 8])
    with pytest.raises(DataError, match="scores a question twice"):
        paired_difference(pd.concat([a, a.assign(step=120)]), a)
    with pytest.raises(DataError, match="no seed and question in common"):
        paired_difference(a, a.assign(seed=7))


# -- flips and many contrasts ----------------------------------------------------------------------


def test_flips_name_the_questions():
    before = table([[True, True, False, False]])
    after = table([[True, False, True, False]])
    changed = flips(before, after)
    assert changed["flip"].tolist() == ["right->wrong", "wrong->right"]
    assert changed["question"].tolist() == ["q1", "q2"]
    assert set(changed.columns) == {"seed", "suite", "skill", "sample_id", "question", "flip"}
    assert flips(before, before).empty


def slow_holm(p):
    order = sorted(range(len(p)), key=lambda i: p[i])
    return [
        min(1.0, max((len(p) - j) * p[order[j]] for j in range(rank + 1)))
        for rank in (order.index(i) for i in range(len(p)))
    ]


def test_holm_equals_its_definition():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 20):
        p = rng.random(n).tolist()
        assert holm(p) == pytest.approx(slow_holm(p))
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_statistics_need_no_torch():
    code = "import sys, workbench.evaluation.statistics, workbench.frames; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
