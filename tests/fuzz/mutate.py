"""Open thousands of damaged files in a watched process and report what became of them, as JSON.

    python -m tests.fuzz.mutate --count 6000 --folder path/to/more/files --out report.json

The same seed makes the same files. The exit code is 1 if any file crashed the process, took longer than
the limit, escaped as another error than the loader's, or failed without a proper sentence; such files
are kept in the folder given as --keep.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutations import mutate
from tests.fuzz.seeds import seeds
from tests.fuzz.watched import Outcome, WatchedLoader
from tests.support.pictures import sentence_faults

MB = 2**20


@dataclass
class Report:
    """Counts over all files tried, and the files for which something went wrong."""

    opened: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    faults: list[dict[str, str]] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    costliest: tuple[float, str] = (0.0, "")
    most_memory: tuple[int, str] = (0, "")

    def add(self, name: str, outcome: Outcome) -> bool:
        """Count one file; whether it behaved."""
        self.slowest = max(self.slowest, (outcome.seconds, name))
        self.costliest = max(self.costliest, (outcome.cpu, name))
        self.most_memory = max(self.most_memory, (outcome.memory, name))
        if outcome.error is None:
            self.opened += 1
            return True
        self.errors[outcome.error] += 1
        wrong = outcome.error in ("crash", "hang") or outcome.error.startswith("!")
        reasons = [outcome.error] if wrong else sentence_faults(outcome.sentence or "")
        if reasons:
            self.faults.append(
                {"file": name, "why": ", ".join(reasons), "said": (outcome.sentence or "")[:300]}
            )
        return not reasons

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        refused = sum(self.errors.values())
        return {
            "files": self.opened + refused,
            "opened": self.opened,
            "errors": dict(sorted(self.errors.items())),
            "crashes": self.errors["crash"],
            "hangs": self.errors["hang"],
            "slowest_seconds": round(self.slowest[0], 3),
            "slowest_file": self.slowest[1],
            "most_cpu_seconds": round(self.costliest[0], 3),
            "most_cpu_file": self.costliest[1],
            "peak_mb_above_idle": round(self.most_memory[0] / MB, 1),
            "peak_file": self.most_memory[1],
            "faults": self.faults,
        }


def run(files: dict[str, bytes], count: int, seed: int, limit: float, keep: Path | None) -> Report:
    """Open all `files` as they are, then `count` damaged ones."""
    report, rng, names = Report(), Random(seed), sorted(files)
    everything = [files[name] for name in names]
    with tempfile.TemporaryDirectory() as folder, WatchedLoader(limit=limit) as loader:
        for index in range(-len(names), count):
            name = names[index % len(names)]
            what, data = ("as it is", files[name]) if index < 0 else mutate(files[name], rng, everything)
            path = Path(folder) / f"file{Path(name).suffix}"
            path.write_bytes(data)
            behaved = report.add(f"{index}: {name}, {what}", loader.open(path))
            if not behaved and keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{index}_{name}").write_bytes(data)
    return report


def main() -> int:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="damaged files (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (%(default)s)")
    parser.add_argument("--limit", type=float, default=5.0, help="seconds that a file may take (%(default)s)")
    parser.add_argument("--folder", type=Path, action="append", default=[], help="more files to start from")
    parser.add_argument("--keep", type=Path, help="where to keep files that went wrong")
    parser.add_argument("--out", type=Path, help="where to write the report")
    options = parser.parse_args()
    files = seeds()
    for folder in options.folder:
        files |= {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    report = run(files, options.count, options.seed, options.limit, options.keep)
    text = json.dumps({"seed": options.seed, **report.to_dict()}, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
