"""Folders of labelled images: listed, split, checked, decoded once, prepared for validation."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pawmatch.errors import ImageError, TrainingError
from pawmatch.evaluation import folders
from pawmatch.evaluation.folders import LabelledFile, class_folders, images_below
from pawmatch.images import InputSpec
from pawmatch.labels import spelling_key
from pawmatch.training.distributed import gathered, rank, share
from pawmatch.training.shards import Streamed, decode, shard_classes

logger = logging.getLogger(__name__)

DECODED_SIDE = 288  # pixels; a random crop of a third of the area still has more than the model sees
# Of images that are answered as in use: shrinking them first would cost what answering does not.
ANSWERED_SIDE = 640
VAL_SHARE = 0.2  # kept for validation where a folder has no split of its own
MIN_VAL_IMAGES = 2  # a calibration is judged by fits on halves
MIN_UNKNOWN_IMAGES = 20  # of unknown classes, from which anything can be learnt
MAX_LABEL_LENGTH = 200  # characters, as checkpoints have it


@dataclass(frozen=True)
class LabelledFiles:
    """Image files, each with its class index; `labels` names the classes in index order."""

    labels: tuple[str, ...]
    files: tuple[LabelledFile, ...]


@dataclass(frozen=True)
class LabelledImages:
    """Images, uint8 (H, W, 3) of any size, decoded or Streamed, with their class index and file.

    `skipped` has a line for each file that could not be read.
    """

    labels: tuple[str, ...]
    images: Sequence[NDArray[np.uint8]]
    targets: tuple[int, ...]
    skipped: tuple[str, ...] = ()
    files: tuple[LabelledFile, ...] = ()

    def sample(self, most: int) -> LabelledImages:
        """At most that many of the images, evenly spaced through the classes."""
        step = max(1, -(-len(self.images) // most))
        return replace(
            self, images=self.images[::step], targets=self.targets[::step], files=self.files[::step]
        )


@dataclass(frozen=True)
class Images:
    """What a run learns from and what it is measured on, and where there are any, images of something else.

    Those of `outside` do not show the task's subject, those of `unknown` do, of classes without a label.
    """

    train: LabelledImages
    val: LabelledImages
    outside: LabelledImages | None = None
    unknown: LabelledImages | None = None

    @property
    def skipped(self) -> tuple[str, ...]:
        """A line for each file that could not be read."""
        every = (self.train, self.val, self.outside, self.unknown)
        return tuple(line for part in every if part is not None for line in part.skipped)


def list_classes(folder: Path, labels: Sequence[str] | None = None) -> LabelledFiles:
    """List a folder that has one subfolder of images per class, or tar files, in sorted order.

    Raises BadOption where the folder is missing, TrainingError where it has under two classes or lacks one
    of `labels`.
    """
    below = class_folders(folder).items()
    classes = {name: [LabelledFile(path, 0) for path in paths] for name, paths in below}
    classes = classes or shard_classes(folder)
    names = tuple(classes)
    if labels is not None and set(names) != set(labels):
        odd = sorted(set(names) ^ set(labels))[0]
        raise TrainingError(f"Class {odd!r} is in one half of the data only; give both the same subfolders.")
    if len(names) < 2:
        raise TrainingError(f"Folder {folder} has {len(names)} subfolders; two classes or more are needed.")
    pairs = (replace(file, target=index) for index, name in enumerate(names) for file in classes[name])
    return LabelledFiles(names, tuple(pairs))


def check_labels(labels: Sequence[str]) -> None:
    """Raise TrainingError for a class name that no checkpoint can hold, or that another is taken for."""
    spelt: dict[str, str] = {}
    for label in labels:
        if odd := next((char for char in label if not char.isprintable()), None):
            raise TrainingError(
                f"Class {label!r} holds the character U+{ord(odd):04X}, which cannot be shown; "
                "rename its folder."
            )
        if not label.strip() or len(label) > MAX_LABEL_LENGTH:
            raise TrainingError(
                f"Class {label[:40]!r} has {len(label)} characters; give its folder a name of 1 to "
                f"{MAX_LABEL_LENGTH}."
            )
        other = spelt.setdefault(spelling_key(label), label)
        if other != label:
            raise TrainingError(
                f"Classes {other!r} and {label!r} differ in case or signs alone; rename one folder, or put "
                "their images together."
            )


def list_images(places: Sequence[Path]) -> LabelledFiles:
    """List folders of images, flat or nested, in sorted order; their subfolders count as classes.

    Raises BadOption where a folder is missing, ImageError where it holds no image.
    """
    parts: list[LabelledFiles] = []
    for place in places:
        found = images_below(place)
        inside = [path.parent.relative_to(place).as_posix() for path in found]
        labels = tuple(sorted(set(inside)))
        pairs = zip(found, map(labels.index, inside), strict=True)
        parts.append(LabelledFiles(labels, tuple(LabelledFile(*pair) for pair in pairs)))
    return joined_files(parts)


def find_split(
    data: Path | Sequence[Path], val: Sequence[Path] = (), share: float = VAL_SHARE
) -> tuple[LabelledFiles, LabelledFiles]:
    """Training and validation files of one folder or several, whose classes are put together.

    A folder's `train/` and `val/` if it has both, else a fixed `share` of each class, held out by name.
    Where there are folders `val`, they alone are validated on, and a folder without `train/` is trained on
    whole; they may lack classes, and have none of their own. Raises TrainingError for a class whose name no
    checkpoint can hold.
    """
    data = [data] if isinstance(data, Path) else data
    halves = [_split(folder, share, whole=bool(val)) for folder in data]
    train = joined_files([half[0] for half in halves])
    check_labels(train.labels)
    held_out = [list_classes(folder) for folder in val] or [half[1] for half in halves if half[1] is not None]
    return train, relabelled(joined_files(held_out), train.labels)


def _split(folder: Path, share: float, *, whole: bool) -> tuple[LabelledFiles, LabelledFiles | None]:
    if (folder / "train").is_dir() and (whole or (folder / "val").is_dir()):
        train = list_classes(folder / "train")
        return train, None if whole else list_classes(folder / "val", train.labels)
    everything = list_classes(folder)
    if whole:
        return everything, None
    held_out: set[LabelledFile] = set()
    places: dict[int, dict[LabelledFile, float]] = {}
    for file in everything.files:
        place = _hash_share(f"{everything.labels[file.target]}/{file.path.name}")
        places.setdefault(file.target, {})[file] = place
    for own in places.values():
        ordered = sorted(own, key=own.__getitem__)
        count = sum(place < share for place in own.values())
        # A class of two or more has an image in each half, whatever the hashes say.
        held_out.update(ordered[: min(max(count, 1), len(ordered) - 1)])
    kept = tuple(file for file in everything.files if file not in held_out)
    others = tuple(file for file in everything.files if file in held_out)
    return replace(everything, files=kept), replace(everything, files=others)


def share_of(files: LabelledFiles, share: float, seed: int) -> LabelledFiles:
    """That share of the images of each class, one at least; a larger share has those of a smaller one."""
    kept: set[LabelledFile] = set()
    for index in range(len(files.labels)):
        own = [file for file in files.files if file.target == index]
        own.sort(key=lambda file: _hash_share(f"{seed}/{file.path.name}"))
        kept.update(own[: max(1, round(share * len(own)))])
    return replace(files, files=tuple(file for file in files.files if file in kept))


def _hash_share(name: str) -> float:
    """A fixed number in [0, 1) for a file name, so that a growing folder keeps its split."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:4], "big") / 2**32


