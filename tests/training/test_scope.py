"""Scope gates and the stand-ins that some of them learn from."""

import random

import numpy as np
import pytest

from pawmatch.calibration import ScopeGate
from pawmatch.confidence import scope_score
from pawmatch.training.data import LabelledImages
from pawmatch.training.scope import (
    STAND_IN_FLAGGED,
    corner,
    fit_scope_gate,
    fit_scope_gates,
    shuffle_tiles,
    stand_in_images,
)

NUMBERED = np.arange(24 * 36, dtype=np.int64).reshape(24, 36, 1).repeat(3, axis=2) % 251


def test_scope_gate_tells_two_kinds_apart_and_flags_the_share_asked_for() -> None:
    rng = np.random.default_rng(0)
    inside = rng.normal(size=(500, 6)).astype(np.float32)
    outside = rng.normal(size=(200, 6)).astype(np.float32)
    outside[:, 0] += 4
    held_out = rng.normal(size=(1000, 6)).astype(np.float32)
    gate = fit_scope_gate(inside, outside, held_out, flagged=0.03, penalty=1e-3, fitted_on="numbers")

    def passed(rows: np.ndarray, gate: ScopeGate = gate) -> float:
        return float(np.mean([scope_score(gate, row) >= gate.threshold for row in rows]))

    assert passed(held_out) == pytest.approx(0.97, abs=0.002)
    assert passed(outside) < 0.1


@pytest.mark.parametrize(
    ("corner_axis", "tile_axis", "gates", "turned_away"),
    [(1, 2, 3, 0.02), (1, 4, 2, 0.025), (3, 4, 1, 0.045)],
)
def test_a_gate_against_stand_ins_stays_only_where_it_catches_images_from_outside(
    corner_axis: int, tile_axis: int, gates: int, turned_away: float
) -> None:
    rng = np.random.default_rng(1)
    inside, outside, corners, tiles, held_out = (
        rng.normal(size=(size, 6)).astype(np.float32) for size in (500, 200, 400, 400, 1000)
    )
    outside[:, 0] += 4
    outside[:100, 1] += 4
    outside[100:, 2] += 4
    corners[:, corner_axis] += 6
    tiles[:, tile_axis] += 6
    fitted = fit_scope_gates(inside, outside, {"corners of": corners, "scrambled": tiles}, held_out)
    assert len(fitted) == gates
    assert all("400 corners of" in gate.fitted_on for gate in fitted[1:2])
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


def test_stand_ins_are_repeatable_and_one_of_each_kind_for_an_image() -> None:
    image = NUMBERED.astype(np.uint8)
    data = LabelledImages(("a", "b"), (image, image[:, ::-1]), (0, 1), ())
    first, again = stand_in_images(data), stand_in_images(data)
    assert set(first) == set(STAND_IN_FLAGGED)
    for kind, made in first.items():
        assert made.targets == data.targets
        assert all(np.array_equal(a, b) for a, b in zip(made.images, again[kind].images, strict=True))
        assert not any(np.array_equal(a, b) for a, b in zip(made.images, data.images, strict=True))
