"""Starting the service: one-line errors, a cheap import, a lent GPU where there is one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import app
from pawmatch.errors import BadOption
from pawmatch.settings import Settings, on_lent_gpu
from pawmatch.tasks import TASKS
from pawmatch.ui import server
from pawmatch.ui.handlers import EXAMPLES, Example, examples_for, read_examples
from pawmatch.ui.inference import Classifiers
from tests.ui.pretend import PretendClassifier

ROOT = Path(__file__).parents[2]


def test_importing_the_app_loads_neither_gradio_nor_torch() -> None:
    code = "import app, sys; print([name for name in ('gradio', 'torch') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_wrong_setting_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAWMATCH_PORT", "http")
    assert app.main() == 2
    assert capsys.readouterr().err == (
        "pawmatch: PAWMATCH_PORT is 'http'; use a whole number from 1 to 65535.\n"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_in_use_is_named(host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadOption, match=f"^Nothing can listen on {host}, port {port} "):
            server.serve(Settings(host=host, port=port))


def test_a_host_that_is_not_here_is_named() -> None:
    with pytest.raises(BadOption, match=r"^Nothing can listen on 192\.0\.2\.1, port 7860 "):
        server.serve(Settings(host="192.0.2.1"))


def test_a_lent_gpu_is_borrowed_for_the_computing_alone(
    monkeypatch: pytest.MonkeyPatch, upload: dict[str, Any]
) -> None:
    calls: list[str] = []

    def gpu(duration: int) -> Any:
        def decorate(function: Any) -> Any:
            def call(*arguments: Any) -> Any:
                calls.append(arguments[1])
                return function(*arguments)

            return call

        assert duration <= 60
        return decorate

    assert server.lent_gpu() is None  # no Space, or one with hardware of its own
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=gpu))
    from pawmatch.ui.handlers import Handlers

    classifiers = Classifiers(lambda task: PretendClassifier(), ("breed",))  # type: ignore[arg-type,return-value]
    handlers = Handlers(classifiers, server.lent_gpu())
    handlers.predict(upload)
    handlers.models()
    assert calls == ["predict"]


def test_without_the_package_nothing_is_borrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert on_lent_gpu()
    assert server.lent_gpu() is None


def test_examples_are_listed_with_task_and_words() -> None:
    examples = read_examples(EXAMPLES)
    assert {example.task for example in examples} == {"breed", "artist"}
    assert all(example.alt for example in examples)
    assert len(examples[0].thumbnail()) < 30_000


def test_every_task_has_examples_of_its_subject() -> None:
    examples = read_examples(EXAMPLES)
    shown = {task: [example.path.name for example in examples_for(task, examples)] for task in TASKS}
    assert all(shown.values())
    assert shown["artist-chae"] == shown["artist"]
    assert not set(shown["artist"]) & set(shown["breed"])
    strange = Example(EXAMPLES / "x.jpg", "garden_bird", "A bird")
    assert examples_for("breed", [strange]) == []


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", '[{"file": "x.jpg"}]', '["file"]'])
def test_a_broken_list_of_examples_costs_only_the_examples(tmp_path: Path, text: str) -> None:
    assert read_examples(tmp_path) == []
    (tmp_path / "index.json").write_text(text)
    assert read_examples(tmp_path) == []


def test_an_example_that_is_gone_is_left_out(tmp_path: Path) -> None:
    entries = [{"file": "gone.jpg", "task": "breed", "alt": "Gone"}]
    (tmp_path / "index.json").write_text(json.dumps(entries))
    assert read_examples(tmp_path) == []
