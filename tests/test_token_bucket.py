"""Token buckets: bursts, refills, debts, and memory that does not grow with the number of clients."""

from __future__ import annotations

import pytest

from pawmatch.ui.middleware import TokenBuckets


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_is_let_in_and_then_one_for_each_new_token(clock: Clock) -> None:
    buckets = TokenBuckets(60, 3, clock=clock)
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a") == pytest.approx(1.0)
    clock.now += 0.75
    assert buckets.take("a") == pytest.approx(0.25)  # being refused costs nothing
    clock.now += 0.25
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0
    clock.now += 3600
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, pytest.approx(1.0)]


def test_clients_do_not_pay_for_each_other(clock: Clock) -> None:
    buckets = TokenBuckets(60, 1, clock=clock)
    assert (buckets.take("a"), buckets.take("b")) == (0, 0)
    assert buckets.take("a") > 0


def test_many_photos_at_once_are_paid_off_afterwards(clock: Clock) -> None:
    buckets = TokenBuckets(60, 10, clock=clock)
    assert buckets.take("a", 1) == 0
    assert buckets.take("a", 64) == pytest.approx(1.0)  # it needs a full bucket
    clock.now += 1
    assert buckets.take("a", 64) == 0
    assert buckets.take("a", 1) == pytest.approx(55.0)
    clock.now += 55
    assert buckets.take("a", 1) == 0


def test_memory_is_bounded_and_who_keeps_asking_is_not_forgotten(clock: Clock) -> None:
    buckets = TokenBuckets(60, 1, most_clients=100, clock=clock)
    assert buckets.take("persistent") == 0
    for number in range(1000):
        buckets.take(f"client {number}")
        assert buckets.take("persistent") > 0
    assert len(buckets) == 100