def joined_files(parts: Sequence[LabelledFiles]) -> LabelledFiles:
    """Several lists as one, with the classes of all in sorted order."""
    labels = tuple(sorted({label for part in parts for label in part.labels}))
    return LabelledFiles(labels, tuple(file for part in parts for file in relabelled(part, labels).files))


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
    moved = (replace(file, target=places[files.labels[file.target]]) for file in files.files)
    return LabelledFiles(tuple(labels), tuple(moved))


def fingerprint(half: LabelledFiles | LabelledImages) -> str:
    """A short code of which files are in which class, wherever the folder lies."""
    return folders.fingerprint(half.files, half.labels)


def decode_all(
    files: LabelledFiles, *, long_side: int, threads: int = 4, stream: bool = False
) -> LabelledImages:
    """Decode every file once, shrunk to `long_side`; a file that cannot be read is skipped and named.

    Memory: 3 bytes a pixel, about 0.1 MB an image at 224 px. Those to `stream` are decoded too, by all
    processes of the run together, to know which can be read, but not kept.
    """

    def attempt(file: LabelledFile) -> NDArray[np.uint8] | tuple[int, ...] | str:
        try:
            image = decode(file, long_side)
            return image.shape if stream else image
        except (ImageError, OSError) as exc:  # a shard may be gone
            name = file.path.name.encode("utf-8", "backslashreplace").decode()  # names need not be UTF-8
            return f"{name}: {exc}"

    with ThreadPoolExecutor(threads) as pool:
        decoded = list(pool.map(attempt, share(files.files) if stream else files.files))
    if stream:
        decoded = gathered(decoded)
    skipped = tuple(result for result in decoded if isinstance(result, str))
    if rank() == 0:
        for line in skipped:
            logger.warning("skipped %s", line)
    pairs = zip(decoded, files.files, strict=True)
    kept = [(result, file) for result, file in pairs if not isinstance(result, str)]
    if not kept:
        raise TrainingError("No image of the folder could be read; check that it holds photos.")
    images: Sequence[Any]
    images, read = zip(*kept, strict=True)
    targets = tuple(file.target for file in read)
    if stream:
        height, width, _ = np.max(images, axis=0)
        images = Streamed(read, long_side, (int(height), int(width)), threads)
    return LabelledImages(files.labels, images, targets, skipped, read)


