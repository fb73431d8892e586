"""Labelled images of a folder that has one subfolder per class, matched to a model's labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pawmatch.errors import BadOption, UnknownLabel
from pawmatch.labels import find_label

WORDNET_NUMBER = re.compile(r"^n\d{8}-")  # "n02085620-Chihuahua", as Stanford Dogs names its folders
MOST_NAMED = 3


@dataclass(frozen=True)
class LabelledFile:
    """An image file and the index of its class among the model's labels."""

    path: Path
    target: int


@dataclass(frozen=True)
class Unreadable:
    """A file that was left out, with the code of the error and its sentence."""

    file: str
    code: str
    message: str


def labelled_files(folder: Path, labels: Sequence[str]) -> tuple[LabelledFile, ...]:
    """The images of `folder`, or of `folder`/val where it has train/ and val/, class by class.

    The order is that of training, sorted folder names and sorted files, so that halves of them are the
    same halves. A folder may be named as the label or as people call the
    class. Raises BadOption where there is no image, UnknownLabel for folders that match no label.
    """
    from pawmatch.images.filetypes import SUFFIXES  # not above: --help does without numpy and Pillow

    folder = evaluated_folder(folder)
    if not folder.is_dir():
        raise BadOption(f"There is no folder {folder}; name a folder with one subfolder of images per class.")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    targets = _match([name for name in names if not name.startswith(".")], labels, folder)
    files = tuple(
        LabelledFile(path, target)
        for name, target in targets.items()
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in SUFFIXES
    )
    if not files:
        raise BadOption(f"Folder {folder} has no subfolder with images in it; give one subfolder per class.")
    return files


def evaluated_folder(folder: Path) -> Path:
    """The folder itself, or its val/ where it has both train/ and val/."""
    split = (folder / "train").is_dir() and (folder / "val").is_dir()
    return folder / "val" if split else folder


def _match(names: Sequence[str], labels: Sequence[str], folder: Path) -> dict[str, int]:
    """Folder name -> class index, in the order of `names`; one error for all that match none."""
    targets: dict[str, int] = {}
    unknown: list[tuple[str, UnknownLabel]] = []
    for name in names:
        try:
            targets[name] = labels.index(find_label(labels, WORDNET_NUMBER.sub("", name)))
        except UnknownLabel as exc:
            unknown.append((name, exc))
    if len(unknown) == 1:
        raise UnknownLabel(f"Subfolder of {folder}: {unknown[0][1]}") from unknown[0][1]
    if unknown:
        named = ", ".join(repr(name) for name, _ in unknown[:MOST_NAMED])
        more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        raise UnknownLabel(
            f"{len(unknown)} subfolders of {folder} are none of the model's {len(labels)} classes: "
            f"{named}{more}; name them as the classes, or take them out."
        )
    return targets
