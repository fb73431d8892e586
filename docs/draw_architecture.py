"""Draw the architecture of a bundled task's largest variant, from the model itself, as an SVG file.

PYTHONPATH=. python docs/draw_architecture.py [breed] [docs/architecture.svg]
"""

import sys
from pathlib import Path

from pawmatch.checkpoint import load_task
from pawmatch.checkpoint.architecture import draw_architecture

if __name__ == "__main__":
    task, out = (*sys.argv[1:], *("breed", "docs/architecture.svg")[len(sys.argv) - 1 :])[:2]
    Path(out).write_text(draw_architecture(load_task(None, task)[-1].config), encoding="utf-8")
