"""What can be refused before a model is loaded: files, folders, tasks and labels that are not there."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pawmatch.errors import BadOption, ImageError
from pawmatch.labels import CONFIG, VARIANT_NAMES, bundled_weights, find_label, find_task
from pawmatch.settings import fetches_urls


def is_one_image(paths: Sequence[str]) -> bool:
    """Whether a single file was named, as against a folder or several."""
    return len(paths) == 1 and not os.path.isdir(paths[0])  # noqa: PTH112 - Path.is_dir raises for some


def missing_files(paths: Sequence[str], *, fetched: bool = False) -> dict[str, ImageError]:
    """The paths that lead to no file or folder, with the error that reading each would give.

    Web addresses are none, unless they are `fetched` and PAWMATCH_FETCH_URLS does not forbid that.
    """
    missing = [path for path in paths if not _exists(path)]
    if not missing:
        return {}
    from pawmatch.images import is_address, open_image

    errors: dict[str, ImageError] = {}
    for path in missing:
        if fetched and is_address(path) and fetches_urls():
            continue
        try:
            open_image(path)
        except ImageError as exc:
            errors[path] = exc
    return errors


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:
        return False  # a name that the system cannot even look up


def check_out_folder(folder: Path) -> None:
    """Raise BadOption unless there is such a folder, or can be, and files can be written to it."""
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not place.is_dir():
        raise BadOption(f"{place} is a file; name a folder to write to.")
    if not os.access(place, os.W_OK):
        raise BadOption(f"Nothing can be written to {place}; check its permissions, or name another folder.")


def local_config(task: str, source: str | None) -> dict[str, Any] | None:
    """The config.json of a task's weights on this computer as JSON values, unchecked.

    None where the source is on the Hub, or has no such file: loading will say what is wrong with it. Raises
    UnknownTask for bundled weights that there are not.
    """
    bundled = bundled_weights()
    if source is None:
        find_task(task)
        folder = bundled / task
    elif source.startswith("hf://"):
        return None
    else:
        folder = Path(source).expanduser()
        if folder.parts[:1] == ("weights",) and not folder.exists():
            folder = bundled.joinpath(*folder.parts[1:])
    for place in (root / name for root in (folder, folder / task) for name in (".", *VARIANT_NAMES)):
        try:
            values = json.loads((place / CONFIG).read_text(encoding="utf-8"))
            if values["task"]["name"] == task and values["labels"]:
                return dict(values)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def known_labels(task: str, source: str | None) -> tuple[str, ...] | None:
    """The labels of a task's weights, or None where only loading them can say."""
    config = local_config(task, source)
    return None if config is None else tuple(map(str, config["labels"]))


def check_label(text: str | None, task: str, source: str | None) -> None:
    """Raise UnknownLabel or UnknownTask for what the weights do not know, if that can be told by now."""
    labels = known_labels(task, source)
    if labels is not None and text is not None:
        find_label(labels, text)