def check_images(images: Images) -> None:
    """Raise TrainingError where there are too few readable images for a run to end well."""
    counts = Counter(images.train.targets)
    for index, label in enumerate(images.train.labels):
        if not counts[index]:
            raise TrainingError(
                f"Class {label!r} has no training image that can be read; add some, or remove its folder."
            )
    check_held_out(images)


def check_held_out(images: Images) -> None:
    """Raise TrainingError where there are too few readable images to calibrate on."""
    if len(images.val.images) < MIN_VAL_IMAGES:
        raise TrainingError(
            f"There are {len(images.val.images)} validation images that can be read; "
            f"give {MIN_VAL_IMAGES} or more, some hundred for figures that mean something."
        )
    if images.unknown and len(images.unknown.images) < MIN_UNKNOWN_IMAGES:
        raise TrainingError(
            f"{len(images.unknown.images)} images of unknown classes are too few; "
            f"give {MIN_UNKNOWN_IMAGES} or more."
        )


class ValidationBatches(Sequence[Tensor]):
    """Every image once, in order, in its plain view: (N, 3, size, size).

    Batches are made when they are asked for; their pixels are kept, three bytes each, for the next epoch,
    unless the images are streamed.
    """

    def __init__(self, data: LabelledImages, spec: InputSpec, batch_size: int = 64) -> None:
        self.data, self.spec, self.batch_size = data, replace(spec, views=("plain",)), batch_size
        self._pixels: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return -(-len(self.data.images) // self.batch_size)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        pixels = self._pixels.get(index)
        if pixels is None:
            rows = self.data.images[index * self.batch_size : (index + 1) * self.batch_size]
            views = [self.spec.pixels(Image.fromarray(row)) for row in rows]
            pixels = torch.from_numpy(np.concatenate(views))
            if not isinstance(self.data.images, Streamed):
                self._pixels[index] = pixels
        return self.spec.normalise(pixels)
