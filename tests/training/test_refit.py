"""What training views have shifted is set right on training images as they are seen when answering."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import softmax

from pawmatch.checkpoint import load_checkpoint
from pawmatch.images import InputSpec
from pawmatch.models import ImageModel, build_model
from pawmatch.training.data import LabelledImages, decode_all, find_split
from pawmatch.training.export import add_offsets, class_offsets, estimate_statistics, recalibrate, run_models
from pawmatch.training.optim import Together
from pawmatch.training.run import run_training
from tests.support.training import RECIPE, SETTINGS, silently

SPEC = InputSpec.from_dict(RECIPE.input)


@pytest.fixture(scope="module")
def images(data: Path) -> LabelledImages:
    return decode_all(find_split([data])[0], long_side=40)


def tiny(variant: str) -> ImageModel:
    torch.manual_seed(0)
    return build_model(family=RECIPE.family, variant=variant, num_classes=2, **RECIPE.architecture)


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_statistics_are_those_of_the_images_as_answering_sees_them(images: LabelledImages) -> None:
    model = tiny("cnn")
    first = norms(model)[0]
    momentum, trained = first.momentum, {key: value.clone() for key, value in model.named_parameters()}
    assert first.running_mean is not None
    assert torch.equal(first.running_mean, torch.zeros(3))
    estimate_statistics({"cnn": model}, images, {"cnn": SPEC}, "cpu")
    pixels = np.stack(images.images).astype(np.float32) / 255
    np.testing.assert_allclose(first.running_mean, pixels.mean(axis=(0, 1, 2)), atol=0.01)
    assert first.momentum == momentum
    assert not any(layer.training for layer in model.modules())
    assert all(torch.equal(value, trained[key]) for key, value in model.named_parameters())


def test_a_shared_stem_gets_them_once_and_every_head_its_own(images: LabelledImages) -> None:
    alone = tiny("cnn")
    estimate_statistics({"cnn": alone}, images, {"cnn": SPEC}, "cpu")
    models = {name: tiny(name) for name in ("cnn", "cnn_transformer_mfe")}
    Together(models)
    estimate_statistics(models, images, dict.fromkeys(models, SPEC), "cpu")
    ours, theirs = (norms(model)[0].running_mean for model in (models["cnn"], alone))
    assert ours is not None
    assert theirs is not None
    torch.testing.assert_close(ours, theirs)
    for layer in norms(models["cnn_transformer_mfe"]):
        assert layer.num_batches_tracked == len(images.images) / 16


def test_offsets_give_each_class_its_share() -> None:
    """At the minimum the mean probability of a class is its share of the labels, but for the penalty."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    logits = rng.normal(size=(400, 4)).astype(np.float32)
    logits[np.arange(400), labels] += 2
    logits[:, 1] += 1.5
    offsets = class_offsets(logits, labels, 0.7)
    shares = softmax(torch.from_numpy(logits + offsets) / 0.7, dim=1).mean(dim=0).numpy()
    np.testing.assert_allclose(shares, np.bincount(labels) / 400, atol=1e-3)
    assert offsets.argmin() == 1


@pytest.mark.parametrize("family", ["chae", "hybrid"])
def test_offsets_are_added_to_the_logits(family: str) -> None:
    values = (
        RECIPE.architecture
        if family == "chae"
        else {"backbone": "resnet18d", "backbone_config": {"channels": [8, 8, 16, 16], "stem_width": 8}}
    )
    model = build_model(family=family, variant="cnn", num_classes=2, **values).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = model(images)
        add_offsets(model, np.array([0.5, -1.0], dtype=np.float32))
        torch.testing.assert_close(model(images) - before, torch.tensor([[0.5, -1.0]] * 2))


def test_a_recipe_and_a_calibration_can_ask_for_it(data: Path, tmp_path: Path) -> None:
    """Refitting in the end of a run, or later of what the run without it left, comes to the same."""

    def trained(refit: bool) -> Path:
        recipe = replace(RECIPE, refit=refit, crop_scale=(0.1, 0.2))
        out = tmp_path / f"run{refit}"
        place = run_training(recipe, "cnn", data, out, settings=SETTINGS, report=silently)
        return place

    plain, refitted = load_checkpoint(trained(False)), load_checkpoint(trained(True))
    later = recalibrate(RECIPE.task, plain.source, [data], tmp_path / "later", refit=True, report=silently)
    val = decode_all(find_split([data])[1], long_side=40)
    logits = {
        name: run_models({"cnn": model}, val, {"cnn": plain.config}, "cpu")["cnn"].logits
        for name, model in (
            ("plain", plain.model),
            ("run", refitted.model),
            ("later", load_checkpoint(later).model),
        )
    }
    assert not np.allclose(logits["plain"], logits["run"], atol=0.01)
    np.testing.assert_allclose(logits["later"], logits["run"], atol=0.05)  # stored as float16 in between
    assert "--refit" in (later / "README.md").read_text()
