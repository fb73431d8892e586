"""Scope gates and the scrambled images that one of them learns from."""

import random

import numpy as np
import pytest

from pawmatch.calibration import ScopeGate
from pawmatch.confidence import scope_score
from pawmatch.training.data import LabelledImages
from pawmatch.training.scope import corner, fit_scope_gate, fit_scope_gates, scrambled, shuffle_tiles

NUMBERED = np.arange(24 * 36, dtype=np.int64).reshape(24, 36, 1).repeat(3, axis=2) % 251


def test_scope_gate_tells_two_kinds_apart_and_flags_the_share_asked_for() -> None:
    rng = np.random.default_rng(0)
    inside = rng.normal(size=(500, 6)).astype(np.float32)
    outside = rng.normal(size=(200, 6)).astype(np.float32)
    outside[:, 0] += 4
    held_out = rng.normal(size=(1000, 6)).astype(np.float32)
    gate = fit_scope_gate(inside, outside, held_out, flagged=0.03, fitted_on="numbers")

    def passed(rows: np.ndarray, gate: ScopeGate = gate) -> float:
        return float(np.mean([scope_score(gate, row) >= gate.threshold for row in rows]))

    assert passed(held_out) == pytest.approx(0.97, abs=0.002)
    assert passed(outside) < 0.1


@pytest.mark.parametrize(("shift", "gates", "turned_away"), [(6.0, 2, 0.03), (0.0, 1, 0.04)])
def test_a_gate_against_scrambled_images_stays_only_where_it_catches_some(
    shift: float, gates: int, turned_away: float
) -> None:
    rng = np.random.default_rng(1)
    inside, outside, pieces, held_out = (
        rng.normal(size=(size, 6)).astype(np.float32) for size in (500, 200, 400, 1000)
    )
    outside[:, 0] += 4
    pieces[:, 1] += shift
    fitted = fit_scope_gates(inside, outside, pieces, held_out)
    assert len(fitted) == gates
    scores = held_out @ np.asarray(fitted[0].weight) + fitted[0].bias
    assert (scores < fitted[0].threshold).mean() == pytest.approx(turned_away, abs=0.002)


def test_tiles_hold_the_same_pixels_elsewhere() -> None:
    image = NUMBERED.astype(np.uint8)
    mixed = shuffle_tiles(image, 3, random.Random(0))
    assert mixed.shape == image.shape
    assert not np.array_equal(mixed, image)
    assert np.array_equal(np.sort(mixed.ravel()), np.sort(image.ravel()))
    tile = image[:8, :12]
    assert any(
        np.array_equal(mixed[top : top + 8, left : left + 12], tile)
        for top in (0, 8, 16)
        for left in (0, 12, 24)
    )


def test_corners_touch_two_edges_and_are_never_empty() -> None:
    image = NUMBERED.astype(np.uint8)
    for seed in range(8):
        part = corner(image, 0.5, random.Random(seed))
        assert part.shape == (12, 18, 3)
        assert any(
            np.array_equal(part, image[r, c])
            for r in (slice(12), slice(12, 24))
            for c in (slice(18), slice(18, 36))
        )
    assert corner(image, 0.01, random.Random(0)).shape == (8, 8, 3)


def test_scrambling_is_repeatable_and_doubles() -> None:
    image = NUMBERED.astype(np.uint8)
    data = LabelledImages(("a", "b"), (image, image), (0, 1), ())
    first, again = scrambled(data), scrambled(data)
    assert len(first.images) == len(first.targets) == 4
    assert all(np.array_equal(a, b) for a, b in zip(first.images, again.images, strict=True))
