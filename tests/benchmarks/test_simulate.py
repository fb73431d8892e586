"""The simulation of replicas against what can be computed."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("simpy")

from benchmarks.simulate import MAX_BATCH, System, fitted, replicas_for, simulate


def test_full_batches_give_the_throughput_that_follows_from_their_time() -> None:
    system = System(once=0.1, each=0.05, replicas=2, clients=2 * MAX_BATCH)
    found = simulate(system, 600)
    assert found.a_second == pytest.approx(2 * MAX_BATCH / (0.1 + 0.05 * MAX_BATCH), rel=0.02)
    assert found.p95_ms == pytest.approx(900, rel=0.01)
    alone = simulate(replace(system, clients=1), 600)
    assert alone.p50_ms == pytest.approx(150)
    loads = ({"clients": 1, "mean_ms": 150}, {"clients": MAX_BATCH, "a_second": MAX_BATCH / 0.9})
    assert fitted(*loads) == pytest.approx((0.1, 0.05))


def test_what_fails_is_asked_again_and_costs_time() -> None:
    system = System(once=0.1, each=0.05, replicas=1, clients=4, seconds_back=60)
    failing = replace(system, hours_between_failures=1 / 60)
    assert simulate(failing, 3600).a_second == pytest.approx(simulate(system, 3600).a_second / 2, rel=0.15)


def test_as_many_replicas_as_it_takes() -> None:
    system = System(once=0.0, each=0.1, replicas=1, a_second=25)
    count, outcome = replicas_for(system, 1000, 300)
    assert count >= 3  # which answer 30 a second
    assert outcome.p95_ms <= 1000 < simulate(replace(system, replicas=count - 1), 300).p95_ms
