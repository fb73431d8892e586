"""Checkpoints in folders: what is written comes back, and every way to be wrong has its own error."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import pickle
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pawmatch.calibration import Calibration
from pawmatch.checkpoint import CheckpointConfig, WeightsFile, load_checkpoint, save_checkpoint
from pawmatch.errors import (
    BadOption,
    CheckpointNotFound,
    KeyMismatch,
    LabelCountMismatch,
    NotACheckpoint,
    ShapeMismatch,
    TruncatedFile,
    UnknownVariant,
    UnsupportedBackbone,
)
from pawmatch.images import InputSpec
from pawmatch.labels import new_task
from pawmatch.models import build_model
from tests.support.checkpoints import CHAE, change_config, name_digests
from tests.support.checkpoints import change_weights as change_file
from tests.support.hostile import Bomb

WEIGHTS = "cnn.safetensors"

CONFIG = replace(CHAE, files=())


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_model(family="chae", variant="cnn", num_classes=3, **CONFIG.architecture).eval()


@pytest.fixture
def folder(tmp_path: Path, model: nn.Module) -> Path:
    return save_checkpoint(tmp_path / "ck", model, CONFIG)


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    change_file(folder, WEIGHTS, change)


def raw(folder: Path, header: object, data: bytes = b"") -> None:
    """Write a weights file with a header of our own."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data)
    name_digests(folder)


def test_config_and_model_come_back(folder: Path, model: nn.Module) -> None:
    loaded = load_checkpoint(folder)
    (file,) = loaded.config.files
    assert file == WeightsFile(WEIGHTS, hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())
    assert loaded.config == replace(CONFIG, files=(file,))
    assert (loaded.source, loaded.revision, loaded.notice) == (str(folder), None, None)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(images), model(images), atol=2e-3, rtol=0)


def test_half_precision_halves_the_file_and_full_precision_is_exact(tmp_path: Path, model: nn.Module) -> None:
    half, full = (
        save_checkpoint(tmp_path / str(half), model, CONFIG, half=half) / WEIGHTS for half in (True, False)
    )
    assert half.stat().st_size < full.stat().st_size
    stored, exact = load_file(half), load_file(full)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            assert stored[name].dtype == torch.float16
            torch.testing.assert_close(stored[name].float(), tensor, atol=1e-6, rtol=1e-3)
        else:
            assert stored[name].dtype == tensor.dtype
        assert torch.equal(exact[name], tensor)
    again = load_checkpoint(half.parent).model.state_dict()
    assert all(torch.equal(again[name], stored[name].to(again[name].dtype)) for name in stored)


def test_a_variance_too_large_for_float16_is_kept(tmp_path: Path, model: nn.Module) -> None:
    torch_model = build_model(family="chae", variant="cnn", num_classes=3, **CONFIG.architecture)
    torch_model.load_state_dict(model.state_dict())
    torch_model.get_buffer("stem.0.0.running_var").fill_(1e6)
    save_checkpoint(tmp_path, torch_model, CONFIG)
    assert load_checkpoint(tmp_path).model.get_buffer("stem.0.0.running_var")[0] == 1e6


def test_saving_over_a_checkpoint_leaves_nothing_behind(folder: Path, model: nn.Module) -> None:
    save_checkpoint(folder, model, CONFIG)
    assert {path.name for path in folder.iterdir()} == {"config.json", WEIGHTS}
    modes = {path.stat().st_mode & 0o444 for path in folder.iterdir()}
    assert len(modes) == 1  # whoever may read the config may read the weights


def test_an_interrupted_save_keeps_the_old_checkpoint(
    folder: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / WEIGHTS).read_bytes()

    def fail(self: Path, data: bytes) -> int:
        self.open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(BadOption, match="No space left on device"):
        save_checkpoint(folder, model, CONFIG)
    monkeypatch.undo()
    assert (folder / WEIGHTS).read_bytes() == before
    load_checkpoint(folder)
    assert len(list(folder.iterdir())) == 2


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, model: nn.Module) -> None:
    with pytest.raises(LabelCountMismatch, match="3 outputs and there are 2 labels"):
        save_checkpoint(tmp_path / "a", model, replace(CONFIG, labels=("x", "y"), calibration=Calibration()))
    with pytest.raises(KeyMismatch):
        save_checkpoint(tmp_path / "b", model, replace(CONFIG, variant="cnn_transformer"))
    broken = build_model(family="chae", variant="cnn", num_classes=3, **CONFIG.architecture)
    broken.get_parameter("classifier.bias").data[0] = math.nan
    with pytest.raises(NotACheckpoint, match=r"classifier\.bias.*NaN"):
        save_checkpoint(tmp_path / "c", broken, CONFIG)
    assert not list(tmp_path.rglob("*.*"))


