"""How many CPU cores this process may use: what scheduler and container allow, not what is built in."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Whole cores, at least 1.

    Libraries see every core of the machine. In a container that was given two of 64, that many threads
    would stand in each other's way.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(cgroup)
    return allowed if quota is None else max(1, min(allowed, round(quota)))


def cpu_quota(cgroup: Path) -> float | None:
    """The cores that a container's limit amounts to; None without a limit (cgroup v2, then v1)."""
    try:
        if (file := cgroup / "cpu.max").is_file():
            amount, period = file.read_text(encoding="ascii").split()
        else:
            amount, period = (
                (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii")
                for name in ("quota", "period")
            )
        cores = int(amount) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # ValueError: "max", which is no limit
        return None
    return cores if cores > 0 else None
