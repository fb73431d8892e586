"""The true label of each image: one for all, or the folder that it lies in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from pawmatch.commands.inputs import Found, find_images
from pawmatch.errors import UnknownLabel
from pawmatch.evaluation.folders import WORDNET_NUMBER
from pawmatch.labels import find_label


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
