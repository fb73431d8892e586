"""The learning curve of a run: one Epoch per epoch, which of them is best, whether to go on."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration.apply import tempered
from pawmatch.metrics import macro_f1, negative_log_likelihood, top_k_accuracy
from pawmatch.training.recipe import Recipe

CURVE_FILE = "history.csv"


@dataclass(frozen=True)
class Scores:
    """Measures on the validation images, averaged over the variants where several train together.

    Rates are shares in [0, 1].
    """

    val_loss: float
    top1: float
    top5: float
    macro_f1: float


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. `seconds` counts training and validation; `learning_rate` is its last one."""

    number: int
    size: int
    train_loss: float
    val_loss: float
    top1: float
    top5: float
    macro_f1: float
    seconds: float
    learning_rate: float = 0.0
    skipped_steps: int = 0

    def line(self, total: int) -> str:
        """The epoch as the one line that a run prints."""
        skipped = f"  {self.skipped_steps} steps skipped" if self.skipped_steps else ""
        return (
            f"epoch {self.number:3d}/{total}  {self.size} px  loss {self.train_loss:.3f}  "
            f"val loss {self.val_loss:.3f}  top-1 {self.top1:6.1%}  top-5 {self.top5:6.1%}  "
            f"macro-F1 {self.macro_f1:6.1%}  {self.seconds:.0f} s{skipped}"
        )


def score(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> Scores:
    """Scores of logits (N, classes), or (V, N, classes) for V variants."""
    variants = logits.reshape(-1, *logits.shape[-2:])

    def mean(metric: Callable[[NDArray[np.float32]], float]) -> float:
        return float(np.mean([metric(rows) for rows in variants]))

    return Scores(
        val_loss=mean(lambda rows: negative_log_likelihood(tempered(rows, 1.0), targets)),
        top1=mean(lambda rows: top_k_accuracy(rows, targets)),
        top5=mean(lambda rows: top_k_accuracy(rows, targets, 5)),
        macro_f1=mean(lambda rows: macro_f1(rows.argmax(axis=1), targets, rows.shape[1])),
    )


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch with the lowest validation loss, the first of equals; one that is no number is no best."""
    return min(history, key=lambda epoch: math.inf if math.isnan(epoch.val_loss) else epoch.val_loss)


def stopped_early(history: Sequence[Epoch], recipe: Recipe) -> bool:
    """Whether the validation loss has not fallen for as many epochs as the recipe's patience."""
    waited = len(history) - best_epoch(history).number if history else 0
    return bool(recipe.patience) and waited >= recipe.patience and len(history) < recipe.epochs


def finished(history: Sequence[Epoch], recipe: Recipe) -> bool:
    """Whether the run has had its epochs, or has stopped early."""
    return len(history) >= recipe.epochs or stopped_early(history, recipe)


def write_curve(history: Sequence[Epoch], folder: Path) -> None:
    """Write the history as a table, one row per epoch, for whoever draws it."""
    with (folder / CURVE_FILE).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [entry.name for entry in fields(Epoch)])
        table.writeheader()
        table.writerows(asdict(epoch) for epoch in history)