def test_an_unknown_backbone_keeps_its_name(folder: Path) -> None:
    architecture = {"backbone": "resnet_from_tomorrow"}
    change_config(folder, lambda c: c.update(family="hybrid", architecture=architecture))
    with pytest.raises(UnsupportedBackbone, match="resnet_from_tomorrow"):
        load_checkpoint(folder)


def test_keys_too_many_or_too_few_are_listed(folder: Path) -> None:
    change_weights(folder, lambda t: [t.pop(name) for name in sorted(t)[:5]])
    change_weights(folder, lambda t: t.update(surprise=torch.zeros(1)))
    with pytest.raises(KeyMismatch, match=r"lack .*, .*, .* and 2 more and hold the unexpected surprise;"):
        load_checkpoint(folder)


def test_another_shape_is_named(folder: Path) -> None:
    change_weights(folder, lambda t: t.update({"norm.weight": torch.zeros(9)}))
    with pytest.raises(ShapeMismatch, match=r"norm\.weight .* has shape \[9\], not \[8\]"):
        load_checkpoint(folder)


def test_labels_and_classifier_must_agree(folder: Path) -> None:
    def change(values: dict[str, Any]) -> None:
        values["labels"].append("Rembrandt")
        values["variants"]["cnn"]["calibration"]["unknown"] = None  # which has a number for each label

    change_config(folder, change)
    with pytest.raises(LabelCountMismatch, match="3 outputs and there are 4 labels"):
        load_checkpoint(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(folder: Path, value: float) -> None:
    change_weights(folder, lambda t: t["classifier.weight"].view(-1)[3].fill_(value))
    with pytest.raises(NotACheckpoint, match=r"classifier\.weight .* NaN or infinity"):
        load_checkpoint(folder)


def test_a_negative_variance_is_refused(folder: Path) -> None:
    change_weights(folder, lambda t: t["stem.0.0.running_var"][1].fill_(-1e-3))
    with pytest.raises(NotACheckpoint, match=r"stem\.0\.0\.running_var .* holds a negative variance"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "dtype",
    [torch.int8, torch.float64, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn],
)
def test_a_parameter_of_another_type_is_refused(folder: Path, dtype: torch.dtype) -> None:
    change_weights(folder, lambda t: t.update({"norm.bias": torch.zeros(8, dtype=dtype)}))
    with pytest.raises(NotACheckpoint, match=r"norm\.bias .* is stored as"):
        load_checkpoint(folder)


def test_a_counter_stored_as_a_fraction_is_refused(folder: Path) -> None:
    change_weights(folder, lambda t: t.update({"stem.0.0.num_batches_tracked": torch.tensor(1.0)}))
    with pytest.raises(NotACheckpoint, match="num_batches_tracked"):
        load_checkpoint(folder)


def test_a_file_cut_anywhere_is_truncated(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    for size in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        (folder / WEIGHTS).write_bytes(whole[:size])
        with pytest.raises(TruncatedFile, match=r"again\.$"):
            load_checkpoint(folder)
    (folder / WEIGHTS).write_bytes(whole + b"more")
    with pytest.raises(TruncatedFile):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"<!doctype html><title>404</title>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        struct.pack("<Q", 5) + b"hello",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 20_000) + b"[" * 20_000,
        struct.pack("<Q", 17 * 2**20) + b" " * (17 * 2**20),
    ],
)
def test_what_is_no_safetensors_file_is_refused(folder: Path, data: bytes) -> None:
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(NotACheckpoint, match="weights of"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "entry",
    [
        1,
        {"dtype": "F32", "shape": [1]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": "12", "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]},
    ],
)
def test_a_malformed_header_is_refused(folder: Path, entry: object) -> None:
    raw(folder, {"norm.weight": entry}, b"1234")
    with pytest.raises(NotACheckpoint):
        load_checkpoint(folder)


def test_a_header_that_lies_about_sizes_takes_no_memory(folder: Path) -> None:
    expected = load_file(folder / WEIGHTS)
    header = {name: {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 0]} for name in expected}
    raw(folder, header)
    with pytest.raises(NotACheckpoint, match="no safetensors file"):
        load_checkpoint(folder)
    # Shapes that fit, and no bytes behind them.
    header = {
        name: {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [0, 0]}
        for name, tensor in expected.items()
    }
    for name in header:
        if name.endswith("num_batches_tracked"):
            header[name]["dtype"] = "I64"
    raw(folder, header)
    with pytest.raises(NotACheckpoint, match="no safetensors file"):
        load_checkpoint(folder)


def test_a_huge_header_is_not_parsed(folder: Path) -> None:
    raw(folder, b"{" + b" " * (2 * 2**20) + b"}")
    with pytest.raises(NotACheckpoint, match="header above 2,097,152 bytes; download"):
        load_checkpoint(folder)


