"""The pictures to click on, listed in examples/index.json."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import ImageOps

from pawmatch.images import open_image
from pawmatch.tasks import TASKS, find_task

log = logging.getLogger(__name__)

EXAMPLES = Path(__file__).parents[2] / "examples"


THUMBNAIL = 224  # pixels, twice the size on the page for sharp screens


@dataclass(frozen=True)
class Example:
    """A picture, a task it is for, and what it shows."""

    path: Path
    task: str
    alt: str

    def thumbnail(self) -> str:
        """A small square of it as a data: address: the page needs no further request to show it."""
        # The upper part: faces and horizons are there.
        square = ImageOps.fit(open_image(self.path), (THUMBNAIL, THUMBNAIL), centering=(0.5, 0.2))
        buffer = BytesIO()
        square.save(buffer, "JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def examples_for(task: str, examples: Sequence[Example]) -> list[Example]:
    """The examples that a task can answer: its own, and those of other tasks about the same subject."""
    subject = find_task(task).subject
    return [one for one in examples if one.task in TASKS and TASKS[one.task].subject == subject]


def read_examples(folder: Path) -> list[Example]:
    """The examples in a folder; none if it or its list is missing, since the page works without."""
    try:
        entries = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        examples = [Example(folder / entry["file"], entry["task"], entry["alt"]) for entry in entries]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as exc:
        log.warning("The examples cannot be read: %s", exc)
        return []
    return [example for example in examples if example.path.is_file()]
