"""Start-up: `--help`, and `python app.py` until its first answer, against importing the libraries bare.

Every run is a new Python process, so all of them pay for the same files; the first round, which reads them
from the disk, is not counted. The libraries are torch, timm and gradio.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.service import PATIENCE, ROOT, Visitor, service
from benchmarks.side_by_side import arguments, compare

PHOTO = ROOT / "examples" / "beagle.jpg"


def python(*given: str) -> None:
    """Run Python to its end."""
    subprocess.run([sys.executable, *given], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def first_answer() -> None:
    """Start the app, keep asking until it listens, and have one photo answered."""
    photo = PHOTO.read_bytes()
    with service(is_ready=False, request_log="no") as running:
        visitor = Visitor(running.address)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and running.process.poll() is None:
            try:
                reply = visitor.ask("predict", visitor.upload(photo), "breed", 5)
            except OSError:
                time.sleep(0.02)
                continue
            if reply.value:
                return
            raise RuntimeError(f"{reply.status} {reply.message}")
    raise RuntimeError("The app did not answer.")


def main(given: list[str] | None = None) -> int:
    """Measure, print, and write if asked to."""
    args = arguments(__doc__ or "", rounds=5).parse_args(given)
    peers: dict[str, Callable[[], Any]] = {
        "bare imports": lambda: python("-c", "import torch, timm, gradio"),
        "first answer": first_answer,
        "import pawmatch": lambda: python("-c", "import pawmatch"),
        "pawmatch --help": lambda: python("-m", "pawmatch", "--help"),
        "python -c pass": lambda: python("-c", "pass"),
    }
    result = compare(peers, args.rounds)
    print(result.table("bare imports"))
    print(f"first answer: {result.ratio('first answer', 'bare imports'):.2f} x bare imports (target 1.5)")
    print(f"pawmatch --help: {result.medians['pawmatch --help']:.2f} s (target 0.5)")
    if args.json:
        result.write_json(Path(args.json))
    return 0


if __name__ == "__main__":
    sys.exit(main())
