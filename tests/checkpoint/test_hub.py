"""The Hub: where sources point, one commit at a time, what serves offline, and every error mapped."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pawmatch.checkpoint import hub
from pawmatch.checkpoint.hub import HubSource
from pawmatch.errors import AccessDenied, BadOption, HubUnavailable, NotACheckpoint, RepoNotFound
from tests.support.hub_server import Fault, HubServer

pytest_plugins = ("tests.support.hub_fixture",)

REPO = "ann/dogs"
SOURCE = HubSource(REPO)
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 40, "cnn/config.json": b"[]"}


def unplug(server: HubServer) -> None:
    """From now on every request fails at the connection."""
    server.faults.insert(0, Fault(reset=True))


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf://ann/dogs", HubSource("ann/dogs")),
        ("hf://ann/dogs@v1.0", HubSource("ann/dogs", revision="v1.0")),
        ("hf://ann/dogs/cnn", HubSource("ann/dogs", "cnn")),
        ("hf://ann/dogs@v1.0/breed/cnn", HubSource("ann/dogs", "breed/cnn", "v1.0")),
        ("hf://ann/dogs@refs/pr/1/breed", HubSource("ann/dogs", "breed", "refs/pr/1")),
        ("hf://ann/dogs@feature%2Fx/breed", HubSource("ann/dogs", "breed", "feature/x")),
        ("hf://ann/dogs/breed/cnn@refs/pr/1", HubSource("ann/dogs", "breed/cnn", "refs/pr/1")),
        ("hf://ann/dogs/cnn@feature/x", HubSource("ann/dogs", "cnn", "feature/x")),
        ("hf://spaces/ann/app@main/best.pth", HubSource("ann/app", "best.pth", "main", "space")),
        ("hf://spaces/ann/app/best.pth@main", HubSource("ann/app", "best.pth", "main", "space")),
        ("hf://models/ann/dogs", HubSource("ann/dogs")),
    ],
)
def test_a_source_names_repository_subfolder_and_revision_in_either_order(
    text: str, source: HubSource
) -> None:
    assert hub.parse(text) == source
    assert hub.parse(str(source)) == source


@pytest.mark.parametrize("text", ["hf://datasets/ann/dogs", "hf://datasets/ann/dogs@main/x"])
def test_a_dataset_holds_no_checkpoint(text: str) -> None:
    with pytest.raises(BadOption, match="is a dataset; give a model repository or a Space"):
        hub.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://ann",
        "hf://spaces/ann",
        "ann/dogs",
        "hf://ann/dogs/../../etc",
        "hf://ann/dogs/a..b",
        "hf://ann/dogs//etc/passwd",
        "hf:///ann/dogs",
        "hf://ann/dogs/a\\b",
        "hf://ann/dogs/.git",
        "hf://ann/dogs@",
        "hf://ann/dogs@../../x",
        "hf://ann/dogs@a b",
        "hf://ann/dogs@main/../x",
        "hf://ann/dogs@main/a@b",
        "https://huggingface.co/ann/dogs",
        "hf://ann/dogs/%2e%2e",
        "hf://ann/dogs\n",
        "hf://ann/dogs/" + "x" * 500,
    ],
)
def test_tricks_in_a_source_are_refused(text: str) -> None:
    with pytest.raises(BadOption, match=r"write hf://user/repo"):
        hub.parse(text)


def test_files_come_from_the_commit_that_the_revision_is_at(hub_server: HubServer) -> None:
    sha = hub_server.commit(REPO, FILES)
    folder, commit = hub.fetch(SOURCE, ["config.json", "model.safetensors"])
    assert commit.sha == folder.name == sha
    assert not commit.cached
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert commit.names(SOURCE.below("cnn")) == ["config.json"]
    assert all(sha in path for method, path in hub_server.requests if "/resolve/" in path)


def test_a_subfolder_and_a_space_are_places_of_their_own(hub_server: HubServer) -> None:
    hub_server.commit(REPO, FILES)
    hub_server.commit("spaces/ann/app", {"best.pth": b"weights"})
    folder, _ = hub.fetch(SOURCE.below("cnn"), ["config.json"])
    assert (folder / "config.json").read_bytes() == b"[]"
    folder, _ = hub.fetch(HubSource("ann/app", kind="space"), ["best.pth"])
    assert (folder / "best.pth").read_bytes() == b"weights"


def test_a_commit_that_arrives_meanwhile_is_not_mixed_in(hub_server: HubServer) -> None:
    first = hub_server.commit(REPO, {"config.json": b"one", "model.safetensors": b"one"})
    commit = hub.look_up(SOURCE)
    hub.download(commit, SOURCE, ["config.json"])
    hub_server.commit(REPO, {"config.json": b"two", "model.safetensors": b"two"})
    folder = hub.download(commit, SOURCE, ["config.json", "model.safetensors"])
    assert commit.sha == first
    assert {file.read_bytes() for file in folder.iterdir()} == {b"one"}


def test_a_pinned_revision_stays_what_it_was(hub_server: HubServer) -> None:
    first = hub_server.commit(REPO, {"config.json": b"one"})
    hub_server.commit(REPO, {"config.json": b"two"})
    folder, _ = hub.fetch(HubSource(REPO, revision=first), ["config.json"])
    assert (folder / "config.json").read_bytes() == b"one"
    folder, _ = hub.fetch(SOURCE, ["config.json"])
    assert (folder / "config.json").read_bytes() == b"two"
    unplug(hub_server)
    folder, commit = hub.fetch(HubSource(REPO, revision=first), ["config.json"])
    assert commit.cached
    assert (folder / "config.json").read_bytes() == b"one"


def test_what_is_in_the_cache_is_not_downloaded_again(hub_server: HubServer) -> None:
    hub_server.commit(REPO, FILES)
    hub.fetch(SOURCE, ["model.safetensors"])
    hub.fetch(SOURCE, ["model.safetensors"])
    assert len(hub_server.downloads()) == 1


def test_a_download_that_breaks_off_goes_on_where_it_stopped(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # bytes; what is kept of a broken answer
    hub_server.commit(REPO, FILES)
    hub_server.faults = [Fault("model.safetensors", method="GET", keep=4000, times=1)]
    folder, _ = hub.fetch(SOURCE, ["model.safetensors"])
    assert hub_server.ranges == ["bytes=4000-"]
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_half_a_download_is_never_used_and_hides_nothing(hub_server: HubServer) -> None:
    first = hub_server.commit(REPO, {"config.json": b"one", "model.safetensors": b"one"})
    hub.fetch(SOURCE, ["config.json", "model.safetensors"])
    hub_server.commit(REPO, {"config.json": b"two", "model.safetensors": bytes(9000)})
    hub_server.faults = [Fault("model.safetensors", method="GET", keep=0)]
    for _ in range(2):
        folder, commit = hub.fetch(SOURCE, ["config.json", "model.safetensors"])
        assert (commit.sha, commit.cached) == (first, True)
        assert (folder / "model.safetensors").read_bytes() == b"one"
    assert not list(folder.parents[2].rglob("*.incomplete"))
    unplug(hub_server)
    _, commit = hub.fetch(SOURCE, ["config.json", "model.safetensors"])
    assert commit.sha == first


def test_offline_mode_is_respected(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub_server.commit(REPO, FILES)
    hub.fetch(SOURCE, ["config.json"])
    asked = len(hub_server.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.fetch(SOURCE, ["config.json"])[1].cached
    with pytest.raises(HubUnavailable):
        hub.fetch(HubSource("ann/cats"), ["config.json"])
    assert len(hub_server.requests) == asked


def test_a_web_page_in_place_of_the_hub_is_no_hub(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.hub_server import HubHandler

    monkeypatch.setattr(HubHandler, "api", lambda self, path: self.send(200, b"<html>Log in to the WLAN"))
    with pytest.raises(HubUnavailable):
        hub.fetch(SOURCE, ["config.json"])
    monkeypatch.setattr(HubHandler, "api", lambda self, path: self.reply({"id": "x"}))
    with pytest.raises(HubUnavailable, match="HF_ENDPOINT"):
        hub.fetch(SOURCE, ["config.json"])


def test_a_missing_repository_revision_or_file_is_named(hub_server: HubServer) -> None:
    hub_server.commit(REPO, FILES)
    with pytest.raises(RepoNotFound, match="ann/cats"):
        hub.fetch(HubSource("ann/cats"), ["config.json"])
    with pytest.raises(RepoNotFound, match="'v9'"):
        hub.fetch(HubSource(REPO, revision="v9"), ["config.json"])
    with pytest.raises(RepoNotFound, match=r"no model\.safetensors in hf://ann/dogs/cnn"):
        hub.fetch(SOURCE.below("cnn"), ["model.safetensors"])
    with pytest.raises(RepoNotFound, match="cannot be the name"):
        hub.fetch(HubSource("ann/dogs--cats"), ["config.json"])


def test_a_private_repository_opens_with_the_token_from_its_usual_place(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.commit(REPO, FILES)
    hub_server.repos[REPO].private = True
    with pytest.raises(RepoNotFound, match="hf auth login"):
        hub.fetch(SOURCE, ["config.json"])
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.fetch(SOURCE, ["config.json"])
    assert hub_server.headers[-1]["authorization"] == "Bearer hf_secret"


def test_a_full_disk_is_told_from_a_missing_hub() -> None:
    error = hub.translated(OSError(errno.ENOSPC, "No space left on device", "/secret/path"), SOURCE)
    assert isinstance(error, HubUnavailable)
    assert "No space left on device" in str(error)
    assert "/secret" not in str(error)


def test_downloads_are_such_that_their_time_can_be_limited() -> None:
    from huggingface_hub import constants

    assert constants.HF_HUB_DISABLE_XET


def test_a_file_above_all_measure_is_not_downloaded(hub_server: HubServer) -> None:
    hub_server.commit(REPO, FILES)
    hub_server.faults = [Fault("model.safetensors", method="HEAD", announced=2**34)]
    with pytest.raises(NotACheckpoint, match="17,179,869,184 bytes"):
        hub.fetch(SOURCE, ["model.safetensors"])
    assert hub_server.downloads() == []


def test_uploads_create_repository_and_branch_in_one_commit(
    hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "README.md").write_text("# card")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "private.txt").write_text("stays here")
    place = HubSource("ann/new", "breed", "v2")
    names = ["README.md", "config.json", "LICENSE"]
    for _ in range(2):  # the second time both exist
        url = hub.upload(tmp_path, place, names, private=True, message="Add dogs")
    assert url == f"{hub_server.url}/ann/new/tree/v2/breed"
    repo = hub_server.repos["ann/new"]
    assert repo.private
    assert repo.commits[repo.branches["v2"]] == {"breed/README.md": b"# card", "breed/config.json": b"{}"}
    assert hub_server.messages[0] == "Add dogs"


def test_an_upload_without_a_token_or_with_a_broken_card_says_so(
    hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: broken\n---")
    with pytest.raises(AccessDenied, match="hf auth login"):
        hub.upload(tmp_path, SOURCE, ["README.md"], private=False, message="Add")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(BadOption, match="license is unknown"):
        hub.upload(tmp_path, SOURCE, ["README.md"], private=False, message="Add")
