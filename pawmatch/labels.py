"""What tasks, variants, color maps and classes are called, and how to find one by what somebody types.

Nothing here knows a task: its words stand in its checkpoint's config.json, or in pawmatch/labels/.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pawmatch.errors import BadOption, UnknownLabel, UnknownTask
from pawmatch.phrasing import listed
from pawmatch.results import Prediction, Task

ENGLISH = "en"
CONFIG = "config.json"
BUNDLED = "weights"  # the folder of the bundled weights, in a source
BACKBONES = "backbone"  # the folder among the bundled weights that is no task
MAX_CONFIG = 16_000_000  # bytes
SUGGESTIONS = 3
_LONGEST_SHOWN = 60  # characters; no name is longer, and what was typed is repeated in the message

# From the plain one to the one with everything, the order in which they are shown. MFE stands for
# morphological feature extractor.
VARIANT_NAMES: dict[str, str] = {
    "cnn": "CNN",
    "cnn_transformer": "CNN + Transformer",
    "cnn_transformer_mfe": "CNN + Transformer + MFE",
}
# Color maps of heatmaps, by OpenCV's names, and what people read. "jet" is what users of heatmaps know; the
# other two read alike for color-blind eyes and in gray print.
COLORMAPS = {"jet": "Red is high", "cividis": "Cividis", "viridis": "Viridis"}


# --- tasks


def bundled_weights() -> Path:
    """The folder of the bundled weights: PAWMATCH_WEIGHTS if set, else the project's own.

    That is inside of the package where it was installed from a wheel, and beside it in a checkout.
    """
    if given := os.environ.get("PAWMATCH_WEIGHTS"):
        return Path(given)
    installed = Path(__file__).parent / "weights"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "weights"


def bundled_tasks() -> tuple[str, ...]:
    """The names of the tasks that have weights in the bundled folder; all known ones if it has none."""
    root, known = bundled_weights(), known_tasks()
    found = {path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/{CONFIG}")}
    names = {path.relative_to(root).parts[0] for path in found} - {BACKBONES}
    place = {name: index for index, name in enumerate(known)}
    return tuple(sorted(names, key=lambda name: (place.get(name, len(place)), name)) or known)


def find_task(name: str, offered: Mapping[str, Task] | None = None) -> Task:
    """The task of that name among those offered, by default the bundled ones, with all its words.

    Raises UnknownTask, which lists the names that there are.
    """
    names = bundled_tasks() if offered is None else tuple(offered)
    if isinstance(name, str) and name in names:
        return task_of(name) if offered is None else offered[name]
    raise UnknownTask(f"Task {str(name)[:40]!r} is unknown; use {listed(names)}.")


def task_of(name: str, source: str | Path | None = None) -> Task:
    """The words of a task, as the checkpoint at `source` has them: a folder, or None for the bundled one.

    No weights are read. Where there is no such config, as at a place that is still to be fetched, the words
    are those of `new_task`; a config that is malformed is for the loader to judge.
    """
    for values in local_configs(name, source):
        try:
            words = values["task"]
            return Task(**{**words, "examples": tuple(words.get("examples", ()))})
        except (LookupError, TypeError, AttributeError):
            continue
    return new_task(name)


def local_configs(task: str, source: str | Path | None) -> Iterator[dict[str, Any]]:
    """What each config.json says that may be the task's at a source on this computer, unchecked."""
    root = bundled_weights() / task if source is None else local_folder(source)
    for folder in (root, root / task):
        if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises for some
            continue
        for path in (folder / CONFIG, *sorted(folder.glob(f"*/{CONFIG}"))):
            try:
                values = json.loads(path.read_bytes()) if path.stat().st_size <= MAX_CONFIG else None
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(values, dict):
                yield values


def local_folder(source: str | Path) -> Path:
    """The folder that a source names: as a path, or within the bundled weights from any directory."""
    path = Path(source).expanduser()
    if path.parts[:1] == (BUNDLED,) and not os.path.exists(path):  # noqa: PTH110 - never raises
        return bundled_weights().joinpath(*path.parts[1:])
    return path


