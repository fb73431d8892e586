"""Scope gates."""

import numpy as np
import pytest

from pawmatch.calibration import ScopeGate
from pawmatch.calibration.apply import scope_score
from pawmatch.calibration.scope import fit_scope_gate, fit_scope_gates


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
