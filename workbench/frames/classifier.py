"""A small text classifier: question -> frame count. TF-IDF over words and word pairs, then logistic
regression.

Trained on question text and on labels that a model's own losses gave (``labels.py``); it has never seen an
answer, a skill or ``min_frames``. Fitting uses scikit-learn; a fitted classifier is arrays and a vocabulary,
saved without pickle.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.errors import DataError, DiskFullError, RecipeError
from workbench.frames.labels import EPSILON, TOKEN, labels_from_losses, phrasings
from workbench.frames.policies import Answers
from workbench.samples.sample import ClipInfo, Sample

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

STRENGTH = 10.0  # inverse of the L2 penalty
FOLDS = 5
FORMAT = 1


@dataclass(frozen=True, eq=False)
class FrameClassifier:
    """Predicts one of ``counts`` from a question's text.

    Attributes:
        vocabulary: V words and word pairs.
        idf_V: inverse document frequencies.
        weights_CV, bias_C: scores are ``weights_CV @ tfidf_V + bias_C``; the largest of C counts wins.
        counts: the C frame counts, ascending.
    """

    vocabulary: tuple[str, ...]
    idf_V: np.ndarray
    weights_CV: np.ndarray
    bias_C: np.ndarray
    counts: tuple[int, ...]
    _text: TfidfVectorizer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        text = _vectorizer(self.vocabulary)
        text.idf_ = self.idf_V
        object.__setattr__(self, "_text", text)

    def predict(self, questions: Sequence[str]) -> list[int | None]:
        """The count of each question; None for one without a single known word."""
        if not len(questions):
            return []
        x_NV = self._text.transform(questions)
        best = (x_NV @ self.weights_CV.T + self.bias_C).argmax(axis=1)
        known = np.diff(x_NV.indptr) > 0
        return [self.counts[c] if k else None for c, k in zip(best, known, strict=True)]

    def policy(self, choices: Sequence[int] | None = None) -> Predicted:
        """This classifier as a frame policy; ``choices``, where given, must contain every count it can
        predict.

        Raises:
            RecipeError: it predicts a count that is not among ``choices``.
        """
        strange = sorted(set(self.counts) - set(choices)) if choices is not None else []
        if strange:
            raise RecipeError(
                "use the frame policy `classifier`",
                f"the classifier predicts {strange}, `choices` are {sorted(choices or ())}",
                "Take the frame counts that the pilot measured as `choices`",
            )
        return Predicted(self)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides a prediction."""
        digest = hashlib.sha256(json.dumps([self.vocabulary, self.counts]).encode())
        for array in (self.idf_V, self.weights_CV, self.bias_C):
            # Rounded: the solver's last digits differ between machines and decide nothing.
            digest.update(np.round(array, 4).astype("<f8").tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write one ``.npz`` (arrays and JSON text, no pickle); it appears whole or not at all.

        Raises:
            DiskFullError: no space left.
        """
        path = Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        head = json.dumps({"format": FORMAT, "counts": self.counts, "vocabulary": self.vocabulary})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(file, head=np.array(head), idf=self.idf_V, weights=self.weights_CV, bias=self.bias_C)
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno == errno.ENOSPC:
                raise DiskFullError(
                    "save a frame classifier", "the disk is full", "free some space", str(path)
                ) from error
            raise
        return path

    @classmethod
    def load(cls, path: str | Path) -> FrameClassifier:
        """Read what ``save`` wrote.

        Raises:
            DataError: no such file, or one that is cut or something else.
        """
        asked, todo = "read a frame classifier", "fit it again from measured losses"
        try:
            with np.load(path, allow_pickle=False) as file:
                head = json.loads(str(file["head"]))
                arrays = (file["idf"], file["weights"], file["bias"])
        except FileNotFoundError as error:
            raise DataError(asked, "no such file", todo, str(path)) from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(asked, "the file is cut or something else", todo, str(path)) from error
        if head.get("format") != FORMAT:
            raise DataError(asked, f"not of format {FORMAT}", todo, str(path))
        return cls(tuple(head["vocabulary"]), *arrays, tuple(head["counts"]))


@dataclass(frozen=True, eq=False)
class Predicted:
    """Frame counts from a classifier; a conversation gets the largest of its questions' counts.

    A question without a known word gets the smallest count, and its reason says so.
    """

    classifier: FrameClassifier
    name: str = field(default="classifier", init=False)

    def requested(self, samples: Sequence[Sample], infos: Sequence[ClipInfo], seed: int = 0) -> Answers:
        questions = list(dict.fromkeys(turn.question for sample in samples for turn in sample.turns))
        predicted = dict(zip(questions, self.classifier.predict(questions), strict=True))
        smallest = min(self.classifier.counts)
        answers: Answers = []
        for sample in samples:
            counts = [c for turn in sample.turns if (c := predicted[turn.question]) is not None]
            answers.append((max(counts), "predicted") if counts else (smallest, "no known word: smallest"))
        return answers

    def parameters(self) -> dict[str, Any]:
        return {"classifier": self.classifier.fingerprint, "choices": list(self.classifier.counts)}


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How well a classifier predicts the labels of phrasings it was not fitted on, as shares of the
    questions.

    ``majority`` is the agreement of always saying the most frequent label: what text must beat. Agreement is
    with measured labels, noise and all; ``policy_regret`` compares with the truth where a data set knows it.
    """

    agreement: float
    too_few: float
    too_many: float
    majority: float
    n_questions: int
    n_phrasings: int


def fit_classifier(labels: pd.DataFrame) -> FrameClassifier:
    """Fit on columns ``question`` and ``frames``: deterministic, whatever else the table holds.

    Raises:
        DataError: no label, or no question with a word in it.
    """
    from sklearn.linear_model import LogisticRegression

    questions = labels["question"].astype(str).tolist()
    frames = labels["frames"].to_numpy(np.int64)
    if not any(any(c.isalnum() for c in question) for question in questions):
        raise DataError(
            "fit a frame classifier",
            f"no question with a word among {len(questions)}",
            "measure losses on real questions first",
        )
    text = _vectorizer()
    x_NV = text.fit_transform(questions)
    counts = tuple(int(count) for count in np.unique(frames))
    vocabulary = tuple(str(word) for word in text.get_feature_names_out())
    weights_CV, bias_C = np.zeros((len(counts), len(vocabulary))), np.zeros(len(counts))
    if len(counts) > 1:
        model = LogisticRegression(C=STRENGTH, max_iter=1000).fit(x_NV, frames)
        if len(counts) == 2:  # one row of weights, for the larger count
            weights_CV[1], bias_C[1] = model.coef_[0], model.intercept_[0]
        else:
            weights_CV, bias_C = model.coef_, model.intercept_
    return FrameClassifier(vocabulary, np.asarray(text.idf_), weights_CV, bias_C, counts)


def fit_from_losses(table: pd.DataFrame, epsilon: float | None = None, seed: int = 0) -> FrameClassifier:
    """From a pilot's losses to a classifier: ``labels_from_losses``, then ``fit_classifier``.

    Args:
        epsilon: tolerated excess loss in nats; None takes ``labels.EPSILON``.
    """
    return fit_classifier(labels_from_losses(table, EPSILON if epsilon is None else epsilon, seed))


def held_out_agreement(labels: pd.DataFrame) -> HeldOut:
    """Cross-validation grouped by phrasing: each question is predicted by a classifier that never saw its
    phrasing.

    Raises:
        DataError: fewer than two phrasings.
    """
    frames = labels["frames"].to_numpy(np.int64)
    predicted, common, n_groups = held_out_predictions(labels)
    return HeldOut(
        agreement=float((predicted == frames).mean()),
        too_few=float((predicted < frames).mean()),
        too_many=float((predicted > frames).mean()),
        majority=float((common == frames).mean()),
        n_questions=len(frames),
        n_phrasings=n_groups,
    )


def held_out_predictions(labels: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, int]:
    """Each question's count as a classifier predicts it that never saw its phrasing, the most frequent label of what that
    one was fitted on, and the number of phrasings.

    Raises:
        DataError: fewer than two phrasings.
    """
    from sklearn.model_selection import GroupKFold

    questions = labels["question"].astype(str).to_numpy()
    frames = labels["frames"].to_numpy(np.int64)
    groups = phrasings(questions.tolist())
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise DataError(
            "cross-validate a frame classifier", f"{n_groups} phrasing", "ask in at least two ways"
        )
    predicted = np.zeros_like(frames)
    common = np.zeros_like(frames)
    for fit, held in GroupKFold(min(FOLDS, n_groups)).split(questions, groups=groups):
        model = fit_classifier(labels.iloc[fit])
        predicted[held] = [count or min(model.counts) for count in model.predict(questions[held])]
        values, sizes = np.unique(frames[fit], return_counts=True)
        common[held] = values[sizes.argmax()]
    return predicted, common, n_groups


def _vectorizer(vocabulary: Sequence[str] | None = None) -> TfidfVectorizer:
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = None if vocabulary is None else {word: i for i, word in enumerate(vocabulary)}
    return TfidfVectorizer(ngram_range=(1, 2), token_pattern=TOKEN, vocabulary=words)
