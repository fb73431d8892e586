"""From paths to images: what is found, in which order, and what is said about the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pawmatch.commands import inputs
from pawmatch.errors import ImageNotFound


def test_a_folder_that_cannot_be_listed_is_reported(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list_folder = os.scandir

    def scandir(place: str) -> Any:
        if str(place).endswith("deeper"):
            raise PermissionError(13, "Permission denied", place)
        return list_folder(place)

    monkeypatch.setattr(os, "scandir", scandir)
    found = list(inputs.find_images([str(album)]))
    assert [Path(file).name for file, _ in found] == ["a.jpg", "b.jpg", "deeper"]
    assert "Permission denied" in str(found[-1][1])


def test_errors_keep_their_place_among_batches() -> None:
    def ask(images: Iterator[str]) -> Iterator[str]:
        while batch := list(islice(images, 4)):
            yield from batch

    error = ImageNotFound("gone")
    given = [(f"{index}", error if index % 3 == 0 else None) for index in range(20)]
    found = list(inputs.in_order(iter(given), ask))
    assert [file for file, _ in found] == [file for file, _ in given]
    assert [result for _, result in found] == [error if failed else file for file, failed in given]
