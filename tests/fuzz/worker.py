"""Open the files named on standard input through the real loader, and answer each with a line of JSON.

Run by watched.py in a process of its own, so that a crash or a hang costs this process alone.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak() -> int:
    """The most memory held since the last reset, in bytes (Linux)."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def reset_peak() -> int:
    """Start counting the peak anew, and give the memory held now."""
    CLEAR.write_text("5")
    return peak()


def main() -> None:
    """Answer until the input ends."""
    from pawmatch.errors import PawMatchError
    from pawmatch.images import read_image

    for line in sys.stdin:
        idle = reset_peak()
        started, used = time.perf_counter(), time.process_time()
        answer: dict[str, object] = {"error": None, "sentence": None}
        try:
            loaded = read_image(json.loads(line))
            answer["size"] = loaded.image.size
            del loaded
        except PawMatchError as exc:
            answer |= {"error": type(exc).__name__, "sentence": str(exc)}
        except BaseException as exc:  # what must never happen is what is looked for here
            answer |= {"error": f"!{type(exc).__name__}", "sentence": str(exc)}
        answer |= {"seconds": time.perf_counter() - started, "cpu": time.process_time() - used}
        answer |= {"memory": peak() - idle, "idle": idle}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
