"""Folders of labelled images: listed, split, decoded once, prepared for evaluation."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pawmatch.errors import ImageError, TrainingError
from pawmatch.images import InputSpec, open_image
from pawmatch.images.filetypes import SUFFIXES
from pawmatch.training.distributed import rank

logger = logging.getLogger(__name__)

DECODED_SIDE = 288  # pixels; a random crop of a third of the area still has more than the model sees
# Of images that are answered as in use: shrinking them first would cost what answering does not.
ANSWERED_SIDE = 640
HELD_OUT = 0.2  # share kept for validation where a folder has no split of its own


@dataclass(frozen=True)
class LabelledFiles:
    """Image files with their class index; `labels` names the classes in index order."""

    labels: tuple[str, ...]
    files: tuple[Path, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class LabelledImages:
    """Decoded images, uint8 (H, W, 3) of any size, with their class index."""

    labels: tuple[str, ...]
    images: tuple[NDArray[np.uint8], ...]
    targets: tuple[int, ...]
    skipped: tuple[str, ...]

    def sample(self, most: int) -> LabelledImages:
        """At most that many of the images, evenly spaced through the classes."""
        step = max(1, -(-len(self.images) // most))
        return replace(self, images=self.images[::step], targets=self.targets[::step])


@dataclass(frozen=True)
class Images:
    """What a run learns from and what it is measured on, and where there are any, images of something else.

    Those of `outside` do not show the task's subject, those of `unknown` do, of classes without a label.
    """

    train: LabelledImages
    val: LabelledImages
    outside: LabelledImages | None
    unknown: LabelledImages | None = None


def list_classes(folder: Path, labels: Sequence[str] | None = None) -> LabelledFiles:
    """List a folder that has one subfolder of images per class, in sorted order.

    Raises TrainingError where the folder is missing, has under two classes, or lacks one of `labels`.
    """
    if not folder.is_dir():
        raise TrainingError(f"There is no folder {folder}; name a folder with one subfolder per class.")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if labels is not None and set(names) != set(labels):
        odd = sorted(set(names) ^ set(labels))[0]
        raise TrainingError(f"Class {odd!r} is in one half of the data only; give both the same subfolders.")
    if len(names) < 2:
        raise TrainingError(f"Folder {folder} has {len(names)} subfolders; two classes or more are needed.")
    files: list[Path] = []
    targets: list[int] = []
    for index, name in enumerate(names):
        inside = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES)
        files += inside
        targets += [index] * len(inside)
    return LabelledFiles(tuple(names), tuple(files), tuple(targets))


def list_images(folders: Sequence[Path]) -> LabelledFiles:
    """List folders of images, flat or nested, in sorted order; their subfolders count as classes.

    Raises TrainingError where a folder is missing or holds no image.
    """
    return joined_files([_images_below(folder) for folder in folders])


def _images_below(folder: Path) -> LabelledFiles:
    if not folder.is_dir():
        raise TrainingError(f"There is no folder {folder}; name a folder of images.")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise TrainingError(f"Folder {folder} holds no image; name a folder of images.")
    places = [path.parent.relative_to(folder).as_posix() for path in found]
    labels = sorted(set(places))
    return LabelledFiles(tuple(labels), tuple(found), tuple(labels.index(place) for place in places))


def find_split(folders: Sequence[Path], val: Sequence[Path] = ()) -> tuple[LabelledFiles, LabelledFiles]:
    """Training and validation files of one folder or several, whose classes are put together.

    A folder's `train/` and `val/` if it has both, else a fixed fifth held out by name. Where there are
    folders `val`, they alone are validated on, and a folder without `train/` is trained on whole; they may
    lack classes, and have none of their own.
    """
    halves = [_split(folder, whole=bool(val)) for folder in folders]
    train = joined_files([half[0] for half in halves])
    held_out = [list_classes(folder) for folder in val] or [half[1] for half in halves if half[1] is not None]
    return train, relabelled(joined_files(held_out), train.labels)


def _split(folder: Path, *, whole: bool) -> tuple[LabelledFiles, LabelledFiles | None]:
    if (folder / "train").is_dir() and (whole or (folder / "val").is_dir()):
        train = list_classes(folder / "train")
        return train, None if whole else list_classes(folder / "val", train.labels)
    everything = list_classes(folder)
    if whole:
        return everything, None
    held_out = [_hash_share(path.name) < HELD_OUT for path in everything.files]
    return _select(everything, [not held for held in held_out]), _select(everything, held_out)


def joined_files(parts: Sequence[LabelledFiles]) -> LabelledFiles:
    """Several lists as one, with the classes of all in sorted order."""
    labels = tuple(sorted({label for part in parts for label in part.labels}))
    moved = [relabelled(part, labels) for part in parts]
    return LabelledFiles(
        labels,
        tuple(file for part in moved for file in part.files),
        tuple(target for part in moved for target in part.targets),
    )


def relabelled(files: LabelledFiles, labels: Sequence[str]) -> LabelledFiles:
    """The same files, their classes counted as in `labels`; classes without files are no fault.

    Raises TrainingError where the files have a class that is not among `labels`.
    """
    places = {label: index for index, label in enumerate(labels)}
    if unknown := sorted(set(files.labels) - set(places)):
        raise TrainingError(
            f"Class {unknown[0]!r} is not among those that are known; name the subfolders as its labels, "
            f"such as {labels[0]!r}, or leave that one out."
        )
    targets = tuple(places[files.labels[target]] for target in files.targets)
    return LabelledFiles(tuple(labels), files.files, targets)


def fingerprint(*halves: LabelledFiles) -> str:
    """A short code of which files are in which class of which half, wherever the folder lies."""
    lines = [
        [f"{target} {path.name}" for path, target in zip(half.files, half.targets, strict=True)]
        for half in halves
    ]
    text = repr(([half.labels for half in halves], lines))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _hash_share(name: str) -> float:
    """A fixed number in [0, 1) for a file name, so that a growing folder keeps its split."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32


