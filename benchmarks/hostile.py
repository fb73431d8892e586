"""What a stranger's config costs until it is refused or serves: time, and memory above what was in use.

Every number of the configs of two tiny checkpoints gets extreme values and values of other kinds, and some
lists get values that cancel in a sum. Linux only: the peak of memory is the system's own.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from pawmatch import load
from pawmatch.errors import PawMatchError
from tests.support.hostile import BASES, hostile_configs, write_base


def resident(kind: str) -> float:
    """Memory of this process in MB: VmRSS now, VmHWM at most since the mark was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))


def main() -> int:
    """Print how many configs were refused and served, and the dearest refusals."""
    torch.set_num_threads(1)
    ends: Counter[str] = Counter()
    refused: list[tuple[float, float, float, str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for family in BASES:
            folder = write_base(Path(scratch), family)
            load("artist", folder, engine="torch")  # imports
            for what, config in hostile_configs(folder):
                (folder / "config.json").write_bytes(config)
                Path("/proc/self/clear_refs").write_text("5")  # resets the mark
                before, clock, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
                try:
                    load("artist", folder, engine="torch")
                    ends["served"] += 1
                except PawMatchError as exc:
                    seconds, work = time.perf_counter() - clock, time.process_time() - cpu
                    refused.append((seconds, work, resident("VmHWM") - before, f"{family} {what}"))
                    ends[type(exc).__name__] += 1
    print(", ".join(f"{count} {end}" for end, count in ends.most_common()))
    for column, words in enumerate(("s", "s of the processor", "MB")):
        row = max(refused, key=lambda row: row[column])
        print(f"at most {row[column]:.2f} {words}: {row[3]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
