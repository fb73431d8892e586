"""A file of results that is gone on with: what is kept, what is cut, what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pawmatch.commands.inputs import Found
from pawmatch.commands.output import COLUMNS, Output, Result, check_out, valid_text
from pawmatch.errors import BadOption, BrokenImage, PawMatchError
from pawmatch.results import Candidate, ModelInfo, Prediction, Review, ReviewReason, VariantAnswer, Verdict

SETTINGS: dict[str, Any] = {"top_k": 2, "weights": ["00ff"]}
FILES = ["1.jpg", "two\nlines.jpg", "3,\r.jpg", "=4.jpg", "ž犬.jpg", "\udcff.jpg", "7.jpg"]
SUFFIXES = pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda number: None)


def result_of(file: str) -> Result:
    """A made-up answer that depends on the name; every third is an error."""
    number = FILES.index(file) if file in FILES else len(FILES)
    if number % 3 == 1:
        return BrokenImage("damaged,\nor cut short")
    share = round(1 / (number + 2), 4)
    return Prediction(
        task="breed",
        model=ModelInfo("here", "cnn", "resnet18d", 2),
        verdict=Verdict("answer", "a"),
        predictions=(Candidate("A", "a", 1 - share), Candidate("B", "b", share)),
        review=Review(True, (ReviewReason("low_confidence", "low"),), 0.5),
        candidates_90=("a", "b"),
        variants=(VariantAnswer("cnn", "A", "a", 1 - share),),
        timing_ms={"decode": number},
    )


def write(
    out: Path,
    files: Sequence[str] = FILES,
    *,
    stop_after: int | None = None,
    settings: dict[str, Any] = SETTINGS,
    fresh: bool = False,
) -> tuple[list[str], Output]:
    """Run over files, perhaps only over the first of what is left; gives what was left and the output."""
    found: Iterator[Found] = iter([(file, None) for file in files])
    with Output(out, settings, ("cnn",), 2, fresh=fresh) as output:
        left = [file for file, _ in output.left(found)]
        for file in left[:stop_after]:
            output.write(file, result_of(file))
        if stop_after is None:
            output.finish()
    return left, output


def rows_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.rows.jsonl") if out.suffix == ".parquet" else out


@SUFFIXES
def test_a_run_cut_at_any_byte_ends_as_if_nothing_had_happened(suffix: str, tmp_path: Path) -> None:
    whole = tmp_path / f"whole.{suffix}"
    left, output = write(whole)
    assert left == FILES
    assert (output.tally.rows, output.tally.errors) == (7, 2)
    expected = whole.read_bytes()
    begun = tmp_path / f"begun.{suffix}"
    write(begun, stop_after=len(FILES))
    rows = rows_of(begun).read_bytes()
    step = 61 if suffix == "parquet" else 3
    for length in [*range(0, len(rows), step), len(rows)]:
        rows_of(begun).write_bytes(rows[:length])
        left, output = write(begun)
        assert begun.read_bytes() == expected, rows[:length]
        assert left == FILES[-len(left) or 7 :]
        assert (output.tally.rows, output.tally.errors) == (7, 2)
        assert [file for file, _ in output.tally.first] == ["two\nlines.jpg", "ž犬.jpg"]
        if suffix == "parquet":
            assert not rows_of(begun).exists()
            begun.unlink()
    assert left == []


@SUFFIXES
def test_whole_batches_are_kept(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{suffix}"
    write(out, stop_after=5)
    left, _ = write(out)
    assert left == FILES[4:]


@SUFFIXES
def test_a_finished_run_has_nothing_left(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{suffix}"
    write(out)
    before = out.read_bytes()
    left, output = write(out)
    assert left == []
    assert (output.tally.rows, output.tally.errors) == (7, 2)
    assert out.read_bytes() == before


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_images_after_the_last_row_are_added(suffix: str, tmp_path: Path) -> None:
    out, at_once = tmp_path / f"out.{suffix}", tmp_path / f"at_once.{suffix}"
    write(out)
    left, _ = write(out, [*FILES, "8.jpg"])
    assert left == ["7.jpg", "8.jpg"]  # its batch is done anew
    write(at_once, [*FILES, "8.jpg"])
    assert out.read_bytes() == at_once.read_bytes()


def test_a_finished_table_is_not_added_to(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    write(out)
    with pytest.raises(BadOption, match="is finished, and there are more images now; add --fresh"):
        write(out, [*FILES, "8.jpg"])


@SUFFIXES
@pytest.mark.parametrize("stop_after", [4, None])
def test_images_added_or_taken_away_before_the_last_row_are_refused(
    suffix: str, stop_after: int | None, tmp_path: Path
) -> None:
    out = tmp_path / f"out.{suffix}"
    write(out, stop_after=stop_after)
    before = rows_of(out).read_bytes() if stop_after else out.read_bytes()
    for files in (["0.jpg", *FILES], FILES[1:], FILES[:2]):
        with pytest.raises(BadOption, match="added or taken away"):
            write(out, files)
    assert before == (rows_of(out).read_bytes() if stop_after else out.read_bytes())
    left, _ = write(out, FILES[1:], fresh=True)
    assert left == FILES[1:]


@SUFFIXES
@pytest.mark.parametrize("stop_after", [4, None])
def test_rows_of_other_settings_are_refused(suffix: str, stop_after: int | None, tmp_path: Path) -> None:
    out = tmp_path / f"out.{suffix}"
    write(out, stop_after=stop_after)
    with pytest.raises(BadOption, match=r"other settings \(top_k was 2, now 3\); add --fresh"):
        write(out, settings={**SETTINGS, "top_k": 3})
    with pytest.raises(BadOption, match="the weights have changed"):
        write(out, settings={**SETTINGS, "weights": ["0100"]})
    assert write(out, settings={**SETTINGS, "top_k": 3}, fresh=True)[0] == FILES
    assert write(out, settings={**SETTINGS, "top_k": 3})[0] == []


@SUFFIXES
def test_a_file_of_something_else_is_left_as_it_is(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{suffix}"
    out.write_text("precious\n")
    with pytest.raises(BadOption, match="--fresh"):
        write(out)
    (tmp_path / f"{out.name}.run.json").write_text(json.dumps(SETTINGS))
    with pytest.raises(BadOption, match="--fresh"):
        write(out)
    (tmp_path / f"{out.name}.run.json").write_text("[]")
    with pytest.raises(BadOption, match="no record of a run"):
        write(out)
    (tmp_path / f"{out.name}.run.json").write_text("{")
    with pytest.raises(BadOption, match="cannot be read"):
        write(out)
    assert out.read_text() == "precious\n"
    assert [path.name for path in tmp_path.iterdir() if "rows" in path.name] == []


@pytest.mark.parametrize(
    ("suffix", "edit"),
    [
        ("csv", lambda text: text.replace(b"\n", b"\r\n")),
        ("csv", lambda text: text.replace(b",breed,", b",", 1)),
        ("csv", lambda text: text.replace(b"file,task", b"task,file")),
        ("jsonl", lambda text: text.replace(b'"file"', b'"path"', 1)),
        ("jsonl", lambda text: text.replace(b'"task": ', b'"task"', 1)),
    ],
)
def test_rows_that_were_edited_are_refused(
    suffix: str, edit: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    out = tmp_path / f"out.{suffix}"
    write(out, stop_after=6)
    out.write_bytes(edit(out.read_bytes()))
    before = out.read_bytes()
    with pytest.raises(BadOption, match="was changed since this program wrote it"):
        write(out)
    assert out.read_bytes() == before


def test_a_tail_of_zeros_after_a_power_cut_is_cut_off(tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl"):
        out = tmp_path / f"out.{suffix}"
        write(out, stop_after=4)
        with out.open("ab") as file:
            file.write(bytes(4096))
        assert write(out)[0] == FILES[4:]
        assert b"\0" not in out.read_bytes()


def test_an_empty_file_is_a_place_to_write_to(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.touch()
    assert write(out)[0] == FILES


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    out = tmp_path / "out.csv"
    write(out, stop_after=2)
    with Output(out, SETTINGS, ("cnn",), 2, fresh=False) as first:
        first.left(iter([(file, None) for file in FILES]))
        with pytest.raises(BadOption, match="Another run is writing"):
            write(out, fresh=True)


def test_a_folder_that_is_an_error_stays_one(tmp_path: Path) -> None:
    error: PawMatchError = BrokenImage("cannot be listed")
    out = tmp_path / "out.jsonl"
    found: list[Found] = [("1.jpg", None), ("shut", error), ("3.jpg", None)]
    with Output(out, SETTINGS, ("cnn",), 2, fresh=False) as output:
        assert list(output.left(iter(found))) == found
        for file, refused in found:
            output.write(file, refused or result_of("1.jpg"))
    with Output(out, SETTINGS, ("cnn",), 2, fresh=False) as output:
        assert list(output.left(iter(found))) == []
        assert output.tally.first == [("shut", "cannot be listed")]


def test_what_programs_read(tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl", "parquet"):
        write(tmp_path / f"out.{suffix}")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert [row["file"].removeprefix("'") for row in rows] == FILES
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("ascii").splitlines()]
    assert [line["file"] for line in lines] == FILES
    assert not any("timing_ms" in line for line in lines)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == [*COLUMNS, "cnn", "cnn_confidence"]
    good, broken, *_ = typed = table.to_pylist()
    assert [row["file"] for row in typed] == [valid_text(file) for file in FILES]
    assert good["check"] is True
    assert good["reasons"] == ["low_confidence"]
    assert good["others"] == [{"name": "b", "confidence": 0.5}]
    assert good["error"] is broken["task"] is broken["cnn_confidence"] is None
    assert broken["error"] == "BrokenImage"


def test_names_that_are_no_results_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadOption, match=r"ends in \.csv, \.jsonl or \.parquet"):
        check_out(Path("out.txt"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadOption, match="needs pyarrow: pip install"):
        check_out(Path("out.parquet"))
