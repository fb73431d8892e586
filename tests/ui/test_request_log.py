"""The request log: one line for each request, with how it went and nothing of the visitor."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pawmatch.errors import PawMatchError
from pawmatch.ui import request_log
from pawmatch.ui.handlers import Handlers
from pawmatch.ui.listening import listen
from pawmatch.ui.server import server_of
from pawmatch.ui.visitors import TokenBuckets
from tests.ui.asking import echo
from tests.ui.test_visitors import Clock


class Kept(logging.Handler):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    request_log.start([handler])
    yield handler
    request_log.log.handlers = []
    request_log.log.setLevel(logging.NOTSET)
    request_log.log.propagate = True


def test_an_answer_is_one_line_with_all_that_an_operator_asks(
    handlers: Handlers, upload: dict[str, Any], kept: Kept
) -> None:
    answer = handlers.predict(upload, "breed", 2)
    (line,) = map(json.loads, kept.lines)
    assert line.pop("time").endswith("+00:00")
    assert line["timing_ms"].pop("total") >= 0
    assert line == {
        "endpoint": "/predict",
        "task": "breed",
        "photos": 1,
        "bytes": Path(upload["path"]).stat().st_size,
        "pixels": 240 * 180,
        "timing_ms": answer["timing_ms"],
        "review": sorted({reason["code"] for reason in answer["review"]["reasons"]}),
        "errors": [],
    }


def test_each_endpoint_and_each_step_of_the_page_has_its_line(
    handlers: Handlers, upload: dict[str, Any], text_file: dict[str, Any], kept: Kept
) -> None:
    Path(text_file["path"]).write_bytes(b"\xff\xd8\xff\xe0nothing")
    handlers.explain(upload, "artist")
    handlers.predict_batch([upload, text_file, upload])
    handlers.paint(handlers.look(upload, "breed"))
    explained, batch, page, maps = map(json.loads, kept.lines)
    assert (explained["endpoint"], explained["task"]) == ("/explain", "artist")
    assert (batch["endpoint"], batch["photos"], batch["errors"]) == ("/predict_batch", 1, ["BrokenImage"])
    assert (page["endpoint"], page["photos"]) == ("page", 1)
    assert (maps["endpoint"], maps["photos"], set(maps["timing_ms"])) == ("heatmaps", 0, {"explain", "total"})


def test_errors_have_a_code_and_nothing_that_the_visitor_wrote(
    handlers: Handlers, upload: dict[str, Any], fail: Callable[[Exception], None], kept: Kept
) -> None:
    private = "my secret"
    asks = (
        lambda: handlers.predict(upload, private),
        lambda: handlers.predict(upload, "breed", private),
        lambda: handlers.explain(upload, "breed", private),
        lambda: handlers.predict({"path": private}),
        lambda: handlers.predict(upload),
    )
    fail(ValueError(private))
    for ask in asks:
        with pytest.raises(PawMatchError):
            ask()
    lines = [json.loads(line) for line in kept.lines]
    codes = [line["errors"] for line in lines]
    assert codes == [["UnknownTask"], ["BadOption"], ["UnknownLabel"], ["ImageNotFound"], ["Unavailable"]]
    assert lines[-1]["cause"] == "ValueError"
    text = "\n".join(kept.lines)
    assert private not in text
    assert "photo.png" not in text
    assert Path(upload["path"]).parent.name not in text


def test_a_refusal_at_the_door_has_its_line(kept: Kept) -> None:
    request_log.turned_away("/predict", "Busy")
    (line,) = map(json.loads, kept.lines)
    assert (line["endpoint"], line["errors"]) == ("/predict", ["Busy"])


def test_refusals_leave_few_lines_and_the_next_one_counts_the_others(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(request_log, "_refusals", TokenBuckets(60, 3, clock=clock))
    for _ in range(1000):
        request_log.turned_away("upload", "TooSlow")
    assert len(kept.lines) == 3
    clock.now += 1
    request_log.turned_away("upload", "TooSlow")
    request_log.turned_away("upload", "TooLarge")
    assert [json.loads(line).get("left_out") for line in kept.lines[3:]] == [997, None]
    errors = logging.getLogger("uvicorn.error")
    with listen("127.0.0.1", 0) as listener:
        server_of(echo, listener)
    record = errors.makeRecord(errors.name, logging.ERROR, "", 0, "Invalid HTTP request", (), None)
    assert sum(request_log.few_lines(record) for _ in range(1000)) == 3
    assert request_log.few_lines in errors.filters


def test_nobody_who_does_not_serve_gets_lines(
    handlers: Handlers, upload: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    handlers.predict(upload)
    assert not [record for record in caplog.records if record.name == "pawmatch.requests"]
