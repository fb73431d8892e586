"""The pictures to click on: drawn for this project, listed in examples/index.json."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Example:
    """A picture, the task it is for, and what it shows."""

    path: Path
    task: str
    alt: str


def read_examples(folder: Path = EXAMPLES) -> list[Example]:
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
