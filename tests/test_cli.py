"""The command line: exit codes, error lines, JSON, and how soon it answers."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from pawmatch import __version__
from pawmatch.cli import COMMANDS, main
from pawmatch.commands import classify, inputs
from pawmatch.commands.console import printable
from pawmatch.commands.records import COLUMNS, cell
from pawmatch.settings import OPTIONS, Settings

HEAVY = ("torch", "numpy", "PIL", "gradio", "timm", "cv2", "huggingface_hub", "safetensors")
VARIANTS = ["cnn", "cnn_transformer", "cnn_transformer_mfe"]


@pytest.fixture
def breeds(tiny_checkpoints: Callable[..., Path]) -> str:
    return str(tiny_checkpoints("breed"))


@pytest.fixture
def dog(photo: Image.Image, tmp_path: Path) -> Path:
    path = tmp_path / "dog.jpg"
    photo.save(path)
    return path


@pytest.fixture
def album(photo: Image.Image, tmp_path: Path) -> Path:
    """A folder with two good images, a broken one, a text file and a hidden file, in this order."""
    folder = tmp_path / "album"
    (folder / "deeper").mkdir(parents=True)
    photo.save(folder / "a.jpg")
    photo.save(folder / "deeper" / "c.PNG")
    (folder / "b.jpg").write_bytes((folder / "a.jpg").read_bytes()[:400])
    (folder / "notes.txt").write_text("no image")
    (folder / "._a.jpg").write_bytes(b"\0\5\26\7")
    return folder


def error_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("pawmatch: error: ")]


# --- help and wrong use


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_nothing_heavy(command: str) -> None:
    code = (
        "import sys\n"
        "from pawmatch.cli import main\n"
        "try:\n"
        f"    main([*{command!r}.split(), '--help'])\n"
        "except SystemExit as exc:\n"
        "    assert exc.code == 0\n"
        f"print('loaded:', *[name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"usage: pawmatch {command}".rstrip() in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pawmatch", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"pawmatch {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["classify"], ["unheard-of"], ["classify", "a.jpg", "--top-k", "many"], ["train", "--recipe", "x"]],
)
def test_wrong_use_gives_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: pawmatch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--task", "cat"], "Task 'cat' is unknown; use breed or artist."),
        (["--source", "no/such/folder"], "no/such/folder"),
        (["--source", "hf://nobody"], "hf://"),
        (["--engine", "abacus"], "abacus"),
        (["--device", "abacus"], "abacus"),
        (["--top-k", "0"], "top_k is 0"),
        (["--out", "answers.xlsx"], "'answers.xlsx'; give a file that ends in .csv or .jsonl."),
    ],
)
def test_what_stops_the_whole_command_is_one_line_and_gives_2(
    options: list[str], hint: str, breeds: str, dog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(dog), "--source", breeds, *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("pawmatch: error: ")
    assert hint in err


def test_the_unexpected_is_a_neutral_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> int:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(classify, "run", fail)
    assert main(["classify", "a.jpg"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("pawmatch: error: Something went wrong inside pawmatch (RuntimeError).")
    assert "--debug" in err
    assert "secret detail" not in err
    for arguments in (["--debug", "classify", "a.jpg"], ["classify", "a.jpg", "--debug"]):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert "Traceback" in err
        assert "secret detail" in err


def test_a_file_that_cannot_be_written_is_named(
    breeds: str, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "missing" / "answers.csv"
    assert main(["classify", str(dog), "--source", breeds, "--out", str(out)]) == 2
    assert error_lines(capsys.readouterr().err) == [f"pawmatch: error: {out}: No such file or directory."]


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(classify, "run", interrupt)
    assert main(["classify", "a.jpg"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_leaves_is_no_error() -> None:
    code = (
        "import sys\n"
        "from pawmatch import cli\n"
        "cli.push.run = lambda args: [cli.push.say('x' * 80) for _ in range(10_000)] and 0\n"
        "sys.exit(cli.main(['push', 'folder', 'user/repo']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "x" * 80 + "\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 141


# --- classify


def test_one_image_gives_the_object_of_the_api(
    breeds: str, dog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(dog), "--source", breeds, "--json", "--top-k", "3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    answer = json.loads(out)
    assert list(answer) == [
        *("task", "model", "predictions", "review", "candidates_90", "variants", "timing_ms", "warnings")
    ]
    assert answer["task"] == "breed"
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
    assert 0 < sum(confidences) <= 1
    assert list(answer["review"]) == ["needed", "reasons", "threshold"]
    assert all(list(reason) == ["code", "message"] for reason in answer["review"]["reasons"])
    assert answer["review"]["needed"] is bool(answer["review"]["reasons"])
    assert answer["predictions"][0]["name"] in answer["candidates_90"]
    assert [one["variant"] for one in answer["variants"]] == VARIANTS
    assert set(answer["timing_ms"]) == {"decode", "features", "head"}
    assert answer["warnings"] == []


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
    assert rows[0]["task"] == rows[2]["task"] == "breed"
    assert set(rows[1]["error"]) == {"code", "message"}


def test_one_image_that_fails_gives_an_error_object(
    breeds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing.jpg")
    assert main(["classify", missing, "--source", breeds, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "file": missing,
        "error": {"code": "ImageNotFound", "message": "There is no such file; check its name and folder."},
    }


def test_lines_for_people(breeds: str, album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(album), "--source", breeds]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert out.startswith(str(album / "a.jpg"))
    assert "%" in out
    assert "check: " in out
    assert len(error_lines(err)) == 1
    assert str(album / "b.jpg") in err


def test_one_image_is_described_in_full(breeds: str, dog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(dog), "--source", breeds]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{dog}: ")
    for text in ("Border Collie", "Maltese", "CNN + Transformer + MFE: ", "9 times in 10", "check: "):
        assert text in out


def test_a_folder_without_images_is_reported(
    breeds: str, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["classify", str(tmp_path / "empty"), str(dog), "--source", breeds]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert "empty: There is no image in this folder" in err


def test_a_folder_that_cannot_be_listed_is_reported(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_folder = inputs.os.scandir

    def scandir(place: str) -> Any:
        if str(place).endswith("deeper"):
            raise PermissionError(13, "Permission denied", place)
        return list_folder(place)

    monkeypatch.setattr(inputs.os, "scandir", scandir)
    found = list(inputs.find_images([str(album)]))
    assert [Path(file).name for file, _ in found] == ["a.jpg", "b.jpg", "deeper"]
    assert "Permission denied" in str(found[-1][1])


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
    arguments = ["classify", str(dog), "--source", breeds, "--out", str(target), "--top-k", "99"]
    assert main(arguments) == 2
    assert target.read_text() == "precious"


def test_formulas_are_defused() -> None:
    assert cell("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert cell("Border Collie") == "Border Collie"
    assert cell(0.5) == 0.5


def test_printable_keeps_what_people_read() -> None:
    assert printable("Paul Cézanne, 犬.jpg") == "Paul Cézanne, 犬.jpg"
    assert printable("a\r\x1b\x9b\udcff\u202e") == "a\\r\\x1b\\x9b\\udcff\\u202e"


def test_answers_keep_their_order_over_many_batches() -> None:
    class Echo:
        def predict_batch(self, images: Any, top_k: int) -> Any:
            batch: list[str] = []
            for image in images:
                batch.append(image)
                if len(batch) == 4:
                    yield from batch
                    batch.clear()
            yield from batch

    error = inputs.ImageNotFound("gone")
    given = [(f"{index}", error if index % 3 == 0 else None) for index in range(20)]
    found = list(inputs.answers(Echo(), iter(given), 1))  # type: ignore[arg-type]
    assert [file for file, _ in found] == [file for file, _ in given]
    assert [result for _, result in found] == [error if failed else file for file, failed in given]


# --- explain


def test_explain_writes_a_picture_per_variant_and_a_sheet(
    tiny_checkpoints: Callable[..., Path], dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    source = str(tiny_checkpoints("artist"))
    arguments = ["explain", str(dog), "--task", "artist", "--source", source, "--out", str(out)]
    assert main([*arguments, "--label", "cezanne, paul", "--json"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main([*arguments, "--label", "paul cezanne", "--json", "--colormap", "viridis"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["explanation"]["label"] == "Paul_Cezanne"
    names = [*VARIANTS, "sheet"]
    assert answer["explanation"]["files"] == {name: str(out / f"dog.{name}.jpg") for name in names}
    sizes = {}
    for name in names:
        with Image.open(out / f"dog.{name}.jpg") as image:
            sizes[name] = image.size
    assert [sizes[variant] for variant in VARIANTS] == [(240, 180)] * 3
    assert sizes["sheet"][0] > 3 * 400
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert f"wrote {out / 'dog.sheet.jpg'}" in said
    assert "CNN + Transformer + MFE: " in said


def test_explain_takes_any_shape_of_image(breeds: str, tmp_path: Path) -> None:
    for size in ((1, 900), (3000, 2)):
        image = tmp_path / "strip.png"
        Image.new("RGB", size, "green").save(image)
        assert main(["explain", str(image), "--source", breeds, "--out", str(tmp_path)]) == 0


@pytest.mark.parametrize("options", [["--strength", "2"], ["--colormap", "rainbow"], ["--label", "cat"]])
def test_explain_refuses_bad_options(
    options: list[str], breeds: str, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["explain", str(dog), "--source", breeds, "--out", str(out), *options]) == 2
    assert len(error_lines(capsys.readouterr().err)) == 1
    assert not out.exists()


def test_explain_of_a_broken_image_gives_1(
    breeds: str, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = str(album / "b.jpg")
    assert main(["explain", broken, "--source", breeds]) == 1
    assert error_lines(capsys.readouterr().err)[0].startswith(f"pawmatch: error: {broken}: ")
    assert main(["explain", broken, "--source", breeds, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "BrokenImage"


# --- serve


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that `serve` would start the page with."""
    calls: list[Settings] = []
    monkeypatch.setitem(sys.modules, "pawmatch.ui.server", SimpleNamespace(serve=calls.append))
    return calls


