"""The upload folder: all in it goes, at its age, with its visitor, with its process, or at the next start."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from pawmatch.errors import BadOption
from pawmatch.settings import Settings
from pawmatch.ui import uploads as uploads_module
from pawmatch.ui.faults import NO_ROOM
from pawmatch.ui.html import as_jpeg
from pawmatch.ui.inference import Classifiers
from pawmatch.ui.uploads import PREFIX, Uploads, delete_dead, own_folder
from tests.ui.conftest import photos_held, running, until
from tests.ui.raw import as_file, call, upload

ROOT = Path(__file__).parents[2]
SECONDS = 3  # how long the services of these tests keep what they get


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where upload folders are made."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


@pytest.fixture
def short(tiny_settings: Settings, classifiers: Classifiers, base: Path, tmp_path: Path) -> Iterator[str]:
    """A service that keeps things for some seconds."""
    with running(replace(tiny_settings, keep_seconds=SECONDS), classifiers, tmp_path) as address:
        yield address


@pytest.fixture
def service(
    tiny_settings: Settings,
    classifiers: Classifiers,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """A service that keeps things for a minute, but not those of visitors who left."""
    monkeypatch.setattr("pawmatch.ui.presence.AWAY_SECONDS", 0.5)
    with running(replace(tiny_settings, keep_seconds=60), classifiers, tmp_path) as address:
        yield address


@pytest.fixture
def photo(photo_maker: Callable[[], Image.Image]) -> bytes:
    return as_jpeg(photo_maker())


def files(base: Path) -> list[Path]:
    return [path for path in base.rglob("*") if path.is_file()]


# --- whose folder it is


def test_the_folder_is_this_user_s_alone_and_gradio_uses_it(base: Path) -> None:
    folder = own_folder(60)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
    assert folder.parent == base
    assert own_folder(60).parent == base  # another service of this process: beside it, not in it


def test_without_a_name_it_lies_among_the_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert own_folder(60).parent == tmp_path


def test_no_folder_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(BadOption, match="name one with GRADIO_TEMP_DIR"):
        own_folder(60)


HOLD = "from pawmatch.ui.uploads import own_folder; print(own_folder(60), flush=True); input()"


def test_the_folder_of_a_killed_process_goes_and_that_of_a_living_one_stays(base: Path) -> None:
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLD],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(2)
        ]
        dead, living = processes
        folders = []
        for process in processes:
            assert process.stdout
            folders.append(Path(process.stdout.readline().strip()))
            (folders[-1] / "photo.jpg").write_bytes(b"x")
        dead.kill()
        dead.wait()
        assert folders[0].exists()
        mine = own_folder(60)
        assert sorted(base.iterdir()) == sorted([mine, folders[1]])
        assert (folders[1] / "photo.jpg").exists()
        living.communicate("\n")  # ends by itself
        assert not folders[1].exists()


def test_what_only_looks_like_a_folder_of_ours_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("x")
    (tmp_path / f"{PREFIX}link").symlink_to(precious)
    (tmp_path / f"{PREFIX}file").write_text("x")
    others = tmp_path / f"{PREFIX}others"
    others.mkdir()
    (others / "photo").write_text("x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: os.geteuid() + 1)  # another user's
        delete_dead(tmp_path, 60)
    assert (others / "photo").exists()
    delete_dead(tmp_path, 60)
    assert not others.exists()
    assert (precious / "thesis").exists()
    assert (tmp_path / f"{PREFIX}file").exists()


def test_where_there_are_no_locks_age_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    other = tmp_path / f"{PREFIX}other"
    (other / "sha").mkdir(parents=True)
    (other / "sha" / "photo").write_text("x")
    delete_dead(tmp_path, 60)
    assert (other / "sha" / "photo").exists()
    delete_dead(tmp_path, -1)
    assert not (other / "sha" / "photo").exists()


# --- age and budget


def test_whatever_lies_there_goes_at_its_age(
    short: str, base: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "EMPTY_SECONDS", 0.5)
    with httpx.Client(base_url=short, timeout=30) as http:
        path = Path(upload(http, "dog.jpg", photo))
        folder = path.parent.parent
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "sheet.webp").write_bytes(photo)
        (folder / "tmpabc").write_bytes(photo)
        assert http.get(f"/gradio_api/file={path}").status_code == 200
        assert len(files(base)) == 3
        assert until(lambda: not files(base), SECONDS + 5)
        assert until(lambda: not list(folder.rglob("*")), 15)  # nor names
        assert http.get(f"/gradio_api/file={path}").status_code in (403, 404)


def test_a_budget_is_kept_and_room_given_back(tmp_path: Path) -> None:
    kept = Uploads(tmp_path, 60, 100_000)
    kept.take(90_000)
    with pytest.raises(OSError, match="space") as caught:
        kept.take(20_000)
    assert caught.value.errno == errno.ENOSPC
    kept.give_back(90_000)
    path = tmp_path / "sha" / "photo"
    path.parent.mkdir()
    path.write_bytes(bytes(80_000))
    kept.sweep()
    with pytest.raises(OSError, match="space"):
        kept.take(20_000)
    kept.delete({str(path): time.time(), "/etc/passwd": time.time()})
    assert list(tmp_path.iterdir()) == []
    kept.take(100_000)


def test_one_visitor_may_fill_a_share_and_no_more(tmp_path: Path) -> None:
    kept = Uploads(tmp_path, 3600, 100_000, share=0.5)
    kept.take(20_000, "greedy")
    with pytest.raises(OSError, match="space"):
        kept.take(10_000, "greedy")
    kept.take(20_000, "other")
    kept.give_back(20_000, "greedy")  # it was not kept after all
    kept.take(20_000, "greedy")


@pytest.mark.parametrize("rate", [0, 600])
def test_where_visitors_are_told_apart_uploads_and_answers_count_for_their_visitor(
    tiny_settings: Settings, classifiers: Classifiers, base: Path, tmp_path: Path, photo: bytes, rate: int
) -> None:
    settings = replace(tiny_settings, disk_mb=1, rate_limit=rate)
    with (
        running(settings, classifiers, tmp_path) as address,
        httpx.Client(base_url=address, timeout=60) as http,
    ):
        upload(http, "a.jpg", os.urandom(100_000))
        path = upload(http, "b.jpg", photo)
        for _ in range(3):
            call(http, "explain", [as_file(path), "breed", None])
        status = http.post("/gradio_api/upload", files={"files": ("c.jpg", photo)}).status_code
        assert status == (507 if rate else 200)


def test_many_small_files_count_as_what_they_take(tmp_path: Path) -> None:
    kept = Uploads(tmp_path, 60, 50 * 4096)
    for number in range(25):
        (tmp_path / str(number)).write_bytes(b"x")
    kept.sweep()
    with pytest.raises(OSError, match="space"):
        kept.take(4096)


def test_uploads_beyond_the_budget_are_refused_in_words_and_leave_nothing(
    tiny_settings: Settings, classifiers: Classifiers, base: Path, tmp_path: Path
) -> None:
    large = os.urandom(700_000)
    settings = replace(tiny_settings, disk_mb=1)
    with running(settings, classifiers, tmp_path) as address, httpx.Client(base_url=address) as http:
        first = upload(http, "a.jpg", large)
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        for refused in (
            http.post("/gradio_api/upload", files={"files": ("b.jpg", large + b"b")}),
            http.post("/gradio_api/upload", content=chunks(large), headers=kind),
        ):
            assert (refused.status_code, refused.json()) == (507, {"detail": NO_ROOM})
        assert until(lambda: [str(path) for path in files(base)] == [first], 5)
        assert upload(http, "small.jpg", b"x" * 1000)
    assert files(base) == []


def chunks(data: bytes) -> Iterator[bytes]:
    """An upload that does not say how long it is."""
    yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="c.jpg"\r\n\r\n'
    for start in range(0, len(data), 65_536):
        yield data[start : start + 65_536]
    yield b"\r\n--x--\r\n"


# --- uploads that break


def test_broken_uploads_leave_nothing(service: str, base: Path, photo: bytes) -> None:
    host, port = service.removeprefix("http://").strip("/").split(":")
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 90000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    )
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(20)]
        for number, connection in enumerate(sockets):
            connection.sendall(head.encode() + photo + bytes([number]))
        assert until(lambda: len(files(base)) == 20)
    assert until(lambda: not files(base), 10)  # a minute before their age


@pytest.mark.parametrize("name", ["other", "files"])
def test_parts_that_are_no_upload_leave_nothing(service: str, base: Path, photo: bytes, name: str) -> None:
    with httpx.Client(base_url=service) as http:
        # A name that is none fails only after the file has been written.
        file = ("dog.jpg" if name == "other" else "..", photo)
        http.post("/gradio_api/upload", files={name: file})
        assert until(lambda: not files(base), 10)


def test_a_full_disk_leaves_no_half(
    service: str, base: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(file: Any, data: bytes) -> None:
        file.file.write(data[:9])
        file.file.flush()
        assert len(files(base)) == 1
        raise OSError(errno.ENOSPC, "No space left on device")

    with httpx.Client(base_url=service) as http:
        with monkeypatch.context() as patch:
            patch.setattr("gradio.route_utils.GradioUploadFile.write", as_coroutine(write))
            refused = http.post("/gradio_api/upload", files={"files": ("dog.jpg", photo)})
        assert (refused.status_code, refused.json()) == (507, {"detail": NO_ROOM})
        assert until(lambda: not files(base), 10)
        assert upload(http, "dog.jpg", photo)


def as_coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*arguments: Any) -> Any:
        return function(*arguments)

    return call


# --- visitors who leave


@contextmanager
def page_open(address: str, session: str) -> Iterator[None]:
    """A page that is open: the connection that it keeps for that."""
    with httpx.stream("GET", f"{address}gradio_api/heartbeat/{session}", timeout=30) as beats:
        first = beats.iter_raw()  # which closes the connection when it goes
        assert next(first)
        yield


def ask(http: httpx.Client, session: str, name: str, data: list[Any]) -> None:
    """Start an event of a page, by the name of its function."""
    number = next(
        entry["id"]
        for entry in http.get("/config").json()["dependencies"]
        if len(entry["inputs"]) == len(data) and entry["api_name"] == name
    )
    question = {"data": data, "fn_index": number, "session_hash": session}
    http.post("/gradio_api/queue/join", json=question).raise_for_status()


def test_what_a_visitor_sent_goes_when_they_leave_and_what_others_use_stays(
    service: str, base: Path, photo: bytes
) -> None:
    with httpx.Client(base_url=service) as http:
        with page_open(service, "stays"):
            with page_open(service, "leaves"):
                mine, shared = upload(http, "mine.jpg", photo), upload(http, "shared.jpg", photo)
                for session, path in (("leaves", mine), ("leaves", shared), ("stays", shared)):
                    look(http, session, path)
                assert len(files(base)) > 2  # heatmaps, too
            assert until(lambda: not Path(mine).exists(), 12)
            assert Path(shared).exists()
        assert until(lambda: not files(base), 12)


def look(http: httpx.Client, session: str, path: str) -> None:
    ask(http, session, "look", [as_file(path), "breed", "jet", 0.5])
    with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as told:
        assert '"success":true' in "".join(told.iter_text())


def test_leaving_compare_in_mid_run_leaves_nothing(
    service: str, base: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with httpx.Client(base_url=service) as http:
        with photos_held(monkeypatch) as begun:
            for number in range(2):  # as many as photos are opened at a time
                with page_open(service, f"visitor{number}"):
                    path = upload(http, f"{number}.jpg", photo)
                    ask(http, f"visitor{number}", "compare", [[as_file(path)] * 2, "breed", ""])
                    assert begun.acquire(timeout=10)
        assert until(lambda: not files(base), 30)
