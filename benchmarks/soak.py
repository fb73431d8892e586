"""Soak: many visitors at once, with good, bad and abandoned requests, for as long as one likes.

Every good answer is compared with the answer that the same photo had alone, every bad request must get one
sentence, and every visitor who stays must get something. Memory is taken after a warm-up and at the end.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.service import ROOT, Reply, Visitor, service
from pawmatch.labels import bundled_tasks

NEAR = 1e-6  # how far a confidence may be from that of the lone answer


@dataclass
class Tally:
    """What happened; `problems` should stay empty."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str) -> None:
        """One more of a kind."""
        with self.lock:
            self.counts[kind] += 1

    def problem(self, text: str) -> None:
        """Something that must not happen."""
        with self.lock:
            self.counts["problems"] += 1
            self.problems.append(text[:300])


class Soak:
    """Visitors of one service, who know what its answers should be."""

    def __init__(self, address: str, photos: list[bytes], tally: Tally) -> None:
        self.address = address
        self.photos = photos
        self.tally = tally
        self.expected: dict[tuple[int, str], dict[str, float]] = {}

    def learn(self) -> None:
        """Ask for every photo alone, and remember the answers."""
        visitor = Visitor(self.address)
        self.expected.clear()
        for number, photo in enumerate(self.photos):
            for task in bundled_tasks():
                reply = visitor.ask("predict", visitor.upload(photo), task, 5)
                if not reply.value:
                    raise RuntimeError(f"{reply.status} {reply.message}")
                self.expected[number, task] = confidences(reply.value)
        visitor.close()

    def visit(self, seed: int, until: Callable[[], bool]) -> None:
        """One visitor's requests, until it is time to go."""
        chance = random.Random(seed)
        visitor = Visitor(self.address)
        kinds = (self.predict, self.explain, self.batch, self.bad, self.leave)
        while not until():
            kind = chance.choices(kinds, weights=(60, 10, 5, 15, 10))[0]
            self.tally.count("requests")
            try:
                kind(visitor, chance)
            except Exception as exc:  # whatever it is: this request was lost
                self.tally.problem(f"lost: {kind.__name__}: {type(exc).__name__}: {exc}")
                visitor.close()
                visitor = Visitor(self.address)
        visitor.close()

    def predict(self, visitor: Visitor, chance: random.Random) -> None:
        """A good photo."""
        number, task = chance.randrange(len(self.photos)), chance.choice(bundled_tasks())
        reply = visitor.ask("predict", visitor.upload(self.photos[number]), task, 5)
        self.judge(reply, number, task, "predict")

    def explain(self, visitor: Visitor, chance: random.Random) -> None:
        """A good photo with its heatmaps."""
        number, task = chance.randrange(len(self.photos)), chance.choice(bundled_tasks())
        reply = visitor.ask("explain", visitor.upload(self.photos[number]), task, None)
        self.judge(reply, number, task, "explain")

    def batch(self, visitor: Visitor, chance: random.Random) -> None:
        """Good photos around a bad one."""
        numbers = [chance.randrange(len(self.photos)) for _ in range(2)]
        files = [visitor.upload(self.photos[number]) for number in numbers]
        files.insert(1, visitor.upload(b"\xff\xd8\xff\xe0 no picture"))
        reply = visitor.ask("predict_batch", files, "breed", 5)
        if reply.value is None:
            self.judge(reply, numbers[0], "breed", "batch")
            return
        first, bad, last = reply.value
        if "error" not in bad:
            self.tally.problem(f"a broken photo was answered: {bad}")
        for number, found in zip(numbers, (first, last), strict=True):
            self.judge(Reply(200, found), number, "breed", "batch")

    def bad(self, visitor: Visitor, chance: random.Random) -> None:
        """A request that cannot be answered, and must be told why in one sentence."""
        broken = self.photos[0][: chance.randrange(1, 600)]
        reply = chance.choice(
            (
                lambda: visitor.ask("predict", visitor.upload(broken), "breed", 5),
                lambda: visitor.ask("predict", visitor.upload(self.photos[0]), "cat", 5),
                lambda: visitor.ask("predict", visitor.upload(self.photos[0]), "breed", 0),
                lambda: visitor.ask("explain", visitor.upload(self.photos[0]), "breed", "Wolpertinger"),
                lambda: visitor.ask("predict", None, "breed", 5),
                lambda: visitor.ask("predict", {"path": "/etc/passwd"}, "breed", 5),
            )
        )()
        if reply.is_refusal:
            self.tally.count("busy")
        elif reply.value is None and is_sentence(reply.message):
            self.tally.count("told why")
        else:
            self.tally.problem(f"bad request: {reply}")

    def leave(self, visitor: Visitor, chance: random.Random) -> None:
        """A visitor who hangs up while waiting."""
        status = visitor.leave("predict", visitor.upload(chance.choice(self.photos)), "breed", 5)
        self.tally.count("left" if status == 200 else "busy")

    def judge(self, reply: Reply, number: int, task: str, kind: str) -> None:
        """Compare an answer with the lone one."""
        if reply.is_refusal:
            self.tally.count("busy")
        elif reply.value is None:
            self.tally.problem(f"{kind} without an answer: {reply}")
        elif not alike(confidences(reply.value), self.expected[number, task]):
            self.tally.problem(f"{kind} with another answer than alone: photo {number}, {task}")
        else:
            self.tally.count(f"right: {kind}")


