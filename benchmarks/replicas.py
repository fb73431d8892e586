"""The model tier on a Ray Serve of this computer: its speed, and a load while one dies and models change.

Clients are threads of this process, each asking the next question as soon as the last is answered. Every
answer is compared with that of the same models in this process: all words and labels have to be the same, and
how far confidences differ is told, since models that answer several photos together round in another way.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from pawmatch.errors import PawMatchError
from pawmatch.ui.remote import Line

PORT = 8123
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Load:
    """What clients saw: seconds of each answer, failures, wrong answers, the largest difference."""

    waits: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    wrong: int = 0
    farthest: float = 0.0


def words(values: dict[str, Any]) -> Any:
    """An answer without times, numbers and the place of its weights."""
    if isinstance(values, dict):
        return {key: words(one) for key, one in values.items() if key not in ("timing_ms", "source")}
    if isinstance(values, list):
        return [words(one) for one in values]
    return None if isinstance(values, float) else values


def numbers(values: Any) -> list[float]:
    """The confidences of an answer."""
    return [one["confidence"] for one in values["predictions"] + values["variants"]]


def ask_for(seconds: float, clients: int, photos: list[bytes], task: str, wanted: list[list[Any]]) -> Load:
    """Keep so many clients asking; `wanted` has each photo's answer by each of the models that may serve."""
    load, line, end = Load(), Line(f"http://127.0.0.1:{PORT}"), time.monotonic() + seconds
    lock = threading.Lock()

    def keep_asking(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < end:
            index, started = chance.randrange(len(photos)), time.perf_counter()
            try:
                values = line.ask("predict", photos[index], task=task)
            except PawMatchError as exc:
                with lock:
                    load.failed.append(str(exc))
                continue
            waited = time.perf_counter() - started
            alike = [known[index] for known in wanted if words(known[index]) == words(values)]
            far = [
                max(abs(a - b) for a, b in zip(numbers(values), numbers(one), strict=True)) for one in alike
            ]
            with lock:
                load.waits.append(waited)
                load.wrong += not alike
                load.farthest = max(load.farthest, min(far, default=0.0))

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(keep_asking, range(clients)))
    return load


def summary(load: Load, seconds: float) -> dict[str, Any]:
    """The figures of a load."""
    cuts = statistics.quantiles(load.waits * 2, n=100, method="inclusive")  # of one answer, too
    return {
        "answers": len(load.waits),
        "a_second": round(len(load.waits) / seconds, 2),
        "mean_ms": round(1000 * statistics.fmean(load.waits), 1),
        "p50_ms": round(1000 * cuts[49], 1),
        "p95_ms": round(1000 * cuts[94], 1),
        "failed": len(load.failed),
        "reasons": sorted(set(load.failed))[:3],
        "wrong": load.wrong,
        "farthest": load.farthest,
    }


def kill_a_replica() -> int:
    """End one replica as the system would when it is out of memory."""
    import psutil

    for process in psutil.process_iter(["name", "cmdline"]):
        title = " ".join(process.info["cmdline"] or ())
        if "ServeReplica" in title and "models" in title:
            os.kill(process.pid, signal.SIGKILL)
            return int(process.pid)
    raise RuntimeError("there is no replica to end")


def main(given: list[str] | None = None) -> int:
    """Measure, print a line of JSON for each load, and write them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="breed")
    parser.add_argument("--source", default="weights/breed")
    parser.add_argument("--swap", help="weights that take their place in the load with faults")
    parser.add_argument("--photos", type=Path, default=ROOT / "examples")
    parser.add_argument("--seconds", type=float, default=5, help="of one load")
    parser.add_argument("--rounds", type=int, default=5, help="of all loads one after the other")
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[1, 16, 8], help="of each replica; 1 is one"
    )
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--faults", type=float, default=0, help="seconds of the load with faults, last")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(given)

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray import serve

    from pawmatch import load
    from pawmatch.ui.tier import build

    photos = [path.read_bytes() for path in sorted(args.photos.rglob("*.jpg"))[:32]]
    sources = [args.source, *([args.swap] if args.swap else [])]
    wanted = []
    for source in sources:
        classifier = load(args.task, source, device="cpu", engine="torch")
        wanted.append([classifier.predict(photo).to_dict() for photo in photos])
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    found: list[dict[str, Any]] = []

    def put_up(source: str, replicas: int) -> None:
        settings = {"sources": f"{args.task}={source}", "device": "cpu", "engine": "torch"}
        serve.run(build({**settings, "replicas": str(replicas)}), name="models", route_prefix="/")

    def tell(**facts: Any) -> None:
        found.append(facts)
        print(json.dumps(facts), flush=True)

    try:
        for replicas in args.replicas:
            put_up(args.source, replicas)
            ask_for(5, 4, photos, args.task, wanted)  # to warm up
            for turn, clients in product(range(args.rounds), args.clients):
                count = 1 if clients == 1 else clients * replicas
                seen = ask_for(args.seconds, count, photos, args.task, wanted)
                tell(turn=turn, replicas=replicas, clients=count, **summary(seen, args.seconds))
        if args.faults:
            with ThreadPoolExecutor(1) as beside:
                asked = beside.submit(ask_for, args.faults, 4, photos, args.task, wanted)
                time.sleep(args.faults / 5)
                killed = kill_a_replica()
                time.sleep(args.faults / 4)
                if args.swap:
                    put_up(args.swap, args.replicas[-1])
                swapped = time.monotonic()
                seen = asked.result()
                left = time.monotonic() - swapped
            after = ask_for(5, 4, photos, args.task, wanted[-1:])  # the new models alone
            tell(
                killed=killed,
                seconds_after_swap=round(left, 1),
                wrong_after=after.wrong,
                **summary(seen, args.faults),
            )
    finally:
        serve.shutdown()
        ray.shutdown()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(one["failed"] or one["wrong"] for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
