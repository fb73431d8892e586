"""Does `pawmatch classify --out` lose anything when it is killed? Kills it, starts it again, compares.

    python benchmarks/kills.py --kills 50

A run over made-up images, some of them broken, is killed with SIGKILL at random moments, its own process or
the whole group with its readers, and started again by the same command, until the kills are used up; every
file that gets finished is compared with that of a run which nothing ended. Exit code 1 if one differs.

Models are loaded once for all runs, so that the kills fall into the part of a run that has something to lose.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
FORMATS = ("csv", "jsonl", "parquet")
BROKEN_EVERY = 17


def main() -> int:
    """Run the kills of every format."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="how many for each format (default: 50)")
    parser.add_argument("--images", type=int, default=200, help="how many images a run has (default: 200)")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS, help="of the results file")
    parser.add_argument("--source", help="weights (default: the bundled ones of the breeds)")
    parser.add_argument("--workers", default="1", help="processes that read images (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the images and the moments (default: 0)")
    args = parser.parse_args()
    load_once(args.source)
    chance = random.Random(args.seed)
    losses = 0
    with TemporaryDirectory() as scratch:
        make_images(Path(scratch) / "images", args.images, args.seed)
        for suffix in args.formats:
            losses += trial(Path(scratch), suffix, args, chance)
    return 1 if losses else 0


def load_once(source: str | None) -> None:
    """Load libraries and models: each run is then a fork, made before any thread was started here."""
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path.insert(0, str(ROOT))
    import torch

    torch.set_num_threads(1)
    import pyarrow.parquet  # noqa: F401

    import pawmatch.classifier as loading

    classifier = loading.load("breed", source, device="cpu", engine="torch")
    loading.load = lambda *_: classifier


def make_images(folder: Path, count: int, seed: int) -> None:
    """Small JPEG files, of which some are cut off in the middle."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(seed)
    for index in range(count):
        path = folder / f"{index:05}.jpg"
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((96, 72)).save(path)
        if index % BROKEN_EVERY == BROKEN_EVERY - 1:
            path.write_bytes(path.read_bytes()[:400])


def trial(scratch: Path, suffix: str, args: argparse.Namespace, chance: random.Random) -> int:
    """The kills of one format; gives how many finished files were not as they should be."""
    command = ["classify", str(scratch / "images"), "--workers", args.workers]
    reference = scratch / f"reference.{suffix}"
    started = time.perf_counter()
    code = wait(start([*command, "--out", str(reference)]))
    length = time.perf_counter() - started
    expected = reference.read_bytes()
    if code != 1 or not expected:
        raise SystemExit(f"The run that nothing ended gave exit code {code}, not 1.")
    print(f"{suffix}: a run takes {length:.2f} s, its file has {len(expected)} bytes", flush=True)
    kills = files = different = 0
    moments: Counter[str] = Counter()
    while kills < args.kills or files == 0:
        out = scratch / f"killed{files}.{suffix}"
        while True:
            child = start([*command, "--out", str(out)])
            if kills < args.kills:
                time.sleep(chance.uniform(0, length))
                if not ended(child):
                    moments[moment(out)] += 1
                    kill(child, group=chance.random() < 0.5)
                    kills += 1
                    continue
            wait(child)
            break
        files += 1
        different += out.read_bytes() != expected
        if left := [path.name for path in scratch.glob(f"{out.name}.*") if path.suffix != ".json"]:
            raise SystemExit(f"Left behind: {left}")
    when = ", ".join(f"{count} {name}" for name, count in moments.most_common())
    print(f"{suffix}: {kills} kills ({when}), {files} files finished, {different} differ", flush=True)
    return different


def moment(out: Path) -> str:
    """How far a run had come."""
    rows = out.with_name(f"{out.name}.rows.jsonl") if out.suffix == ".parquet" else out
    if out.with_name(f"{out.name}.part").exists():
        return "while the table was made"
    return "among rows" if rows.exists() and rows.stat().st_size else "before the first row"


def start(command: list[str]) -> int:
    """Run a command of pawmatch in a fork, in a process group of its own; gives the process's id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    from pawmatch.cli import main as pawmatch

    os._exit(pawmatch(command))


def ended(child: int) -> bool:
    """Whether the process has ended by itself; it is not collected yet."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def kill(child: int, *, group: bool) -> None:
    """End a process, or its group, in a way that it cannot notice, and wait until it is gone."""
    (os.killpg if group else os.kill)(child, signal.SIGKILL)
    os.waitpid(child, 0)


def wait(child: int) -> int:
    """The exit code of a process, once it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
