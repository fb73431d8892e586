"""Memory: what the running app holds over the bare libraries, and whether 2,000 requests make it grow."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

from benchmarks.service import ROOT, service
from benchmarks.soak import Soak, Tally, crowd

BARE = "import torch, timm, gradio, psutil; print(psutil.Process().memory_info().rss / 2**20)"


def bare_mb() -> float:
    """Resident megabytes of a Python that has imported torch, timm and gradio, and done nothing."""
    run = subprocess.run([sys.executable, "-c", BARE], cwd=ROOT, check=True, capture_output=True, text=True)
    return float(run.stdout)


def asked(requests: int) -> Callable[[], bool]:
    """Whether so many requests have been asked for, all visitors' together."""
    numbers = count()
    return lambda: next(numbers) >= requests


def main(given: list[str] | None = None) -> int:
    """Measure, print, and write if asked to; 1 if a request went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--warm-up", type=int, default=500, help="requests before (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="visitors at a time (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write everything to this file")
    args = parser.parse_args(given)

    photos = [path.read_bytes() for path in sorted((ROOT / "examples").glob("*.jpg"))]
    tally = Tally()
    megabytes = {"bare libraries": bare_mb()}
    with service(rate_limit=0, request_log="no", device="cpu") as running:
        megabytes["ready"] = running.resident_mb()
        soak = Soak(running.address, photos, tally)
        soak.learn()
        crowd(soak, args.clients, asked(args.warm_up), seed=0)
        megabytes[f"after {args.warm_up} requests"] = before = running.resident_mb()
        crowd(soak, args.clients, asked(args.requests), seed=10_000)
        megabytes[f"after {args.requests} more"] = after = running.resident_mb()
    for name, size in megabytes.items():
        print(f"{name:24} {size:6.0f} MB, {size / megabytes['bare libraries']:.2f} x bare libraries")
    print(f"growth over {args.requests} requests: {after / before - 1:+.1%} (target under 5 %)")
    print(f"went wrong: {len(tally.problems)}", *tally.problems[:5], sep="\n")
    if args.json:
        values = {"megabytes": megabytes, "counts": tally.counts, "problems": tally.problems}
        Path(args.json).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())
