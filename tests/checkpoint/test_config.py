"""config.json: there and back, older ones, and each wrong value refused by the name of its key."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from pawmatch.calibration import Calibration, ScopeGate
from pawmatch.checkpoint import Answers
from pawmatch.checkpoint.budget import empty_model
from pawmatch.checkpoint.config import config_bytes, config_values, parse_config, parse_values
from pawmatch.errors import NotACheckpoint, UnknownFormatVersion
from pawmatch.images import InputSpec
from tests.support.checkpoints import CHAE as CONFIG
from tests.support.checkpoints import as_format_1

GONE = object()
CALIBRATION = "variants/cnn/calibration"
GATE, UNKNOWN = f"{CALIBRATION}/scope_gates/0", f"{CALIBRATION}/unknown"
FILES, GROUPS = "variants/cnn/files", f"{CALIBRATION}/groups"
NAMES = [str(index) for index in range(20_001)]


def changed(values: dict[str, Any], place: str, value: object) -> dict[str, Any]:
    """A config with one value, at a place such as input/std/0, set or taken away."""
    at: Any = values
    *parents, last = place.split("/")
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if value is GONE:
        del at[last]
    else:
        at[int(last) if isinstance(at, list) else last] = value
    return values


def test_a_config_is_json_and_back() -> None:
    values = config_values([CONFIG])
    assert parse_values(values) == parse_config(config_bytes([CONFIG])) == (CONFIG,)
    assert json.loads(json.dumps(values)) == values


def test_a_config_from_before_confidence_was_mapped_still_loads() -> None:
    values = as_format_1(CONFIG)
    del values["calibration"]["top_label"], values["input"]["views"]
    (config,) = parse_values(values)
    assert config.calibration.top_label == (1.0, 1.0, 0.0)
    assert config.input.views == ("plain",)
    assert config.answers == Answers("cnn_transformer", "as in the first edition")
    assert config.files == ()


@pytest.mark.parametrize("key", ["labels", "calibration", "license"])
def test_a_config_of_format_1_needs_its_keys(key: str) -> None:
    with pytest.raises(NotACheckpoint, match=f"lacks the key .*{key}"):
        parse_values(changed(as_format_1(CONFIG), key, GONE))
    with pytest.raises(NotACheckpoint, match="unknown key extra"):
        parse_values(as_format_1(CONFIG) | {"extra": 1})


def test_a_config_from_before_groups_and_unknown_classes_still_loads() -> None:
    values, first = config_values([CONFIG]), as_format_1(CONFIG)
    for key in ("outside", "unknown", "groups", "group_threshold"):
        changed(values, f"{CALIBRATION}/{key}", GONE)
        changed(first, f"calibration/{key}", GONE)
    for (config,) in (parse_values(values), parse_values(first)):
        assert config.calibration == replace(
            CONFIG.calibration, outside=None, unknown=None, groups=(), group_threshold=1.0
        )


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("license", GONE, "lacks the key license; add it"),
        ("colour", 1, "has the unknown key colour; remove it"),
        ("input/std", GONE, r"lacks the key input\.std"),
        (f"{CALIBRATION}/extra", 1, r"unknown key variants\.cnn\.calibration\.extra"),
        (f"{CALIBRATION}/temperature", GONE, "lacks the key .*temperature"),
        (f"{GATE}/bias", GONE, r"scope_gates\[0\]\.bias"),
        ("task/name", "../x", r"task\.name '\.\./x' is no lower-case name"),
        ("task", "artist", "task must be an object"),
        ("task/title", "a\nb", r"task\.title is not a printable"),
        ("task/title", "a\ud800b", "half a character"),
        ("task/examples", ["../x.jpg"], "task.examples holds .* no plain file name"),
        ("family", "vit", "family 'vit' is unknown; use one of hybrid, chae"),
        ("variants/large", {}, r"variants\.large .*is unknown|lacks the key variants\.large"),
        ("variants", {}, "answers.variant 'cnn' is none of the variants"),
        ("answers/variant", "large", "answers.variant 'large' is none"),
        ("answers/why", "", r"answers\.why must not be empty"),
        (FILES, [], r"variants\.cnn\.files is empty"),
        *[
            (f"{FILES}/0/name", name, "no plain name")
            for name in (
                "../cnn.safetensors",
                "/x.safetensors",
                "a\\x.safetensors",
                ".x.safetensors",
                "x.pth",
            )
        ],
        (f"{FILES}/0/sha256", "0" * 63, r"files\[0\]\.sha256 .* is no SHA-256"),
        (FILES, [{"name": "a.safetensors", "sha256": "0" * 64}] * 2, "names a file twice"),
        ("labels", "abc", "labels must be a list"),
        ("labels", [], "labels has 0 entries"),
        ("labels", NAMES, "labels has more than 20000 entries"),
        ("labels", ["a", "b", "a"], "'a' twice"),
        *[("labels/2", label, r"labels\[2\]") for label in (3, "\n", "", " ", "x\u202ey")],
        ("labels/2", "x" * 201, r"labels\[2\] has more than 200"),
        ("input", None, "input must be an object"),
        ("input/views", "plain", r"input\.views"),
        ("input/views", ["upside_down"], "begin with plain"),
        ("input/size", 8, "Input size 8"),
        ("input/size", 32.5, r"input\.size must be a whole number"),
        ("input/size", True, r"input\.size"),
        ("input/std/0", 0, "std needs three numbers from 0.001"),
        ("input/std/0", 1e-300, "std needs three numbers from 0.001"),
        ("input/mean/2", math.nan, r"input\.mean\[2\] must be a finite"),
        ("input/mean/2", 1e30, "mean needs three numbers up to"),
        ("input/resize", "stretch", "stretch"),
        *[
            (f"{CALIBRATION}/temperature", value, "temperature must be a finite number")
            for value in (math.inf, "1", 10**400)
        ],
        (f"{CALIBRATION}/temperature", 0, r"temperature 0 must be 0\.001 or more"),
        (f"{CALIBRATION}/temperature", 1e-300, r"temperature 1e-300 must be 0\.001 or more"),
        (f"{CALIBRATION}/top_label", [1.0, 1.0], r"lacks the key .*top_label\[2\]"),
        (f"{CALIBRATION}/top_label", None, "top_label must be a list"),
        (f"{CALIBRATION}/top_label/1", 0.0, r"top_label\[1\] 0\.0 must be above 0"),
        (f"{CALIBRATION}/top_label/2", -101.0, r"top_label\[2\] -101\.0 must be -100"),
        (f"{CALIBRATION}/review_threshold", 1.1, "review_threshold 1.1 must be 1"),
        (f"{CALIBRATION}/conformal_quantile", True, "conformal_quantile"),
        (f"{CALIBRATION}/review_rule", "", "review_rule"),
        (f"{CALIBRATION}/scope_gates", [1], r"scope_gates\[0\] must be an object"),
        (f"{GATE}/weight", None, r"scope_gates\[0\]\.weight"),
        (f"{GATE}/weight/0", math.nan, r"weight\[0\] must be a finite"),
        (f"{CALIBRATION}/outside/classes", [], r"outside\.classes has 0 entries"),
        (f"{CALIBRATION}/outside/classes", [3, 3], r"outside\.classes must hold .* each once"),
        (f"{CALIBRATION}/outside/classes", [1000], r"outside\.classes must hold .* 0 to 999"),
        (f"{CALIBRATION}/outside/threshold", 1.5, r"outside\.threshold 1\.5 must be 1"),
        (f"{UNKNOWN}/weights", [1.0] * 5, r"unknown\.weights has more than 4 entries"),
        (f"{UNKNOWN}/label_offsets", [0.0], r"label_offsets has 1 numbers for 3 labels"),
        (f"{UNKNOWN}/bias", 1e301, r"unknown\.bias 1e\+301 must be"),
        (f"{GROUPS}/0/labels", [0, 3], r"groups\[0\]\.labels must hold .* 0 to 2"),
        (f"{GROUPS}/0/labels", [-1, 0], r"groups\[0\]\.labels must hold .* 0 to 2"),
        (f"{GROUPS}/1/labels", [1], r"groups\[1\]\.labels has 1 entries; 2 or more"),
        (f"{GROUPS}/1/name", "a\nb", r"groups\[1\]\.name is not a printable"),
        (GROUPS, [{"name": "", "labels": [0, 1]}] * 2001, "more than 2,000 groups"),
        ("variants/cnn/metrics", [], "metrics must be an object"),
        ("variants/cnn/metrics/top1", math.nan, "metrics must hold finite numbers"),
        ("architecture", [], "architecture must be an object"),
        ("architecture/num_classes", 9, "must not hold num_classes"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(place: str, value: object, said: str) -> None:
    with pytest.raises(NotACheckpoint, match=said) as caught:
        parse_values(changed(config_values([CONFIG]), place, value))
    assert str(caught.value).startswith("config.json")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("architecture", "size", "said"),
    [
        ({"filters": [4, 10**9]}, 32, r"filters\[1\] 1000000000 must be 8192 or less"),
        ({"filters": [4] * 65}, 32, "filters has more than 8 entries"),
        ({"filters": [8_192] * 8, "input_size": 256}, 256, "parameters; 1,073,741,824 are the limit"),
        ({"filters": [256] * 4, "input_size": 32}, 2048, "numbers at once for an image of input.size 2048"),
        ({"layers": 10**4}, 32, "layers 10000 must be 64 or less"),
        ({"heads": 0}, 32, "heads 0 must be 1 or more"),
        ({"kernel": -1}, 32, "kernel -1 must be"),
        ({"input_size": 33}, 32, "input_size 33 must be a multiple"),
        ({"colour": 1}, 32, "unknown key colour; remove it"),
        ({"pretrained_backbone": True}, 32, "unknown key pretrained_backbone"),
        ({"filters": [8] * 8, "input_size": 256}, 100, "cannot read images of input.size 100 pixels"),
    ],
)
def test_an_architecture_out_of_all_measure_is_refused_without_its_memory(
    architecture: dict[str, Any], size: int, said: str
) -> None:
    config = replace(CONFIG, variant="cnn_transformer", architecture=architecture, input=InputSpec(size=size))
    with pytest.raises(NotACheckpoint, match=said) as caught:
        empty_model(config, "somewhere")
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "values", [{"depths": [20] * 4, "dims": [8_192] * 4}, {"depths": [128] * 4}, {"pretrained": True}]
)
def test_giant_or_leading_backbones_are_refused(values: dict[str, Any]) -> None:
    architecture = {"backbone": "convnextv2_atto", "backbone_config": values}
    with pytest.raises(NotACheckpoint) as caught:
        empty_model(replace(CONFIG, family="hybrid", architecture=architecture), "somewhere")
    assert "\n" not in str(caught.value)


def test_a_gate_has_a_weight_for_each_channel_of_the_map() -> None:
    gate = ScopeGate((1.0,) * 7, 0.0, 0.0, "photos")
    with pytest.raises(NotACheckpoint, match="7 values and the feature map 8 channels; fit the gate again"):
        empty_model(replace(CONFIG, calibration=Calibration(scope_gates=(gate,))), "somewhere")


@pytest.mark.parametrize("version", [0, 3, "1", "2", None, True, 2.0])
def test_another_format_version_is_refused_with_the_remedy(version: object) -> None:
    with pytest.raises(UnknownFormatVersion, match=r"reads 1 and 2; update pawmatch"):
        parse_values(config_values([CONFIG]) | {"format_version": version, "new_key": 1})


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000),
        b'{"format_version": 1' + b"0" * 5000 + b"}",
        b" " * (8 * 2**20 + 1),
        config_bytes([CONFIG]).replace(b'"seed": 0', b'"seed": ' + b'{"a": ' * 300 + b"0" + b"}" * 300),
    ],
)
def test_what_is_no_json_object_is_no_config(data: bytes) -> None:
    with pytest.raises((NotACheckpoint, UnknownFormatVersion), match=r"config\.json"):
        parse_config(data)


@pytest.mark.parametrize("metrics", [{"a": object()}, {"a": math.nan}, {"a": {1, 2}}])
def test_what_could_not_be_read_back_is_not_written(metrics: dict[str, Any]) -> None:
    with pytest.raises(NotACheckpoint):
        config_bytes([replace(CONFIG, metrics=metrics)])
