"""`pawmatch classify`: one image and many, for people and for programs."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest

from pawmatch import classifier
from pawmatch.cli import main
from pawmatch.commands import classify
from pawmatch.commands.console import printable
from pawmatch.commands.output import Output, engines_of
from pawmatch.commands.rows import COLUMNS, read_table
from pawmatch.engines import choose
from pawmatch.engines.torch import TorchEngine
from pawmatch.images import pool

VARIANTS = ["cnn", "cnn_transformer", "cnn_transformer_mfe"]


def test_one_image_gives_the_object_of_the_api(
    breeds: str, dog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(dog), "--source", breeds, "--json", "--top-k", "3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    answer = json.loads(out)
    assert list(answer) == [
        *("task", "model", "verdict", "predictions", "review", "candidates_90", "group", "looks_like"),
        *("boxes", "variants", "facts", "question", "timing_ms", "warnings"),
    ]
    assert answer["model"] == {
        "source": f"{breeds}/cnn_transformer_mfe",
        "variant": "cnn_transformer_mfe",
        "backbone": "resnet18d",
        "classes": 5,
    }
    assert len(answer["predictions"]) == 3
    assert all(list(one) == ["label", "name", "confidence"] for one in answer["predictions"])
    confidences = [one["confidence"] for one in answer["predictions"]]
    assert confidences == sorted(confidences, reverse=True)
    assert list(answer["review"]) == ["needed", "reasons", "threshold"]
    assert answer["review"]["needed"] is bool(answer["review"]["reasons"])
    assert answer["predictions"][0]["name"] in answer["candidates_90"]
    assert [one["variant"] for one in answer["variants"]] == VARIANTS
    assert set(answer["timing_ms"]) == {"decode", "features", "head"}


def test_several_images_give_one_object_per_line(
    breeds: str, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(album / "missing.jpg")
    assert main(["classify", str(album), missing, "--source", breeds, "--json"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    rows = [json.loads(line) for line in out.splitlines()]
    assert all(next(iter(row)) == "file" for row in rows)
    files = ["a.jpg", "b.jpg", "deeper/c.PNG", "missing.jpg"]
    assert [row["file"] for row in rows] == [str(album / file) for file in files]
    assert [row.get("error", {}).get("code") for row in rows] == [None, "BrokenImage", None, "ImageNotFound"]
    assert set(rows[1]["error"]) == {"code", "message"}


def test_lines_for_people(breeds: str, album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (album / "empty").mkdir()
    paths = [str(album), str(album / "empty"), str(album / "missing.jpg")]
    assert main(["classify", *paths, "--source", breeds]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert out.startswith(str(album / "a.jpg"))
    assert "%" in out
    assert "check: " in out
    # What is missing is said before the models are loaded.
    assert [line.split(": ")[2] for line in err.splitlines()] == [paths[2], str(album / "b.jpg"), paths[1]]
    assert "There is no image at this place" in err


def test_one_image_is_described_in_full(breeds: str, dog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(dog), "--source", breeds]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{dog}: Perhaps a ")
    for text in ("Border Collie", "Maltese", "CNN + Transformer + MFE: ", "9 times in 10", "check: "):
        assert text in out


def test_facts_count_and_the_question_says_what_it_takes(
    breeds: str, dog: Path, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["classify", str(dog), "--source", breeds]
    assert main([*command, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    question = plain["question"]
    fact = f"{question['attribute']}={question['choices'][0]['value']}"
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f"to be surer: {question['text']}" in out
    assert f"--fact {fact} ({question['choices'][0]['text']})" in out
    assert main([*command, "--fact", fact]) == 0
    out = capsys.readouterr().out
    assert f": {question['choices'][0]['text']}\n" in out.partition("given: ")[2]
    assert main([*command, "--fact", fact, "--fact", "coat=unsure", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["value"] for one in told["facts"]] == [question["choices"][0]["value"], "unsure"]
    assert told["predictions"] != plain["predictions"]
    assert main([*command, "--json", "--fact", "coat=unsure", "--words", "small, long coat"]) == 0
    out, err = capsys.readouterr()
    assert [one["value"] for one in json.loads(out)["facts"]] == ["unsure", "small"]
    assert "given: Coat length: not sure; Size: small, 5 to 12 kg." in err
    # Rows with other facts are other rows.
    rows = [*command, "--out", str(tmp_path / "rows.jsonl"), "--fact"]
    assert main([*rows, "coat=long"]) == 0
    assert main([*rows, "coat=short"]) == 2
    assert "--fresh" in capsys.readouterr().err


def test_adaptive_rows_lack_the_variants_that_were_not_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = Path(__file__).parents[2] / "examples"
    sure, doubtful = (str(examples / f"{dog}.jpg") for dog in ("beagle", "west_highland_white_terrier"))
    command = ["classify", sure, doubtful, "--workers", "0", "--out", str(tmp_path / "rows.csv")]
    assert main([*command, "--adaptive"]) == 0
    answered = read_table(tmp_path / "rows.csv")
    assert [row["label"] for row in answered] == [row["cnn"] for row in answered]
    assert [row["cnn_transformer_mfe"] for row in answered] == ["", "West_Highland_White_Terrier"]
    assert main(command) == 2  # other rows
    assert "adaptive" in capsys.readouterr().err


def test_wrong_facts_are_refused_before_anything_is_loaded(
    dog: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify, "load_models", lambda *_: pytest.fail("loaded"))
    for fact, said in (
        ("siez=small", "'siez' is unknown; use size"),
        ("size=huge", "size is 'huge'; use tiny"),
    ):
        assert main(["classify", str(dog), "--fact", fact]) == 2
        assert said in capsys.readouterr().err
    for words, said in (("my friend Rex", "Nothing of --words is understood"), ("x" * 301, "at most 300")):
        assert main(["classify", str(dog), "--fact", "size=small", "--words", words]) == 2
        assert said in capsys.readouterr().err


def test_the_csv_has_the_documented_columns(
    breeds: str, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "answers.csv"
    arguments = ["classify", str(album), "--source", breeds, "--out", str(target), "--top-k", "2"]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"wrote 3 rows to {target}, 1 of them errors." in err
    rows = pd.read_csv(target, keep_default_na=False)
    extra = [column for variant in VARIANTS for column in (variant, f"{variant}_confidence")]
    assert list(rows) == [*COLUMNS, *extra]
    good, broken = rows.to_dict("records")[:2]
    assert (good["verdict"], good["verdict_text"]) == ("answer", f"Perhaps a {good['name']}")
    assert good["check"] == "yes"
    assert good["label"] == good["cnn_transformer_mfe"]
    assert len(good["others"].split("; ")) == 1
    assert good["error"] == good["message"] == ""
    assert broken["error"] == "BrokenImage"
    assert broken["label"] == broken["cnn"] == ""
    assert all(column in classify.EPILOG for column in COLUMNS)
    versions = json.loads((tmp_path / "answers.csv.run.json").read_text())["versions"]
    assert {"torch", "numpy", "pillow"} <= versions.keys()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_odd_names_do_not_reach_the_terminal(
    breeds: str, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    names = [b"\x1b[31mred\nline.jpg", b"\xff\xfe.jpg", "Žižek 犬 \u202ereversed.jpg".encode(), b"=1+1.jpg"]
    for name in names:
        (Path(str(folder)) / name.decode("utf-8", "surrogateescape")).write_bytes(dog.read_bytes())
    assert main(["classify", str(folder), "--source", breeds]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == len(names)
    assert all(char.isprintable() for char in out.replace("\n", ""))
    assert "\\x1b[31mred\\nline.jpg" in out
    assert "Žižek 犬 \\u202ereversed.jpg" in out
    assert printable("a\r\x1b\x9b\udcff\u202e") == "a\\r\\x1b\\x9b\\udcff\\u202e"


def test_readers_start_before_the_models_are_loaded(
    breeds: str, dog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(pool.FEW_FILES):
        (tmp_path / f"{number:03}.jpg").write_bytes(dog.read_bytes())
    order: list[str] = []
    load, start = classifier.load, pool.Reader.__init__

    def loads(*given: Any, **options: Any) -> Any:
        order.append("load")
        return load(*given, **options)

    def starts(self: pool.Reader) -> None:
        order.append("reader")
        start(self)

    monkeypatch.setattr(classifier, "load", loads)
    monkeypatch.setattr(pool.Reader, "__init__", starts)
    command = ["classify", str(tmp_path), "--source", breeds, "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "rows.csv")]) == 0
    assert order.index("reader") < order.index("load")
    assert order.count("reader") == pool.suitable_readers(pool.FEW_FILES, "cpu")
    order.clear()
    for number in range(1, pool.FEW_FILES):
        (tmp_path / f"{number:03}.jpg").unlink()
    assert main([*command, "--out", str(tmp_path / "few.csv")]) == 0
    assert order == ["load"]


def test_rows_are_the_same_with_readers_and_without(
    breeds: str, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(18):
        (tmp_path / f"{number}.jpg").write_bytes(dog.read_bytes()[: None if number % 5 else 300])
    lines: dict[str, bytes] = {}
    for workers in ("0", "2"):
        out = tmp_path / f"{workers}.jsonl"
        command = ["classify", str(tmp_path), "--source", breeds, "--workers", workers, "--out", str(out)]
        assert main(command) == 1
        lines[workers] = out.read_bytes()
    assert lines["0"] == lines["2"]
    assert lines["0"].count(b"\n") == 19
    err = capsys.readouterr().err
    assert err.count("0.jpg: This JPEG image is damaged") == 4
    assert f"wrote 19 rows to {out}, 4 of them errors." in err
    assert main(command) == 1
    assert f"{out} was finished before: 19 rows, 4 of them errors." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "-1"], "--workers is -1; give a whole number from 0"),
        (["--top-k", "0"], "--top-k is 0; give a whole number from 1 on"),
        (["--fresh"], "--fresh overwrites the file of --out; name that file too"),
        (["--fact", "small"], "--fact is 'small'; write it as WHAT=VALUE."),
    ],
)
def test_options_are_refused_before_anything_is_loaded(
    options: list[str], message: str, dog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(dog), "--source", "nowhere", *options]) == 2
    assert message in capsys.readouterr().err


def test_an_interrupted_run_says_how_to_go_on(
    breeds: str,
    album: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out.csv"
    command = ["classify", str(album), "--source", breeds, "--out", str(out)]
    write: Callable[..., None] = Output.write

    def write_one(self: Output, *row: Any) -> None:
        if self.tally.rows:
            raise KeyboardInterrupt
        write(self, *row)

    with monkeypatch.context() as patch:
        patch.setattr(Output, "write", write_one)
        patch.setattr(choose, "choose_engine", lambda models, device, *_: TorchEngine(models[0], device))
        assert main(command) == 130
    assert f"stopped at row 1 of {out}; the same command goes on from there." in capsys.readouterr().err
    # Another engine may be the fastest by now; the one that the run began with goes on.
    monkeypatch.setattr(choose, "choose_engine", None)
    assert main(command) == 1
    assert out.read_text().count("\n") == 4
    assert set((engines_of(out) or {}).values()) == {"torch float32"}


def test_all_shards_together_are_the_whole_in_any_number(
    breeds: str, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(35):
        (photos / f"{number:02}.jpg").write_bytes(dog.read_bytes()[: 300 if number == 20 else None])
    rows = {}
    for shard in ("1/1", "1/3", "2/3", "3/3"):
        out = tmp_path / f"{shard[0]}of{shard[2]}.jsonl"
        main(["classify", str(photos), "--source", breeds, "--out", str(out), "--shard", shard])
        rows[shard] = out.read_bytes().splitlines()
    assert [len(part) for part in rows.values()] == [35, 16, 11, 8]
    assert sorted(rows["1/3"] + rows["2/3"] + rows["3/3"]) == sorted(rows["1/1"])
    assert main(["classify", str(photos), "--source", breeds, "--out", str(out), "--shard", "2/3"]) == 2
    assert 'shard was "3/3", now "2/3"' in capsys.readouterr().err
    assert main(["classify", str(photos), "--source", breeds, "--shard", "4/3"]) == 2
    assert "--shard is '4/3'; give the part and their number" in capsys.readouterr().err


def test_patterns_shards_of_a_dataset_and_urls_are_sources(
    breeds: str, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/1.jpg", "b/2.jpg", "c/3.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(dog.read_bytes())
    shard = tmp_path / "photos-000.tar"
    with tarfile.open(shard, "w") as archive:
        archive.add(tmp_path / "a/1.jpg", "cat.jpg")
        archive.add(Path(__file__), "cat.json")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/deep/4.jpg", dog.read_bytes())
    memory.put_file(str(shard), "/bucket/more.tar")
    try:
        sources = [str(tmp_path / "[ab]"), str(shard), "memory://bucket", "memory://bucket/none.jpg"]
        assert main(["classify", *sources, "--source", breeds, "--workers", "0", "--json"]) == 1
    finally:
        memory.rm("/bucket", recursive=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == [
        *(str(tmp_path / "a/1.jpg"), str(tmp_path / "b/2.jpg"), f"tar://cat.jpg::{shard}"),
        *("memory:///bucket/deep/4.jpg", "tar://cat.jpg::memory:///bucket/more.tar", sources[-1]),
    ]
    for row in rows[1:-1]:  # the same photo at other places of its batch, where last digits may differ
        for one, first in zip(row["predictions"], rows[0]["predictions"], strict=True):
            assert one == {**first, "confidence": pytest.approx(first["confidence"])}
    assert rows[-1]["error"]["code"] == "ImageNotFound"


def test_rows_of_a_folder_a_tar_and_a_table_are_the_same(breeds: str, dog: Path, tmp_path: Path) -> None:
    """Ten pictures, one cut short and one no picture; the tar is in a folder of shards, which is named."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    photos, shards = tmp_path / "photos", tmp_path / "shards"
    photos.mkdir()
    shards.mkdir()
    with tarfile.open(shards / "000.tar", "w") as archive:
        for number in range(10):
            file = photos / f"{number}.jpg"
            data = dog.read_bytes()[: 300 if number == 3 else None] if number != 7 else b"<html>"
            file.write_bytes(data + bytes(number))
            archive.add(file, file.name)
            archive.add(Path(__file__), f"{number}.cls")
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in sorted(photos.iterdir())]
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": images}), table, row_group_size=4)
    rows = []
    for source, workers in ((photos, "0"), (shards, "0"), (table, "1")):
        out = tmp_path / "rows.jsonl"
        command = ["classify", str(source), "--source", breeds, "--workers", workers, "--out", str(out)]
        assert main([*command, "--fresh"]) == 1
        if source == table:  # as after a run that was ended
            lines = out.read_text().splitlines(keepends=True)
            out.write_text("".join(lines[:8]))
            assert main(command) == 1
        rows.append([json.loads(line) for line in out.read_text().splitlines()])
    names = [[row.pop("file") for row in part] for part in rows]
    assert names[1][4] == f"tar://4.jpg::{shards / '000.tar'}"
    assert names[2][4] == f"parquet://4/4.jpg::{table}"
    assert rows[0] == rows[1] == rows[2]
    assert [row["error"]["code"] for row in rows[0] if "error" in row] == ["BrokenImage", "UnsupportedFormat"]
