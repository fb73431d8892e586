"""How many replicas it takes, how long people wait and what it costs, by a simulation of discrete events.

A replica takes what waits, up to a batch, and is busy for `once` + `each` x photos seconds, both measured by
benchmarks.replicas: the wait of a single client is `once` + `each`, the throughput of many clients gives the
time of a full batch. Photos come at random, at so many a second or from clients who each wait for an answer.
Replicas fail at random, take their batch with them, which is asked again, and are back after a while.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import simpy

MAX_BATCH = 16  # as pawmatch.ui.inference has it
SECONDS_A_DAY = 86_400
WARM_UP = 0.1  # share of the time that is not counted
TOLERANCE = 0.15


@dataclass(frozen=True)
class System:
    """What is simulated: seconds of a batch, replicas, their failures, and where photos come from."""

    once: float
    each: float
    replicas: int
    a_second: float = 0.0  # photos, from many people; else from `clients`
    clients: int = 0
    hours_between_failures: float = 0.0  # of one replica; 0 for none
    seconds_back: float = 60.0  # until a replica that failed answers again


@dataclass(frozen=True)
class Outcome:
    """Photos a second, and milliseconds until half and 95 % of the answers were there."""

    a_second: float
    p50_ms: float
    p95_ms: float


def simulate(system: System, seconds: float, seed: int = 0) -> Outcome:
    """Run the system for so many seconds of its own time."""
    env, chance = simpy.Environment(), random.Random(seed)
    waiting: deque[tuple[float, Any]] = deque()
    idle: list[Any] = []
    waits: list[float] = []

    def ask() -> Any:
        answered = env.event()
        waiting.append((env.now, answered))
        if idle:
            idle.pop().succeed()
        return answered

    def replica() -> Generator[Any, Any, None]:
        rate = 1 / (3600 * system.hours_between_failures) if system.hours_between_failures else 0.0
        fails_at = chance.expovariate(rate) if rate else float("inf")
        while True:
            if not waiting:
                idle.append(env.event())
                yield idle[-1]
                continue
            batch = [waiting.popleft() for _ in range(min(MAX_BATCH, len(waiting)))]
            yield env.timeout(system.once + system.each * len(batch))
            if env.now >= fails_at:
                waiting.extendleft(reversed(batch))
                yield env.timeout(system.seconds_back)
                fails_at = env.now + chance.expovariate(rate)
                continue
            for asked, answered in batch:
                if asked > WARM_UP * seconds:
                    waits.append(env.now - asked)
                answered.succeed()

    def client() -> Generator[Any, Any, None]:
        while True:
            yield ask()

    def crowd() -> Generator[Any, Any, None]:
        while True:
            yield env.timeout(chance.expovariate(system.a_second))
            ask()

    for _ in range(system.replicas):
        env.process(replica())
    for _ in range(system.clients):
        env.process(client())
    if system.a_second:
        env.process(crowd())
    env.run(until=seconds)
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    return Outcome(len(waits) / (seconds * (1 - WARM_UP)), 1000 * cuts[49], 1000 * cuts[94])


def replicas_for(system: System, p95_ms: float, seconds: float) -> tuple[int, Outcome]:
    """The fewest replicas with which 95 % of the answers are there in time."""
    full = MAX_BATCH / (system.once + MAX_BATCH * system.each)
    count = max(1, int(system.a_second / full))
    while True:
        outcome = simulate(replace(system, replicas=count), seconds)
        if outcome.p95_ms <= p95_ms:
            return count, outcome
        count += 1


def fitted(measured: list[dict[str, Any]], replicas: int) -> tuple[float, float]:
    """`once` and `each` from the loads of one client and of a full batch of them."""
    alone, full = (
        next(row for row in measured if (row.get("replicas"), row["clients"]) == (replicas, clients))
        for clients in (1, MAX_BATCH)
    )
    batch, single = MAX_BATCH / full["a_second"], alone["mean_ms"] / 1000
    each = max(0.0, (batch - single) / (MAX_BATCH - 1))
    return single - each, each


def main(given: list[str] | None = None) -> int:
    """Compare with what was measured, or say what so many photos take; 1 if it is too far off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measured", type=Path, help="what benchmarks.replicas wrote, to check against")
    parser.add_argument("--once", type=float, default=0.04, help="seconds of a batch, whatever is in it")
    parser.add_argument("--each", type=float, default=0.03, help="seconds that each photo adds")
    parser.add_argument(
        "--a-day", type=float, default=1e6, help="photos a day, with a peak of three times that"
    )
    parser.add_argument("--in-all", type=float, default=1e9, help="photos to classify once, in full batches")
    parser.add_argument("--p95-ms", type=float, default=1000, help="within which 95 % of the answers come")
    parser.add_argument("--price", type=float, default=0.05, help="of a replica an hour")
    parser.add_argument("--failures", type=float, default=24, help="hours between failures of a replica")
    args = parser.parse_args(given)
    if args.measured:
        return check(json.loads(args.measured.read_text()))
    peak = System(args.once, args.each, 1, 3 * args.a_day / SECONDS_A_DAY, 0, args.failures)
    count, outcome = replicas_for(peak, args.p95_ms, 1800)
    print(
        f"{args.a_day:,.0f} photos a day, {peak.a_second:.1f} a second at the peak: {count} replicas, "
        f"p95 {outcome.p95_ms:.0f} ms, {count * 24 * args.price:.2f} a day"
    )
    batch = args.once / MAX_BATCH + args.each
    hours = args.in_all * batch / 3600
    print(f"{args.in_all:,.0f} photos once: {hours:,.0f} hours of a replica, {hours * args.price:,.0f}")
    return 0


def check(measured: list[dict[str, Any]]) -> int:
    """Print each load beside its simulation; 1 if a throughput or p95 is off by more than TOLERANCE."""
    worst = 0.0
    for row in measured:
        if "clients" not in row:
            continue
        once, each = fitted(measured, row["replicas"])
        found = simulate(System(once, each, row["replicas"], clients=row["clients"]), 600)
        off = [found.a_second / row["a_second"] - 1, found.p95_ms / row["p95_ms"] - 1]
        worst = max(worst, *map(abs, off))
        print(
            f"{row['replicas']} replicas, {row['clients']} clients: {row['a_second']:.1f} a second measured, "
            f"{found.a_second:.1f} simulated ({off[0]:+.0%}); p95 {row['p95_ms']:.0f} ms, "
            f"{found.p95_ms:.0f} ms ({off[1]:+.0%})"
        )
    return 1 if worst > TOLERANCE else 0


if __name__ == "__main__":
    sys.exit(main())
