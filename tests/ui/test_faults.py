"""Faults from outside: a full disk and a folder for reading only cost one request a sentence, no more."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio.exceptions import Error
from PIL import Image

from pawmatch.settings import Settings
from pawmatch.ui.api import worded
from pawmatch.ui.faults import NO_ROOM
from pawmatch.ui.gradio_patches import keep_jpeg
from pawmatch.ui.html import as_jpeg
from pawmatch.ui.inference import Classifiers
from tests.ui.conftest import running

DATA = as_jpeg(Image.new("RGB", (40, 30), "tan"))


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def full(code: int) -> Callable[..., Any]:
    def fail(*arguments: Any, **named: Any) -> Any:
        raise OSError(code, "refused")

    return fail


class HalfWritten:
    """A file on a disk that fills up while it is being written."""

    def __init__(self, **options: Any) -> None:
        self.file = open(Path(options["dir"]) / "half", "wb")  # noqa: SIM115, PTH123 - closed by its user
        self.name = self.file.name

    def write(self, data: bytes) -> int:
        self.file.write(data[:9])
        raise OSError(errno.ENOSPC, "No space left on device")

    def __enter__(self) -> HalfWritten:
        return self

    def __exit__(self, *error: Any) -> None:
        self.file.close()


def test_a_full_disk_keeps_no_half_of_a_picture(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "NamedTemporaryFile", HalfWritten)
        with pytest.raises(Error) as caught:
            worded(keep_jpeg)(DATA, "cnn")
    assert caught.value.message == NO_ROOM
    assert not [path for path in kept.rglob("*") if path.is_file()]
    assert Path(keep_jpeg(DATA, "cnn")).is_file()  # once there is room again


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_folder_that_takes_nothing_is_said(kept: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(Path, "mkdir", full(code))
    with pytest.raises(Error) as caught:
        worded(keep_jpeg)(DATA, "cnn")
    assert caught.value.message == NO_ROOM


@pytest.fixture
def address(kept: Path, tmp_path: Path, classifiers: Classifiers) -> Iterator[str]:
    with running(Settings(rate_limit=3), classifiers, tmp_path) as address:
        yield address


def test_an_upload_for_which_there_is_no_room_is_said_and_the_next_one_works(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with httpx.Client(base_url=address, timeout=60) as http:
        with monkeypatch.context() as patch:
            patch.setattr("gradio.route_utils.NamedTemporaryFile", full(errno.ENOSPC))
            refused = http.post("/gradio_api/upload", files={"files": ("dog.jpg", b"x" * 2000)})
            assert (refused.status_code, refused.json()) == (507, {"detail": NO_ROOM})
        # The limit of three a minute lets one through at once.
        again = http.post("/gradio_api/upload", files={"files": ("dog.jpg", b"x" * 2000)})
        assert again.status_code == 429
        assert again.json()["detail"].startswith("That was a lot of photos")
        assert http.post("/gradio_api/call/models", json={"data": []}).status_code == 200
        assert http.get("/healthz").text == "ok"