def test_labels_may_hold_markup_which_is_escaped_where_it_is_shown(folder: Path) -> None:
    evil = ["<script>alert(1)</script>", "a'\"&", "../../x"]
    change_config(folder, lambda c: c.update(labels=evil))
    assert load_checkpoint(folder).config.labels == tuple(evil)


@pytest.mark.parametrize("name", ["best.pth", "model.pt", "pytorch_model.bin", WEIGHTS])
@pytest.mark.parametrize("form", ["zip", "plain"])
def test_a_pickle_is_never_loaded(folder: Path, tmp_path: Path, name: str, form: str) -> None:
    target = tmp_path / "boom.txt"
    path = folder / name
    (folder / WEIGHTS).unlink()
    if form == "zip":
        torch.save({"base_model": Bomb(target)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(target)))
    for source in (path, folder):
        with pytest.raises(NotACheckpoint, match=r"`pawmatch import FILE`|is a file"):
            load_checkpoint(source)
    assert not target.exists()


def test_a_header_whose_length_begins_like_a_pickle_is_fine(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    padded = -(-(length - 0x80) // 256) * 256 + 0x80  # the next length whose lowest byte is 0x80
    header = data[8 : 8 + length].ljust(padded)
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", padded) + header + data[8 + length :])
    assert (folder / WEIGHTS).read_bytes()[:1] == b"\x80"
    name_digests(folder)
    load_checkpoint(folder)


def test_a_place_without_a_checkpoint_says_what_to_give(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="no checkpoint at nowhere/at/all"):
        load_checkpoint("nowhere/at/all")
    with pytest.raises(NotACheckpoint, match=r"cannot be read|no checkpoint"):
        load_checkpoint("x" * 5000)
    with pytest.raises(NotACheckpoint, match="is a file; give the folder"):
        load_checkpoint(folder / WEIGHTS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotACheckpoint, match=r"holds no config\.json"):
        load_checkpoint(tmp_path / "empty")
    shutil.copytree(folder, tmp_path / "task" / "cnn")
    assert load_checkpoint(tmp_path / "task").config.variant == "cnn"
    with pytest.raises(UnknownVariant, match="has no variant 'rnn'; use one of cnn"):
        load_checkpoint(folder, "rnn")
    (folder / WEIGHTS).unlink()
    with pytest.raises(NotACheckpoint, match=r"holds no cnn\.safetensors"):
        load_checkpoint(folder)


def test_links_may_not_lead_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).rename(tmp_path / "elsewhere")
    (folder / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotACheckpoint, match="leads out of its folder"):
        load_checkpoint(folder)
    (tmp_path / "elsewhere").rename(folder / "real")
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("real")
    load_checkpoint(folder)
    linked = tmp_path / "linked"
    linked.symlink_to(folder)
    load_checkpoint(linked)


def test_the_hub_caches_links_are_followed_to_its_blobs_only(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--ann--dogs"
    snapshot = repository / "snapshots" / ("a" * 40)
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("config.json", WEIGHTS):
        (folder / name).rename(repository / "blobs" / name)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    load_checkpoint(snapshot)
    (repository / "blobs" / WEIGHTS).rename(tmp_path / "hub" / "secret")
    (snapshot / WEIGHTS).unlink()
    (snapshot / WEIGHTS).symlink_to("../../../secret")
    with pytest.raises(NotACheckpoint, match="leads out"):
        load_checkpoint(snapshot)


def test_buffers_that_no_file_holds_are_computed(tmp_path: Path) -> None:
    # The blur of an anti-aliased ResNet is a constant that timm leaves out of the weights.
    architecture = {
        "backbone": "resnetblur18",
        "backbone_config": {"channels": [8, 8, 16, 16], "stem_width": 8},
    }
    model = build_model(family="hybrid", variant="cnn", num_classes=2, **architecture).eval()
    config = CheckpointConfig(
        task=new_task("breed"),
        family="hybrid",
        variant="cnn",
        architecture=architecture,
        labels=("a", "b"),
        input=InputSpec(size=32),
        license="mit",
    )
    loaded = load_checkpoint(save_checkpoint(tmp_path, model, config, half=False))
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(loaded.model(images), model(images))


def test_the_card_comes_along_without_its_metadata(folder: Path, tmp_path: Path) -> None:
    assert load_checkpoint(folder).card == ""
    card = folder / "README.md"
    card.write_text("---\nlicense: other\n---\n\n# A model\n\nIt names painters.\n", encoding="utf-8")
    assert load_checkpoint(folder).card == "# A model\n\nIt names painters."
    card.unlink()
    (tmp_path / "secret").write_text("not a card")
    card.symlink_to(tmp_path / "secret")
    assert load_checkpoint(folder).card == ""
