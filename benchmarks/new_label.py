"""Another label for a photo that is on the page, against the answer and the heatmaps of a new photo.

Both are what the page's events do, without the browser. A new photo is decoded, run through the models, and
its heatmaps are drawn for the first choice; another label takes the kept maps through the heads again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.side_by_side import arguments, compare
from pawmatch.settings import Settings
from pawmatch.ui.handlers import EXAMPLES, Handlers, PageState
from pawmatch.ui.inference import from_settings
from pawmatch.ui.page import drawn

PHOTO, LABEL = "a new photo", "another label"


def main() -> None:
    """Print both times and their ratio."""
    options = arguments(__doc__, rounds=15)
    options.add_argument("--task", default="breed")
    options.add_argument("--photo", type=Path, default=EXAMPLES / "beagle.jpg")
    args = options.parse_args()
    handlers = Handlers(from_settings(Settings(sources={args.task: None})))
    upload: dict[str, Any] = {"path": str(args.photo), "meta": {"_type": "gradio.FileData"}}

    def paint(state: PageState, label: str | None = None) -> PageState:
        painted, _ = handlers.paint(state, label)
        drawn(painted, "jet", 0.6, painted.photo())
        return painted

    def new_photo() -> PageState:
        return paint(handlers.look(upload, args.task))

    state = new_photo()
    others = [label for _, label in handlers.labels(args.task) if label != state.seen.prediction.top.label]

    def another_label() -> None:
        paint(state, others[0])
        others.append(others.pop(0))

    result = compare({PHOTO: new_photo, LABEL: another_label}, args.rounds)
    print(result.table(PHOTO))
    if args.json:
        result.write_json(args.json, task=args.task)


if __name__ == "__main__":
    main()
