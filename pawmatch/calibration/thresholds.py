"""Thresholds that keep a promise: from where on answers are right often enough, and unknown ones few."""

from __future__ import annotations

import numpy as np

from pawmatch.calibration.apply import Doubles, Flags

FEWEST_KEPT = 20  # a share measured on fewer images says nothing
GRID = 400  # thresholds that are tried, evenly spaced among the images


def good_prefix(scores: Doubles, correct: Flags, target: float) -> float:
    """The lowest score at or above which answers are right at a rate of at least `target`.

    Read off the risk-coverage curve: images are sorted by score, and the longest prefix whose accuracy
    reaches the target is kept. One more wrong answer is counted than there is, as in conformal risk control
    (Angelopoulos et al. 2022, eq. 4), because the longest of many prefixes is picked for being good. 1.0
    where no prefix of FEWEST_KEPT reaches the target.
    """
    order = np.argsort(-scores, kind="stable")
    accuracy = np.cumsum(correct[order]) / (np.arange(1, len(order) + 1) + 1)
    good = np.flatnonzero(accuracy >= target)
    good = good[good >= FEWEST_KEPT - 1]
    return float(scores[order[good[-1]]]) if len(good) else 1.0


def answer_thresholds(
    own: tuple[Doubles, Doubles],
    correct: Flags,
    unknown: tuple[Doubles, Doubles],
    *,
    target: float,
    max_unknown: float,
) -> tuple[float, float] | None:
    """The thresholds of confidence and of the unknown score that leave most own answers unflagged.

    `own` are confidences and scores (N,) of the own images that nothing else flags, and `correct` whether
    their answers are right; `unknown` those (M,) of images of unknown classes that nothing else flags. Among
    pairs of thresholds at which unflagged own answers are right at a rate of `target` or more, with one more
    wrong answer than there is as in `good_prefix`, and at most `max_unknown` unknown images stay unflagged.
    None where there is no such pair, or it keeps fewer than FEWEST_KEPT.
    """
    levels = [_levels(values) for values in own]
    kept, right = (_at_or_above(own, levels, weight) for weight in (np.ones(len(correct)), correct))
    beyond = _at_or_above(unknown, levels, np.ones(len(unknown[0])))
    good = (right >= target * (kept + 1)) & (beyond <= max_unknown) & (kept >= FEWEST_KEPT)
    if not good.any():
        return None
    confidence, score = np.unravel_index(int(np.where(good, kept, -1).argmax()), kept.shape)
    return float(levels[0][confidence]), float(levels[1][score])


def _levels(values: Doubles) -> Doubles:
    """Up to GRID of the values (N,), from the least one up."""
    ordered = np.unique(values)
    places = np.linspace(0, max(len(ordered) - 1, 0), min(GRID, len(ordered))).round().astype(int)
    levels: Doubles = ordered[places]
    return levels


def _at_or_above(values: tuple[Doubles, Doubles], levels: list[Doubles], weight: Doubles | Flags) -> Doubles:
    """The summed weight of the rows at or above each pair of levels, (levels, levels)."""
    places = [
        np.searchsorted(level, value, side="right") for level, value in zip(levels, values, strict=True)
    ]
    table = np.zeros([len(level) + 1 for level in levels])
    np.add.at(table, tuple(places), weight)
    summed: Doubles = table[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]
    return summed[1:, 1:]
