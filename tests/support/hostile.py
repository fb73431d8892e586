"""Configs that a stranger might write: those of tiny real checkpoints with a value, or some, gone wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from pawmatch.calibration import ScopeGate, UnknownRule
from pawmatch.checkpoint import save_checkpoint
from pawmatch.images import InputSpec
from tests.support.checkpoints import CHAE, build

Place = tuple[str | int, ...]


class Bomb:
    """Pickled, it writes a file on loading."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, (f"open({self.target!r}, 'w').write('boom')",))


EXTREMES = (0, -1, 2**31, 10**400, 1e300, 1e-300)
WRONG_KINDS: tuple[Any, ...] = ("1", None, True, [], {}, [[0]], "\u202e")
WIDE = {"morphology_channels": 4, "morphology_width": 8}
BASES = {
    "chae": replace(
        CHAE,
        variant="cnn_transformer_mfe",
        architecture={
            **{"input_size": 32, "filters": [4, 8], "kernel": 3, "extra_convolutions": 0, "average_pool": 1},
            **{"stem_dropout": 0.0, "width": 8, "layers": 2, "heads": 2, "mlp_width": 16, "dropout": 0.2},
            **{"keep_share": 0.5, "attention_window": 4, **WIDE},
        },
        answers=None,
        files=(),
    ),
    "hybrid": replace(
        CHAE,
        family="hybrid",
        variant="cnn_transformer_mfe",
        architecture={
            "backbone": "resnet18d",
            "backbone_config": {
                **{"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "stem_width": 8},
                **{"output_stride": 32, "drop_path_rate": 0.1, "avg_down": True},
            },
            **{"projection": 8, "attention_heads": 2, **WIDE},
        },
        calibration=replace(
            CHAE.calibration,
            scope_gates=(ScopeGate((1.0,) * 16, 0.0, 0.0, "photos"),),
            unknown=UnknownRule((1.0, 0.5, -0.5), 0.1, (0.0, 0.5, -0.5), -1.0, 0.5, "others"),
        ),
        input=InputSpec(size=32),
        answers=None,
        files=(),
    ),
}
# Lists whose sum is small and whose entries are not, and values that are within their ranges alone.
TOGETHER: dict[str, tuple[dict[str, Any], ...]] = {
    "chae": (
        {"filters": [-60_000, 60_120]},
        {"filters": [8_192] * 8, "input_size": 256},
        {"filters": [1], "input_size": 2_048, "keep_share": 1.0, "attention_window": None},
        {"filters": [1, 1], "input_size": 2_048, "attention_window": 8, "width": 2},
        {"filters": [2_048, 2_048], "kernel": 15, "extra_convolutions": 32},
        {"layers": 64, "width": 8_192, "heads": 64},
        {"filters": [8_192], "input_size": 2_048},
    ),
    "hybrid": (
        *({"backbone_config": {"layers": layers}} for layers in (
            [-60_000, 60_120, 2, 2], [80, -80, 1, 1], [1e300, -1e300, 2, 2], [79, 1, 0, 0], [20] * 4,
        )),
        *({"backbone_config": {"channels": channels}} for channels in (
            [8_192] * 4, [-8, 16, 16, 16], [8, 8, 16, 0], [[8] * 4] * 4,
        )),
        {"backbone_config": {"layers": [20] * 4, "channels": [4_096] * 4}},
        *({"backbone_config": {"output_stride": stride}} for stride in (0, 1, 2, 3, 8_192)),
        *({"backbone": name, "backbone_config": None} for name in (
            "hf-hub:ann/dogs", "local-dir:/etc", "../x", "x" * 10_000, "vit_tiny_patch16_224",
        )),
        {"backbone": "convnextv2_atto", "backbone_config": {"depths": [20] * 4, "dims": [8_192] * 4}},
    ),
}  # fmt: skip
# Real, and slow to build: only for who measures that.
GIANTS = (
    *("convnextv2_huge", "tf_efficientnet_l2", "regnety_2560", "resnetv2_152x4_bit", "hrnet_w64"),
    "vit_giant_patch14_224",
)


def write_base(folder: Path, family: str) -> Path:
    """The checkpoint of a family, with random weights."""
    return save_checkpoint(folder / family, build(BASES[family]), BASES[family])


def hostile_configs(folder: Path, one_in: int = 1) -> Iterator[tuple[str, bytes]]:
    """What was done and the bytes of the config.json, for one of the checkpoints.

    Of the wrong values of each number, `one_in` so many is used, and of the sizes of input.
    """
    values = json.loads((folder / "config.json").read_text())
    for index, place in enumerate(numbers(values)):
        wrongs = (*EXTREMES, WRONG_KINDS[index % len(WRONG_KINDS)])
        for wrong in wrongs[index % one_in :: one_in]:
            yield f"{'.'.join(map(str, place))} = {str(wrong)[:20]}", changed(values, place, wrong)
    giants = [{"backbone": name, "backbone_config": None} for name in GIANTS]
    for change in (*TOGETHER[folder.name], *(giants if folder.name == "hybrid" and one_in == 1 else ())):
        together = {**values["architecture"], **change}
        size = min(2_048, together.get("input_size", 32))
        for side in {size, 2_048} if one_in == 1 else {size}:
            hostile = {**values, "architecture": together, "input": {**values["input"], "size": side}}
            yield f"{change} at {side}"[:100], json.dumps(hostile).encode()


def numbers(values: Any, place: Place = ()) -> Iterator[Place]:
    """The place of every number in JSON values; of a list, the first alone."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from numbers(value, (*place, key))
    elif isinstance(values, list) and values:
        yield from numbers(values[0], (*place, 0))
    elif isinstance(values, int | float):
        yield place


def changed(values: Any, place: Place, value: object) -> bytes:
    """The JSON with another value at a place."""
    copy = deepcopy(values)
    at: Any = copy
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return json.dumps(copy).encode()
