"""The tree drawn at the top of errors.py is the tree of classes."""

from __future__ import annotations

import inspect
import re

import pytest

from pawmatch import errors
from pawmatch.errors import PawMatchError

CLASSES: dict[str, type[PawMatchError]] = dict(inspect.getmembers(errors, inspect.isclass))


def drawn_parents() -> dict[str, str]:
    """Child -> parent, as the text at the top of the module draws them."""
    parents: dict[str, str] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([│├└─ ]*)(\w+)(\s\s|$)", line):
            depth = len(found[1]) // 4
            if depth:
                parents[found[2]] = branch[depth - 1]
            branch[depth:] = [found[2]]
    return parents


def parent(child: type) -> str:
    assert child.__base__ is not None
    return child.__base__.__name__


def test_the_drawing_shows_every_class_under_its_parent() -> None:
    actual = {name: parent(item) for name, item in CLASSES.items() if item is not PawMatchError}
    assert drawn_parents() == actual
    assert len(actual) > 20


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_caught_by_the_root_and_tells_its_code(name: str) -> None:
    with pytest.raises(PawMatchError, match=r"^a sentence$") as caught:
        raise CLASSES[name]("a sentence")
    assert caught.value.code == name
    assert (CLASSES[name].__doc__ or "").strip()
