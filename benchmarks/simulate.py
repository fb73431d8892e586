"""How many replicas it takes, how long people wait and what it costs, by a simulation of discrete events.

A replica takes what waits, up to a batch, and is busy for `once` + `each` x photos seconds, both measured by
benchmarks.replicas: the wait of a single client is `once` + `each`, the throughput of many clients gives the
time of a full batch. Photos come at random, at so many a second or from clients who each wait for an answer.
Replicas fail at random, take their batch with them, which is asked again, and are back after a while.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import simpy

MAX_BATCH = 16  # as pawmatch.ui.inference has it
SECONDS_A_DAY = 86_400
WARM_UP = 0.1  # share of the time that is not counted
TOLERANCE = 0.15
REPEATS = 3
SPREAD = 0.3  # of a batch's time, as measured
NORMAL_95 = 1.645  # standard deviations that 95 % lie below


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
    spread: float = 0.0  # of a batch's time: standard deviation of its logarithm


@dataclass(frozen=True)
class Outcome:
    """Photos a second, and milliseconds until half and 95 % of the answers were there."""

    a_second: float
    p50_ms: float
    p95_ms: float


@dataclass
class Line:
    """The questions of one replica."""

    waiting: deque[tuple[float, Any]] = field(default_factory=deque)
    busy: int = 0
    idle: Any = None  # the event that wakes it
    down: bool = False


def simulate(system: System, seconds: float, seed: int = 0) -> Outcome:
    """Run the system for so many seconds of its own time."""
    env, chance = simpy.Environment(), random.Random(seed)
    lines = [Line() for _ in range(system.replicas)]
    waits: list[float] = []

    def join(asked: float, answered: Any) -> None:
        # To the one of two with fewer questions, as Ray Serve sends them; one that is down has none to offer.
        up = [line for line in lines if not line.down] or lines
        line = min(chance.sample(up, min(2, len(up))), key=lambda one: one.busy + len(one.waiting))
        line.waiting.append((asked, answered))
        if line.idle is not None:
            line.idle, idle = None, line.idle
            idle.succeed()

    def ask() -> Any:
        answered = env.event()
        join(env.now, answered)
        return answered

    def replica(line: Line) -> Generator[Any, Any, None]:
        rate = 1 / (3600 * system.hours_between_failures) if system.hours_between_failures else 0.0
        fails_at = chance.expovariate(rate) if rate else float("inf")
        while True:
            if not line.waiting:
                line.busy, line.idle = 0, env.event()
                yield line.idle
                continue
            batch = [line.waiting.popleft() for _ in range(min(MAX_BATCH, len(line.waiting)))]
            line.busy = len(batch)
            noise = chance.lognormvariate(-(system.spread**2) / 2, system.spread)  # 1 on average
            yield env.timeout((system.once + system.each * len(batch)) * noise)
            if env.now >= fails_at:
                line.down, lost = True, [*batch, *line.waiting]
                line.waiting.clear()
                for asked, answered in lost:
                    join(asked, answered)
                yield env.timeout(system.seconds_back)
                line.down, fails_at = False, env.now + chance.expovariate(rate)
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

    for line in lines:
        env.process(replica(line))
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


def fitted(alone: dict[str, Any], full: dict[str, Any]) -> tuple[float, float]:
    """`once` and `each` from the load of one client and that of a full batch of them for each replica."""
    batch, single = full["clients"] / full["a_second"], alone["mean_ms"] / 1000
    each = max(0.0, (batch - single) / (MAX_BATCH - 1))
    return max(0.0, single - each), each


def seconds_of(task: str, engine: str) -> tuple[float, float]:
    """`once` and `each` of a task's bundled weights: seconds of one core, whoever else uses this computer."""
    from pawmatch import load

    classifier = load(task, device="cpu", engine=engine)
    paths = sorted((Path(__file__).parents[1] / "examples").glob("*.jpg"))
    started = time.process_time()
    prepared = [classifier.prepare(paths[number % len(paths)]) for number in range(MAX_BATCH)]
    decoding = (time.process_time() - started) / MAX_BATCH
    spent = {}
    for count in (1, MAX_BATCH):
        classifier.run_models(prepared[:count])
        started = time.process_time()
        for _ in range(REPEATS):
            classifier.run_models(prepared[:count])
        spent[count] = (time.process_time() - started) / REPEATS
    each = (spent[MAX_BATCH] - spent[1]) / (MAX_BATCH - 1)
    return max(0.0, spent[1] - each), each + decoding


def main(given: list[str] | None = None) -> int:
    """Compare with what was measured, or say what so many photos take; 1 if it is too far off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measured", type=Path, help="what benchmarks.replicas wrote, to check against")
    parser.add_argument("--task", default="breed", help="whose seconds are measured first")
    parser.add_argument("--engine", default="torch", help="what runs the models (default: torch)")
    parser.add_argument("--once", type=float, help="seconds of a batch; measured if left out")
    parser.add_argument("--each", type=float, default=0.0, help="seconds that each photo adds")
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
    if args.once is None:
        args.once, args.each = seconds_of(args.task, args.engine)
        cost = f"{args.once:.4f} s of a core a batch and {args.each:.4f} s a photo"
        print(f"{args.task}, {args.engine}: {cost}")
    rate = 3 * args.a_day / SECONDS_A_DAY
    peak = System(args.once, args.each, 1, rate, hours_between_failures=args.failures, spread=SPREAD)
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
    """Print measured loads beside simulated ones; 1 if a median is off by more than TOLERANCE.

    Each round is fitted by its own loads of one client and of full batches, since a shared computer is not as
    fast in one minute as in the next.
    """
    ratios: dict[tuple[int, int], list[tuple[float, ...]]] = {}
    rounds = sorted({(row["replicas"], row["turn"]) for row in measured if "turn" in row})
    for replicas, turn in rounds:
        rows = [row for row in measured if (row.get("replicas"), row.get("turn")) == (replicas, turn)]
        loads = {row["clients"]: row for row in rows}
        full = loads.pop(MAX_BATCH * replicas)
        spread = math.log(full["p95_ms"] / full["p50_ms"]) / NORMAL_95
        once, each = fitted(loads.pop(1), full)
        for clients, row in loads.items():
            system = System(once, each, replicas, clients=clients, spread=spread)
            found = vars(simulate(system, 600))
            off = tuple(value / row[name] for name, value in found.items())
            ratios.setdefault((replicas, clients), []).append(off)
    worst = 0.0
    for (replicas, clients), found_off in ratios.items():
        medians = [statistics.median(values) - 1 for values in zip(*found_off, strict=True)]
        worst = max(worst, *map(abs, medians))
        told = "photos a second {:+.0%}, p50 {:+.0%}, p95 {:+.0%}".format(*medians)
        print(f"{replicas} replicas, {clients} clients, {len(found_off)} rounds: {told} beside the measured")
    return 1 if worst > TOLERANCE else 0


if __name__ == "__main__":
    sys.exit(main())
