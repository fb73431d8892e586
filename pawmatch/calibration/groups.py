"""Groups of labels that look alike, learnt from which are taken for which, and their names."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration.apply import LabelGroup
from pawmatch.labels import spelling_key

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_GROUP = 8  # labels
MIN_LIFT = 2.0  # similarity in a group over that of any two labels
MIN_IN_CATEGORY = 0.75  # share of a group's labels for it to have the category's name
MAX_CLUSTERED = 1000  # labels; clustering takes time with their cube


def find_groups(probabilities: Doubles, targets: Ints, labels: Sequence[str]) -> tuple[LabelGroup, ...]:
    """The groups of look-alikes among `labels`, smallest first.

    They are the nodes of 2 to MAX_GROUP labels in the tree of average-linkage clustering (Sokal and Michener
    1958) by `similarity` of calibrated probabilities (N, classes) for images of classes `targets` (N,), as
    long as those in it are MIN_LIFT times as similar as labels are on average.
    """
    if not 2 < len(labels) <= MAX_CLUSTERED:
        return ()
    alike = similarity(probabilities, targets)
    least = MIN_LIFT * float(alike[~np.eye(len(labels), dtype=bool)].mean())
    found = clusters(alike, min(MAX_GROUP, len(labels) - 1))
    nodes = [node for node, score in found if score >= least > 0]
    categories = known_categories(labels)
    return tuple(LabelGroup(_name(node, categories), node) for node in sorted(nodes, key=len))


def similarity(probabilities: Doubles, targets: Ints) -> Doubles:
    """How alike any two labels are, (classes, classes): the mean probability of one on images of the other.

    It is averaged over both directions, or has only the one of a pair in which the other has no images.
    """
    classes = probabilities.shape[1]
    count = np.bincount(targets, minlength=classes)
    sums = np.zeros((classes, classes))
    np.add.at(sums, targets, probabilities)
    means = sums / np.maximum(count, 1)[:, None]
    seen = (count > 0).astype(np.float64)
    both: Doubles = (means + means.T) / np.maximum(seen[:, None] + seen, 1)
    return both


def clusters(alike: Doubles, largest: int) -> list[tuple[tuple[int, ...], float]]:
    """The nodes of 2 to `largest` labels in the tree of average linkage, with the similarity of each merge.

    `alike` (classes, classes) is symmetric.
    """
    from scipy.cluster.hierarchy import linkage

    members: list[tuple[int, ...]] = [(index,) for index in range(len(alike))]
    found: list[tuple[tuple[int, ...], float]] = []
    for one, other, gap, size in linkage(1 - alike[np.triu_indices(len(alike), 1)], "average"):
        members.append(tuple(sorted(members[int(one)] + members[int(other)])))
        if size <= largest:
            found.append((members[-1], float(1 - gap)))
    return found


def enclosing_groups(groups: Sequence[LabelGroup], sets: NDArray[np.bool_]) -> Ints:
    """The number (N,) of the smallest group that holds all candidates of each set (N, classes), or -1."""
    chosen = np.full(len(sets), -1, dtype=np.int64)
    for number in sorted(range(len(groups)), key=lambda index: -len(groups[index].labels)):
        beyond = np.ones(sets.shape[1], dtype=bool)
        beyond[list(groups[number].labels)] = False
        chosen[~sets[:, beyond].any(axis=1)] = number
    return chosen


def known_categories(labels: Sequence[str]) -> tuple[LabelGroup, ...]:
    """The hand-written categories with two or more of `labels` in them, smallest first.

    They stand in pawmatch/labels/groups/; labels are found whatever their case and separators.
    """
    places = {spelling_key(label): index for index, label in enumerate(labels)}
    found = [
        LabelGroup(name, tuple(sorted(places[key] for key in keys & places.keys())))
        for name, keys in _categories()
    ]
    return tuple(sorted((one for one in found if len(one.labels) > 1), key=lambda one: len(one.labels)))


def _name(node: Sequence[int], categories: Sequence[LabelGroup]) -> str:
    """The name of the smallest category that fits a group, or nothing."""
    needed = MIN_IN_CATEGORY * len(node)
    fitting = (one.name for one in categories if len(set(node) & set(one.labels)) >= needed)
    return next(fitting, "")


@cache
def _categories() -> tuple[tuple[str, frozenset[str]], ...]:
    """Name and spelling keys of every category in the data files."""
    found: list[tuple[str, frozenset[str]]] = []
    for file in sorted((files("pawmatch") / "labels" / "groups").iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            table = tomllib.loads(file.read_text(encoding="utf-8"))
            found += [(name, frozenset(map(spelling_key, labels))) for name, labels in table.items()]
    return tuple(found)
