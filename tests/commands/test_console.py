"""What is refused before a model is loaded, and that nothing is loaded for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pawmatch.cli import main
from pawmatch.commands.console import check_out_folder, known_labels
from pawmatch.errors import BadOption, UnknownTask


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["classify", "missing.jpg"], 1, "missing.jpg: There is no such file"),
        (["compare", "missing.jpg"], 1, "There is no image to compare the variants on"),
        (["explain", "missing.jpg"], 1, "missing.jpg: There is no such file"),
        (["classify", "dog.jpg", "--task", "cat"], 2, "Task 'cat' is unknown; use breed, artist or"),
        (["explain", "dog.jpg", "--label", "wolpertinger"], 2, "'wolpertinger' is not among the"),
        (["explain", "dog.jpg", "--out", "dog.jpg"], 2, "dog.jpg is a file; name a folder"),
        (["compare", "dog.jpg", "--truth", "wolpertinger"], 2, "'wolpertinger' is not among the"),
        (["evaluate", "--data", "kennel"], 2, "'Wolpertinger' is not among the"),
        (["evaluate", "--data", "none"], 2, "There is no folder none; name a folder with one subfolder"),
        (["evaluate", "--data", "kennel", "--unknown", "none"], 2, "There is no folder none; name a folder"),
        (["classify", "dog.jpg", "--out", "none/rows.csv"], 2, "There is no folder none for rows.csv"),
    ],
)
def test_what_is_wrong_is_said_before_torch_is_loaded(
    command: list[str], code: int, message: str, dog: Path, tmp_path: Path
) -> None:
    (tmp_path / "kennel" / "Wolpertinger").mkdir(parents=True)
    program = (
        "import sys\n"
        "from pawmatch.cli import main\n"
        f"code = main({command!r})\n"
        "print('torch' in sys.modules, code)\n"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.stdout.splitlines()[-1] == f"False {code}"
    assert message in done.stderr


def test_an_image_that_is_missing_is_an_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "missing.jpg", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "file": "missing.jpg",
        "error": {"code": "ImageNotFound", "message": "There is no such file; check its name and folder."},
    }


def test_labels_are_known_of_what_lies_on_this_computer(
    breeds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ("Beagle", "Border_Collie", "Boxer", "Collie", "Maltese_Dog")
    assert known_labels("breed", breeds) == known_labels("breed", str(Path(breeds).parent)) == labels
    assert known_labels("artist", breeds) is None  # loading says what is wrong with it
    assert known_labels("breed", "hf://nobody/nothing") is None
    (tmp_path / "config.json").write_text("{")
    assert known_labels("breed", str(tmp_path)) is None
    monkeypatch.setenv("PAWMATCH_WEIGHTS", str(Path(breeds).parent))
    assert known_labels("breed", None) == labels
    with pytest.raises(UnknownTask):
        known_labels("bird", None)


def test_a_folder_that_takes_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_out_folder(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(BadOption, match="Nothing can be written to"):
        check_out_folder(tmp_path / "a" / "b")
