"""Starting the service: one-line errors, a cheap import, and every address that people listen on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import app
from pawmatch.errors import BadOption
from pawmatch.settings import Settings
from pawmatch.ui import server
from pawmatch.ui.inference import Classifiers
from pawmatch.ui.listening import listen
from pawmatch.ui.uploads import PREFIX
from tests.ui.conftest import free_port, running

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
            listen(host, port)


def test_a_host_that_is_not_here_is_named() -> None:
    with pytest.raises(BadOption, match=r"^Nothing can listen on 192\.0\.2\.1, port 7860 "):
        server.serve(Settings(host="192.0.2.1"))


@pytest.mark.parametrize("host", ["::", "::1"])
def test_it_listens_on_ipv6(host: str) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with listen(host, 0) as listener:
        with socket.create_connection(("::1", listener.getsockname()[1]), 5):
            pass
        if host == "::":  # every interface
            with socket.create_connection(("127.0.0.1", listener.getsockname()[1]), 5):
                pass


def test_it_starts_whatever_proxy_the_variables_name_and_leaves_nothing_behind(
    tiny_weights: Path, tmp_path: Path
) -> None:
    port, dead = free_port(), f"127.0.0.1:{free_port()}"
    proxies = {"http_proxy": f"http://{dead}", "ALL_PROXY": f"socks5://{dead}"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO")}
    environment |= {"PAWMATCH_WEIGHTS": str(tiny_weights), "PAWMATCH_PORT": str(port), **proxies}
    environment |= {"TMPDIR": str(tmp_path), "PAWMATCH_WARM_UP": "no"}
    killed = tmp_path / f"{PREFIX}killed" / "sha"  # of one that was killed
    killed.mkdir(parents=True)
    (killed / "photo.jpg").write_bytes(b"x")
    service = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert service.stdout
        assert service.stdout.readline() == f"pawmatch answers at http://127.0.0.1:{port}/\n"
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http:
            assert http.get("/healthz").text == "ok"
            assert http.post("/gradio_api/upload", files={"files": ("a.jpg", b"x")}).status_code == 200
        assert len(list(tmp_path.glob("pawmatch-*"))) == 1
        assert not killed.exists()
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0
    finally:
        service.kill()
        service.communicate()
    assert not list(tmp_path.glob("pawmatch-*"))


def test_under_a_path_that_the_proxy_keeps_photos_are_not_too_large(
    classifiers: Classifiers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/dogs")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    photo = {"files": ("dog.jpg", b"\xff\xd8" + bytes(3 * 2**20))}
    with (
        running(Settings(), classifiers, tmp_path) as address,
        httpx.Client(base_url=address, timeout=60) as http,
    ):
        for place in ("gradio_api/upload", "dogs/gradio_api/upload"):
            assert http.post(place, files=photo).status_code == 200


def test_an_invented_header_does_not_make_another_visitor(
    classifiers: Classifiers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with running(Settings(rate_limit=1), classifiers, tmp_path) as address:
        # Who comes from this computer itself is believed by servers that trust their proxies by its address.
        said = [
            httpx.post(
                f"{address}gradio_api/upload",
                files={"files": ("a.jpg", b"x")},
                headers={"X-Forwarded-For": f"1.2.3.{number}"},
                timeout=60,
            ).status_code
            for number in range(2)
        ]
    assert said == [200, 429]


def test_a_stop_does_not_wait_for_pages_that_stay_open(
    classifiers: Classifiers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with (
        httpx.Client(timeout=60) as http,
        running(Settings(), classifiers, tmp_path) as address,
        http.stream("GET", f"{address}gradio_api/heartbeat/visitor") as stream,
    ):
        assert stream.status_code == 200
        next(stream.iter_lines())
        started = time.monotonic()
    assert time.monotonic() - started < 10 * server.FAREWELL_SECONDS
