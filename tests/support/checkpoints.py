"""Helpers that write, change and rewrite checkpoint folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pawmatch.calibration import Calibration, LabelGroup, OutsideRule, ScopeGate, UnknownRule
from pawmatch.checkpoint import Answers, CheckpointConfig, WeightsFile
from pawmatch.checkpoint.config import config_values
from pawmatch.images import InputSpec
from pawmatch.labels import new_task
from pawmatch.models import ImageModel, build_model

# Every key of a config, with values that no other test relies on.
CHAE = CheckpointConfig(
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
    files=(WeightsFile("cnn.safetensors", "0" * 64),),
)
Tensors = dict[str, torch.Tensor]


def change_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the JSON object of a folder's config.json in place."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def name_digests(folder: Path) -> None:
    """Let the config name the SHA-256 that its files have by now."""

    def change(values: dict[str, Any]) -> None:
        for entry in values["variants"].values():
            for file in entry["files"]:
                path = folder / file["name"]
                if path.is_file():
                    file["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()

    change_config(folder, change)


def change_weights(folder: Path, name: str, change: Callable[[Tensors], object]) -> None:
    """Change the tensors of a file in place, and the SHA-256 that the config names."""
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name)
    name_digests(folder)


def as_format_1(config: CheckpointConfig) -> dict[str, Any]:
    """The JSON object that format 1 had for a variant, whose weights were all in model.safetensors."""
    values = config_values([config])
    variant = values.pop("variants")[config.variant]
    values.pop("answers")
    return {
        **values,
        "format_version": 1,
        "task": config.task.name,
        "variant": config.variant,
        "calibration": variant["calibration"],
        "metrics": variant["metrics"],
        "backbone_group": "a",
    }


def write_format_1(folder: Path, model: ImageModel, config: CheckpointConfig) -> Path:
    """Write a checkpoint of one variant as format 1 had it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(as_format_1(config)))
    save_file(
        {name: tensor.clone() for name, tensor in model.state_dict().items()}, folder / "model.safetensors"
    )
    return folder


def build(config: CheckpointConfig, seed: int = 0, start: ImageModel | None = None) -> ImageModel:
    """The model of a config with random weights, on the feature extractor of `start` if there is one."""
    torch.manual_seed(seed)
    model = build_model(
        family=config.family,
        variant=config.variant,
        num_classes=len(config.labels),
        **config.architecture,
    )
    if start is not None:
        model.features().load_state_dict(start.features().state_dict())
    return model.eval()


def trio(
    config: CheckpointConfig, seed: int = 0
) -> tuple[Mapping[str, ImageModel], Mapping[str, CheckpointConfig]]:
    """The three variants of one run: one feature extractor, three heads."""
    from dataclasses import replace

    from pawmatch.models import VARIANTS

    configs = {name: replace(config, variant=name) for name in VARIANTS}
    first = build(configs["cnn"], seed)
    models = {name: build(one, seed, first) for name, one in configs.items()}
    return models, configs
