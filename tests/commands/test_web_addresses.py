"""Scripts name a picture by its public web address: `classify`, `explain`, and a classifier in Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pawmatch import load
from pawmatch.cli import main
from pawmatch.errors import ImageNotFound
from pawmatch.images.fetch import fetch
from tests.support.web_server import Server, ok, serving


@pytest.fixture
def web(dog: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A web server with a picture, which counts as public."""
    here = partial(fetch, is_allowed=lambda address, port: address == "127.0.0.1")
    for user in ("classifier", "images.pool"):
        monkeypatch.setattr(f"pawmatch.{user}.fetch", here)
    with serving({"/my%20dog.jpg?size=large": ok(dog.read_bytes())}) as server:
        yield server


def test_commands_and_classifiers_take_a_web_address(
    web: Server, breeds: str, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = web.url("/my%20dog.jpg?size=large")
    classifier = load("breed", breeds)
    expected = classifier.predict(dog)
    assert classifier.predict(place).predictions == expected.predictions
    assert classifier.explain(place).prediction.predictions == expected.predictions
    (answer,) = classifier.predict_batch([place])
    assert answer.predictions == expected.predictions  # type: ignore[union-attr]
    assert main(["classify", place, "--source", breeds, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"] == expected.to_dict()["predictions"]
    assert main(["explain", place, "--source", breeds, "--out", str(tmp_path / "maps")]) == 0
    assert (tmp_path / "maps" / "my dog.sheet.jpg").is_file()


def test_an_address_that_is_not_public_is_a_row_with_its_reason(
    breeds: str, dog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving({}) as server:
        assert main(["classify", server.url("/dog.jpg"), str(dog), "--source", breeds, "--json"]) == 1
        assert server.asked == []
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert "no public web server" in first["error"]["message"]
    assert "predictions" in second


def test_a_setting_switches_it_off(
    web: Server, breeds: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAWMATCH_FETCH_URLS", "no")
    with pytest.raises(ImageNotFound, match="a web address, not a file"):
        load("breed", breeds).predict(web.url("/dog.jpg"))
    for command in ("classify", "explain"):
        assert main([command, web.url("/dog.jpg"), "--source", breeds]) == 1
        assert "a web address, not a file" in capsys.readouterr().err
    assert web.asked == []
