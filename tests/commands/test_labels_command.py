"""`pawmatch labels`: names, groups, and the same as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pawmatch import load
from pawmatch.cli import main
from pawmatch.labels import bundled_weights
from tests.support.hub_server import HubServer, files_of

pytest_plugins = ("tests.support.hub_fixture",)


def test_names_in_the_order_of_the_outputs(breeds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", "--source", breeds]) == 0
    assert capsys.readouterr().out.splitlines() == ["Beagle", "Border Collie", "Boxer", "Collie", "Maltese"]


def test_what_is_listed_is_what_answers(capsys: pytest.CaptureFixture[str]) -> None:
    task = "artist"
    if not (bundled_weights() / task).is_dir():
        pytest.skip("there are no bundled weights here")
    assert main(["labels", "--task", task, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    classifier = load(task, engine="torch")
    assert [one["label"] for one in listed["classes"]] == list(classifier.labels)
    assert [one["name"] for one in listed["classes"]] == list(classifier.names)
    groups = classifier.main.checkpoint.config.calibration.groups
    assert [one["name"] for one in listed["groups"]] == [group.name for group in groups]
    assert listed["groups"][0]["labels"] == [classifier.labels[index] for index in groups[0].labels]
    assert listed["task"]["noun"] == classifier.task.noun
    assert main(["labels", "--task", task, "--groups"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(groups)


def test_of_weights_on_the_hub_the_config_alone_is_fetched(
    breeds: str, hub_server: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub_server.commit("you/dogs", files_of(Path(breeds)))
    assert main(["labels", "--source", breeds, "--json"]) == 0
    listed = capsys.readouterr().out
    assert main(["labels", "--source", "hf://you/dogs", "--json"]) == 0
    assert capsys.readouterr().out == listed
    assert hub_server.downloads()
    assert all("config.json" in path for path in hub_server.downloads())
    # A commit without its weights here is none that a later start could do with.
    assert not list((tmp_path / "hf" / "hub").rglob("refs/*"))


def test_a_task_that_is_not_there_gives_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", "--task", "cat"]) == 2
    assert "Task 'cat' is unknown; use breed" in capsys.readouterr().err
    assert main(["labels", "--source", "no/such/folder"]) == 2
    assert "no/such/folder" in capsys.readouterr().err
