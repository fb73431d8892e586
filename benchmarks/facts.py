"""How much facts help where a picture leaves doubt: simulated users, right in 80 % of their answers.

python -m benchmarks.facts --task artist --data photos/ [--cache FILE]

The folder has one subfolder for each class. Whoever answers says one of the values that the table has for
the photo's true class, or, in one answer of five, any other; "not sure" where the table says nothing.
Questions are those that the page would ask, as long as it would. The weight of facts is fitted on halves of
the photos, and each photo's figures come from the half that it is not in.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration.apply import Calibration, Doubles, Flags
from pawmatch.calibration.decide import Known, judge
from pawmatch.calibration.facts import MIN_GAIN, Attribute, expected_gain, fuse
from pawmatch.calibration.measure import random_half
from pawmatch.classifier import Classifier, load
from pawmatch.errors import PawMatchError
from pawmatch.metrics import expected_calibration_error, log_losses, mean, perfect_calibration_errors
from pawmatch.training.data import list_classes

Ints = NDArray[np.int64]
RIGHT = 0.8
WEIGHTS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
USERS, ANSWERS, HALVINGS = 20, 3, 5


@dataclass(frozen=True)
class Photos:
    """What is known of N photos of classes `targets` (N,); `poor` are those that show too little."""

    known: Known
    targets: Ints
    poor: Flags

    def rows(self, rows: Ints) -> Photos:
        """The same of some of them, by their numbers."""
        known = self.known
        of_each = (known.margin, known.mass, known.score, known.doubted)
        picked: list[Any] = [None if one is None else one[rows] for one in of_each]
        part = Known(known.probabilities[rows], known.choices[:, rows], *picked)
        return Photos(part, self.targets[rows], self.poor[rows])


def look(classifier: Classifier, folder: Path, cache: Path | None) -> Photos:
    """Run the models on all photos of a folder, or read what they gave from `cache`."""
    if cache is not None and cache.exists():
        with np.load(cache) as stored:
            found: dict[str, NDArray[Any]] = dict(stored)
    else:
        columns: dict[str, list[Any]] = {}
        data = list_classes(folder)
        outputs = classifier.run_batches(file.path for file in data.files)
        for file, entry in zip(data.files, outputs, strict=True):
            if isinstance(entry, PawMatchError):
                continue
            known = classifier.know(entry)
            target = classifier.labels.index(data.labels[file.target])
            poor = classifier.to_prediction(entry).verdict.code == "poor_image"
            row = {**vars(known), "choices": known.choices.T, "targets": [target], "poor": [poor]}
            for name, value in row.items():
                if value is not None:
                    columns.setdefault(name, []).append(value)
        found = {name: np.concatenate(values) for name, values in columns.items()}
        if cache is not None:
            np.savez(cache, **found)  # type: ignore[arg-type]  # an option could have such a name
    rules = [found.get(name) for name in ("margin", "mass", "score", "doubted")]
    return Photos(Known(found["probabilities"], found["choices"].T, *rules), found["targets"], found["poor"])


def with_weight(table: Sequence[Attribute], weight: float) -> list[Attribute]:
    """The questions that are asked, with likelihoods tempered by another weight."""
    found = []
    for attribute in table:
        if attribute.asked:
            tempered = attribute.likelihood ** (weight / attribute.weight)
            found.append(replace(attribute, likelihood=tempered / tempered.sum(axis=0)))
    return found


def unsure(calibration: Calibration, photos: Photos) -> tuple[Flags, Flags]:
    """Which photos a person should check, and which of these are asked about."""
    judged = judge(calibration, photos.known)
    flagged = judged.flagged | photos.poor
    return flagged, flagged & ~judged.outside & ~judged.unknown & ~photos.poor


def answers(attribute: Attribute, targets: Ints, rng: np.random.Generator) -> Ints:
    """What users say of photos of classes (N,): a choice, or -1 where the table says nothing."""
    column = attribute.likelihood[:, targets]
    usual = column >= column.max(axis=0) - 1e-9
    wanted = np.where(rng.random(len(targets)) < RIGHT, usual, ~usual)
    said = np.where(wanted, rng.random(wanted.shape), -1).argmax(axis=0)
    return np.where(usual.all(axis=0), -1, said)


def simulate(
    calibration: Calibration, table: Sequence[Attribute], photos: Photos, seed: int
) -> list[Doubles]:
    """Probabilities (N, classes) after no answer, one and more; each photo meets one user."""
    rng = np.random.default_rng(seed)
    fused = photos.known.probabilities.copy()
    steps, done = [fused.copy()], np.zeros((len(fused), len(table)), dtype=bool)
    _, asked = unsure(calibration, photos)
    for _ in range(ANSWERS):
        gains = np.stack([expected_gain(fused, one.likelihood) for one in table], axis=1)
        gains[done] = -1
        best = np.where(asked & (gains.max(axis=1) >= MIN_GAIN), gains.argmax(axis=1), -1)
        for number, attribute in enumerate(table):
            rows = np.flatnonzero(best == number)
            said = answers(attribute, photos.targets[rows], rng)
            done[rows, number] = True
            rows, said = rows[said >= 0], said[said >= 0]
            fused[rows] = fuse(fused[rows], [attribute.likelihood[said]])
        steps.append(fused.copy())
    return steps


def fitted_weight(calibration: Calibration, table: Sequence[Attribute], photos: Photos) -> float:
    """The weight at which the log loss is lowest, over all that is said after one answer and more."""
    losses = []
    for weight in WEIGHTS:
        steps = simulate(calibration, with_weight(table, weight), photos, 0)[1:]
        losses.append(np.mean([log_losses(one, photos.targets).mean() for one in steps]))
    return WEIGHTS[int(np.argmin(losses))]


def cross_fitted(
    calibration: Calibration, table: Sequence[Attribute], photos: Photos
) -> tuple[list[Doubles], Ints, list[float]]:
    """Probabilities after no answer, one and more, whose photo each row is, and the weights, over halves.

    Each photo meets USERS users in each of HALVINGS halvings, by the weight of the half that it is not in.
    """
    rng = np.random.default_rng(0)
    steps: list[list[Doubles]] = []
    owners, weights = [], []
    for _ in range(HALVINGS):
        half = random_half(photos.targets, rng)
        for there in (half, ~half):
            rows, others = (np.repeat(np.flatnonzero(part), USERS) for part in (there, ~there))
            weights.append(fitted_weight(calibration, table, photos.rows(rows)))
            asked = photos.rows(others)
            steps.append(simulate(calibration, with_weight(table, weights[-1]), asked, len(weights)))
            owners.append(others)
    return [np.concatenate(one) for one in zip(*steps, strict=True)], np.concatenate(owners), weights


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", default="breed")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--cache", type=Path, help="a .npz file that keeps what the models gave")
    args = parser.parse_args()
    classifier = load(args.task, engine=args.engine)
    calibration = classifier.main.checkpoint.config.calibration
    photos = look(classifier, args.data, args.cache)
    flagged, asked = unsure(calibration, photos)
    doubted, sure = (photos.rows(np.flatnonzero(part)) for part in (flagged, ~flagged))
    weight = fitted_weight(
        calibration, classifier.table, doubted.rows(np.repeat(np.arange(flagged.sum()), USERS))
    )
    steps, owners, weights = cross_fitted(calibration, classifier.table, doubted)
    print(
        f"{len(flagged)} photos, {flagged.sum()} unsure, {asked.sum()} of these asked about. Weight on all: "
        f"{weight}, on halves: {np.mean(weights):.2f} ({min(weights)} to {max(weights)})."
    )
    targets, before = doubted.targets[owners], steps[0].argmax(axis=1) == doubted.targets[owners]
    unsure_ones = "right, unsure | points gained, 95 % interval | ECE, unsure | by chance"
    print(f"| answers | {unsure_ones} | right, all | ECE, all | by chance | truth in the set, unsure |")
    print(f"|{9 * '---|'}")
    times = USERS * HALVINGS
    known = sure.known.probabilities
    for count, fused in enumerate(steps):
        cells = [str(count)]
        for rows, truth in (
            (fused, targets),
            (
                np.concatenate([fused, np.repeat(known, times, 0)]),
                np.concatenate([targets, np.repeat(sure.targets, times)]),
            ),
        ):
            confidence, right = rows.max(axis=1), rows.argmax(axis=1) == truth
            error = expected_calibration_error(confidence, right)
            chance = perfect_calibration_errors(confidence[::times]).mean()
            cells += [f"{100 * right.mean():.1f} %", f"{error:.3f}", f"{chance:.3f}"]
        gains = np.bincount(owners, (fused.argmax(axis=1) == targets) * 1.0 - before) / times
        gain = mean(100 * gains)
        cells.insert(2, f"{gain.value:.1f}, {gain.low:.1f} to {gain.high:.1f}")
        sets = judge(calibration, replace(doubted.rows(owners).known, probabilities=fused)).sets
        cells.append(f"{100 * sets[np.arange(len(targets)), targets].mean():.1f} %")
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
