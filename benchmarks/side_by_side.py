"""Time peers in alternation within one run, and say on what machine: the only fair comparison there is.

Seconds change from machine to machine and from one minute to the next; the ratio of two medians that were
taken in turns changes little.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pillow",
    "grad-cam",
    "openvino",
    "gradio",
    "transformers",
    "pyarrow",
)
# What decides which arithmetic a CPU does fast.
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "neon", "asimd", "bf16")


@dataclass(frozen=True)
class Result:
    """Seconds of every run of every peer, in the order in which they ran."""

    seconds: Mapping[str, tuple[float, ...]]

    @property
    def medians(self) -> dict[str, float]:
        """Median seconds of each peer."""
        return {name: statistics.median(values) for name, values in self.seconds.items()}

    def ratio(self, a: str, b: str) -> float:
        """The median of peer `a` as a multiple of that of peer `b`: below 1, `a` is faster."""
        return self.medians[a] / self.medians[b]

    def table(self, reference: str) -> str:
        """One line for each peer: median, fastest and slowest run in milliseconds, ratio to `reference`."""
        width = max(len(name) for name in self.seconds)
        lines = [f"{'':{width}}  {'median':>10} {'fastest':>10} {'slowest':>10}  times {reference}"]
        lines += [
            f"{name:{width}}  {1000 * self.medians[name]:7.1f} ms {1000 * min(values):7.1f} ms "
            f"{1000 * max(values):7.1f} ms  {self.ratio(name, reference):.2f}"
            for name, values in self.seconds.items()
        ]
        return "\n".join(lines)

    def write_json(self, path: str | Path, **facts: Any) -> None:
        """Write medians, every single time, the machine and whatever else is known to a JSON file."""
        values = {
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "medians_s": self.medians,
            "seconds": {name: list(runs) for name, runs in self.seconds.items()},
            **facts,
            "machine": machine(),
        }
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def compare(peers: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: int = 1) -> Result:
    """Run every peer once in each round, each round beginning with the next one.

    The first `warm_up` rounds are not counted. What a peer returns is let go before the next one starts.
    """
    names = list(peers)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            run = peers[name]
            started = time.perf_counter()
            run()
            elapsed = time.perf_counter() - started
            if number >= 0:
                seconds[name].append(elapsed)
    return Result({name: tuple(values) for name, values in seconds.items()})


def machine() -> dict[str, Any]:
    """The machine that measures: CPU and its flags, cores that this process may use, versions, load."""
    model, flags = cpu()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch = sys.modules.get("torch")
    return {
        "cpu": model,
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in flags],
        "cores": usable,
        "torch_threads": torch.get_num_threads() if torch else None,
        "load_average_1_min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := version_of(name))},
    }


def cpu() -> tuple[str, frozenset[str]]:
    """The CPU's name and its flags; the flags are known on Linux only."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor(), frozenset()
    entries = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    found = {key.strip().lower(): value.strip() for key, value in entries.items()}
    flags = found.get("flags") or found.get("features") or ""
    return found.get("model name") or platform.processor(), frozenset(flags.split())


def version_of(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def arguments(purpose: str, *, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has: --rounds and --json."""
    parser = argparse.ArgumentParser(
        description=purpose, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="runs of each peer (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write everything to this file")
    return parser
