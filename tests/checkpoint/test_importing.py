"""Importing the original's files: names, variants, labels, equal results, and pickles that run nothing."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TypedDict

import pytest
import torch
from torch import Tensor, nn

from pawmatch.checkpoint.importing import import_checkpoint, unpickle
from pawmatch.errors import (
    BadOption,
    CheckpointNotFound,
    KeyMismatch,
    LabelCountMismatch,
    NotACheckpoint,
    PawMatchError,
    RepoNotFound,
    ShapeMismatch,
)
from pawmatch.images import InputSpec
from pawmatch.models import build_model
from tests.support.hostile import Bomb
from tests.support.hub_server import HubServer

pytest_plugins = ("tests.support.hub_fixture",)


class Backbone(TypedDict):
    """The options of a model that say what its backbone is."""

    backbone: str
    backbone_config: dict[str, Any]


class Options(Backbone):
    """The options of an import that these tests need; as a plain dictionary they would not be checked."""

    labels: tuple[str, ...] | None
    input_spec: InputSpec


LABELS = ("Beagle", "Boxer", "Collie")
BACKBONE: Backbone = {
    "backbone": "resnet10t",
    "backbone_config": {"channels": [8, 8, 16, 16], "stem_width": 8},
}
OPTIONS: Options = {**BACKBONE, "labels": LABELS, "input_spec": InputSpec(size=32)}


def original(variant: str = "cnn_transformer") -> nn.Module:
    torch.manual_seed(0)
    options = {} if variant == "cnn" else {"attention_mode": "published"}
    return build_model(
        family="hybrid", variant=variant, num_classes=len(LABELS), **BACKBONE, **options
    ).eval()


@pytest.fixture
def state() -> dict[str, Tensor]:
    return original().state_dict()


def saved(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "best.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("variant", "key"),
    [
        ("cnn", None),
        ("cnn_transformer", None),
        ("cnn_transformer", "model_state_dict"),
        ("cnn_transformer_mfe", "base_model"),
    ],
)
def test_the_original_gives_equal_results(tmp_path: Path, variant: str, key: str | None) -> None:
    model = original(variant)
    content = model.state_dict() if key is None else {key: model.state_dict(), "epoch": 7, "best": 0.5}
    checkpoint = import_checkpoint(saved(tmp_path, content), tmp_path / "out", half=False, **OPTIONS)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(checkpoint.model(images), model(images))
    config = checkpoint.config
    assert (config.task.name, config.family, config.variant) == ("breed", "hybrid", variant)
    assert config.labels == LABELS
    assert config.architecture.get("attention_mode") == (None if variant == "cnn" else "published")
    assert config.calibration.temperature == 1
    assert "not fitted" in config.calibration.review_rule
    assert config.training["file"] == "best.pth"
    assert len(config.training["sha256"]) == 64


@pytest.mark.parametrize("prefix", ["module.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path, state: dict[str, Tensor], prefix: str) -> None:
    wrapped = {prefix + name: tensor for name, tensor in state.items()}
    import_checkpoint(saved(tmp_path, {"base_model": wrapped}), tmp_path / "out", **OPTIONS)
    with pytest.raises(KeyMismatch, match="both with and without"):
        import_checkpoint(saved(tmp_path, {**wrapped, **state}), tmp_path / "out", **OPTIONS)


def test_old_files_are_read_too(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "old.pth"
    torch.save({"base_model": state}, path, _use_new_zipfile_serialization=False)
    assert import_checkpoint(path, tmp_path / "out", **OPTIONS).config.variant == "cnn_transformer"


def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path: Path, state: dict[str, Tensor]) -> None:
    out = tmp_path / "out"
    incomplete = {name: tensor for name, tensor in state.items() if name != "attention.query.bias"}
    reshaped = {**state, "attention.query.bias": torch.zeros(3)}
    broken = {**state, "attention.query.bias": state["attention.query.bias"] * float("nan")}
    cases: tuple[tuple[object, tuple[str, ...] | None, type[PawMatchError], str], ...] = (
        (incomplete, LABELS, KeyMismatch, "lack attention.query.bias"),
        (reshaped, LABELS, ShapeMismatch, "attention.query.bias"),
        (broken, LABELS, NotACheckpoint, "NaN"),
        (state, LABELS[:2], LabelCountMismatch, "3 outputs and there are 2 labels"),
        (state, None, LabelCountMismatch, "there are 124 labels"),
        (state, ("a", "b", "a"), NotACheckpoint, "'a' twice"),
        ({"base_model": {"a": 1}}, LABELS, NotACheckpoint, "'a', which is no tensor"),
        ({}, LABELS, NotACheckpoint, "no dictionary of tensors"),
        ([1, 2], LABELS, NotACheckpoint, "no dictionary of tensors"),
        (torch.zeros(3), LABELS, NotACheckpoint, "no dictionary of tensors"),
    )
    for content, labels, error, said in cases:
        options: Options = {**OPTIONS, "labels": labels}
        with pytest.raises(error, match=said):
            import_checkpoint(saved(tmp_path, content), out, **options)
    assert not out.exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, state: dict[str, Tensor], form: str) -> None:
    target, path = tmp_path / "boom.txt", tmp_path / "evil.pth"
    content = {"base_model": state, "extra": Bomb(target)}
    if form == "plain":
        path.write_bytes(pickle.dumps(Bomb(target), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(NotACheckpoint, match=r"nothing was executed") as caught:
        import_checkpoint(path, tmp_path / "out", **OPTIONS)
    assert "exec" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    assert not (tmp_path / "out").exists()


def test_files_of_other_kinds_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "file.pth"
    whole = saved(tmp_path, state).read_bytes()
    for data in (b"", b"hello", whole[: len(whole) // 2], b"\x80", b"<html>", b"PK\x03\x04"):
        path.write_bytes(data)
        with pytest.raises(NotACheckpoint):
            import_checkpoint(path, tmp_path / "out", **OPTIONS)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 1000)
    with pytest.raises(NotACheckpoint, match="compressed"):
        import_checkpoint(path, tmp_path / "out", **OPTIONS)


@pytest.mark.parametrize(
    "form",
    [
        lambda tensor: tensor.to(torch.float8_e4m3fn),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to("meta"),
        lambda tensor: tensor.to_sparse(),
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(quantiz|TypedStorage|sparse).*")
def test_tensors_of_rare_forms_are_refused(
    tmp_path: Path, state: dict[str, Tensor], form: Callable[[Tensor], Tensor]
) -> None:
    content = {**state, "attention.query.bias": form(state["attention.query.bias"])}
    with pytest.raises(NotACheckpoint, match=r"attention\.query\.bias' in a rare form; save plain tensors"):
        import_checkpoint(saved(tmp_path, content), tmp_path / "out", **OPTIONS)


def test_a_tensor_that_claims_terabytes_takes_no_memory(tmp_path: Path, state: dict[str, Tensor]) -> None:
    huge = torch.zeros(1).expand(10**6, 10**6)  # one number in the file
    with pytest.raises(ShapeMismatch):
        import_checkpoint(saved(tmp_path, {**state, "attention.query.weight": huge}), tmp_path, **OPTIONS)


def test_damaged_archives_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = saved(tmp_path, {"base_model": state})
    whole, rng = path.read_bytes(), Random(0)
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 5, 5, 4000, 10**6, 0)
    path.write_bytes(b"x" * 100 + end)
    with pytest.raises(NotACheckpoint, match="damaged"):
        unpickle(path, "x.pth")
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 20)):
            data[-rng.randrange(1, 9000)] ^= 1 << rng.randrange(8)  # the archive's table is at its end
        path.write_bytes(bytes(data))
        try:
            unpickle(path, "x.pth")
        except NotACheckpoint:
            refused += 1
    assert refused > 30


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match=r"no file nowhere\.pth"):
        import_checkpoint("nowhere.pth", tmp_path / "out")
    with pytest.raises(CheckpointNotFound):
        import_checkpoint(tmp_path, tmp_path / "out")
    with pytest.raises(BadOption, match="names no file"):
        import_checkpoint("hf://ann/dogs", tmp_path / "out")


@pytest.mark.parametrize("repo", ["ann/dogs", "spaces/ann/app"])
@pytest.mark.parametrize("name", ["best.pth", "models/best.pth"])
def test_files_come_from_model_repositories_and_spaces(
    hub_server: HubServer, tmp_path: Path, state: dict[str, Tensor], repo: str, name: str
) -> None:
    hub_server.commit(repo, {name: saved(tmp_path, {"base_model": state}).read_bytes()})
    checkpoint = import_checkpoint(f"hf://{repo}/{name}", tmp_path / "out", **OPTIONS)
    assert checkpoint.config.training["file"] == "best.pth"
    with pytest.raises(RepoNotFound, match=r"other\.pth"):
        import_checkpoint(f"hf://{repo}/other.pth", tmp_path / "out", **OPTIONS)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("legacy", [False, True])
def test_tuples_that_hold_each_other_twice_do_not_hang(tmp_path: Path, legacy: bool) -> None:
    plain, doubled = tmp_path / "plain.pth", tmp_path / "doubled.pth"
    torch.save({"weight": torch.zeros(1)}, plain, _use_new_zipfile_serialization=not legacy)
    key: tuple[object, ...] = ("a",)
    for _ in range(60):
        key = (key, key)
    entry = b"\x80\x02}" + pickle.dumps(key, 2)[2:-1] + b"K\x01s."  # {key: 1}
    if legacy:
        magic = plain.read_bytes()
        start = magic.index(b"}q\x00X\x06\x00\x00\x00weight") - 2
        doubled.write_bytes(magic[:start] + entry)
    else:
        with zipfile.ZipFile(plain) as old, zipfile.ZipFile(doubled, "w") as new:
            for info in old.infolist():
                is_pickle = info.filename.endswith("data.pkl")
                new.writestr(info.filename, entry if is_pickle else old.read(info))
    with pytest.raises(NotACheckpoint, match=r"doubled\.pth is no file of weights: more than 20 tuples"):
        unpickle(doubled, doubled.name)
