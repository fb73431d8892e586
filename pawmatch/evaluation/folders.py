"""Images on disk: those that are named, all in a folder, and those with the class that they show.

The rules are the same wherever a command takes images: files with the ending of an image, in a folder and
in all below it, by name; hidden files and folders, those that other programs leave, and links to folders are
passed over.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from pawmatch.errors import BadOption, ImageNotFound, ImageUnreadable, PawMatchError, UnknownLabel
from pawmatch.labels import find_label

# pawmatch.images is imported where it is needed: --help does without numpy and Pillow.
if TYPE_CHECKING:
    from pawmatch.classifier import Classifier, ModelOutputs
    from pawmatch.images.pool import Read, Readers
    from pawmatch.images.shards import Member

Found = tuple[str, PawMatchError | None]

WORDNET_NUMBER = re.compile(r"^n\d{8}-")  # "n02085620-Chihuahua", as subsets of ImageNet name their folders
MAX_NAMED = 3
NO_IMAGE = "There is no image at this place; name one that holds images."
# What other programs leave in a folder: network storage, archives, file systems.
TOOL_FOLDERS = frozenset(
    {"@eaDir", "__MACOSX", "$RECYCLE.BIN", "#recycle", "lost+found", "System Volume Information"}
)
# Torch on a CPU computes 16 at once in another way than one alone: logits then differ in the third digit.
BATCH = 8
AHEAD = 6  # batches that may be under way: one that waits for the models, some ready, some being read


@dataclass(frozen=True)
class LabelledFile:
    """An image file and the index of its class among the model's labels.

    `shard` is the tar that it lies in and where; `path` then is its name as if that were a folder.
    """

    path: Path
    target: int
    shard: tuple[Path, Member] | None = None


def is_hidden(name: str) -> bool:
    """Whether a folder of that name is no concern of people."""
    return name.startswith(".") or name in TOOL_FOLDERS


def find_images(paths: Iterable[str]) -> Iterator[Found]:
    """Every file given, and every image in the folders, patterns, shards and URLs given, sorted by name.

    A folder that cannot be listed, or in which there is no image, comes out with the error that says so.
    """
    from pawmatch.images.storage import find_stored, is_archive, is_stored

    for path in chain.from_iterable(map(matches, paths)):
        stored = is_stored(path) or (is_archive(path) and os.path.isfile(path))  # noqa: PTH113 - as below
        # A path that the system cannot even look up, such as a much too long one, is left to the reader.
        if not stored and not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for some of them
            yield path, None
            continue
        found = False
        for entry in find_stored(path) if stored else _walk(path):
            found = True
            yield entry
        if not found:
            shards = [] if stored else sorted(filter(is_archive, os.listdir(path)))  # noqa: PTH208
            yield from find_images(os.path.join(path, name) for name in shards)  # noqa: PTH118
            if not shards:
                yield path, ImageNotFound(NO_IMAGE)


def matches(path: str) -> list[str]:
    """The files and folders that a pattern such as photos/2024-*/ stands for, by name; else the path alone.

    A file that is really called so goes first.
    """
    try:
        pattern = glob.has_magic(path) and "://" not in path and not os.path.lexists(path)
        found = sorted(glob.glob(path, recursive=True)) if pattern else []  # noqa: PTH207 - keeps its form
        return found or [path]
    except ValueError:  # a name that the system cannot even look up
        return [path]


def read_shard(text: str) -> tuple[int, int]:
    """Which part, from 1 on, of how many "2/5" is; raises BadOption."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise BadOption(f"--shard is {text!r}; give the part and their number, such as 1/4 up to 4/4.")
    return int(number), int(count)


def find_shard(paths: Iterable[str], shard: str | None) -> Iterator[Found]:
    """What `find_images` finds, or one of several parts of it: every so many-th batch, whole.

    The models so take the same images together as when all are done by one, and give the same digits.
    """
    found = find_images(paths)
    if shard is None:
        yield from found
        return
    number, count = read_shard(shard)
    while chunk := list(islice(found, BATCH * count)):
        yield from chunk[(number - 1) * BATCH : number * BATCH]


def _walk(folder: str) -> Iterator[Found]:
    """The images in a folder and its subfolders, with constant memory for any number of folders."""
    from pawmatch.images.filetypes import SUFFIXES

    def refused() -> Iterator[Found]:
        while unreadable:
            exc = unreadable.pop()
            reason = f"The folder cannot be listed ({exc.strerror}); check its permissions."
            yield str(exc.filename), ImageUnreadable(reason)

    unreadable: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield os.path.join(place, name), None  # noqa: PTH118 - keeps "./" as it was given
        yield from refused()
    yield from refused()