def new_task(name: str) -> Task:
    """The task of that name for a new checkpoint; one that is not in the data gets general words."""
    if name in _known():
        return Task(name=name, **_known()[name])
    title = name.replace("_", " ").replace("-", " ").capitalize()
    return Task(name, title, "picture", "class", "classes")


def known_tasks() -> tuple[str, ...]:
    """The names of the tasks in the data, the original system's first."""
    return tuple(_known())


def words_of(prediction: Prediction) -> Task:
    """The words of a prediction's task."""
    return prediction.words or new_task(prediction.task)


@cache
def _known() -> dict[str, dict[str, Any]]:
    """The words of the tasks in the data, by name."""
    return tomllib.loads((files("pawmatch") / "labels" / "tasks.toml").read_text(encoding="utf-8"))


# --- classes


@cache
def read_labels(name: str) -> tuple[str, ...]:
    """Labels in the order of a classifier's outputs; `name` is that of a list in pawmatch/labels/."""
    lists = {
        entry.name.removesuffix(".txt"): entry
        for entry in (files("pawmatch") / "labels").iterdir()
        if entry.name.endswith(".txt")
    }
    if name not in lists:
        raise BadOption(f"Label list {name[:40]!r} is unknown; use one of {', '.join(sorted(lists))}.")
    return tuple(lists[name].read_text(encoding="utf-8").split())


@cache
def display_names() -> dict[str, str]:
    """The labels that people write otherwise, with what they call them."""
    names = tomllib.loads((files("pawmatch") / "labels" / "names.toml").read_text(encoding="utf-8"))
    return {label: str(name) for label, name in names.items()}


def display_name(label: str, language: str = ENGLISH) -> str:
    """What people call the class: "Great_Dane" -> "Great Dane", in German -> "Deutsche Dogge".

    A class that has no name in the language has the English one.
    """
    if name := translated("classes", language).get(label):
        return name
    return display_names().get(label) or label.replace("_", " ").strip()


@cache
def translated(kind: str, language: str) -> Mapping[str, str]:
    """The names in a language, of `classes` by label, of `kinds` of them or of what is seen in their place.

    What is seen, `looks`, goes by the numbers of ImageNet classes: "281-285". There are none in English.
    """
    if language == ENGLISH:
        return {}
    table = tomllib.loads((files("pawmatch") / "labels" / "translations.toml").read_text(encoding="utf-8"))
    place = table["languages"].index(language)
    return {name: names[place] for name, names in table[kind].items()}


def find_label(labels: Sequence[str], text: str) -> str:
    """The label that `text` means: a label or a display name, whatever its case, accents and separators.

    Raises UnknownLabel, which names up to three classes that are spelt alike.
    """
    known = _spellings(tuple(labels))
    wanted = spelling_key(text)
    if wanted in known:
        return known[wanted]
    names = [display_name(known[key]) for key in _alike(wanted, known)]
    suggested = list(dict.fromkeys(names))[:SUGGESTIONS]
    shown = repr(text.strip()[:_LONGEST_SHOWN])
    if not suggested:
        example = f", such as {display_name(labels[0])}" if labels else ""
        raise UnknownLabel(f"{shown} is not among the {len(labels)} classes; use one of them{example}.")
    raise UnknownLabel(f"{shown} is not among the {len(labels)} classes; did you mean {listed(suggested)}?")


@cache
def _spellings(labels: tuple[str, ...]) -> dict[str, str]:
    """Spelling key -> label; labels come last, so that one spelt like another's display name means itself."""
    shown = {spelling_key(display_name(label)): label for label in labels}
    return shown | {spelling_key(label): label for label in labels}


def _alike(wanted: str, known: Iterable[str]) -> list[str]:
    """First the keys that hold the wanted one whole ("corgi"), then those that resemble it ("corgy")."""
    whole = [key for key in known if len(wanted) > 2 and wanted in key]
    return whole + difflib.get_close_matches(wanted[:_LONGEST_SHOWN], known, n=2 * SUGGESTIONS)


def spelling_key(text: str) -> str:
    """The letters and digits of a name, without case, accents and separators."""
    return "".join(char for char in unicodedata.normalize("NFKD", text).casefold() if char.isalnum())