def test_serve_flags_win_over_variables_and_these_over_defaults(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAWMATCH_PORT", "8000")
    monkeypatch.setenv("PAWMATCH_HOST", "0.0.0.0")
    assert main(["serve", "--port", "9000", "--warm-up", "no"]) == 0
    assert served == [Settings(port=9000, host="0.0.0.0", warm_up=False)]


def test_serve_has_a_flag_for_every_setting(
    served: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    assert all(option.flag in text for option in OPTIONS)
    assert main(["serve", "--port", "http"]) == 2
    assert "--port is 'http'" in capsys.readouterr().err
    assert served == []


# --- train, import, push


def test_train_writes_a_checkpoint_that_classifies(
    photo: Image.Image, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for half, count in (("train", 6), ("val", 3)):
        for label, colour in (("Claude_Monet", "teal"), ("Rembrandt", "brown")):
            folder = data / half / label
            folder.mkdir(parents=True)
            for index in range(count):
                Image.blend(photo, Image.new("RGB", photo.size, colour), 0.5 + index / 20).save(
                    folder / f"{index}.png"
                )
    changes = [
        *("epochs=1", "batch_size=4", "sizes=[]", "input.size=32", "architecture.input_size=32"),
        *("architecture.filters=[8, 8, 8, 8]", "architecture.heads=2", "architecture.layers=1"),
    ]
    out = tmp_path / "run"
    arguments = ["train", "--recipe", "artist-base", "--data", str(data), "--out", str(out)]
    arguments += ["--workers", "0", "--device", "cpu"]
    arguments += [part for change in changes for part in ("--set", change)]
    assert main(arguments) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    assert main(["classify", str(dog), "--task", "artist", "--source", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {one["label"] for one in answer["predictions"]} == {"Claude_Monet", "Rembrandt"}


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--recipe", "unheard-of"], "artist-base, artist-starter, breed-base, breed-starter"),
        (["--recipe", "breed-starter", "--variant", "rnn"], "Variant 'rnn' is unknown"),
        (["--recipe", "breed-base", "--set", "epoch=2"], "'epoch' is unknown"),
        (["--recipe", "breed-base", "--workers", "-1"], "--workers is '-1'; use a whole number"),
        (["--recipe", "breed-base", "--threads", "0"], "--threads is '0'"),
        (["--recipe", "breed-base", "--autocast", "int8"], "use bfloat16 or float16"),
        (["--recipe", "breed-base"], "no/data"),
    ],
)
def test_train_refuses_bad_options(
    options: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", "no/data", "--out", str(tmp_path / "out"), *options]) == 2
    lines = error_lines(capsys.readouterr().err)
    assert len(lines) == 1
    assert hint in lines[0]


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "--list-recipes"])
    assert caught.value.code == 0
    names = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert {"artist-base", "artist-starter", "breed-base", "breed-starter"} <= set(names)


def test_import_converts_a_pickle(
    dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from pawmatch.models import build_model

    model = build_model(
        family="hybrid", variant="cnn_transformer", num_classes=3, backbone="test_convnext"
    )
    torch.save({"model_state_dict": model.state_dict()}, tmp_path / "weights.pth")
    labels = tmp_path / "labels.txt"
    labels.write_text("Beagle\n\nBoxer\nCollie\n")
    out = tmp_path / "imported"
    arguments = ["import", str(tmp_path / "weights.pth"), "--out", str(out), "--backbone", "test_convnext"]
    assert main(arguments) == 2
    assert "124 labels" in capsys.readouterr().err
    assert main([*arguments, "--labels", str(labels)]) == 0
    assert capsys.readouterr().out == f"wrote {out}: breed, cnn_transformer, 3 classes\n"
    assert main(["classify", str(dog), "--source", str(out), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 3


def test_import_wants_text_for_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_bytes(b"\xff\xfe\x00")
    assert main(["import", "w.pth", "--out", str(tmp_path / "o"), "--labels", str(labels)]) == 2
    assert "is no UTF-8 text" in capsys.readouterr().err


def test_push_passes_its_options_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[Any, Any]] = []

    def push(*places: str, **options: Any) -> str:
        calls.append((places, options))
        return "https://huggingface.co/user/repo/tree/main"

    monkeypatch.setattr("pawmatch.checkpoint.push", push)
    arguments = ["push", "folder", "user/repo", "--private", "--revision", "try", "--message", "First"]
    assert main(arguments) == 0
    assert calls == [
        (("folder", "user/repo"), {"private": True, "revision": "try", "message": "First"})
    ]
    assert capsys.readouterr().out == "https://huggingface.co/user/repo/tree/main\n"


def test_push_refuses_what_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(tmp_path), "user/repo"]) == 2
    assert len(error_lines(capsys.readouterr().err)) == 1
