"""What clients send, checked: file objects, tasks, labels and counts that arrive as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pawmatch.errors import BadOption, ImageNotFound
from pawmatch.tasks import find_task

CHOOSE_PHOTO = "Please choose a photo first."
CHOOSE_PHOTOS = "Please choose some photos first."
CHOOSE_AGAIN = "The photo is no longer held here; please choose it again."
HOW_TO_SEND = "Send each photo as a file, in Python as gradio_client.handle_file(path)."
MOST_PHOTOS = 64  # in one call
MOST_COMPARED = 12  # on the page that compares the models
LONGEST_NAME = 60  # characters of a file's name that are repeated
TOP_K = 5


def photo_path(image: Any) -> str:
    """Where Gradio has put an upload: the path in the file object that stands for it.

    Gradio has checked, before we are called, that the path of a whole file object is one of its uploads.
    It looks at nothing else, so nothing else may be opened: any other path could be any file here.
    """
    if image is None or image == "":
        raise ImageNotFound(CHOOSE_PHOTO)
    meta = image.get("meta") if isinstance(image, dict) else None
    if not isinstance(meta, dict) or meta.get("_type") != "gradio.FileData":
        raise ImageNotFound(HOW_TO_SEND)
    path = image.get("path")
    if not isinstance(path, str):
        raise ImageNotFound(HOW_TO_SEND)
    if not Path(path).is_file():
        raise ImageNotFound(CHOOSE_AGAIN)
    return path


def photo_paths(images: Any) -> list[str]:
    """As photo_path, for a list."""
    if images is None or images == []:
        raise ImageNotFound(CHOOSE_PHOTO)
    if not isinstance(images, list | tuple):
        raise ImageNotFound(HOW_TO_SEND)
    if len(images) > MOST_PHOTOS:
        raise BadOption(f"{len(images)} photos are too many; send at most {MOST_PHOTOS} in one call.")
    return [photo_path(image) for image in images]


def compared_photos(images: Any) -> list[Any]:
    """The file objects of a comparison; each is still to be checked by photo_path."""
    if images is None or images == []:
        raise ImageNotFound(CHOOSE_PHOTOS)
    if not isinstance(images, list | tuple):
        raise ImageNotFound(HOW_TO_SEND)
    if len(images) > MOST_COMPARED:
        raise BadOption(f"{len(images)} photos are too many; choose at most {MOST_COMPARED}.")
    return list(images)


def photo_name(image: Any, number: int) -> str:
    """What the visitor's file is called; photos without a name, and forged ones, are counted."""
    name = image.get("orig_name") if isinstance(image, dict) else None
    if not isinstance(name, str) or not name.strip():
        return f"Photo {number}"
    # A name of the server's own has folders in front; what a client sends may have any.
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def task_name(task: Any) -> str:
    """The task asked for; raises UnknownTask."""
    return find_task("breed" if task is None else task).name


def label_or_none(label: Any) -> str | None:
    """The label to explain; nothing means the first choice."""
    return None if label is None or label == "" else str(label)


def whole_number(name: str, value: Any) -> int:
    """A count that came as JSON, from 1 on; raises BadOption."""
    if value is None:
        return TOP_K
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise BadOption(f"{name} is {str(value)[:40]!r}; give a whole number such as 5.")
    if value < 1:
        raise BadOption(f"{name} is {value:g}; give a whole number from 1 on.")
    return int(value)
