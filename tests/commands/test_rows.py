"""Tables that people open: accents, formulas and odd names, written and read."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

import pandas as pd
import pytest

from pawmatch.commands.rows import columns_of, csv_line, csv_table, json_record, read_table, write_csv
from pawmatch.errors import BadOption, BrokenImage


def test_a_table_begins_with_the_mark_by_which_excel_knows_utf8(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    write_csv(iter([json_record("Musée/Cézanne 1.jpg", BrokenImage("damaged"))]), table, ["cnn"])
    assert table.read_bytes().startswith(codecs.BOM_UTF8 + b"file,task,")
    read = pd.read_csv(table)
    assert list(read) == columns_of(["cnn"])
    assert read["file"].tolist() == ["Musée/Cézanne 1.jpg"]
    assert read["message"].tolist() == ["damaged"]


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1+1", "@SUM(1)", "\tx", "\rx"])
def test_text_that_would_run_as_a_formula_is_guarded(text: str, tmp_path: Path) -> None:
    line = csv_line([text, "Border Collie", -0.5, 3, None]).decode()
    assert next(csv.reader(io.StringIO(line, newline=""))) == [f"'{text}", "Border Collie", "-0.5", "3", ""]
    table = tmp_path / "table.csv"
    table.write_bytes(b"".join(csv_table([["file"], [text]])))
    assert read_table(table) == [{"file": text}]


def test_numbers_have_four_digits() -> None:
    assert csv_line([0.123456, 1 / 3, 2]) == b"0.1235,0.3333,2\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_is_read_as_spreadsheets_save_it(encoding: str, separator: str, tmp_path: Path) -> None:
    table = tmp_path / "truth.csv"
    lines = (separator.join(line) for line in (("file", "label"), ("Musée 1.jpg", "Paul Cézanne")))
    table.write_bytes("\r\n".join([*lines, ""]).encode(encoding))
    assert read_table(table) == [{"file": "Musée 1.jpg", "label": "Paul Cézanne"}]


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    with pytest.raises(BadOption, match="is empty; give a table"):
        read_table(tmp_path / "empty.csv")
