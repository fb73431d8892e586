"""`pawmatch labels`: names, groups, and the same as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pawmatch import load
from pawmatch.cli import main


def test_names_in_the_order_of_the_outputs(breeds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", "--source", breeds]) == 0
    assert capsys.readouterr().out.splitlines() == ["Beagle", "Border Collie", "Boxer", "Collie", "Maltese"]


@pytest.mark.parametrize("task", ["breed", "artist"])
def test_what_is_listed_is_what_answers(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not (Path(__file__).parents[2] / "weights" / task).is_dir():
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


def test_a_task_that_is_not_there_gives_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", "--task", "cat"]) == 2
    assert "Task 'cat' is unknown; use breed" in capsys.readouterr().err
    assert main(["labels", "--source", "no/such/folder"]) == 2
    assert "no/such/folder" in capsys.readouterr().err
