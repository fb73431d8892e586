"""The fixture `hub_server`: point the Hub's library at a server of our own and at an empty cache.

The library reads its environment when it is imported, which an earlier test may have caused; so its
constants are set instead. Load with `pytest_plugins = ("tests.support.hub_fixture",)`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.hub_server import HubServer


@pytest.fixture
def bundled(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny checkpoints in place of the bundled weights."""
    monkeypatch.setenv("PAWMATCH_WEIGHTS", str(tiny_weights))
    return tiny_weights


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A running HubServer that the program takes for the Hub; the cache is `tmp_path/hf/hub`."""
    from huggingface_hub import close_session, constants, file_download

    home = tmp_path / "hf"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # The library waits a second before it goes on with a broken download.
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _: None, time=time.time))
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        close_session()
        yield server
        close_session()
