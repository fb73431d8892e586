"""Groups of look-alikes, and their names."""

import numpy as np
import pytest

from pawmatch.calibration import LabelGroup
from pawmatch.calibration.groups import (
    MAX_GROUP,
    _categories,
    clusters,
    enclosing_groups,
    find_groups,
    known_categories,
    similarity,
)
from pawmatch.labels import read_labels, spelling_key


def confused(families: list[list[int]], classes: int, count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities for `count` images a class: half for the truth, much of the rest for its family."""
    targets = np.repeat(np.arange(classes), count)
    rows = np.full((len(targets), classes), 0.05 / classes)
    for family in families:
        for label in family:
            rows[np.ix_(targets == label, family)] += 0.45 / len(family)
    rows[np.arange(len(targets)), targets] += 1 - rows.sum(axis=1)
    return rows, targets


def test_similarity_averages_both_directions() -> None:
    probabilities = np.array([[0.6, 0.4, 0.0], [0.8, 0.2, 0.0], [0.2, 0.8, 0.0]])
    found = similarity(probabilities, np.array([0, 0, 1]))
    assert found[0, 1] == found[1, 0] == pytest.approx((0.3 + 0.2) / 2)
    # No image shows the third: what is known comes from the other direction alone.
    assert found[0, 2] == found[2, 0] == 0


def test_clusters_are_the_nodes_of_average_linkage() -> None:
    alike = np.array([[0.0, 0.8, 0.4, 0.1], [0.8, 0.0, 0.2, 0.1], [0.4, 0.2, 0.0, 0.1], [0.1, 0.1, 0.1, 0.0]])
    expected = [((0, 1), 0.8), ((0, 1, 2), pytest.approx(0.3)), ((0, 1, 2, 3), pytest.approx(0.1))]
    assert clusters(alike, 4) == expected
    assert clusters(alike, 2) == expected[:1]


def test_families_are_found_and_named() -> None:
    labels = ["Beagle", "Airedale", "Walker_Hound", "Boxer", "English_Foxhound", "Pug", "Collie", "Samoyed"]
    families = [[0, 2, 4], [3, 5]]
    found = find_groups(*confused(families, len(labels)), labels)
    by_labels = {group.labels: group.name for group in found}
    assert by_labels[0, 2, 4] == "scent hound"
    assert by_labels[3, 5] == ""  # of no kind that is known
    assert all(set(group.labels) <= set(families[0]) or set(group.labels) <= {3, 5} for group in found)
    assert [len(group.labels) for group in found] == sorted(len(group.labels) for group in found)


def test_what_is_never_confused_is_in_no_group() -> None:
    assert find_groups(np.eye(5), np.arange(5), list("abcde")) == ()
    assert find_groups(np.array([[0.5, 0.5], [0.5, 0.5]]), np.arange(2), list("ab")) == ()


def test_groups_stay_small() -> None:
    found = find_groups(*confused([list(range(12))], 30), [f"class {index}" for index in range(30)])
    assert found
    assert max(len(group.labels) for group in found) <= MAX_GROUP


def test_the_smallest_enclosing_group_is_chosen() -> None:
    groups = (LabelGroup("", (0, 1, 2)), LabelGroup("", (0, 1)), LabelGroup("", (3, 4)))
    sets = np.array([[1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 1, 1], [1, 0, 0, 1, 0]], dtype=bool)
    assert enclosing_groups(groups, sets).tolist() == [1, 0, 2, -1]
    assert enclosing_groups((), sets).tolist() == [-1] * 4


def test_every_label_in_a_category_is_a_label() -> None:
    known = {spelling_key(label) for name in ("breed", "artist") for label in read_labels(name)}
    for name, keys in _categories():
        assert keys <= known, name
        assert len(keys) > 1, name
    assert len({name for name, _ in _categories()}) == len(_categories())


@pytest.mark.parametrize(("task", "least"), [("breed", 25), ("artist", 6)])
def test_categories_are_found_by_labels(task: str, least: int) -> None:
    labels = read_labels(task)
    found = known_categories(labels)
    assert len(found) >= least
    assert [len(one.labels) for one in found] == sorted(len(one.labels) for one in found)
    assert known_categories([label.lower().replace("_", " ") for label in labels]) == found
    assert known_categories(["red", "blue"]) == ()
