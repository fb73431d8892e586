"""Candidate sets of many images: as serving builds them, and as MAPIE does."""

from __future__ import annotations

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from sklearn.base import BaseEstimator, ClassifierMixin

from pawmatch.calibration.apply import candidate_sets
from pawmatch.calibration.fit import conformal_quantile
from tests.support.sets import candidate_set


class Lookup(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose probabilities are given: its inputs are row numbers."""

    def __init__(self, probabilities: np.ndarray) -> None:
        self.probabilities = probabilities
        self.classes_ = np.arange(probabilities.shape[1])
        self.is_fitted_ = True

    def fit(self, X: np.ndarray, y: np.ndarray) -> Lookup:
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        rows: np.ndarray = self.probabilities[np.asarray(X)[:, 0].astype(int)]
        return rows

    def predict(self, X: np.ndarray) -> np.ndarray:
        labels: np.ndarray = self.predict_proba(X).argmax(axis=1)
        return labels


def draw(seed: int, count: int, classes: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, sharpness), count)
    labels = np.array([rng.choice(classes, p=row) for row in probabilities])
    return probabilities, labels


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.9, 1.0])
def test_rows_are_those_of_serving(quantile: float) -> None:
    probabilities, _ = draw(0, 40, 6, 0.5)
    sets = candidate_sets(probabilities, quantile)
    for row, members in zip(probabilities, sets, strict=True):
        assert set(np.flatnonzero(members)) == set(candidate_set(row, quantile))


@pytest.mark.parametrize(
    ("seed", "count", "classes", "sharpness", "coverage"),
    [(1, 200, 5, 1.0, 0.9), (2, 50, 12, 0.2, 0.8), (3, 99, 3, 5.0, 0.9), (4, 400, 20, 0.05, 0.95)],
)
def test_quantile_and_sets_agree_with_mapie(
    seed: int, count: int, classes: int, sharpness: float, coverage: float
) -> None:
    probabilities, labels = draw(seed, 2 * count, classes, sharpness)
    fit, test = slice(0, count), slice(count, None)
    rows = np.arange(2 * count).reshape(-1, 1)
    peer = SplitConformalClassifier(Lookup(probabilities), coverage, conformity_score="lac", prefit=True)
    peer.conformalize(rows[fit], labels[fit])
    theirs = peer.predict_set(rows[test])[1][:, :, 0]
    quantile = conformal_quantile(probabilities[fit], labels[fit], coverage)
    ours = candidate_sets(probabilities[test], quantile)
    # Ours never leaves a set empty; the likeliest label is all that this may add.
    empty = ~theirs.any(axis=1)
    assert (ours[~empty] == theirs[~empty]).all()
    assert (ours[empty].sum(axis=1) == 1).all()


def test_too_few_images_give_every_label() -> None:
    probabilities, labels = draw(5, 5, 4, 1.0)
    assert candidate_sets(probabilities, conformal_quantile(probabilities, labels)).all()
