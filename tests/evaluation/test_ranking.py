"""AUROC and rank correlation against other implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torchmetrics.functional.classification import binary_auroc

from pawmatch.metrics import auroc, rank_correlation

some = st.lists(st.integers(-4, 4), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(some, some)
def test_auroc_agrees_with_torchmetrics_and_the_definition(own: list[int], other: list[int]) -> None:
    positive, negative = np.array(own, dtype=float), np.array(other, dtype=float)
    area = auroc(positive, negative)
    pairs = np.sign(positive[:, None] - negative[None]) / 2 + 0.5
    assert area == pytest.approx(pairs.mean())
    scores = torch.sigmoid(torch.from_numpy(np.concatenate([positive, negative])))
    target = torch.tensor([1] * len(own) + [0] * len(other))
    assert area == pytest.approx(float(binary_auroc(scores, target)), abs=1e-6)


def test_auroc_of_scores_apart() -> None:
    assert auroc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert auroc(np.array([0.0]), np.array([1.0, 2.0])) == 0


def test_rank_correlation_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        one, other = rng.integers(0, 5, (8, 8)).astype(float), rng.random((8, 8))
        expected = spearmanr(one.ravel(), other.ravel()).statistic
        assert rank_correlation(one, other) == pytest.approx(expected)


def test_a_constant_map_agrees_with_none() -> None:
    assert rank_correlation(np.zeros((3, 3)), np.eye(3)) == 0
    assert rank_correlation(np.eye(3), np.eye(3) * 7) == pytest.approx(1)
