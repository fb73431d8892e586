"""The tables of tasks and variants."""

from __future__ import annotations

import pytest

from pawmatch.errors import UnknownTask
from pawmatch.models import VARIANTS
from pawmatch.tasks import TASKS, VARIANT_NAMES, find_task, new_task


def test_tasks_are_found_by_name() -> None:
    assert {name: find_task(name).title for name in TASKS} == {
        "breed": "Dog breed",
        "artist": "Artist",
        "artist-chae": "Artist (CHAE)",
    }


def test_a_task_that_is_not_in_the_table_gets_general_words() -> None:
    assert new_task("breed") is TASKS["breed"]
    bird = new_task("garden_bird")
    assert (bird.name, bird.title, bird.subject) == ("garden_bird", "Garden bird", "picture")


def test_every_variant_that_can_be_built_has_a_name() -> None:
    assert tuple(VARIANT_NAMES) == tuple(VARIANTS)


@pytest.mark.parametrize("name", ["", "Breed", "dogs", "x" * 1000, None, ["breed"]])
def test_an_unknown_task_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownTask, match=r"use breed, artist or artist-chae.$") as caught:
        find_task(name)
    assert len(str(caught.value)) < 120
