"""A file of results that is gone on with: what is kept, what is cut, what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pawmatch.commands.output import Output, check_out, engines_of, manifest_path, write_manifest
from pawmatch.commands.rows import COLUMNS, Result
from pawmatch.errors import BadOption, BrokenImage
from pawmatch.evaluation.folders import Found
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
    found: list[Found] = [(file, None) for file in files]
    with Output(out, settings, ("cnn",), 2, fresh=fresh) as output:
        left = [file for file, _ in output.left(iter(found))]
        for file in left[:stop_after]:
            output.write(file, result_of(file))
        if stop_after is None:
            output.finish()
    return left, output


def rows_of(out: Path) -> Path:
    return out if out.suffix == ".jsonl" else out.with_name(f"{out.name}.rows.jsonl")


@SUFFIXES
def test_a_run_goes_on_where_names_are_read_as_ascii(suffix: str, tmp_path: Path) -> None:
    write(tmp_path / f"out.{suffix}", [*FILES, "d\udcc3\udcb6g.jpg"])
    left, output = write(tmp_path / f"out.{suffix}", [*FILES, "dög.jpg"])
    assert left == []
    assert output.gone == 0


@SUFFIXES
def test_a_run_cut_at_any_byte_ends_as_if_nothing_had_happened(suffix: str, tmp_path: Path) -> None:
    whole = tmp_path / f"whole.{suffix}"
    left, output = write(whole)
    assert left == FILES
    expected, rows = whole.read_bytes(), rows_of(whole).read_bytes()
    begun = tmp_path / f"begun.{suffix}"
    write(begun, stop_after=0)
    for length in [*range(0, len(rows), 61), len(rows)]:
        rows_of(begun).write_bytes(rows[:length])
        left, output = write(begun)
        assert begun.read_bytes() == expected, rows[:length]
        assert left == FILES[-len(left) or 7 :]
        assert (output.tally.rows, output.tally.errors) == (7, 2)
        assert [file for file, _ in output.tally.first] == ["two\nlines.jpg", "ž犬.jpg"]
    assert left == []


@SUFFIXES
def test_a_run_that_was_ended_goes_on_after_the_last_whole_batch(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{suffix}"
    write(out, stop_after=5)
    assert out.exists() is (suffix == "jsonl")  # a table is there once it is whole
    assert write(out)[0] == FILES[4:]
    before = out.read_bytes()
    assert write(out)[0] == []
    assert out.read_bytes() == before


@SUFFIXES
def test_images_that_are_new_are_added_wherever_they_are(suffix: str, tmp_path: Path) -> None:
    out, at_once = tmp_path / f"out.{suffix}", tmp_path / f"at_once.{suffix}"
    write(out)
    assert write(out, [*FILES, "8.jpg"])[0] == ["7.jpg", "8.jpg"]  # its batch is done anew
    write(at_once, [*FILES, "8.jpg"])
    assert out.read_bytes() == at_once.read_bytes()
    left, output = write(out, ["0.jpg", *FILES[1:], "8.jpg", "8.jpg"])
    assert left == ["0.jpg", "8.jpg"]  # one of the two that were named has a row
    assert output.gone == 1


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
    for text in (json.dumps(SETTINGS), "[]", "{"):
        manifest_path(out).write_text(text)
        with pytest.raises(BadOption, match="--fresh"):
            write(out)
    assert out.read_text() == "precious\n"
    assert [path.name for path in tmp_path.iterdir() if "rows" in path.name] == []


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace(b'"file"', b'"path"', 1),
        lambda text: text.replace(b'"task": ', b'"task"', 1),
        lambda text: text.replace(b"{", b"[{", 1),
    ],
)
def test_rows_that_were_edited_are_refused(edit: Callable[[bytes], bytes], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    write(out, stop_after=6)
    out.write_bytes(edit(out.read_bytes()))
    before = out.read_bytes()
    with pytest.raises(BadOption, match=r"was changed since this program wrote it \(line 1\)"):
        write(out)
    assert out.read_bytes() == before


def test_a_tail_of_zeros_after_a_power_cut_is_cut_off(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    write(out, stop_after=4)
    with out.open("ab") as file:
        file.write(bytes(4096))
    assert write(out)[0] == FILES[4:]
    assert b"\0" not in out.read_bytes()


def test_an_empty_file_is_a_place_to_write_to(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
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


def test_a_table_that_cannot_be_made_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.csv"
    write(out)
    before = out.read_bytes()

    def full(values: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pawmatch.commands.rows.csv_line", full)
    with pytest.raises(OSError, match="No space left"):
        write(out, [*FILES, "8.jpg"])
    assert out.read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_programs_read(tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl", "parquet"):
        write(tmp_path / f"out.{suffix}")
    escaped = [file.replace("\udcff", "\\xff") for file in FILES]
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert [row["file"].removeprefix("'") for row in rows] == escaped
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("ascii").splitlines()]
    assert [line["file"] for line in lines] == FILES
    assert not any("timing_ms" in line for line in lines)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == [*COLUMNS, "cnn", "cnn_confidence"]
    good, broken, *_ = typed = table.to_pylist()
    assert [row["file"] for row in typed] == escaped
    assert good["check"] is True
    assert good["reasons"] == ["low_confidence"]
    assert good["others"] == [{"name": "b", "confidence": 0.5}]
    assert good["error"] is broken["task"] is broken["cnn_confidence"] is None
    assert broken["error"] == "BrokenImage"


def test_names_that_are_no_results_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadOption, match=r"ends in \.csv, \.jsonl or \.parquet"):
        check_out(Path("out.txt"))
    with pytest.raises(BadOption, match=r"There is no folder .*none for out\.csv"):
        check_out(tmp_path / "none" / "out.csv")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(BadOption, match="cannot be written; check its permissions"):
        check_out(tmp_path / "out.csv")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadOption, match="needs pyarrow: pip install"):
        check_out(Path("out.parquet"))


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"engines": ["torch"]}', "\udcff"])
def test_the_manifest_says_which_engines_go_on(text: str | None, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    write_manifest(out, {"engines": {"cnn": "torch float32"}})
    assert engines_of(out) == {"cnn": "torch float32"}
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv.run.json"]
    manifest_path(out).unlink()
    if text is not None:
        manifest_path(out).write_text(text, errors="surrogateescape")
    assert engines_of(out) is None