def images_below(folder: str | Path) -> list[Path]:
    """Every image in a folder, flat or with subfolders.

    Raises BadOption where there is no such folder, ImageError where it holds no image or cannot be listed.
    """
    if not Path(folder).is_dir():
        raise BadOption(f"There is no folder {folder}; name a folder of images.")
    found = []
    for path, error in _walk(str(folder)):
        if error is not None:
            raise error
        found.append(Path(path))
    if not found:
        raise ImageNotFound(NO_IMAGE)
    return found


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """Subfolder name -> its images, both in sorted order. Raises BadOption where there is no such folder."""
    if not folder.is_dir():
        raise BadOption(f"There is no folder {folder}; name a folder with one subfolder of images per class.")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name))
    return {
        name: [Path(file) for file, error in _walk(str(folder / name)) if error is None] for name in names
    }


def labelled_files(folder: Path, labels: Sequence[str]) -> tuple[LabelledFile, ...]:
    """The images of `folder`, or of `folder`/val where it has train/ and val/, class by class.

    The order is that of training, so that halves of them are the same halves. A folder may be named as the
    label or as people call the class. Raises BadOption where there is no image, UnknownLabel for folders
    that match no label.
    """
    folder = evaluated_folder(folder)
    classes = class_folders(folder)
    targets = _match(classes, labels, folder)
    files = tuple(LabelledFile(path, targets[name]) for name, paths in classes.items() for path in paths)
    if not files:
        raise BadOption(f"Folder {folder} has no subfolder with images in it; give one subfolder per class.")
    return files


def evaluated_folder(folder: Path) -> Path:
    """The folder itself, or its val/ where it has both train/ and val/."""
    split = (folder / "train").is_dir() and (folder / "val").is_dir()
    return folder / "val" if split else folder


def _match(names: Iterable[str], labels: Sequence[str], folder: Path) -> dict[str, int]:
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
        named = ", ".join(repr(name) for name, _ in unknown[:MAX_NAMED])
        more = f" and {len(unknown) - MAX_NAMED} more" if len(unknown) > MAX_NAMED else ""
        raise UnknownLabel(
            f"{len(unknown)} subfolders of {folder} are none of the model's {len(labels)} classes: "
            f"{named}{more}; name them as the classes, or take them out."
        )
    return targets


def fingerprint(files: Iterable[LabelledFile], labels: Sequence[str]) -> str:
    """A short code of which files show which class, wherever the folder lies and whatever their order."""
    lines = sorted(f"{labels[file.target]}/{file.path.name}" for file in files)
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]


def find_labelled(
    paths: Iterable[str], labels: Sequence[str], truth: str | Mapping[str, str] | None
) -> Iterator[tuple[Found, str | None]]:
    """What `find_images` finds, each with its true label or None.

    `truth` is the label of them all, or has one for each file's path or name. Without it the nearest folder
    above an image that is named like a class says it, as long as it lies within a folder given.
    """

    @cache  # to look up a name that is no class takes a search for similar ones
    def look_up(name: str) -> str | None:
        try:
            return find_label(labels, WORDNET_NUMBER.sub("", name))
        except UnknownLabel:
            return None

    for path in paths:
        for file, error in find_images([path]):
            if isinstance(truth, Mapping):
                yield (file, error), truth.get(file) or truth.get(Path(file).name)
            elif truth is not None or file == path:
                yield (file, error), truth
            else:
                yield (file, error), label_below(path, file, look_up)


def label_below(root: str, file: str, folder_label: Callable[[str], str | None]) -> str | None:
    """The class that the nearest folder between `root` and the file stands for."""
    between = Path(file).parts[len(Path(root).parts) : -1]
    return next((label for name in reversed(between) if (label := folder_label(name))), None)


def examine_files(
    classifier: Classifier, found: Iterable[Found], readers: Readers | None = None
) -> Generator[tuple[str, ModelOutputs | PawMatchError]]:
    """Each file with what the models make of it or its error, in order, in constant memory.

    The readers, if there are any, read the next images while the models answer. A batch is BATCH entries of
    `found`, errors included: which images the models take together depends on nothing else.
    """
    from pawmatch.images.pool import Readers, read_all

    with closing(read_all(found, classifier.specs, readers or Readers(0), AHEAD * BATCH)) as read:
        for batch, examined in _examine_ahead(classifier, read):
            for file, entry in batch:
                yield file, entry if isinstance(entry, PawMatchError) else next(examined)


def _examine_ahead(
    classifier: Classifier, read: Iterator[Read]
) -> Generator[tuple[list[Read], Iterator[ModelOutputs]]]:
    """Each batch with what the models make of its images.

    The models have the next batch before one is given out. Else cores would idle while rows are written.
    """
    begun: tuple[list[Read], Future[list[ModelOutputs]]] | None = None
    models = ThreadPoolExecutor(1)
    try:
        while True:
            batch = list(islice(read, BATCH))
            prepared = [entry for _, entry in batch if not isinstance(entry, PawMatchError)]
            following = (batch, models.submit(classifier.run_models, prepared)) if batch else None
            if begun is not None:
                yield begun[0], iter(begun[1].result())
            if following is None:
                return
            begun = following
    finally:
        models.shutdown(cancel_futures=True)