def confidences(answer: dict[str, Any]) -> dict[str, float]:
    """Labels in order, with their confidence."""
    return {entry["label"]: entry["confidence"] for entry in answer["predictions"]}


def alike(found: dict[str, float], expected: dict[str, float]) -> bool:
    """Whether two answers are the same; labels that are equally likely may change places."""
    return set(found) == set(expected) and all(
        abs(found[label] - confidence) <= NEAR for label, confidence in expected.items()
    )


def is_sentence(message: str | None) -> bool:
    """Whether it is one sentence without a trace of the server's inside."""
    return bool(message) and str(message).endswith((".", "?")) and "Traceback" not in str(message)


def crowd(soak: Soak, visitors: int, until: Callable[[], bool], seed: int) -> None:
    """Let so many visitors in at a time, until it is time to go."""
    with ThreadPoolExecutor(visitors) as pool:
        for done in [pool.submit(soak.visit, seed + number, until) for number in range(visitors)]:
            done.result()


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have gone by since now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def main(given: list[str] | None = None) -> int:
    """Run, print, and write if asked to; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600, help="how long (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=32, help="visitors at a time (default: %(default)s)")
    parser.add_argument("--warm-up", type=float, help="seconds before memory is first taken; default a fifth")
    parser.add_argument("--queue-size", type=int, default=16, help="places to wait (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write everything to this file")
    args = parser.parse_args(given)
    warm_up = args.seconds / 5 if args.warm_up is None else args.warm_up

    photos = [path.read_bytes() for path in sorted((ROOT / "examples").glob("*.jpg"))]
    tally = Tally()
    with service(rate_limit=0, queue_size=args.queue_size, request_log="no", device="cpu") as running:
        soak = Soak(running.address, photos, tally)
        soak.learn()
        crowd(soak, args.clients, after(warm_up), seed=0)
        before = running.resident_mb()
        crowd(soak, args.clients, after(args.seconds - warm_up), seed=10_000)
        at_end = running.resident_mb()
        is_alive = running.process.poll() is None
    growth = at_end / before - 1
    for kind, number in sorted(tally.counts.items()):
        print(f"{number:8d}  {kind}")
    print(f"memory {before:.0f} MB after {warm_up:.0f} s, {at_end:.0f} MB at the end ({growth:+.1%})")
    for problem in tally.problems[:20]:
        print(problem)
    if args.json:
        values = {"counts": tally.counts, "before_mb": before, "after_mb": at_end, "problems": tally.problems}
        Path(args.json).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 0 if is_alive and not tally.problems else 1


if __name__ == "__main__":
    sys.exit(main())
