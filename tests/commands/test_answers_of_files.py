"""Answers to a folder: in order, the same with readers and without, in batches that nothing else shifts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pawmatch.commands import classify as module
from pawmatch.commands.classify import answers
from pawmatch.commands.inputs import Found
from pawmatch.errors import ImageNotFound, PawMatchError
from pawmatch.images import InputSpec, Prepared
from pawmatch.images.pool import Readers, suitable_readers


class Namer:
    """A classifier whose answer is the size of the picture; it remembers its batches."""

    specs = (InputSpec(size=32),)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def examine(self, prepared: Sequence[Prepared]) -> list[Prepared]:
        self.batches.append(len(prepared))
        return list(prepared)

    def conclude(self, examined: Prepared, top_k: int) -> str:
        return f"{examined.width}x{examined.height} {top_k}"


@pytest.mark.parametrize("readers", [0, 1])
def test_errors_have_a_place_in_their_batch(
    album: Path, readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    good, broken, shut = str(album / "a.jpg"), str(album / "b.jpg"), ImageNotFound("shut")
    found: list[Found] = [(good, None), (broken, None), ("shut", shut), *[(good, None)] * 6]
    namer: Any = Namer()
    given = list(answers(namer, iter(found), 3, Readers(readers)))
    assert [file for file, _ in given] == [file for file, _ in found]
    words = [type(one).__name__ if isinstance(one, PawMatchError) else one for _, one in given]
    assert words == ["240x180 3", "BrokenImage", "ImageNotFound", *["240x180 3"] * 6]
    assert namer.batches == [2, 4, 1]


def test_the_models_have_the_next_batch_before_one_is_given_out(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    namer: Any = Namer()
    second = threading.Event()

    def examine(prepared: Sequence[Prepared]) -> list[Prepared]:
        if len(namer.batches) == 1:
            second.set()
        return Namer.examine(namer, prepared)

    namer.examine = examine
    results = answers(namer, iter([(str(album / "a.jpg"), None)] * 6), 1, Readers(0))
    next(results)
    assert second.wait(10)
    next(results)
    # No more than one: what waits for the models is bounded.
    assert len(namer.batches) <= 2
    results.close()


def test_readers_start_before_the_models_are_loaded(
    breeds: str, dog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pawmatch import classifier
    from pawmatch.cli import main
    from pawmatch.images import pool

    for number in range(pool.FEW_FILES):
        (tmp_path / f"{number:03}.jpg").write_bytes(dog.read_bytes())
    order: list[str] = []
    load, start = classifier.load, pool.Reader.__init__

    def loads(*given: Any) -> Any:
        order.append("load")
        return load(*given)

    def starts(self: pool.Reader) -> None:
        order.append("reader")
        start(self)

    monkeypatch.setattr(classifier, "load", loads)
    monkeypatch.setattr(pool.Reader, "__init__", starts)
    command = ["classify", str(tmp_path), "--source", breeds, "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "rows.csv")]) == 0
    assert order.index("reader") < order.index("load")
    assert order.count("reader") == suitable_readers(pool.FEW_FILES, "cpu")
    order.clear()
    for number in range(1, pool.FEW_FILES):
        (tmp_path / f"{number:03}.jpg").unlink()
    assert main([*command, "--out", str(tmp_path / "few.csv")]) == 0
    assert order == ["load"]


def test_the_command_writes_the_same_with_readers(
    breeds: str, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pawmatch.cli import main

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
    assert "19 images in " in err
    assert main(command) == 1
    assert f"{out} was finished before: 19 rows, 4 of them errors." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "-1"], "--workers is -1; give a whole number from 0"),
        (["--top-k", "0"], "--top-k is 0; give a whole number from 1 on"),
        (["--fresh"], "--fresh overwrites the file of --out; name that file too"),
    ],
)
def test_options_are_refused_before_anything_is_loaded(
    options: list[str], message: str, dog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pawmatch.cli import main

    assert main(["classify", str(dog), "--source", "nowhere", *options]) == 2
    assert message in capsys.readouterr().err


def test_an_interrupted_run_says_how_to_go_on(
    breeds: str,
    album: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pawmatch import engines
    from pawmatch.cli import main
    from pawmatch.commands.output import Output, engines_of
    from pawmatch.engines.torch import TorchEngine

    out = tmp_path / "out.csv"
    command = ["classify", str(album), "--source", breeds, "--out", str(out)]
    write: Callable[..., None] = Output.write

    def write_one(self: Output, *row: Any) -> None:
        if self.tally.rows:
            raise KeyboardInterrupt
        write(self, *row)

    with monkeypatch.context() as patch:
        patch.setattr(Output, "write", write_one)
        patch.setattr(engines, "choose_engine", lambda models, device, spec: TorchEngine(models[0], device))
        assert main(command) == 130
    assert f"stopped at row 1 of {out}; the same command goes on from there." in capsys.readouterr().err
    # Another engine may be the fastest by now; the one that the run began with goes on.
    monkeypatch.setattr(engines, "choose_engine", None)
    assert main(command) == 1
    assert out.read_text().count("\n") == 4
    assert set((engines_of(out) or {}).values()) == {"torch float32"}
