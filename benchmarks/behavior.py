"""What a checkout of this project says and shows, as files that can be compared with another checkout's.

    python -m benchmarks.behavior dump CHECKOUT OUT --images photos --files 20 --maps 5
    python -m benchmarks.behavior compare OUT OTHER

A dump holds the answer to each image as JSON, heatmaps as arrays, every command's help and the description
of the Gradio API. Each is made by the checkout's own code in processes of its own, through interfaces that
do not change, so that older and newer checkouts can be dumped alike. `compare` names every difference and
gives exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
START_S = 300  # how long a service may take to start
ANSWERS = """
import json, sys
from pathlib import Path
import numpy as np
from pawmatch import load
task, engine, out, maps, *files = sys.argv[1:]
classifier = load(task, engine=engine)
for number, file in enumerate(files):
    try:
        explanation = classifier.explain(file) if number < int(maps) else None
        values = (explanation.prediction if explanation else classifier.predict(file)).to_dict()
        values.pop("timing_ms", None)
    except Exception as exc:
        explanation, values = None, {"error": getattr(exc, "code", type(exc).__name__), "message": str(exc)}
    name = f"{number:04}_{Path(file).stem}"
    (Path(out) / f"{name}.json").write_text(json.dumps(values, indent=1))
    if explanation:
        maps_of = {variant: heatmap.cam for variant, heatmap in explanation.heatmaps.items()}
        np.savez(Path(out) / f"{name}.npz", **maps_of)
"""
COMMANDS = "from pawmatch.cli import COMMANDS; print(*COMMANDS)"


def main() -> int:
    """Dump, or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = parser.add_subparsers(dest="mode", required=True)
    dumping = modes.add_parser("dump")
    dumping.add_argument("checkout", type=Path)
    dumping.add_argument("out", type=Path)
    dumping.add_argument("--images", type=Path, default=ROOT / "examples", help="folder of images")
    dumping.add_argument("--files", type=int, default=8, help="how many of them, evenly spread (default: 8)")
    dumping.add_argument("--maps", type=int, default=2, help="of how many of these, heatmaps (default: 2)")
    dumping.add_argument("--task", default="breed")
    dumping.add_argument("--engine", default="torch")
    comparing = modes.add_parser("compare")
    comparing.add_argument("one", type=Path)
    comparing.add_argument("other", type=Path)
    comparing.add_argument("--tolerance", type=float, default=1e-4, help="of numbers (default: 0.0001)")
    args = parser.parse_args()
    if args.mode == "dump":
        dump(args)
        return 0
    found = list(differences(args.one, args.other, args.tolerance))
    print("\n".join(found) or "no difference")
    return 1 if found else 0


def dump(args: argparse.Namespace) -> None:
    """Write everything of one checkout."""
    found = sorted(path.resolve() for path in args.images.rglob("*") if path.suffix.lower() in SUFFIXES)
    rows = np.unique(np.linspace(0, len(found) - 1, min(args.files, len(found))).round().astype(int))
    answers, helps = args.out / "answers", args.out / "help"
    for folder in (answers, helps):
        folder.mkdir(parents=True, exist_ok=True)
    files = [str(found[row]) for row in rows]
    python(
        args.checkout, "-c", ANSWERS, args.task, args.engine, str(answers.resolve()), str(args.maps), *files
    )
    for command in ["", *python(args.checkout, "-c", COMMANDS).split()]:
        text = python(args.checkout, "-m", "pawmatch", *command.split(), "--help")
        (helps / f"{command or 'pawmatch'}.txt").write_text(text, encoding="utf-8")
    (args.out / "api.json").write_text(json.dumps(api(args.checkout), indent=1), encoding="utf-8")


def environment(checkout: Path) -> dict[str, str]:
    """Variables under which a checkout's own code runs, and help has one width."""
    return {**os.environ, "PYTHONPATH": str(checkout.resolve()), "COLUMNS": "100"}


def python(checkout: Path, *arguments: str) -> str:
    """What a Python process of a checkout prints."""
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=checkout, env=environment(checkout), stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def api(checkout: Path) -> Any:
    """The description of the API that a checkout's service gives."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pawmatch", "serve", "--port", str(port), "--warm-up", "no"]
    service = subprocess.Popen(
        command, cwd=checkout, env=environment(checkout), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + START_S
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/gradio_api/info", timeout=60) as reply:
                    return json.loads(reply.read().replace(f"127.0.0.1:{port}".encode(), b"HOST"))
            except urllib.error.URLError:
                if service.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.5)
    finally:
        service.terminate()
        service.wait()


def differences(one: Path, other: Path, tolerance: float) -> Iterator[str]:
    """A line for each difference of two dumps."""
    own, theirs = (
        {path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (one, other)
    )
    yield from (f"{name}: in {one} only" for name in sorted(own - theirs))
    yield from (f"{name}: in {other} only" for name in sorted(theirs - own))
    for name in sorted(own & theirs):
        first, second = one / name, other / name
        if name.suffix == ".json":
            values = json.loads(first.read_text("utf-8")), json.loads(second.read_text("utf-8"))
            found = of_values(values[0], values[1], tolerance)
        elif name.suffix == ".npz":
            found = of_maps(dict(np.load(first)), dict(np.load(second)), tolerance)
        else:
            old, new = first.read_text("utf-8").splitlines(), second.read_text("utf-8").splitlines()
            changed = list(difflib.unified_diff(old, new, n=0, lineterm=""))[2:]  # without the head
            found = (line for line in changed if not line.startswith("@@"))
        yield from (f"{name}: {line}" for line in found)


def of_values(one: Any, other: Any, tolerance: float, place: str = "") -> Iterator[str]:
    """A line for each difference of two JSON values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            if key in one and key in other:
                yield from of_values(one[key], other[key], tolerance, f"{place}/{key}")
            else:
                yield f"{place}/{key} is in {'the first' if key in one else 'the second'} only"
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from of_values(first, second, tolerance, f"{place}/{index}")
    elif isinstance(one, float) and isinstance(other, float):
        if abs(one - other) > tolerance:
            yield f"{place} is {one}, then {other}"
    elif one != other:
        yield f"{place} is {one!r}, then {other!r}"


def of_maps(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> Iterator[str]:
    """A line for each variant whose maps differ."""
    for variant in sorted({*one, *other}):
        if variant not in one or variant not in other or one[variant].shape != other[variant].shape:
            yield f"{variant} has maps of other shapes"
        elif (gap := float(np.abs(one[variant] - other[variant]).max())) > tolerance:
            yield f"{variant} differs by {gap:.2g}"


if __name__ == "__main__":
    sys.exit(main())
