"""The text classifier: equal to scikit-learn's pipeline, saved without pickle, blind to all but text."""

import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tests.frames.worlds import Clips, measured, video
from workbench.errors import DataError, RecipeError
from workbench.frames import (
    FrameClassifier,
    fit_classifier,
    fit_from_losses,
    held_out_agreement,
    labels_from_losses,
    make_plan,
    make_policy,
    policy_regret,
)
from workbench.frames.classifier import STRENGTH
from workbench.recipe.schema import FramesSection


@pytest.fixture(scope="module")
def labels():
    return labels_from_losses(measured(400, 0, "normal")[0], 0.1)


@pytest.mark.parametrize("keep", [(2, 4, 8, 16), (2, 16), (8,)])
def test_predictions_equal_the_pipeline_of_scikit_learn(labels, keep):
    part = labels[labels["frames"].isin(keep)]
    fresh = measured(50, 9, "normal")[0]["question"].unique().tolist()
    ours = fit_classifier(part).predict(fresh)
    if len(keep) == 1:
        assert set(ours) == {8}
        return
    text = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    theirs = make_pipeline(text, LogisticRegression(C=STRENGTH, max_iter=1000))
    assert ours == theirs.fit(part["question"], part["frames"]).predict(fresh).tolist()


def test_saved_without_pickle_and_read_back_exactly(labels, tmp_path):
    fitted = fit_classifier(labels)
    path = fitted.save(tmp_path / "deep" / "classifier.npz")
    again = FrameClassifier.load(path)
    questions = labels["question"].unique().tolist()
    assert again.predict(questions) == fitted.predict(questions)
    assert again.fingerprint == fitted.fingerprint and again.counts == fitted.counts
    np.load(path, allow_pickle=False)["head"]  # raises if any array were an object
    assert all(name.endswith(".npy") for name in zipfile.ZipFile(path).namelist())
    path.write_bytes(path.read_bytes()[:200])
    for name, words in (("deep/classifier.npz", "cut"), ("none.npz", "no such file")):
        with pytest.raises(DataError, match=words):
            FrameClassifier.load(tmp_path / name)


def test_unknown_words_get_the_smallest_count_and_are_counted(labels):
    fitted = fit_classifier(labels)
    assert fitted.predict(["zzz"]) == [None] and fitted.predict([]) == []
    samples = [video("a", "zzz?"), video("b", "how often does the light flash?"), video("c", "zzz?", "???")]
    plan = make_plan(fitted.policy(), samples, Clips())
    assert plan.table["used"].tolist() == [2, 16, 2]
    assert plan.reasons() == {"no known word: smallest": 2, "predicted": 1}


def test_a_conversation_gets_the_largest_of_its_questions(labels):
    policy = make_policy(FramesSection(policy="classifier"), classifier=fit_classifier(labels))
    samples = [video("a", "what digit is red?", "how often does the light flash?")]
    assert make_plan(policy, samples, Clips()).used("a") == 16


def test_choices_must_hold_what_is_predicted(labels):
    fitted = fit_classifier(labels)
    assert make_policy(FramesSection(policy="classifier", choices=(2, 4, 8, 16)), classifier=fitted)
    with pytest.raises(RecipeError, match="16"):
        make_policy(FramesSection(policy="classifier", choices=(2, 4, 8)), classifier=fitted)


def test_it_never_sees_the_truth():
    """min_frames shuffled in the samples, and put as a column beside the losses: not one bit changes."""
    table, truth = measured(200, 5, "normal")
    rng = np.random.default_rng(0)
    first = fit_from_losses(table)
    second = fit_from_losses(table.assign(min_frames=rng.permutation(table["frames"].to_numpy()), skill="x"))
    assert first.fingerprint == second.fingerprint
    for a, b in ((first.idf_V, second.idf_V), (first.weights_CV, second.weights_CV)):
        np.testing.assert_array_equal(a, b)
    rows = table.drop_duplicates("sample_id")
    samples = [
        video(name, question, needed=truth[name], skill=str(truth[name]))
        for name, question in zip(rows["sample_id"], rows["question"], strict=True)
    ]
    shuffled = [
        replace(s, min_frames=int(n), turns=(replace(s.turns[0], skill="?", answer="?"),))
        for s, n in zip(samples, rng.permutation(list(truth.values())), strict=True)
    ]
    one, two = (make_plan(first.policy(), part, Clips()) for part in (samples, shuffled))
    pd.testing.assert_frame_equal(one.table, two.table)
    assert one.metadata["parameters"] == two.metadata["parameters"]
    regret = policy_regret(one, samples)  # evaluation may look
    assert regret.n == 200 and regret.enough > 0.9 and regret.mean_excess < 2


def test_held_out_agreement_is_by_phrasing():
    """What only a phrasing's own words tell is unknown for a new phrasing; what shared words tell is not."""
    rows = [(f"alpha{g} w{g} {c}", 2 if g % 2 else 16) for g in range(10) for c in "pqrst" for _ in range(4)]
    private = held_out_agreement(pd.DataFrame(rows, columns=["question", "frames"]))
    assert private.n_phrasings == 10 and private.n_questions == 200
    assert private.agreement < 0.7
    assert private.agreement + private.too_few + private.too_many == pytest.approx(1)
    rows = [(f"{'slow' if f == 16 else 'still'} w{g} x{g} {c}", f) for (g, f, c) in _grid()]
    shared = held_out_agreement(pd.DataFrame(rows, columns=["question", "frames"]))
    assert shared.agreement == 1.0 > shared.majority
    with pytest.raises(DataError, match="1 phrasing"):
        held_out_agreement(pd.DataFrame({"question": ["a b", "a c"], "frames": [2, 4]}))


def _grid():
    return [(g, 16 if g % 2 else 2, c) for g in range(10) for c in "pq" for _ in range(4)]


def test_questions_without_a_word_cannot_be_fitted():
    for questions in ([], ["?!", "..."]):
        with pytest.raises(DataError, match="no question with a word"):
            fit_classifier(pd.DataFrame({"question": questions, "frames": [2] * len(questions)}))


def test_regret_by_hand():
    samples = [video("a", needed=2), video("b", needed=8), video("c", needed=4), video("d")]
    plan = make_plan(make_policy(FramesSection(policy="fixed", frames=4)), samples, Clips())
    regret = policy_regret(plan, samples)
    assert (regret.n, regret.enough) == (3, pytest.approx(2 / 3))
    assert regret.mean_excess == pytest.approx(2 / 3) and regret.mean_shortfall == pytest.approx(4 / 3)
    with pytest.raises(DataError, match="min_frames"):
        policy_regret(plan, samples[3:])
