"""What a classifier makes of many files, by the same path by which it serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration.apply import scope_margin
from pawmatch.errors import PawMatchError
from pawmatch.evaluation.folders import Unreadable
from pawmatch.predict import Classifier


@dataclass(frozen=True)
class Answers:
    """What was made of N readable images, in order.

    `rows` are their positions among the files given. `logits[variant]` is (N, classes). `scope[variant]`
    (N,) is the least margin by which each image passes the variant's scope gates, negative where it does
    not; variants without gates are left out. `chosen` (N,) is the class that the classifier answers,
    `reasons` are the codes of its reasons for a review.
    """

    rows: NDArray[np.int64]
    logits: dict[str, NDArray[np.float32]]
    scope: dict[str, NDArray[np.float64]]
    chosen: NDArray[np.int64]
    reasons: tuple[tuple[str, ...], ...]
    unreadable: tuple[Unreadable, ...]

    def __len__(self) -> int:
        return len(self.rows)


def collect(classifier: Classifier, files: Iterable[Path]) -> Answers:
    """Examine every file; one that cannot be read is left out and named.

    Memory: classes x variants x 4 bytes an image; the images themselves are let go batch by batch.
    """
    rows: list[int] = []
    logits: dict[str, list[NDArray[np.float32]]] = {variant: [] for variant in classifier.variants}
    gates = {v: m.checkpoint.config.calibration.scope_gates for v, m in classifier.members.items()}
    scope: dict[str, list[float]] = {variant: [] for variant in gates if gates[variant]}
    chosen: list[int] = []
    reasons: list[tuple[str, ...]] = []
    unreadable: list[Unreadable] = []
    names: list[str] = []

    def named() -> Iterable[Path]:
        for file in files:
            names.append(str(file))
            yield file

    for row, entry in enumerate(classifier.examine_batch(named())):
        if isinstance(entry, PawMatchError):
            unreadable.append(Unreadable(names[row], entry.code, str(entry)))
            continue
        prediction = classifier.conclude(entry, top_k=1)
        rows.append(row)
        chosen.append(classifier.labels.index(prediction.top.label))
        reasons.append(tuple(reason.code for reason in prediction.review.reasons))
        for variant, values in entry.logits.items():
            logits[variant].append(values)
        for variant in scope:
            scope[variant].append(float(scope_margin(gates[variant], entry.pooled[variant])))
    classes = len(classifier.labels)
    return Answers(
        rows=np.array(rows, dtype=np.int64),
        logits={
            variant: np.array(values, dtype=np.float32).reshape(-1, classes)
            for variant, values in logits.items()
        },
        scope={variant: np.array(values) for variant, values in scope.items()},
        chosen=np.array(chosen, dtype=np.int64),
        reasons=tuple(reasons),
        unreadable=tuple(unreadable),
    )
