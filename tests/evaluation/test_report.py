"""Class by class: scores and confusions."""

import numpy as np
import torch
from torchmetrics.functional.classification import (
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from pawmatch.evaluation.report import class_scores, confusions
from pawmatch.metrics import confusion_matrix

LABELS = ("a", "b", "c", "d")


def test_scores_agree_with_torchmetrics() -> None:
    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    rows = class_scores(confusion_matrix(predicted, truth, 4), LABELS)
    tensors = torch.from_numpy(predicted), torch.from_numpy(truth)
    for name, theirs in (
        ("precision", multiclass_precision),
        ("recall", multiclass_recall),
        ("f1", multiclass_f1_score),
    ):
        expected = theirs(*tensors, num_classes=4, average="none")
        np.testing.assert_allclose([getattr(row, name) for row in rows], expected, rtol=1e-6)
    assert [row.support for row in rows] == np.bincount(truth, minlength=4).tolist()


def test_what_cannot_be_divided_is_none() -> None:
    # b is never answered, c has no image, d neither.
    rows = class_scores(confusion_matrix(np.array([0, 2]), np.array([0, 1]), 4), LABELS)
    assert [(row.precision, row.recall, row.f1) for row in rows] == [
        (1.0, 1.0, 1.0),
        (None, 0.0, 0.0),
        (0.0, None, 0.0),
        (None, None, None),
    ]


def test_confusions_come_worst_first() -> None:
    matrix = np.array([[5, 2, 0, 0], [0, 1, 2, 0], [9, 0, 1, 1], [0, 0, 0, 3]])
    found = [(pair.truth, pair.answer, pair.count) for pair in confusions(matrix, LABELS)]
    # Of the two with two images, b's is the greater share of its class.
    assert found == [("c", "a", 9), ("b", "c", 2), ("a", "b", 2), ("c", "d", 1)]
    assert confusions(matrix, LABELS)[0].share == 9 / 11
    assert confusions(np.diag([3, 2, 1, 1]), LABELS) == ()
