"""Open thousands of damaged files in a reader process and report what became of them, as JSON.

    python -m tests.fuzz.mutate --count 6000 --folder path/to/more/files

The same seed makes the same files. The exit code is 1 if any file ended the process, took longer than
the limit, escaped as another error than the loader's, or failed without a proper sentence; such files
are kept in the folder given as --keep.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from pawmatch.errors import ImageError, ReaderDied
from pawmatch.images import InputSpec, pool
from tests.fuzz.seeds import seeds
from tests.support.pictures import sentence_faults

# Values at which counts and lengths go wrong.
EDGES = (0, 1, 2, 7, 127, 128, 255, 256, 2**15 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
HEADER = 128  # bytes in which most formats say what follows
SPECS = (InputSpec(size=32),)

Mutation = Callable[[bytearray, Random, Sequence[bytes]], bytearray]


def flip_bits(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Turn over up to sixteen bits."""
    for _ in range(rng.randint(1, 16)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def truncate(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """End the file early."""
    return data[: rng.randrange(len(data))]


def splice(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Go on with the end of another file."""
    other = rng.choice(others)
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def edit_header(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Give a few bytes at the front other values."""
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(min(len(data), HEADER))] = rng.randrange(256)
    return data


def edit_length(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Put a number that is easily got wrong where a count or a length may be."""
    size = rng.choice((2, 4))
    place = rng.randrange(min(len(data), rng.choice((HEADER, len(data)))))
    value = rng.choice(EDGES) % 2 ** (8 * size)
    data[place : place + size] = value.to_bytes(size, rng.choice(("big", "little")))
    return data


def repeat_part(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Insert a part of the file again, up to a thousand times."""
    start = rng.randrange(len(data))
    part = data[start : start + rng.choice((4, 16, 64, 1024))]
    return data[:start] + part * rng.choice((1, 2, 10, 1000)) + data[start:]


def drop_part(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Leave out a part."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 4, 16, 64, 512)) :]


def blank_part(data: bytearray, rng: Random, others: Sequence[bytes]) -> bytearray:
    """Overwrite a part with zeros or ones, as a failed disk block is."""
    start = rng.randrange(len(data))
    length = min(rng.choice((1, 8, 64, 512)), len(data) - start)
    data[start : start + length] = rng.choice((b"\0", b"\xff")) * length
    return data


MUTATIONS: Sequence[Mutation] = [
    *(flip_bits, truncate, splice, edit_header, edit_length, repeat_part, drop_part, blank_part)
]


def mutate(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """The damaged file: one to four mutations, one after another."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if damaged:
            damaged = rng.choice(MUTATIONS)(damaged, rng, others)
    return bytes(damaged)


def run(files: dict[str, bytes], count: int, seed: int, keep: Path | None = None) -> dict[str, Any]:
    """Open all `files` as they are, then `count` damaged ones; counts and faults as JSON values."""
    outcomes: Counter[str] = Counter()
    faults: list[dict[str, str]] = []
    slowest, rng, names = (0.0, ""), Random(seed), sorted(files)
    with tempfile.TemporaryDirectory() as folder, pool.Readers(1) as readers:
        for index in range(-len(names), count):
            name = names[index % len(names)]
            data = files[name] if index < 0 else mutate(files[name], rng, [files[other] for other in names])
            path = Path(folder) / f"file{Path(name).suffix}"
            path.write_bytes(data)
            started = time.perf_counter()
            answer = readers(str(path), SPECS)
            slowest = max(slowest, (time.perf_counter() - started, f"{index}: {name}"))
            outcomes[type(answer).__name__] += 1
            wrong = sentence_faults(str(answer)) if isinstance(answer, ImageError) else []
            if isinstance(answer, ReaderDied):  # another error than the loader's ends the process, too
                wrong = ["crash, hang or escape"]
            if wrong:
                faults.append({"file": f"{index}: {name}", "why": ", ".join(wrong), "said": str(answer)})
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{index}_{name}").write_bytes(data)
    return {"files": sum(outcomes.values()), **outcomes, "slowest": slowest, "faults": faults}


def main() -> int:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="damaged files (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (%(default)s)")
    parser.add_argument("--limit", type=float, default=5.0, help="seconds that a file may take (%(default)s)")
    parser.add_argument("--folder", type=Path, action="append", default=[], help="more files to start from")
    parser.add_argument("--keep", type=Path, help="where to keep files that went wrong")
    options = parser.parse_args()
    pool.LONGEST_S = options.limit
    files = seeds()
    for folder in options.folder:
        files |= {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    report = run(files, options.count, options.seed, options.keep)
    print(json.dumps({"seed": options.seed, **report}, indent=1))
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
