"""The endpoints as tools for assistants: the same answers, nothing kept, and nothing unless asked for."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from pawmatch.errors import BadOption
from pawmatch.settings import Settings
from pawmatch.ui import assistants
from pawmatch.ui.handlers import Handlers
from pawmatch.ui.inference import Classifiers
from tests.ui.conftest import running

HEADERS = {"Accept": "application/json, text/event-stream"}
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("assistants")


@pytest.fixture(scope="module")
def ask(tiny_settings: Settings, classifiers: Classifiers, uploads: Path) -> Iterator[Ask]:
    """Call a method of the protocol at a service that offers it."""
    pytest.importorskip("mcp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        with (
            running(replace(tiny_settings, mcp=True, max_upload_mb=1), classifiers, uploads) as address,
            httpx.Client(base_url=address, headers=HEADERS, timeout=60) as client,
        ):

            def call(method: str, **parameters: Any) -> dict[str, Any]:
                asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
                answer = client.post("mcp", json=asked)
                assert answer.status_code == 200, answer.text
                found: dict[str, Any] = answer.json()["result"]
                return found

            yield call


@pytest.fixture
def photo_text(upload: dict[str, Any]) -> str:
    return base64.b64encode(Path(upload["path"]).read_bytes()).decode()


def test_the_tools_are_the_endpoints(ask: Ask) -> None:
    tools = {tool["name"]: tool for tool in ask("tools/list")["tools"]}
    assert list(tools) == ["predict", "explain", "predict_batch", "models"]
    assert tools["predict"]["inputSchema"]["required"] == ["image"]
    assert "base64" in tools["explain"]["description"]
    assert "base64" not in tools["models"]["description"]


def test_the_answers_are_those_of_the_api(
    ask: Ask, photo_text: str, upload: dict[str, Any], handlers: Handlers, uploads: Path
) -> None:
    before = set(uploads.rglob("*"))
    wanted = handlers.predict(upload, "breed")
    for image in (photo_text, f"data:image/png;base64,{photo_text}"):
        found = ask("tools/call", name="predict", arguments={"image": image, "task": "breed", "top_k": 3})
        assert found["structuredContent"]["predictions"] == wanted["predictions"][:3]
    found = ask("tools/call", name="explain", arguments={"image": photo_text})
    assert [part["type"] for part in found["content"]] == ["text", "image", "image", "image"]
    batch = ask("tools/call", name="predict_batch", arguments={"images": [photo_text, "AAAA"]})
    answers = batch["structuredContent"]["result"]
    assert [next(iter(answer)) for answer in answers] == ["task", "error"]
    assert {part.name for part in set(uploads.rglob("*")) - before} == set()  # nothing is kept


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        ("/etc/passwd", assistants.HOW_TO_SEND),
        ("http://127.0.0.1:1/dog.jpg", "public"),
        (base64.b64encode(b"no picture").decode(), "not an image"),
        (base64.b64encode(bytes(2**20 + 1)).decode(), "larger than 1 MB"),
    ],
)
def test_what_is_no_photo_gives_one_sentence(ask: Ask, image: str, sentence: str, uploads: Path) -> None:
    found = ask("tools/call", name="predict", arguments={"image": image})
    assert found["isError"]
    assert sentence in found["content"][0]["text"]
    assert str(uploads) not in found["content"][0]["text"]


def test_there_is_none_unless_it_is_asked_for(http: httpx.Client) -> None:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    assert http.post("mcp", json=asked, headers=HEADERS).status_code in (403, 404, 405)


def test_without_the_extra_its_name_is_told(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server.fastmcp", None)
    with pytest.raises(BadOption, match=r"pawmatch\[mcp\]"):
        assistants.tools(handlers, 20)
