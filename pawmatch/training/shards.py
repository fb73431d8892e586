"""Images that are trained on from where they lie: decoded when a batch wants them, also out of tar files.

What is in memory is an entry for each image and the batches that come next. A tar is no stream here: its
members lie in one piece each, so any image is one read at a known place, and epochs are shuffled whole.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pawmatch.errors import ImageError, TrainingError
from pawmatch.evaluation.folders import LabelledFile
from pawmatch.images import open_image
from pawmatch.images.shards import Member, is_picture, members, read_member

CLASS_NAMES = "classes.txt"  # beside shards whose .cls members are numbers: the name of each, from 0
MAX_CLASS = 1000  # bytes of a .cls member
AHEAD = 128  # images that are decoded or waiting to be


def shard_classes(folder: Path) -> dict[str, list[LabelledFile]]:
    """Class -> its images in the tar files of a folder, both sorted by name; targets are all 0.

    As WebDataset has it, files of one name up to the first dot belong together. The class is what key.cls
    says, a name or the number of a line of classes.txt, else the name of the folder that the image is in.
    Raises TrainingError for an image without a class, and a shard that is damaged.
    """
    listed = [place / CLASS_NAMES for place in (folder, folder.parent) if (place / CLASS_NAMES).is_file()]
    try:  # editors of Windows begin with a mark of the encoding, which would be part of a name
        names = listed[0].read_text(encoding="utf-8-sig").splitlines() if listed else []
    except (OSError, ValueError) as exc:
        raise TrainingError(f"{listed[0]} cannot be read ({exc}); write it as UTF-8.") from exc
    classes: dict[str, list[LabelledFile]] = {}
    for shard in sorted(folder.glob("*.tar")):
        try:
            with shard.open("rb") as file:
                for _, parts in groupby(members(file), _key):
                    sample = list(parts)
                    said = [
                        read_member(file, part)[:MAX_CLASS] for part in sample if part.name.endswith(".cls")
                    ]
                    for part in filter(lambda part: is_picture(part.name), sample):
                        name = _class_name(said[0].decode().strip() if said else "", part, names)
                        entry = LabelledFile(shard / part.name.lstrip("/"), 0, (shard, part))
                        classes.setdefault(name, []).append(entry)
        except (OSError, ValueError) as exc:
            raise TrainingError(f"Shard {shard} cannot be read ({exc}); copy or write it again.") from exc
    return {name: sorted(classes[name], key=lambda file: file.path.name) for name in sorted(classes)}


def _key(member: Member) -> str:
    found = re.match(r"(?:.*/)?[^.]*", member.name, re.DOTALL)
    return found[0] if found else ""


def _class_name(said: str, member: Member, names: Sequence[str]) -> str:
    if said.isdecimal() and names:
        if int(said) >= len(names):
            raise ValueError(f"{member.name} is of class {said}, and {CLASS_NAMES} has {len(names)}")
        return names[int(said)]
    name = said or PurePosixPath(member.name).parent.name
    if not name:
        raise ValueError(f"{member.name} has neither a .cls beside it nor a folder that names its class")
    return name


def decode(file: LabelledFile, long_side: int) -> NDArray[np.uint8]:
    """An image (H, W, 3), shrunk to `long_side`. Raises ImageError."""
    if file.shard is None:
        image = open_image(file.path)
    else:
        place, member = file.shard
        with place.open("rb") as stream:
            image = open_image(read_member(stream, member))
    image.thumbnail((long_side, long_side), Image.Resampling.BICUBIC)
    return np.array(image, dtype=np.uint8)


class Streamed(Sequence[NDArray[np.uint8]]):
    """Images as `decode` gives them, each time anew; to go through them decodes ahead in threads.

    `extent` is the largest height and the largest width of the whole set that these are of.
    """

    def __init__(
        self, files: Sequence[LabelledFile], long_side: int, extent: tuple[int, int], threads: int
    ) -> None:
        self.files, self.long_side, self.extent, self.threads = files, long_side, extent, threads

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> Streamed: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | Streamed:
        if isinstance(index, slice):
            return Streamed(self.files[index], self.long_side, self.extent, self.threads)
        return self._decode(self.files[index])

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        waiting: deque[Future[NDArray[np.uint8]]] = deque()
        pool = ThreadPoolExecutor(self.threads)
        try:
            for file in self.files:
                waiting.append(pool.submit(self._decode, file))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def pick(self, rows: Iterable[int]) -> Streamed:
        """The images of these rows, in their order."""
        return Streamed([self.files[row] for row in rows], self.long_side, self.extent, self.threads)

    def _decode(self, file: LabelledFile) -> NDArray[np.uint8]:
        try:
            image = decode(file, self.long_side)
        except (ImageError, OSError) as exc:
            raise TrainingError(
                f"{file.path} could be read before the first epoch, and cannot now: {exc}"
            ) from exc
        if image.shape[0] > self.extent[0] or image.shape[1] > self.extent[1]:
            raise TrainingError(f"{file.path} is another picture than before the first epoch; start anew.")
        return image
