"""Labels from losses: against loops, without leaks, and against labelling each sample by itself."""

import numpy as np
import pandas as pd
import pytest

from tests.frames.worlds import COUNTS, measured
from workbench.errors import DataError
from workbench.frames import fit_classifier, labels_from_losses
from workbench.frames.labels import EPSILON, excess_losses, naive_labels, phrasings


def test_excess_and_naive_labels_equal_a_loop():
    table, _ = measured(60, 0, "heavy")
    table = pd.concat([table, table.assign(loss=table["loss"] + 1)])  # a second seed, averaged
    excess = excess_losses(table, cap=2.0)
    labels = naive_labels(table, 0.2)
    for row, (name, question) in enumerate(excess.index):
        part = table[(table["sample_id"] == name) & (table["question"] == question)]
        mean = {n: np.mean([min(x, 2.0) for x in part.loc[part["frames"] == n, "loss"]]) for n in COUNTS}
        raw = {n: part.loc[part["frames"] == n, "loss"].mean() for n in COUNTS}
        np.testing.assert_allclose(excess.iloc[row], [mean[n] - mean[16] for n in COUNTS], atol=1e-12)
        assert labels["frames"][row] == next(n for n in COUNTS if raw[n] - raw[16] <= 0.2)
        assert labels["question"][row] == question


def held_out_truth(labels, seed, noise):
    """Of a classifier fitted on labels, on new questions: share right, share with too few frames."""
    table, truth = measured(400, seed, noise)
    questions = table.drop_duplicates("sample_id")
    needed = questions["sample_id"].map(truth).to_numpy()
    given = np.array(fit_classifier(labels).predict(questions["question"].tolist()))
    return float((given == needed).mean()), float((given < needed).mean())


def scores(n, noise):
    table, _ = measured(n, 1, noise)
    ours = held_out_truth(labels_from_losses(table, EPSILON), 2, noise)
    naive = held_out_truth(naive_labels(table, EPSILON), 2, noise)
    return ours, naive


def test_heavy_noise_starves_naive_labels_at_any_size_but_not_ours():
    (few_right, few_starved), (_, naive_few_starved) = scores(400, "heavy")
    (many_right, many_starved), (naive_right, naive_starved) = scores(1600, "heavy")
    assert naive_few_starved > 0.25 and naive_starved > 0.25
    assert few_starved < 0.2 and many_starved < 0.05
    assert many_right > 0.9 > 0.75 > naive_right and many_right > few_right


def test_normal_noise_is_no_trouble():
    (right, starved), (naive_right, _) = scores(1600, "normal")
    assert right > 0.93 and right > naive_right and starved < 0.03


def test_a_label_does_not_follow_its_own_sample():
    """One sample's losses, turned upside down, move its own label no more than anybody's."""
    table, _ = measured(400, 3, "normal")
    index = excess_losses(table).index
    before = labels_from_losses(table, EPSILON)
    row = int(np.flatnonzero(index.get_level_values("sample_id") == "s7")[0])
    mine = table["sample_id"] == "s7"
    changed = table.copy()
    changed.loc[mine, "loss"] = changed.loc[mine, "loss"].to_numpy()[::-1]
    after = labels_from_losses(changed, EPSILON)
    assert after["frames"][row] == before["frames"][row]


def test_labels_are_reproducible_and_independent_of_row_order():
    table, _ = measured(100, 4, "heavy")
    first = labels_from_losses(table, EPSILON)
    pd.testing.assert_frame_equal(first, labels_from_losses(table.sample(frac=1, random_state=0), EPSILON))
    assert list(first.columns) == ["question", "frames"] and len(first) == 100
    extra = table.assign(min_frames=np.random.default_rng(0).integers(1, 99, len(table)))
    pd.testing.assert_frame_equal(first, labels_from_losses(extra, EPSILON))


def test_tables_that_cannot_be_labelled_are_refused():
    table, _ = measured(20, 0, "normal")
    with pytest.raises(DataError, match="lacks loss"):
        labels_from_losses(table.drop(columns="loss"), EPSILON)
    with pytest.raises(DataError, match="every frame count"):
        labels_from_losses(table.assign(loss=np.nan), EPSILON)
    with pytest.raises(DataError, match="no word"):
        labels_from_losses(table.assign(question="?!"), EPSILON)
    gap = table[~((table["sample_id"] == "s0") & (table["frames"] == 4))]
    assert len(labels_from_losses(gap, EPSILON)) == 19
    alone = table[table["sample_id"] == "s0"]
    assert len(labels_from_losses(alone, EPSILON)) == 1


def test_phrasings_join_what_differs_in_one_word():
    questions = [
        "what digit is red?",
        "What digit is blue?",
        "which is first, red or blue?",
        "which is first, green or yellow?",
        "which is first, red or yellow?",
        "count the digits.",
    ]
    assert phrasings(questions).tolist() == [0, 0, 1, 1, 1, 2]
    assert phrasings([]).tolist() == []
