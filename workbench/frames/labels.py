"""From measured losses to labels: how many frames does a question need, according to the model itself?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from workbench.errors import DataError

TOKEN = r"(?u)\b\w+\b"  # words of one letter and digits count
EPSILON = 0.1  # nats; see labels_from_losses
FOLDS = 5
PENALTY = 1.0  # of the ridge: each word starts from one imagined sample without excess of its own
WORDS = 2000  # the ridge keeps the most frequent words, so that its covariance stays small on real data sets
CAP_NATS = 1.0  # guessing among three answers costs 1.1: what is above is simply wrong


def excess_losses(table: pd.DataFrame, cap: float = np.inf) -> pd.DataFrame:
    """Loss at each frame count minus the loss at the largest one, in nats.

    Args:
        table: rows ``sample_id``, ``question``, ``frames``, ``loss``; repeated measurements are averaged.
        cap: larger losses count as this, in nats.

    Returns:
        One row a question asked of a sample (index ``sample_id``, ``question``), one column a frame count,
        ascending; the last column is 0. Questions not measured at every count are left out.

    Raises:
        DataError: a column is missing, or no question was measured at every count.
    """
    missing = {"sample_id", "question", "frames", "loss"} - set(table.columns)
    if missing:
        raise DataError(
            "label questions with frame counts",
            f"the loss table lacks {', '.join(sorted(missing))}",
            "measure losses with one row a sample, question and frame count",
        )
    wide = table.assign(loss=table["loss"].clip(upper=cap))
    wide = wide.groupby(["sample_id", "question", "frames"])["loss"].mean().unstack("frames")
    wide = wide.replace([np.inf, -np.inf], np.nan).dropna().sort_index(axis=1)
    if wide.empty:
        raise DataError(
            "label questions with frame counts",
            "no question was measured at every frame count",
            "measure the same samples at every count",
        )
    return wide.sub(wide.iloc[:, -1], axis=0)


def labels_from_losses(table: pd.DataFrame, epsilon: float, seed: int = 0) -> pd.DataFrame:
    """The smallest frame count whose *expected* loss is within ``epsilon`` nats of the largest count's.

    The excess loss at each count is regressed on the question's words (ridge on their presence) and predicted
    for the samples of other folds, so that no sample's own noise enters its label. Losses are capped at
    ``CAP_NATS`` first: a confidently wrong answer counts as wrong, and one outlier of eight nats does not
    decide for a whole phrasing.

    Why not label each sample by its own losses (``naive_labels``)? Every count is one more chance for noise
    to fall within ``epsilon``, and the smallest that does wins: with heavy-tailed losses a third of the
    held-out questions then get too few frames, and more data does not help (tests/frames/test_labels.py
    simulates it). Expected losses err towards too many frames while data are few, and get right with more. In
    simulations of 400 questions ``EPSILON`` did best over clean, normal and heavy-tailed losses; with
    0.05 noise itself asks for frames.

    Labels see questions and losses only; answers, skills and ``min_frames`` are not in the table.

    Args:
        table: rows ``sample_id``, ``question``, ``frames``, ``loss`` (nats), as ``excess_losses`` takes.
        epsilon: tolerated excess, in nats.
        seed: of the split into folds.

    Returns:
        Columns ``question``, ``frames``: one row a question asked of a sample.

    Raises:
        DataError: as ``excess_losses``, or no question has a word.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import Ridge

    excess = excess_losses(table, cap=CAP_NATS)
    questions = excess.index.get_level_values("question").to_numpy()
    words = CountVectorizer(binary=True, token_pattern=TOKEN, max_features=WORDS)
    try:
        x_NV = words.fit_transform(questions)  # over all folds: no loss enters, so nothing leaks
    except ValueError as error:  # scikit-learn's word for an empty vocabulary
        raise DataError(
            "label questions with frame counts",
            f"no word in any of {len(questions)} questions",
            "measure losses on real questions",
        ) from error
    y_NC = excess.to_numpy()
    predicted_NC = np.zeros_like(y_NC)
    for fit, held in _folds(len(excess), seed):
        if len(fit) < 2:
            predicted_NC[held] = y_NC[fit]
        else:
            predicted_NC[held] = Ridge(alpha=PENALTY).fit(x_NV[fit], y_NC[fit]).predict(x_NV[held])
    return _smallest(excess, predicted_NC, epsilon)


def _smallest(excess: pd.DataFrame, values_NC: np.ndarray, epsilon: float) -> pd.DataFrame:
    fits_NC = values_NC - values_NC[:, -1:] <= epsilon
    counts = excess.columns.to_numpy()[fits_NC.argmax(axis=1)].astype(np.int64)
    return pd.DataFrame({"question": excess.index.get_level_values("question").to_numpy(), "frames": counts})


def naive_labels(table: pd.DataFrame, epsilon: float) -> pd.DataFrame:
    """Each sample labelled by its own losses: the baseline that ``labels_from_losses`` is compared with."""
    excess = excess_losses(table)
    return _smallest(excess, excess.to_numpy(), epsilon)


def _folds(n: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random folds; a single sample predicts itself, because there is nobody else to ask."""
    order = np.random.default_rng(seed).permutation(n)
    if n == 1:
        yield order, order
        return
    for held in np.array_split(order, min(FOLDS, n)):
        yield np.setdiff1d(order, held), held


def phrasings(questions: Sequence[str]) -> np.ndarray:
    """Group questions that are one phrasing with other words filled in: ids ``[N]``, ascending from 0.

    Two questions of equal length that differ in one word are the same phrasing, and so are all that such
    steps connect. Groups err towards too large, which makes held-out scores err towards too low.
    """
    words = [tuple(question.lower().split()) for question in questions]
    distinct = list(dict.fromkeys(words))
    parent = {text: text for text in distinct}

    def root(text: tuple[str, ...]) -> tuple[str, ...]:
        while parent[text] != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    first: dict[tuple[str | None, ...], tuple[str, ...]] = {}
    for text in distinct:
        for i in range(len(text)):
            masked = (*text[:i], None, *text[i + 1 :])
            parent[root(text)] = root(first.setdefault(masked, text))
    ids: dict[tuple[str, ...], int] = {}
    return np.array([ids.setdefault(root(text), len(ids)) for text in words], dtype=np.int64)
