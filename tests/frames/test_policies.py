"""What each policy asks for, and that none of them looks at the truth."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.frames.worlds import Clips, video
from workbench.errors import DataError, RecipeError
from workbench.frames import make_plan, make_policy
from workbench.frames.factory import PARAMETERS
from workbench.frames.policies import Fixed, Fps, Keywords, Oracle, RandomMatched, UniformChoice
from workbench.recipe.schema import FramesSection
from workbench.samples.sample import ClipInfo

LOSSES = pd.DataFrame(
    [(f"v{i}", n, 1.0 / n) for i in range(3) for n in (2, 4, 8)], columns=["sample_id", "frames", "loss"]
)


def one(policy, question="?", *more, info=None, **keys):
    return policy.requested([video("v", question, *more, **keys)], [info or ClipInfo(32, 8.0, 4.0, 8, 8)])[0]


def test_keywords_match_whole_words_in_any_case_and_the_largest_wins():
    policy = Keywords({"first": 8, "how many": 16, "colour": 2, "one's": 4})
    assert one(policy, "Which COLOUR comes First?") == (8, "rule: first")
    assert one(policy, "how  many\nfirst ones?") == (16, "rule: how many")
    assert one(policy, "colours at firsthand, somehow many") == (2, "no rule")
    assert one(policy, "is it one's?") == (4, "rule: one's")
    assert one(policy, "what colour?", "which is first?") == (8, "rule: first")  # one clip serves both turns
    assert one(replace(policy, default=5), "nothing") == (5, "no rule")
    special = Keywords({"a+b": 4, "(?": 3}, default=1)
    assert one(special, "is a+b right") == (4, "rule: a+b") and one(special, "aab") == (1, "no rule")


def test_fps_counts_seconds_between_its_bounds():
    policy = Fps(2.0, lo=2, hi=10)
    assert one(policy, info=ClipInfo(32, 8.0, 4.0, 8, 8)) == (8, "fps")
    assert one(policy, info=ClipInfo(18, 8.0, 2.25, 8, 8)) == (5, "fps")  # 4.5 rounds up
    assert one(policy, info=ClipInfo(4, 8.0, 0.5, 8, 8)) == (2, "fps: at least")
    assert one(policy, info=ClipInfo(800, 8.0, 100.0, 8, 8)) == (10, "fps: at most")
    assert one(policy, info=ClipInfo(30, 0.0, 3.0, 8, 8)) == (6, "fps")  # no rate in the header


def test_column_falls_back_to_the_smallest_seen_and_says_so():
    policy = make_policy(FramesSection(policy="column"))
    samples = [video("a", column=8), video("b", column=4), video("c")]
    plan = make_plan(policy, samples, Clips())
    assert [plan.used(s.id) for s in samples] == [8, 4, 4]
    assert plan.reasons() == {"column": 2, "no column: smallest": 1}
    with pytest.raises(DataError, match=r"rows\.jsonl:c"):
        make_plan(policy, samples[2:], Clips())


def test_uniform_choice_draws_each_count_equally_and_by_id():
    policy = UniformChoice((2, 4, 8), seed=1)
    samples = [video(f"v{i}") for i in range(3000)]
    plan = make_plan(policy, samples, Clips(), seed=5)
    share = np.array(list(plan.histogram().values())) / 3000
    assert list(plan.histogram()) == [2, 4, 8] and np.abs(share - 1 / 3).max() < 0.04
    part = make_plan(policy, samples[::-7], Clips(), seed=5)
    assert all(part.used(s.id) == plan.used(s.id) for s in samples[::-7])  # company does not matter
    assert make_plan(policy, samples, Clips(), seed=6).table["used"].ne(plan.table["used"]).mean() > 0.5
    other = make_plan(replace(policy, seed=2), samples, Clips(), seed=5)
    assert other.table["used"].ne(plan.table["used"]).mean() > 0.5


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=40),
    wanted=st.lists(st.integers(1, 40), min_size=40, max_size=40),
    seed=st.integers(0, 99),
)
def test_random_matched_has_exactly_the_histogram_whatever_the_clips(lengths, wanted, seed):
    samples = [video(f"v{i}", column=wanted[i]) for i in range(len(lengths))]
    clips = Clips({f"v{i}": frames for i, frames in enumerate(lengths)})
    like = make_plan(make_policy(FramesSection(policy="column")), samples, clips)
    plan = make_plan(RandomMatched(like, seed), samples, clips)
    assert plan.histogram() == like.histogram()
    rows = plan.table
    assert (rows["requested"] == rows["used"]).all() and (rows["used"] <= rows["available"]).all()
    again = make_plan(RandomMatched(like, seed), samples[::-1], clips)
    assert all(again.used(s.id) == plan.used(s.id) for s in samples)


def test_random_matched_deals_uniformly_among_possible_deals():
    lengths = {"a": 2, "b": 3, "c": 4}
    samples = [video(name, column=count) for name, count in zip("abc", (1, 2, 3), strict=True)]
    clips = Clips(lengths)
    like = make_plan(make_policy(FramesSection(policy="column")), samples, clips)
    infos = [clips.info(s.media) for s in samples]
    policy = RandomMatched(like)
    deals = Counter(
        tuple(frames for frames, _ in policy.requested(samples, infos, seed)) for seed in range(800)
    )
    assert set(deals) == {(2, 3, 1), (1, 3, 2), (2, 1, 3), (1, 2, 3)}
    assert min(deals.values()) > 150 and max(deals.values()) < 250  # 200 each, four standard deviations


def test_random_matched_forgets_the_question_and_refuses_other_samples():
    samples = [video(f"v{i}", "first?" if i % 2 else "what?", skill=str(i % 2)) for i in range(2000)]
    like = make_plan(Keywords({"first": 16, "what": 2}), samples, Clips())
    plan = make_plan(RandomMatched(like), samples, Clips())
    assert like.by_skill(samples) == {"0": 2.0, "1": 16.0}
    assert all(abs(mean - 9) < 0.7 for mean in plan.by_skill(samples).values())
    assert plan.metadata["parameters"]["like"] != RandomMatched(plan).parameters()["like"]
    with pytest.raises(DataError, match="1 videos that these samples lack"):
        make_plan(RandomMatched(like), samples[1:], Clips())
    with pytest.raises(DataError, match="same files"):
        make_plan(RandomMatched(like), samples, Clips(4))


def slow_oracle(losses, epsilon):
    best = {}
    for (name, _), rows in losses.groupby(["sample_id", "question"]):
        mean = {n: sum(part["loss"]) / len(part) for n, part in rows.groupby("frames")}
        fits = [n for n in sorted(mean) if mean[n] <= mean[max(mean)] + epsilon]
        best[name] = max(best.get(name, 0), fits[0])
    return best


def test_oracle_equals_a_loop_over_samples_questions_and_seeds():
    rng = np.random.default_rng(0)
    rows = [
        (f"v{i}", f"q{q}", n, rng.exponential())
        for i in range(40)
        for q in range(2)
        for n in (2, 4, 8)
        for _ in range(3)
    ]
    losses = pd.DataFrame(rows, columns=["sample_id", "question", "frames", "loss"])
    samples = [video(f"v{i}") for i in range(40)]
    for epsilon in (0.0, 0.2, 5.0):
        plan = make_plan(Oracle(losses, epsilon), samples, Clips())
        assert {s.id: plan.used(s.id) for s in samples} == slow_oracle(losses, epsilon)


def test_oracle_falls_back_and_refuses_unmeasured_choices():
    losses = LOSSES[~((LOSSES["sample_id"] == "v2") & (LOSSES["frames"] == 8))]
    plan = make_plan(Oracle(losses, 0.0), [video(f"v{i}") for i in range(4)], Clips())
    assert plan.table["used"].tolist() == [8, 8, 2, 2]
    assert plan.reasons() == {"measured": 2, "not measured: smallest": 2}
    assert make_plan(Oracle(LOSSES, 0.0, (2, 4)), [video("v0")], Clips()).used("v0") == 4
    with pytest.raises(DataError, match="16"):
        make_plan(Oracle(LOSSES, 0.0, (2, 16)), [video("v0")], Clips())
    with pytest.raises(DataError, match="lacks loss"):
        make_plan(Oracle(LOSSES.drop(columns="loss"), 0.0), [video("v0")], Clips())


SECTIONS = {
    "fixed": {"frames": 4},
    "fps": {"rate": 1.0, "max_frames": 8},
    "column": {},
    "keywords": {"rules": {"first": 8}},
    "oracle": {"epsilon": 0.0},
    "random_matched": {"like": "hybrid"},
    "uniform_choice": {"choices": (2, 4)},
}


def context():
    samples = [video(f"v{i}", column=4) for i in range(3)]
    return {"losses": LOSSES, "like": make_plan(Fixed(4), samples, Clips())}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_policy_from_its_section(name):
    policy = make_policy(FramesSection(policy=name, **SECTIONS[name]), **context())
    samples = [video(f"v{i}", column=4) for i in range(3)]
    plan = make_plan(policy, samples, Clips())
    assert policy.name == name and set(plan.table["policy"]) == {name}
    assert (plan.table["used"] > 0).all()


@pytest.mark.parametrize("name", SECTIONS)
def test_no_policy_sees_the_truth(name):
    """Smallest counts, skills and answers shuffled: the same plan."""
    rng = np.random.default_rng(0)
    samples = [
        video(f"v{i}", "first?" if i == 1 else "?", column=4 + i, needed=n, skill=f"s{n}")
        for i, n in enumerate((2, 8, 16))
    ]
    changed = [
        replace(
            s,
            min_frames=int(rng.integers(99)),
            turns=tuple(replace(t, skill="x", answer="y", choices=("y",)) for t in s.turns),
        )
        for s in samples
    ]
    policy = make_policy(FramesSection(policy=name, **SECTIONS[name]), **context())
    pd.testing.assert_frame_equal(
        make_plan(policy, samples, Clips()).table, make_plan(policy, changed, Clips()).table
    )


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"policy": "fixed"}, "lacks `frames`"),
        ({"policy": "fixed", "frames": 4, "rate": 1.0}, "`rate` means nothing"),
        ({"policy": "fps", "rate": 1.0}, "lacks `max_frames`"),
        ({"policy": "fps", "rate": 1.0, "max_frames": 2, "min_frames": 4}, "above"),
        ({"policy": "keywords", "rules": {}}, "lacks `rules`"),
        ({"policy": "keywords", "rules": {" ": 2}}, "without a word"),
        ({"policy": "uniform_choice", "choices": ()}, "lacks `choices`"),
        ({"policy": "oracle", "epsilon": 0.1}, "no loss table"),
        ({"policy": "random_matched", "like": "hybrid"}, "no plan of the arm 'hybrid'"),
        ({"policy": "classifier"}, "no fitted classifier"),
    ],
)
def test_sections_that_do_not_fit_are_refused(section, words):
    with pytest.raises(RecipeError, match=words):
        make_policy(FramesSection(**section))


def test_recipes_accept_no_more_than_policies_do():
    """The recipe checks parameters too, with file and line; what a policy refuses must not pass it."""
    from workbench.recipe.checks import FRAME_PARAMETERS

    assert FRAME_PARAMETERS.keys() == PARAMETERS.keys()
    for name, (needed, optional) in FRAME_PARAMETERS.items():
        ours = PARAMETERS[name]
        assert set(ours[0]) <= set(needed) and set(needed + optional) <= set(ours[0] + ours[1])
