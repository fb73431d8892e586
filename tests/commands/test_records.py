"""Files of results: rows for spreadsheets and programs, whatever the images are called."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from pawmatch.cli import main
from pawmatch.commands import classify
from pawmatch.commands.console import printable
from pawmatch.commands.output import COLUMNS, cell

VARIANTS = ["cnn", "cnn_transformer", "cnn_transformer_mfe"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_odd_names_do_not_reach_the_terminal(
    breeds: str, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    names = [b"\x1b[31mred\nline.jpg", b"\xff\xfe.jpg", "Žižek 犬 \u202ereversed.jpg".encode(), b"=1+1.jpg"]
    for name in names:
        (Path(str(folder)) / name.decode("utf-8", "surrogateescape")).write_bytes(dog.read_bytes())
    rows = tmp_path / "rows.csv"
    lines = tmp_path / "rows.JSONL"
    assert main(["classify", str(folder), "--source", breeds]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == len(names)
    assert all(char.isprintable() for char in out.replace("\n", ""))
    assert "\\x1b[31mred\\nline.jpg" in out
    assert "Žižek 犬 \\u202ereversed.jpg" in out
    for target in (rows, lines):
        assert main(["classify", str(folder), "--source", breeds, "--out", str(target)]) == 0
    expected = sorted(str(path) for path in folder.iterdir())
    with rows.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == expected
    assert [json.loads(line)["file"] for line in lines.read_text().splitlines()] == expected


def test_csv_has_the_documented_columns(
    breeds: str, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "answers.csv"
    arguments = ["classify", str(album), "--source", breeds, "--out", str(target), "--top-k", "2"]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"wrote 3 rows to {target}, 1 of them errors." in err
    with target.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    extra = [column for variant in VARIANTS for column in (variant, f"{variant}_confidence")]
    assert list(rows[0]) == [*COLUMNS, *extra]
    good, broken = rows[0], rows[1]
    assert (good["verdict"], good["verdict_text"]) == ("answer", f"Perhaps a {good['name']}")
    assert good["check"] == "yes"
    assert good["label"] == good["cnn_transformer_mfe"]
    assert good["confidence"] == good["cnn_transformer_mfe_confidence"]
    assert len(good["others"].split("; ")) == 1
    assert good["error"] == good["message"] == ""
    assert broken["error"] == "BrokenImage"
    assert broken["label"] == broken["cnn"] == ""
    assert all(column in classify.EPILOG for column in COLUMNS)


def test_refused_options_leave_an_older_result_as_it_was(breeds: str, dog: Path, tmp_path: Path) -> None:
    target = tmp_path / "answers.csv"
    target.write_text("precious")
    arguments = ["classify", str(dog), "--source", breeds, "--out", str(target), "--top-k", "0"]
    assert main(arguments) == 2
    assert target.read_text() == "precious"


def test_formulas_are_defused() -> None:
    assert cell("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert cell("Border Collie") == "Border Collie"
    assert cell(0.5) == 0.5


def test_printable_keeps_what_people_read() -> None:
    assert printable("Paul Cézanne, 犬.jpg") == "Paul Cézanne, 犬.jpg"
    assert printable("a\r\x1b\x9b\udcff\u202e") == "a\\r\\x1b\\x9b\\udcff\\u202e"
