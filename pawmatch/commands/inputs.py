"""From paths as given to images one by one, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from pawmatch.errors import ImageNotFound, ImageUnreadable, PawMatchError, UnknownLabel
from pawmatch.evaluation.folders import WORDNET_NUMBER
from pawmatch.labels import find_label

T = TypeVar("T")
Found = tuple[str, PawMatchError | None]


def find_images(paths: Iterable[str]) -> Iterator[Found]:
    """Every file given, and every image in the folders given and below, sorted by name.

    Hidden files and links to folders are passed over. A folder that cannot be listed, or in which
    there is no image, comes out with the error that says so.
    """
    for path in paths:
        # A path that the system cannot even look up, such as a much too long one, is left to the reader.
        if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for some of them
            yield path, None
            continue
        found = False
        for entry in walk(path):
            found = True
            yield entry
        if not found:
            yield path, ImageNotFound("There is no image in this folder; name one that holds images.")


def walk(folder: str) -> Iterator[Found]:
    """The images in a folder and its subfolders, with constant memory for any number of folders."""
    from pawmatch.images.filetypes import SUFFIXES  # not above: --help does without numpy and Pillow

    unreadable: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield os.path.join(place, name), None  # noqa: PTH118 - keeps "./" as it was given
        while unreadable:
            yield refused(unreadable.pop())
    while unreadable:
        yield refused(unreadable.pop())


def refused(exc: OSError) -> Found:
    """What comes out for a folder that cannot be listed."""
    reason = f"The folder cannot be listed ({exc.strerror}); check its permissions."
    return str(exc.filename), ImageUnreadable(reason)


def in_order(
    inputs: Iterable[Found], ask: Callable[[Iterator[str]], Iterable[T | PawMatchError]]
) -> Iterator[tuple[str, T | PawMatchError]]:
    """Each input with its own error, or with what `ask` makes of it, which takes files and keeps order."""
    waiting: deque[Found] = deque()

    def usable() -> Iterator[str]:
        for file, error in inputs:
            waiting.append((file, error))
            if error is None:
                yield file

    def failed() -> Iterator[tuple[str, PawMatchError]]:
        while waiting and (error := waiting[0][1]) is not None:
            yield waiting.popleft()[0], error

    for result in ask(usable()):
        yield from failed()
        yield waiting.popleft()[0], result
    yield from failed()


def is_one_image(paths: Sequence[str]) -> bool:
    """Whether a single file was named, as against a folder or several."""
    return len(paths) == 1 and not os.path.isdir(paths[0])  # noqa: PTH112 - as above


def find_labelled(
    paths: Iterable[str], labels: Sequence[str], truth: str | None
) -> Iterator[tuple[Found, str | None]]:
    """What `find_images` finds, each with its true label or None.

    `truth` is the label of them all; without it the nearest folder above an image that is named like a
    class says it, as long as it lies within a folder given.
    """
    folder_label = labels_of_folders(labels)
    for path in paths:
        for file, error in find_images([path]):
            yield (file, error), truth or (None if file == path else label_below(path, file, folder_label))


def labels_of_folders(labels: Sequence[str]) -> Callable[[str], str | None]:
    """The function from a folder's name to the class that it means, or None."""

    @cache  # to look up a name that is no class takes a search for similar ones
    def look_up(name: str) -> str | None:
        try:
            return find_label(labels, WORDNET_NUMBER.sub("", name))
        except UnknownLabel:
            return None

    return look_up


def label_below(root: str, file: str, folder_label: Callable[[str], str | None]) -> str | None:
    """The class that the nearest folder between `root` and the file stands for."""
    between = Path(file).parts[len(Path(root).parts) : -1]
    return next((label for name in reversed(between) if (label := folder_label(name))), None)
