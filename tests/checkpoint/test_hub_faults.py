"""The Hub away, in every way we know: a service starts, says so, and recovers without a restart."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pawmatch.checkpoint import hub
from pawmatch.checkpoint.hub import HubSource
from pawmatch.checkpoint.load import CACHED_NOTICE
from pawmatch.classifier import load
from pawmatch.errors import AccessDenied, HubError, HubUnavailable, RepoNotFound
from pawmatch.settings import Settings
from pawmatch.ui.inference import Classifiers, from_settings
from tests.support.hub_server import Fault, HubServer, files_of

pytest_plugins = ("tests.support.hub_fixture",)

SOURCE = "hf://ann/art"
PLACE = HubSource("ann/art")
WEIGHTS = "cnn_transformer.safetensors"
TOKEN = "hf_secret"
ROOT = Path(__file__).parents[2]
LONG = {"Retry_After": "3600"}
LOOP = {"Location": "/api/models/ann/art"}

FAULTS: dict[str, tuple[Fault, type[HubError]]] = {
    "401": (Fault(status=401), AccessDenied),
    "401 at the file": (Fault(WEIGHTS, status=401), AccessDenied),
    "403": (Fault(status=403), AccessDenied),
    "403 gated": (Fault("resolve", status=403, code="GatedRepo"), AccessDenied),
    "404": (Fault(status=404), RepoNotFound),
    "404 at the download": (Fault(WEIGHTS, method="GET", status=404), RepoNotFound),
    "429 for an hour": (Fault(status=429, extra=LONG), HubUnavailable),
    "429 for an hour at the download": (
        Fault(WEIGHTS, method="GET", status=429, extra=LONG),
        HubUnavailable,
    ),
    "500": (Fault(status=500), HubUnavailable),
    "500 at the download": (Fault(WEIGHTS, method="GET", status=500), HubUnavailable),
    "reset": (Fault(reset=True), HubUnavailable),
    "reset at the download": (Fault(WEIGHTS, method="GET", reset=True), HubUnavailable),
    "silence": (Fault(delay=3), HubUnavailable),
    "an answer byte by byte": (Fault("/api/", drip=0.1), HubUnavailable),
    "a file byte by byte": (Fault(WEIGHTS, drip=0.1), HubUnavailable),
    "an answer cut short": (Fault("/api/", keep=20), HubUnavailable),
    "a file cut short": (Fault(WEIGHTS, method="GET", keep=100), HubUnavailable),
    "a file shorter than announced": (Fault(WEIGHTS, announced=10**6), HubUnavailable),
    "a file longer than announced": (Fault(WEIGHTS, announced=10), HubUnavailable),
    "another file of the same size": (Fault(WEIGHTS, method="GET", body=b""), HubUnavailable),
    "a loop of redirects": (Fault(status=302, extra=LOOP), HubUnavailable),
    "a redirect to nowhere": (Fault("resolve", redirect="http://127.0.0.1:1"), HubUnavailable),
}


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@contextmanager
def away(server: HubServer, fault: Fault) -> Iterator[None]:
    """The Hub with a fault. Where it is slow the limits are short, so that the tests need not wait.

    Without limits some faults would take an hour and others for ever, which pytest's own limit shows.
    """
    server.faults = [fault]
    with pytest.MonkeyPatch.context() as patch:
        if fault.delay or fault.drip:
            for name, seconds in {"ANSWER_TIMEOUT": 1.0, "ANSWER_SECONDS": 1.5, "FILE_SECONDS": 1.5}.items():
                patch.setattr(hub, name, seconds)
            patch.setattr(hub, "MIN_SPEED", 1e9)
        yield
    server.faults = []


def one_clear_sentence(text: str) -> None:
    """Hold that a message is fit for the page: no token, no address and no path of the server."""
    assert text.endswith(".")
    assert ". " not in text
    assert "\n" not in text
    for telling in (TOKEN, "127.0.0.1", "http", "/tmp", "Traceback", str(ROOT)):
        assert telling not in text


def reload(classifiers: Classifiers) -> None:
    done = classifiers.replace_fallback("artist")
    assert done
    done.result(30)


@pytest.mark.parametrize("name", FAULTS)
def test_the_service_starts_says_so_and_recovers_without_a_restart(
    hub_server: HubServer, bundled: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pawmatch.ui.inference.RETRY_SECONDS", 0)
    fault, error = FAULTS[name]
    state = files_of(bundled / "artist" / "cnn_transformer")
    if fault.body is not None:
        fault.body = bytes(len(state[WEIGHTS]))
    sha = hub_server.commit("ann/art", state)
    classifiers = from_settings(Settings(sources={"artist": SOURCE}, device="cpu"))
    with away(hub_server, fault):
        stays_on_the_starter(classifiers, error)
    reload(classifiers)
    assert classifiers.notice("artist") is None
    assert classifiers.get("artist").info.source == SOURCE
    assert hub.cached_commit(PLACE) is not None
    assert load("artist", SOURCE, "cpu").info.source == SOURCE
    assert hub_server.repos["ann/art"].branches["main"] == sha


def stays_on_the_starter(classifiers: Classifiers, error: type[HubError]) -> None:
    """Hold that the bundled model answers, that a notice says so, and that others raise the error."""
    classifier = classifiers.get("artist")
    assert classifier.info.source.startswith("weights/artist/")
    notice = classifiers.notice("artist")
    assert notice is not None
    assert notice.endswith("so the bundled starter model answers.")
    one_clear_sentence(notice)

    with pytest.raises(error) as caught:
        load("artist", SOURCE, "cpu")
    one_clear_sentence(str(caught.value))
    assert any(
        remedy in str(caught.value) for remedy in ("try again", "check the ", "log in", "ask for access")
    )

    reload(classifiers)  # still away: the same model goes on answering
    assert classifiers.notice("artist") == notice


@pytest.mark.parametrize("name", [name for name, (_, error) in FAULTS.items() if error is HubUnavailable])
def test_the_copy_downloaded_earlier_answers_before_the_starter_does(
    hub_server: HubServer, name: str
) -> None:
    first = hub_server.commit("ann/art", {"config.json": b"{}", WEIGHTS: b"one" * 40})
    hub.fetch(PLACE, ["config.json", WEIGHTS])
    hub_server.commit("ann/art", {WEIGHTS: b"two" * 40})
    fault = FAULTS[name][0]
    if fault.body is not None:
        fault.body = b"odd" * 40
    with away(hub_server, fault):
        folder, commit = hub.fetch(PLACE, ["config.json", WEIGHTS])
    assert (commit.sha, commit.cached) == (first, True)
    assert (folder / WEIGHTS).read_bytes() == b"one" * 40
    one_clear_sentence(CACHED_NOTICE)


def test_a_name_that_cannot_be_resolved_is_an_unreachable_hub(
    hub_server: HubServer, bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.commit("ann/art", files_of(bundled / "artist" / "cnn"))

    def unresolved(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", unresolved)
        classifier = load("artist", SOURCE, "cpu", strict=False)
    assert classifier.notice == "The Hub could not be reached, so the bundled starter model answers."
    assert load("artist", SOURCE, "cpu", strict=False).notice is None


def test_files_may_come_from_another_host_which_never_sees_the_token(
    hub_server: HubServer, bundled: Path
) -> None:
    hub_server.commit("ann/art", state := files_of(bundled / "artist" / "cnn_transformer"))
    with HubServer() as elsewhere:
        elsewhere.commit("ann/art", state)
        elsewhere.repos["ann/art"].commits |= {
            hub_server.repos["ann/art"].branches["main"]: state,
        }
        hub_server.faults = [Fault("resolve", redirect=elsewhere.url)]
        folder, commit = hub.fetch(PLACE, ["config.json", WEIGHTS])
        assert (folder / WEIGHTS).read_bytes() == state[WEIGHTS]
        assert not commit.cached
        assert elsewhere.downloads()
        assert all("authorization" not in headers for headers in elsewhere.headers)
        hub_server.faults = [Fault("/api/", redirect=elsewhere.url)]
        hub.look_up(PLACE)
        assert all("authorization" not in headers for headers in elsewhere.headers)
    assert f"Bearer {TOKEN}" in {headers.get("authorization") for headers in hub_server.headers}


def test_a_cached_file_that_was_damaged_since_is_fetched_again(hub_server: HubServer) -> None:
    hub_server.commit("ann/art", {WEIGHTS: b"good" * 40})
    folder, _ = hub.fetch(PLACE, [WEIGHTS])
    (folder / WEIGHTS).resolve().write_bytes(b"evil" * 40)
    folder, _ = hub.fetch(PLACE, [WEIGHTS])
    assert (folder / WEIGHTS).read_bytes() == b"good" * 40
    (folder / WEIGHTS).resolve().write_bytes(b"evil" * 40)
    hub_server.faults = [Fault(reset=True)]
    with pytest.raises(HubUnavailable):
        hub.fetch(PLACE, [WEIGHTS])


def test_a_small_file_is_known_by_the_hash_of_git(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    blob = tmp_path / "blobs" / "9e26dfeeb6e641a33dae4961196235bdb965b21b"  # of "{}" as git hashes it
    (tmp_path / "config.json").symlink_to(Path("blobs") / blob.name)
    blob.write_bytes(b"{}")
    assert hub.intact(tmp_path / "config.json")
    blob.write_bytes(b"[]")
    assert not hub.intact(tmp_path / "config.json")
    assert not blob.exists()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240  # importing torch takes long on a busy computer
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_download_that_was_killed_is_never_used(hub_server: HubServer, tmp_path: Path) -> None:
    first = hub_server.commit("ann/art", {WEIGHTS: b"one" * 40})
    hub.fetch(PLACE, [WEIGHTS])
    second = hub_server.commit("ann/art", {WEIGHTS: b"two" * 40})
    hub_server.faults = [Fault(WEIGHTS, method="GET", drip=1)]
    asked = len(hub_server.downloads())
    code = (
        "from huggingface_hub import constants; constants.DOWNLOAD_CHUNK_SIZE = 1; "
        f"from pawmatch.checkpoint import hub; hub.fetch(hub.parse({SOURCE!r}), [{WEIGHTS!r}])"
    )
    cache = tmp_path / "hf" / "hub"
    environment = {**os.environ, "HF_ENDPOINT": hub_server.url, "HF_HUB_CACHE": str(cache)}
    loading = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    try:
        wait_for(lambda: len(hub_server.downloads()) > asked and list(cache.rglob("*.incomplete")))
    finally:
        loading.send_signal(signal.SIGKILL)
        loading.wait()
    assert list(cache.rglob("*.incomplete"))

    hub_server.faults = [Fault(reset=True)]
    folder, commit = hub.fetch(PLACE, [WEIGHTS])
    assert (commit.sha, (folder / WEIGHTS).read_bytes()) == (first, b"one" * 40)
    hub_server.faults = []
    folder, commit = hub.fetch(PLACE, [WEIGHTS])
    assert (commit.sha, (folder / WEIGHTS).read_bytes()) == (second, b"two" * 40)
