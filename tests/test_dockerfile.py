"""The Dockerfile keeps its promises, as far as reading it can tell."""

from __future__ import annotations

import fnmatch
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    """Instruction and argument, comments and line breaks taken out."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", text)
    pairs = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, argument.strip()) for name, _, argument in pairs]


def arguments(name: str) -> list[str]:
    return [argument for instruction, argument in instructions() if instruction == name]


def copied() -> list[str]:
    """The paths of the checkout that go into the image."""
    return [source for line in arguments("COPY") for source in line.split()[:-1]]


def test_it_runs_as_the_ordinary_user_1000() -> None:
    (user,) = arguments("USER")
    assert any(re.search(rf"useradd .*--uid 1000 {user}$", line) for line in arguments("RUN"))
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("CMD")
    assert "COPY" not in names[names.index("USER") :]  # code belongs to root: the service cannot change it


@pytest.mark.parametrize("path", copied())
def test_what_is_copied_exists_and_is_let_in(path: str) -> None:
    assert (ROOT / path).exists()
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert f"!{path}" in rules


@pytest.mark.parametrize("path", [".git", "runs", "tests", ".env", "shared"])
def test_the_rest_stays_out(path: str) -> None:
    rules = [rule for rule in (ROOT / ".dockerignore").read_text().splitlines() if not rule.startswith("#")]
    matching = [rule for rule in rules if fnmatch.fnmatch(path, rule.lstrip("!"))]
    assert matching
    assert not matching[-1].startswith("!")


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server that answers 200 on /healthz and nowhere else."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_the_health_check_tells_a_running_service_from_none(port: int) -> None:
    (check,) = arguments("HEALTHCHECK")
    command = json.loads(check.partition(" CMD ")[2])
    command[0] = sys.executable

    def healthy(**variables: str) -> bool:
        environment = {**os.environ, "NO_PROXY": "127.0.0.1", **variables}
        return subprocess.run(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 0

    assert healthy(PAWMATCH_PORT=str(port))
    assert healthy(PORT=str(port))
    assert not healthy(PAWMATCH_PORT="1")
