"""What do ten times as many files cost `pawmatch classify`: seconds for each image, and memory?

    python -m benchmarks.scale

Every size is a process of its own. The models are the bundled ones for paintings unless --source says
otherwise, or --small takes one with random weights that sees 64 x 64 pixels, for 10,000 files in minutes.
The files are JPEGs of 500 x 375. "peak" is the largest resident size of the command's process, "reader"
that of the largest of its reading processes (Linux only).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.folders import write_checkpoint
from benchmarks.pictures import make_photos
from benchmarks.side_by_side import machine
from pawmatch.tasks import task_names

ROOT = Path(__file__).resolve().parents[1]
# Linux counts in KiB, macOS in bytes.
UNIT = 1 if sys.platform == "darwin" else 2**10
# The peak that the system keeps for a child begins with its parent's, so readers are asked while they run.
RUN = """
import json, multiprocessing, re, resource, sys, threading, time
from pathlib import Path
from pawmatch.cli import main
from pawmatch.images.pool import NAME

def watch(peaks):
    while True:
        for child in multiprocessing.active_children():
            if child.name != NAME:
                continue
            try:
                found = re.search(r"VmHWM:\\s+(\\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
            except OSError:
                continue
            peaks.append(max(peaks.pop(), int(found[1]) if found else 0))
        time.sleep(0.2)

if __name__ == "__main__":
    peaks = [0]
    threading.Thread(target=watch, args=[peaks], daemon=True).start()
    code = main(sys.argv[1:])
    print(json.dumps([code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, *peaks]))
"""


def main() -> None:
    """Print one line for each size and the growth of memory between the last two."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--files", type=int, nargs="+", default=[100, 1000, 10_000], help="sizes of the folder"
    )
    parser.add_argument("--task", default="artist", help=f"{task_names()} (default: artist)")
    parser.add_argument("--source", help="weights (default: the bundled ones)")
    parser.add_argument("--small", action="store_true", help="a small model with random weights")
    parser.add_argument(
        "--out", default="csv", choices=["csv", "jsonl", "parquet"], help="kind of the results file"
    )
    parser.add_argument("--json", metavar="FILE", help="also write everything to this file")
    args = parser.parse_args()
    rows = []
    print("  files  s per image   peak MB  reader MB")
    for files in args.files:
        row = measure(files, args)
        rows.append(row)
        print(
            f"{files:7}  {row['seconds_per_image']:11.4f}  {row['peak_mb']:8.0f}  {row['reader_mb']:9.0f}",
            flush=True,
        )
    if len(rows) > 1:
        growth = rows[-1]["peak_mb"] / rows[-2]["peak_mb"] - 1
        print(f"peak memory from {args.files[-2]} to {args.files[-1]} files: {growth:+.1%}")
    if args.json:
        Path(args.json).write_text(json.dumps({"sizes": rows, "machine": machine()}, indent=1) + "\n")


def measure(files: int, args: argparse.Namespace) -> dict[str, float]:
    """One run in a fresh process."""
    with TemporaryDirectory() as scratch:
        make_photos(Path(scratch) / "photos", files)
        # A file, not -c: the reading processes import the main program.
        program = Path(scratch) / "run.py"
        program.write_text(RUN)
        command = [
            "classify",
            f"{scratch}/photos",
            "--task",
            args.task,
            "--out",
            f"{scratch}/rows.{args.out}",
        ]
        if args.small:
            write_checkpoint(Path(scratch) / "weights", "convnextv2_atto", 64)
            command += ["--task", "breed", "--source", f"{scratch}/weights"]
        elif args.source:
            command += ["--source", args.source]
        done = subprocess.run(
            [sys.executable, program, *command],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    code, own, reader = json.loads(done.stdout.splitlines()[-1])
    timed = re.search(r"\d+ images in ([\d.]+) s", done.stderr)
    if code != 0 or timed is None:
        raise SystemExit(f"classify gave exit code {code}: {done.stderr}")
    return {
        "files": files,
        "seconds_per_image": float(timed[1]) / files,
        "peak_mb": own * UNIT / 2**20,
        "reader_mb": reader / 2**10,
    }


if __name__ == "__main__":
    main()
