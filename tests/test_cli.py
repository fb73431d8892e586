"""The command line: how soon it answers, exit codes, and one line for every error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pawmatch import __version__
from pawmatch.cli import COMMANDS, main
from pawmatch.commands import classify

HEAVY = ("torch", "numpy", "PIL", "gradio", "timm", "cv2", "huggingface_hub", "safetensors", "optuna")


@pytest.mark.parametrize(
    "command", ["--help", *(f"{name} --help" for name in COMMANDS), "train --list-recipes"]
)
def test_help_loads_nothing_heavy(command: str) -> None:
    code = (
        "import sys\n"
        "from pawmatch.cli import main\n"
        "try:\n"
        f"    main({command.split()})\n"
        "except SystemExit as exc:\n"
        "    assert exc.code == 0\n"
        f"print('loaded:', *[name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert command.endswith("recipes") or f"usage: pawmatch {command[:-7]}".rstrip() in done.stdout
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
        (["--task", "cat"], "is for the task breed, not cat"),
        (["--source", "no/such/folder"], "no/such/folder"),
        (["--source", "hf://nobody"], "hf://"),
        (["--engine", "abacus"], "abacus"),
        (["--device", "abacus"], "abacus"),
        (["--top-k", "0"], "--top-k is 0"),
        (["--out", "answers.xlsx"], "'answers.xlsx'; give a file that ends in .csv, .jsonl or .parquet."),
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


def test_an_error_of_the_system_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> int:
        raise OSError(28, "No space left on device", "answers.csv")

    monkeypatch.setattr(classify, "run", fail)
    assert main(["classify", "a.jpg"]) == 2
    assert capsys.readouterr().err == "pawmatch: error: answers.csv: No space left on device.\n"


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
