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

from pawmatch.calibration import Calibration, LabelGroup, OutsideRule, ScopeGate, UnknownRule
from pawmatch.checkpoint import Answers, CheckpointConfig, WeightsFile, load_checkpoint, save_checkpoint
from pawmatch.checkpoint.config import config_values, parse_config, parse_values
from pawmatch.errors import (
    BadOption,
    CheckpointNotFound,
    KeyMismatch,
    LabelCountMismatch,
    NotACheckpoint,
    ShapeMismatch,
    TruncatedFile,
    UnknownFormatVersion,
    UnknownVariant,
    UnsupportedBackbone,
)
from pawmatch.images import InputSpec
from pawmatch.models import build_model
from pawmatch.tasks import new_task
from tests.support.checkpoints import as_format_1, change_config, name_digests
from tests.support.checkpoints import change_weights as change_file

WEIGHTS = "cnn.safetensors"

CONFIG = CheckpointConfig(
    task=new_task("artist"),
    family="chae",
    variant="cnn",
    architecture={"input_size": 32, "filters": [4, 8], "heads": 2},
    labels=("Goya", "Monet", "Élisabeth Vigée"),
    input=InputSpec(size=32, resize="crop", crop_pct=0.9, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    license="cc-by-nc-4.0",
    calibration=Calibration(
        temperature=1.3,
        top_label=(0.8, 1.2, -0.3),
        review_threshold=0.42,
        review_rule="95 % right on what is answered",
        close_call_margin=0.05,
        conformal_quantile=0.8,
        scope_gates=(ScopeGate(weight=(0.5,) * 8, bias=-1.0, threshold=0.1, fitted_on="paintings, photos"),),
        outside=OutsideRule(classes=(3, 999), threshold=0.2, fitted_on="photos"),
        unknown=UnknownRule((1.0, 0.5, -0.5), 0.1, (0.0, 0.5, -0.5), -1.0, 0.5, "other painters"),
        groups=(LabelGroup("Spaniard", (0, 2)), LabelGroup("", (0, 1))),
        group_threshold=0.8,
    ),
    metrics={"top1": 0.5, "data": "artists/val", "per_class": [0.1, 0.9, None]},
    training={"recipe": "quick", "epochs": 2, "seed": 0, "commit": None},
    answers=Answers("cnn", "the only variant"),
)


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


def test_the_config_is_json_and_back() -> None:
    config = replace(CONFIG, files=(WeightsFile("cnn.safetensors", "0" * 64),))
    values = config_values([config])
    assert parse_values(values) == (config,)
    assert json.loads(json.dumps(values)) == values


def test_a_config_from_before_confidence_was_mapped_still_loads() -> None:
    values = as_format_1(CONFIG)
    del values["calibration"]["top_label"]
    (config,) = parse_values(values)
    assert config.calibration.top_label == (1.0, 1.0, 0.0)
    assert config.answers == Answers("cnn_transformer", "as in the first edition")


def test_a_config_from_before_groups_and_unknown_classes_still_loads() -> None:
    later = ("outside", "unknown", "groups", "group_threshold")
    values = config_values([replace(CONFIG, files=(WeightsFile("cnn.safetensors", "0" * 64),))])
    first = as_format_1(CONFIG)
    for key in later:
        del only(values)["calibration"][key], first["calibration"][key]
    for (config,) in (parse_values(values), parse_values(first)):
        assert config.calibration == replace(
            CONFIG.calibration, outside=None, unknown=None, groups=(), group_threshold=1.0
        )


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


def only(values: dict[str, Any]) -> dict[str, Any]:
    """What a config says about its only variant."""
    (entry,) = values["variants"].values()
    assert isinstance(entry, dict)
    return entry


def rule(values: dict[str, Any], *place: str | int) -> Any:
    """A part of the only variant's calibration."""
    found: Any = only(values)["calibration"]
    for key in place:
        found = found[key]
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("license"), "lacks the key license"),
        (lambda c: c.update(colour=1), "unknown key colour"),
        (lambda c: c["input"].pop("std"), r"lacks the key input\.std"),
        (lambda c: only(c)["calibration"].update(extra=1), r"unknown key variants\.cnn\.calibration\.extra"),
        (lambda c: only(c)["calibration"]["scope_gates"][0].pop("bias"), r"scope_gates\[0\]\.bias"),
        (lambda c: c["task"].update(name="../x"), r"task\.name '\.\./x' is no lower-case name"),
        (lambda c: c.update(task="artist"), "task must be an object"),
        (lambda c: c["task"].pop("plural"), r"lacks the key task\.plural"),
        (lambda c: c["task"].update(title="a\nb"), r"task\.title is not a printable"),
        (lambda c: c["task"].update(examples=["../x.jpg"]), r"task\.examples\[0\] .* no plain file name"),
        (lambda c: c.update(family="vit"), "family 'vit' is unknown"),
        (lambda c: c["variants"].update(large=only(c)), "variant 'large' is unknown"),
        (lambda c: c.update(variants={}), "answers.variant 'cnn' is none of the variants"),
        (lambda c: c["answers"].update(variant="large"), "answers.variant 'large' is none"),
        (lambda c: c["answers"].update(why=""), r"answers\.why"),
        (lambda c: only(c).update(files=[]), r"variants\.cnn\.files is empty"),
        (lambda c: only(c)["files"][0].update(name="../cnn.safetensors"), "no plain name"),
        (lambda c: only(c)["files"][0].update(name="/etc/cnn.safetensors"), "no plain name"),
        (lambda c: only(c)["files"][0].update(name="a\\cnn.safetensors"), "no plain name"),
        (lambda c: only(c)["files"][0].update(name=".cnn.safetensors"), "no plain name"),
        (lambda c: only(c)["files"][0].update(name="cnn.pth"), "no plain name"),
        (lambda c: only(c)["files"][0].update(sha256="0" * 63), "sha256 of cnn.safetensors is no SHA-256"),
        (lambda c: only(c)["files"].append(only(c)["files"][0]), "names a file twice"),
        (lambda c: c.update(labels="abc"), "labels must be a list"),
        (lambda c: c.update(labels=[]), "labels has 0"),
        (lambda c: c.update(labels=["a", "b", "a"]), "'a' twice"),
        (lambda c: c.update(labels=["a", "b", 3]), r"labels\[2\]"),
        (lambda c: c.update(labels=["a", "b", "\n"]), r"labels\[2\]"),
        (lambda c: c.update(labels=["a", "b", ""]), r"labels\[2\]"),
        (lambda c: c.update(labels=["a", "b", "x\u202ey"]), r"labels\[2\]"),  # turns text around
        (lambda c: c.update(labels=["a", "b", "x" * 201]), r"labels\[2\] has more than 200"),
        (lambda c: c.update(labels=[str(i) for i in range(20_001)]), "labels has 20001"),
        (lambda c: c.update(input=None), "input must be an object"),
        (lambda c: c["input"].update(views="plain"), r"input\.views"),
        (lambda c: c["input"].update(views=["upside_down"]), "begin with plain"),
        (lambda c: c["input"].update(size=8), "Input size 8"),
        (lambda c: c["input"].update(size=32.5), r"input\.size"),
        (lambda c: c["input"].update(size=True), r"input\.size"),
        (lambda c: c["input"].update(std=[0, 1, 1]), "std must be positive"),
        (lambda c: c["input"].update(mean=[0, 0, math.nan]), r"input\.mean"),
        (lambda c: c["input"].update(mean=7), r"input\.mean"),
        (lambda c: c["input"].update(resize="stretch"), "stretch"),
        (lambda c: only(c)["calibration"].update(temperature=0), r"temperature 0\.0 must be above 0"),
        (
            lambda c: only(c)["calibration"].update(temperature=math.inf),
            "temperature must be a finite number",
        ),
        (lambda c: only(c)["calibration"].update(temperature="1"), "temperature must be a finite number"),
        (lambda c: only(c)["calibration"].update(temperature=10**400), "temperature must be a finite number"),
        (lambda c: only(c)["calibration"].update(top_label=[1.0, 1.0]), r"lacks the key .*top_label\[2\]"),
        (lambda c: only(c)["calibration"].update(top_label=None), "top_label must be a list"),
        (lambda c: only(c)["calibration"].update(top_label=[1.0, 0.0, 0.0]), "two numbers above 0"),
        (lambda c: only(c)["calibration"].update(top_label=[1.0, 1.0, -101.0]), "of any sign, up to 100"),
        (
            lambda c: only(c)["calibration"].update(top_label=[1.0, math.nan, 0.0]),
            r"top_label\[1\] must be a finite",
        ),
        (lambda c: only(c)["calibration"].update(review_threshold=1.1), "review_threshold 1.1 is outside"),
        (lambda c: only(c)["calibration"].update(conformal_quantile=True), "conformal_quantile"),
        (lambda c: only(c)["calibration"].update(review_rule=""), "review_rule"),
        (lambda c: only(c)["calibration"].update(scope_gates=[1]), r"scope_gates\[0\] must be an object"),
        (lambda c: only(c)["calibration"].update(scope_gates=None), "scope_gates must be a list"),
        (lambda c: only(c)["calibration"]["scope_gates"][0].update(weight=None), r"scope_gates\[0\]\.weight"),
        (
            lambda c: only(c)["calibration"]["scope_gates"][0].update(weight=[1.0] * 7),
            "7 values and the feature",
        ),
        (lambda c: only(c)["calibration"]["scope_gates"][0].update(weight=[math.nan] * 8), "scope_gates"),
        (lambda c: rule(c, "outside").update(classes=[]), r"outside\.classes must hold one or more"),
        (lambda c: rule(c, "outside").update(classes=[3, 3]), r"outside\.classes must hold .* each once"),
        (lambda c: rule(c, "outside").update(classes=[1000]), r"outside\.classes must hold .* 0 to 999"),
        (lambda c: rule(c, "outside").update(threshold=1.5), r"outside\.threshold 1\.5 is outside 0 to 1"),
        (lambda c: rule(c, "outside").pop("threshold"), r"lacks the key .*outside\.threshold"),
        (lambda c: rule(c, "outside").update(fitted_on=""), r"outside\.fitted_on"),
        (lambda c: only(c)["calibration"].update(outside=[]), "outside must be an object"),
        (
            lambda c: rule(c, "unknown").update(weights=[1.0] * 5),
            r"unknown\.weights has 5 numbers, not 3 or 4",
        ),
        (
            lambda c: rule(c, "unknown").update(label_offsets=[0.0]),
            r"label_offsets has 1 numbers for 3 labels",
        ),
        (lambda c: rule(c, "unknown").update(label_offsets=[0.0, 0.0, math.nan]), "must be a finite number"),
        (lambda c: rule(c, "unknown").update(bias=1e301), r"calibration\.unknown must be a finite number"),
        (lambda c: rule(c, "unknown").update(fitted_on=""), r"unknown\.fitted_on"),
        (lambda c: rule(c, "groups", 0).update(labels=[0, 3]), r"groups\[0\]\.labels must hold .* 0 to 2"),
        (lambda c: rule(c, "groups", 0).update(labels=[-1, 0]), r"groups\[0\]\.labels must hold .* 0 to 2"),
        (lambda c: rule(c, "groups", 1).update(labels=[1]), r"groups\[1\]\.labels has 1 labels, not 2 to 64"),
        (lambda c: rule(c, "groups", 1).update(labels=[1, 1]), r"groups\[1\]\.labels must hold .* each once"),
        (lambda c: rule(c, "groups", 1).update(name="a\nb"), r"groups\[1\]\.name is not a printable"),
        (
            lambda c: only(c)["calibration"].update(groups=[{"name": "", "labels": [0, 1]}] * 2001),
            "more than 2,000 groups",
        ),
        (lambda c: only(c)["calibration"].update(group_threshold=-0.1), "group_threshold -0.1 is outside"),
        (lambda c: only(c).update(metrics=[]), "metrics must be an object"),
        (lambda c: only(c)["metrics"].update(top1=math.nan), r"metrics\.top1 must be a finite"),
        (lambda c: c.update(license=""), "license"),
        (lambda c: c.update(architecture=[]), "architecture must be an object"),
        (lambda c: c["architecture"].update(num_classes=9), "must not hold num_classes"),
        (lambda c: c["architecture"].update(pretrained_backbone=True), "must not hold pretrained_backbone"),
        (lambda c: c["architecture"].update(colour=1), "architecture in config.json does not work"),
        (lambda c: c["architecture"].update(filters=[4, 10**9]), "larger than 65,536"),
        (lambda c: c["architecture"].update(filters=[4] * 65), "more than 64 entries"),
        (lambda c: c["architecture"].update(layers=10**4), "more than 128 layers"),
        (lambda c: c["architecture"].update(filters="abc"), "architecture"),
        (lambda c: c["architecture"].update(filters=[]), "architecture"),
        (lambda c: c["architecture"].update(heads=0), "ZeroDivisionError"),
        (lambda c: c["architecture"].update(kernel=-1), "architecture|cannot read"),
        (lambda c: c["architecture"].update(input_size=33), "input_size 33 must be a multiple"),
    ],
)
def test_a_wrong_config_is_refused_by_the_name_of_the_key(
    folder: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    change_config(folder, change)
    with pytest.raises(NotACheckpoint, match=said) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", [0, 3, "1", "2", None, True, 2.0])
def test_another_format_version_is_refused_with_the_remedy(folder: Path, version: object) -> None:
    change_config(folder, lambda c: c.update(format_version=version, new_key=1))
    with pytest.raises(UnknownFormatVersion, match=r"reads 1 and 2; update pawmatch"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"format_version": 1' + b"0" * 5000 + b"}"]
)
def test_what_is_no_json_object_is_no_config(data: bytes) -> None:
    with pytest.raises((NotACheckpoint, UnknownFormatVersion)):
        parse_config(data)


def test_a_huge_config_is_not_parsed(folder: Path) -> None:
    (folder / "config.json").write_bytes(b" " * (8 * 2**20 + 1))
    with pytest.raises(NotACheckpoint, match="8,388,608 bytes"):
        load_checkpoint(folder)


def test_metrics_may_hold_anything_that_json_holds_but_not_more() -> None:
    deep: dict[str, Any] = {}
    for _ in range(50):
        deep = {"a": deep}
    wrong: tuple[Any, ...] = (deep, {"a": object()}, {1: 2})
    for metrics in wrong:
        with pytest.raises(NotACheckpoint, match="metrics"):
            replace(CONFIG, metrics=metrics)


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
        only(values)["calibration"]["unknown"] = None  # which has a number for each label

    change_config(folder, change)
    with pytest.raises(LabelCountMismatch, match="3 outputs and there are 4 labels"):
        load_checkpoint(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(folder: Path, value: float) -> None:
    change_weights(folder, lambda t: t["classifier.weight"].view(-1)[3].fill_(value))
    with pytest.raises(NotACheckpoint, match=r"classifier\.weight .* NaN or infinity"):
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
    with pytest.raises(ShapeMismatch):
        load_checkpoint(folder)
    # Shapes that fit, and no bytes behind them: the library's own check.
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


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "architecture",
    [
        {"backbone": "convnextv2_atto", "backbone_config": {"depths": [128] * 4, "dims": [65_536] * 4}},
        {"backbone": "resnet18d", "backbone_config": {"layers": [1, 1, 1, 500]}},
        {"backbone": "hf-hub:ann/dogs"},
        {"backbone": "local-dir:/etc"},
        {"backbone": "../x"},
        {"backbone": "vit_tiny_patch16_224"},
        {"backbone": "resnet18d", "backbone_config": {"pretrained": True}},
        {"backbone": "resnet18d", "backbone_config": {"checkpoint_path": "/tmp/x.pth"}},
    ],
)
def test_giant_or_leading_architectures_are_refused(folder: Path, architecture: dict[str, Any]) -> None:
    change_config(folder, lambda c: c.update(family="hybrid", architecture=architecture))
    with pytest.raises((NotACheckpoint, UnsupportedBackbone)) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_labels_may_hold_markup_which_is_escaped_where_it_is_shown(folder: Path) -> None:
    evil = ["<script>alert(1)</script>", "a'\"&", "../../x"]
    change_config(folder, lambda c: c.update(labels=evil))
    assert load_checkpoint(folder).config.labels == tuple(evil)


def test_a_million_labels_are_refused(folder: Path) -> None:
    change_config(folder, lambda c: c.update(labels=[str(i) for i in range(10**6)]))
    with pytest.raises(NotACheckpoint, match="bytes"):
        load_checkpoint(folder)
    with pytest.raises(NotACheckpoint, match="labels has 1000000 names"):
        replace(CONFIG, labels=tuple(str(i) for i in range(10**6)))


def test_a_config_cannot_ask_for_more_memory_than_the_file_has(folder: Path) -> None:
    change_config(folder, lambda c: c["architecture"].update(filters=[65_536, 65_536]))
    with pytest.raises((ShapeMismatch, NotACheckpoint)):
        load_checkpoint(folder)


class Bomb:
    """Pickled, it writes a file on loading."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self.target, "boom"))


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


def test_all_variants_of_both_families_come_back(tiny_checkpoints: Callable[..., Path]) -> None:
    for task in ("breed", "artist"):
        for part in sorted(tiny_checkpoints(task).iterdir()):
            loaded = load_checkpoint(part)
            assert loaded.config.variant == part.name
            size = loaded.config.input.size
            assert loaded.model(torch.zeros(1, 3, size, size)).shape == (1, len(loaded.config.labels))


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
