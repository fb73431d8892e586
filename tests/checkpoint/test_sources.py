"""Where checkpoints come from: bundled, folders, the Hub; what serves when the Hub does not; pushing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pawmatch.checkpoint import load_checkpoint, load_task, push
from pawmatch.checkpoint.load import CACHED_NOTICE, Stored
from pawmatch.errors import (
    BadOption,
    CheckpointNotFound,
    NotACheckpoint,
    TruncatedFile,
    UnknownTask,
)
from tests.support.checkpoints import change_config
from tests.support.hub_server import Fault, HubServer, files_of

pytest_plugins = ("tests.support.hub_fixture",)

VARIANTS = ["cnn", "cnn_transformer", "cnn_transformer_mfe"]
WEIGHTS = "cnn.safetensors"
Write = Callable[..., Path]


def sources_of(source: str | Path | None, task: str = "artist") -> dict[str, str]:
    return {checkpoint.config.variant: checkpoint.source for checkpoint in load_task(source, task)}


def test_the_bundled_weights_have_short_names(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = sources_of(None)
    assert found == {variant: f"weights/artist/{variant}" for variant in VARIANTS}
    for variant, source in found.items():
        assert load_checkpoint(source).config.variant == variant
        assert load_checkpoint("weights/artist", variant).source == source
    with pytest.raises(CheckpointNotFound, match="no bundled weights for plant"):
        load_task(None, "plant")


def test_a_folder_may_hold_one_checkpoint_or_one_per_variant(bundled: Path, tmp_path: Path) -> None:
    for source in (bundled, str(bundled / "artist")):
        assert sources_of(source) == {variant: f"{bundled}/artist/{variant}" for variant in VARIANTS}
    one = bundled / "artist" / "cnn_transformer"
    assert sources_of(one) == {"cnn_transformer": str(one)}
    shutil.copytree(bundled / "artist" / "cnn", tmp_path / "cnn")
    assert list(sources_of(tmp_path)) == ["cnn"]


def test_a_wrong_folder_always_raises(bundled: Path, tmp_path: Path) -> None:
    for strict in (True, False):
        with pytest.raises(CheckpointNotFound):
            load_task(tmp_path / "nowhere", "artist", strict=strict)
        with pytest.raises(NotACheckpoint, match="is for the task artist, not breed"):
            load_task(bundled / "artist", "breed", strict=strict)
        with pytest.raises(BadOption):
            load_task("hf://ann/../x", "artist", strict=strict)
        with pytest.raises(UnknownTask):
            load_task(None, "../artist", strict=strict)


def test_variants_of_one_source_must_belong_together(bundled: Path, tmp_path: Path) -> None:
    shutil.copytree(bundled / "artist", tmp_path, dirs_exist_ok=True)
    change_config(tmp_path / "cnn_transformer", lambda values: values["labels"].reverse())
    with pytest.raises(NotACheckpoint, match=r"labels of .*cnn_transformer differ"):
        load_task(tmp_path, "artist")
    shutil.rmtree(tmp_path / "cnn_transformer")
    shutil.copytree(bundled / "artist" / "cnn", tmp_path / "cnn_transformer")
    with pytest.raises(NotACheckpoint, match="holds the variant cnn; rename"):
        load_task(tmp_path, "artist")


@pytest.mark.parametrize(
    ("place", "source"),
    [("", "hf://ann/art"), ("artist/", "hf://ann/art"), ("v2/tiny/", "hf://ann/art/v2/tiny")],
)
def test_a_repository_may_hold_all_variants(
    hub_server: HubServer, bundled: Path, place: str, source: str
) -> None:
    sha = hub_server.commit("ann/art", files_of(bundled / "artist", place))
    checkpoints = load_task(source, "artist")
    found = {checkpoint.config.variant: checkpoint.source for checkpoint in checkpoints}
    assert list(found) == VARIANTS
    assert {(checkpoint.revision, checkpoint.notice) for checkpoint in checkpoints} == {(sha, None)}
    again = load_checkpoint(f"{found['cnn']}@main")
    assert (again.config.variant, again.revision) == ("cnn", sha)
    assert again.source == f"{found['cnn']}@main"


def test_a_repository_may_hold_one_checkpoint(hub_server: HubServer, bundled: Path) -> None:
    hub_server.commit("ann/art", files_of(bundled / "artist" / "cnn"))
    assert load_checkpoint("hf://ann/art").config.variant == "cnn"
    assert sources_of("hf://ann/art@main") == {"cnn": "hf://ann/art@main"}


def test_a_repository_without_a_checkpoint_says_what_it_has(hub_server: HubServer, bundled: Path) -> None:
    hub_server.commit("ann/old", {"best.pth": b"PK\x03\x04", "README.md": b""})
    hub_server.commit("ann/art", files_of(bundled / "artist"))
    assert load_checkpoint("hf://ann/art").source == "hf://ann/art/cnn_transformer_mfe"
    half = json.loads((bundled / "artist" / "cnn" / "config.json").read_text())
    half["variants"]["cnn"]["files"][0]["sha256"] = "0" * 64  # or it would be found among the bundled ones
    hub_server.commit("ann/half", {"config.json": json.dumps(half).encode()})
    for source, said in (
        ("hf://ann/old", "`pawmatch import FILE`"),
        ("hf://ann/art/cnn/deeper", r"holds no config\.json"),
        ("hf://ann/half", r"holds no cnn\.safetensors"),
    ):
        with pytest.raises(NotACheckpoint, match=said):
            load_checkpoint(source)
    assert not any(path.endswith(".pth") for path in hub_server.downloads())


def test_a_wrong_config_saves_the_download_of_the_weights(hub_server: HubServer, bundled: Path) -> None:
    hub_server.commit("ann/art", {**files_of(bundled / "artist" / "cnn"), "config.json": b"{}"})
    with pytest.raises(Exception, match="format_version"):
        load_checkpoint("hf://ann/art")
    assert [path.rpartition("/")[2] for path in hub_server.downloads()] == ["config.json"]


def test_all_variants_come_from_one_commit(
    hub_server: HubServer, bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hub_server.commit("ann/art", files_of(bundled / "artist"))
    from pawmatch.checkpoint import load as sources

    def read_and_commit(folder: Path, source: str, part: str) -> list[Stored]:
        hub_server.commit("ann/art", {"cnn_transformer/config.json": b"broken"})
        return stored_in_part(folder, source, part)

    stored_in_part = sources.stored_in_part
    monkeypatch.setattr(sources, "stored_in_part", read_and_commit)
    assert {checkpoint.revision for checkpoint in load_task("hf://ann/art", "artist")} == {first}


def test_without_the_hub_the_cached_copy_serves_and_says_so(hub_server: HubServer, bundled: Path) -> None:
    sha = hub_server.commit("ann/art", files_of(bundled / "artist"))
    load_task("hf://ann/art", "artist")
    hub_server.faults = [Fault(reset=True)]
    for strict in (True, False):
        checkpoints = load_task("hf://ann/art", "artist", strict=strict)
        assert {(c.revision, c.notice) for c in checkpoints} == {(sha, CACHED_NOTICE)}
    assert load_checkpoint("hf://ann/art/cnn").notice == CACHED_NOTICE


def test_a_set_that_cannot_be_completed_falls_back_as_a_whole(hub_server: HubServer, bundled: Path) -> None:
    first = hub_server.commit("ann/art", files_of(bundled / "artist"))
    load_task("hf://ann/art", "artist")
    changed = "cnn_transformer/cnn_transformer.safetensors"
    hub_server.commit(
        "ann/art", {**files_of(bundled / "artist"), "cnn/README.md": b"new", changed: b"x" * 99}
    )
    hub_server.faults = [Fault(changed, method="GET", keep=0)]
    checkpoints = load_task("hf://ann/art", "artist")
    assert {(c.revision, c.notice) for c in checkpoints} == {(first, CACHED_NOTICE)}


def test_weights_on_the_hub_that_cannot_be_used_do_not_stop_a_service(
    hub_server: HubServer, bundled: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = files_of(bundled / "artist")
    state[f"cnn/{WEIGHTS}"] = state[f"cnn/{WEIGHTS}"][:-7]
    hub_server.commit("ann/art", state)
    (notice,) = {checkpoint.notice for checkpoint in load_task("hf://ann/art", "artist")}
    assert notice == (
        "The weights of hf://ann/art cannot be used (TruncatedFile), so the bundled starter model answers."
    )
    with pytest.raises(TruncatedFile):
        load_task("hf://ann/art", "artist", strict=True)
    monkeypatch.setenv("PAWMATCH_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(TruncatedFile):
        load_task("hf://ann/art", "artist")


def test_a_pushed_checkpoint_can_be_loaded_from_where_it_went(
    hub_server: HubServer, bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    folder = tmp_path / "run"
    shutil.copytree(bundled / "artist", folder)
    (folder / "cnn" / "optimizer.pth").write_bytes(b"stays here")
    with pytest.raises(NotACheckpoint, match=r"has no README\.md"):
        push(folder, "ann/new")
    assert not hub_server.requests
    (folder / "README.md").write_text("# Painters")
    assert push(folder, "ann/new", private=True) == f"{hub_server.url}/ann/new/tree/main"
    assert hub_server.messages == ["Add artist weights: cnn, cnn_transformer, cnn_transformer_mfe"]
    assert [c.config.variant for c in load_task("hf://ann/new", "artist", strict=True)] == VARIANTS
    repo = hub_server.repos["ann/new"]
    assert not any(name.endswith(".pth") for name in repo.commits[repo.branches["main"]])

    (folder / "cnn" / "README.md").write_text("# One")
    push(folder / "cnn", "hf://ann/new/tiny", revision="v2", message="One")
    assert load_checkpoint("hf://ann/new/tiny@v2").config.variant == "cnn"
    assert hub_server.messages[-1] == "One"


def test_nothing_is_pushed_that_nobody_could_use(
    hub_server: HubServer, bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    shutil.copytree(bundled / "artist" / "cnn", tmp_path / "ck")
    (tmp_path / "ck" / "README.md").write_text("# Painters")
    (tmp_path / "ck" / WEIGHTS).write_bytes((tmp_path / "ck" / WEIGHTS).read_bytes()[:-1])
    with pytest.raises(TruncatedFile):
        push(tmp_path / "ck", "ann/new")
    with pytest.raises(CheckpointNotFound):
        push(tmp_path / "nowhere", "ann/new")
    with pytest.raises(BadOption, match="is a Space"):
        push(tmp_path / "ck", "hf://spaces/ann/new")
    with pytest.raises(BadOption):
        push(tmp_path / "ck", "new")
    assert not hub_server.requests
