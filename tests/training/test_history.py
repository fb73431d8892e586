"""The learning curve: best epoch, early stopping, the table."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pawmatch.training.loop import (
    Epoch,
    best_epoch,
    finished,
    score,
    stopped_early,
    write_curve,
)
from pawmatch.training.recipe import Recipe


def curve(losses: Sequence[float]) -> list[Epoch]:
    return [Epoch(i + 1, 32, 1.0, loss, 0.5, 0.9, 0.4, 1.5) for i, loss in enumerate(losses)]


def recipe(patience: int) -> Recipe:
    return Recipe("r", "breed", "hybrid", epochs=6, patience=patience)


def test_the_best_epoch_is_the_first_of_the_lowest_losses() -> None:
    assert best_epoch(curve([3, 1, 2, 1])).number == 2
    assert best_epoch(curve([float("nan"), 2])).number == 2


@pytest.mark.parametrize(
    ("losses", "patience", "early"),
    [
        ([], 2, False),
        ([3, 2, 2.5], 2, False),
        ([3, 2, 2.5, 2.4], 2, True),
        ([3, 2, 2.5, 2.4], 0, False),
        ([6, 5, 4, 3, 3.5, 3.4], 2, False),  # the last epoch of all
        ([2, float("nan"), float("nan")], 2, True),
    ],
)
def test_a_run_stops_when_patience_ends(losses: list[float], patience: int, early: bool) -> None:
    history = curve(losses)
    assert stopped_early(history, recipe(patience)) == early
    assert finished(history, recipe(patience)) == (early or len(losses) == 6)


def test_scores_are_means_over_the_variants() -> None:
    targets = np.array([0, 1])
    right = np.array([[9, 0, 0], [0, 9, 0]], dtype=np.float32)
    wrong = right[::-1]
    assert score(right, targets).top1 == 1
    both = score(np.stack([right, wrong]), targets)
    assert both.top1 == 0.5
    assert both.val_loss == pytest.approx(
        (score(right, targets).val_loss + score(wrong, targets).val_loss) / 2
    )


def test_the_curve_is_a_table(tmp_path: Path) -> None:
    write_curve(curve([3, 1]), tmp_path)
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == ["1", "2"]
    assert [float(row["val_loss"]) for row in rows] == [3, 1]
