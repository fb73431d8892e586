"""One photo, three variants, three heatmaps: milliseconds, beside another checkout of this project.

python -m benchmarks.photo [--task breed] [--engine auto] [--against ../older-checkout] [--photo FILE]

Each checkout answers in a process of its own with its own bundled weights; the two take turns in short
rounds, so that what else the machine does falls on both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
WORKER = """
import json, sys, time
from pawmatch import load
task, engine, photo, rounds = sys.argv[1:5]
classifier = load(task, engine=engine)
def once():
    explanation = classifier.explain(photo)
    return [explanation.overlays[variant] for variant in classifier.variants]
for _ in range(5):
    once()
print(json.dumps(classifier.engines), flush=True)
for line in sys.stdin:
    times = []
    for _ in range(int(rounds)):
        started = time.perf_counter()
        once()
        times.append(1000 * (time.perf_counter() - started))
    print(json.dumps(times), flush=True)
"""


def main() -> None:
    """Print the median of each checkout, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", default="breed")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--against", type=Path)
    parser.add_argument("--photo", type=Path, default=HERE / "examples" / "beagle.jpg")
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    folders = [HERE, *([args.against.resolve()] if args.against else [])]
    command = [sys.executable, "-c", WORKER, args.task, args.engine, str(args.photo.resolve()), "10"]
    workers = [
        subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for folder in folders
    ]
    times: list[list[float]] = [[] for _ in workers]
    for worker, folder in zip(workers, folders, strict=True):
        assert worker.stdout is not None
        print(folder.name, worker.stdout.readline().strip())
    for _ in range(args.rounds):
        for worker, kept in zip(workers, times, strict=True):
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
            kept += json.loads(worker.stdout.readline())
    for worker, folder, kept in zip(workers, folders, times, strict=True):
        worker.communicate()
        print(f"{folder.name}: median {statistics.median(kept):.1f} ms, fastest {min(kept):.1f} ms")
    if len(times) == 2:
        print(f"ratio of the medians: {statistics.median(times[0]) / statistics.median(times[1]):.2f}")


if __name__ == "__main__":
    main()