def _select(files: LabelledFiles, keep: Sequence[bool]) -> LabelledFiles:
    pairs = [
        pair for pair, kept in zip(zip(files.files, files.targets, strict=True), keep, strict=True) if kept
    ]
    if not pairs:
        raise TrainingError("One half of the data is empty; give more images or a val/ folder.")
    paths, targets = zip(*pairs, strict=True)
    return LabelledFiles(files.labels, paths, targets)


def decode_all(files: LabelledFiles, *, long_side: int, threads: int = 4) -> LabelledImages:
    """Decode every file once, shrunk to `long_side`; a file that cannot be read is skipped and named.

    Memory: 3 bytes a pixel, about 0.1 MB an image at 224 px.
    """

    def decode(path: Path) -> NDArray[np.uint8] | str:
        try:
            image = open_image(path)
        except ImageError as exc:
            return f"{path.name}: {exc}"
        image.thumbnail((long_side, long_side), Image.Resampling.BICUBIC)
        return np.array(image, dtype=np.uint8)

    with ThreadPoolExecutor(threads) as pool:
        decoded = list(pool.map(decode, files.files))
    images, targets, skipped = [], [], []
    for result, target in zip(decoded, files.targets, strict=True):
        if isinstance(result, str):
            skipped.append(result)
        else:
            images.append(result)
            targets.append(target)
    if rank() == 0:
        for line in skipped:
            logger.warning("skipped %s", line)
    if not images:
        raise TrainingError("No image of the folder could be read; check that it holds photos.")
    return LabelledImages(files.labels, tuple(images), tuple(targets), tuple(skipped))


def eval_batches(data: LabelledImages, spec: InputSpec, batch_size: int = 64) -> Sequence[Tensor]:
    """Every image once, in order, in its plain view, as serving prepares it."""
    return _Prepared(data, replace(spec, views=("plain",)), batch_size)


def view_batches(data: LabelledImages, spec: InputSpec, batch_size: int = 64) -> Sequence[Tensor]:
    """Every image once, in order, in all its V views, as serving prepares it: (N * V, 3, size, size)."""
    return _Prepared(data, spec, batch_size)


class _Prepared(Sequence[Tensor]):
    """Batches made when they are asked for; their pixels are kept, three bytes each, for the next epoch."""

    def __init__(self, data: LabelledImages, spec: InputSpec, batch_size: int) -> None:
        self.data, self.spec, self.batch_size = data, spec, batch_size
        self._pixels: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return -(-len(self.data.images) // self.batch_size)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index not in self._pixels:
            rows = self.data.images[index * self.batch_size : (index + 1) * self.batch_size]
            pixels = [self.spec.pixels(Image.fromarray(row)) for row in rows]
            self._pixels[index] = torch.from_numpy(np.concatenate(pixels))
        return self.spec.normalise(self._pixels[index])
