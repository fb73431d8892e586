"""Masked pretraining: nothing comes from hidden pixels, a cut run goes on, other runs start from it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pawmatch.checkpoint.backbone import backbone_folder, load_backbone
from pawmatch.checkpoint.weights import BACKBONE_FILE
from pawmatch.errors import PawMatchError, TrainingError
from pawmatch.images import InputSpec
from pawmatch.models.backbone import create_backbone
from pawmatch.training.distill import Teacher
from pawmatch.training.fcmae import (
    HIDDEN,
    SHEET_FILE,
    Autoencoder,
    Masked,
    check_masking,
    pretrain,
    random_masks,
)
from pawmatch.training.init import build_models
from pawmatch.training.recipe import Recipe
from tests.support.training import SETTINGS, silently

TINY = "test_convnext2"
# With BatchNorm, squeeze and excitation, global response normalization, GroupNorm, pools.
NETWORKS = (
    TINY,
    "convnextv2_atto",
    "lcnet_050",
    "mobilenetv3_small_050",
    "test_efficientnet_gn",
    "resnet10t",
)


class Layers(nn.Sequential):
    """Some layers in place of a network of timm's."""

    def forward_features(self, images: Tensor) -> Tensor:
        maps: Tensor = self(images)
        return maps


class Recentred(Layers):
    """Takes a mean over all positions between its layers, where no layer can be told of the mask."""

    def forward_features(self, images: Tensor) -> Tensor:
        maps = self[0](images)
        mixed: Tensor = self[1](maps - maps.mean(dim=(2, 3), keepdim=True))
        return mixed


@pytest.mark.parametrize("name", NETWORKS)
def test_neither_hidden_pixels_nor_what_layers_make_of_them_reach_the_output(name: str) -> None:
    check_masking(create_backbone(name), 64, 4)  # noise at the hidden positions of every convolution's map
    torch.manual_seed(0)
    model = Autoencoder(create_backbone(name), size=64).train()
    images, visible = torch.randn(2, 3, 64, 64), random_masks(2, 4)
    changed = model.patches(images)
    changed[~visible[:, 0]] = 9.0
    assert not torch.equal(model.image(changed), images)
    outputs = []
    for pixels in (images, model.image(changed)):
        torch.manual_seed(1)  # of dropout
        outputs.append(model(pixels, visible))
    assert torch.equal(*outputs)
    other = model(images, ~visible)
    assert not torch.allclose(outputs[0], other, atol=1e-4)


def test_batch_statistics_count_visible_positions_alone() -> None:
    norm = nn.BatchNorm2d(3, momentum=1.0)
    images, visible = torch.randn(8, 3, 64, 64) + 5, random_masks(8, 4)
    out = Masked(Layers(norm)).train()(images, visible)
    seen = visible.repeat_interleave(16, 2).repeat_interleave(16, 3)[:, 0]
    rows = images.permute(0, 2, 3, 1)[seen]
    torch.testing.assert_close(norm.running_mean, rows.mean(dim=0))
    torch.testing.assert_close(norm.running_var, rows.var(dim=0))
    assert not out.permute(0, 2, 3, 1)[~seen].any()


def test_a_network_that_mixes_positions_elsewhere_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"cannot be masked at 64 px.*another backbone"):
        check_masking(Recentred(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)), 64, 4)
    with pytest.raises(TrainingError, match="map of 62 x 62 positions, on which 4 x 4 patches do not lie"):
        check_masking(Layers(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), 64, 4)


def test_as_many_patches_are_hidden_of_each_image() -> None:
    masks = random_masks(50, 6)
    assert set((~masks).sum(dim=(1, 2, 3)).tolist()) == {round(HIDDEN * 36)}
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 50


def test_patches_are_cut_and_joined() -> None:
    model = Autoencoder(create_backbone(TINY), size=64)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.image(model.patches(images)), images)
    assert torch.equal(model.patches(images)[1, 2, 3].view(3, 16, 16), images[1, :, 32:48, 48:])
    whole = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    assert torch.equal(model.eval().reconstruction(images, whole), images)


OPTIONS = ("input.size=32", "epochs=4", "batch_size=16", "learning_rate=5e-3", "crop_scale=[1.0, 1.0]")


def losses(run: Path) -> list[float]:
    with (run / "history.csv").open(encoding="utf-8") as file:
        return [float(row["val_loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders in folders of stripes, of which what is visible says what is hidden."""
    folder = tmp_path_factory.mktemp("stripes")
    for index in range(48):
        place = folder / str(index % 3) / "inner"
        place.mkdir(parents=True, exist_ok=True)
        image = Image.new("L", (32, 32))
        image.putdata([255 * ((x + index % 8) // 4 % 2) for _ in range(32) for x in range(32)])
        image.save(place / f"{index}.png")
    (folder / "0" / "broken.png").write_bytes(b"nothing")
    return folder


@pytest.fixture(scope="module")
def pretrained(stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fcmae") / "run"
    return pretrain([stripes], TINY, out, overrides=OPTIONS, settings=SETTINGS, report=silently)


def test_the_loss_falls_and_the_run_shows_what_it_makes_of_images(pretrained: Path) -> None:
    first, *_, last = losses(pretrained)
    assert last < 0.7 < first
    with Image.open(pretrained / SHEET_FILE) as sheet:
        assert sheet.size == (4 * 32, 3 * 32)  # a tenth of 48 images was held out


class Cut(BaseException):
    """Stands for a kill."""


def test_a_cut_run_goes_on_to_the_same_weights(pretrained: Path, stripes: Path, tmp_path: Path) -> None:
    def cut(line: str) -> None:
        if line.startswith("epoch   3"):
            raise Cut

    with pytest.raises(Cut):
        pretrain([stripes], TINY, tmp_path, overrides=OPTIONS, report=cut)
    assert len(losses(tmp_path)) == 2
    lines: list[str] = []
    pretrain([stripes], TINY, tmp_path, overrides=OPTIONS, report=lines.append)
    assert [line[:11] for line in lines[1:-1]] == ["epoch   3/4", "epoch   4/4"]
    assert lines[0] == "44 images, 4 held out, 1 skipped"
    assert losses(tmp_path) == losses(pretrained)
    assert (tmp_path / BACKBONE_FILE).read_bytes() == (pretrained / BACKBONE_FILE).read_bytes()


def test_training_starts_from_it_and_no_run_is_taught_by_it(pretrained: Path) -> None:
    recipe = Recipe(
        "r", "breed", "hybrid", architecture={"backbone": TINY, "projection": 16}, input={"size": 32}
    )
    said: list[str] = []
    labels = ("Beagle", "Pug")
    init = str(pretrained)
    model = build_models(recipe, ("cnn",), labels, init=init, resuming=False, report=said.append)["cnn"]
    backbone = load_backbone(pretrained, "it")
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, model.features().state_dict()[key])
    assert said == [f"the backbone starts from {init}"]
    assert torch.isfinite(model.eval()(torch.randn(1, 3, 32, 32))).all()
    assert backbone_folder(init) == pretrained
    with pytest.raises(TrainingError, match="knows 0 of the 2 classes"):
        Teacher(init, labels, InputSpec(size=32))
    wide = replace(recipe, architecture={"backbone": "resnet10t"})
    with pytest.raises(TrainingError, match=f'architecture.backbone="{TINY}"'):
        build_models(wide, ("cnn",), labels, init=init, resuming=False, report=silently)


@pytest.mark.parametrize(
    ("backbone", "options", "said"),
    [
        (TINY, ["input.size=40"], "40 px hold no whole patches; use a multiple of 32"),
        (TINY, ["epoch=3"], "'epoch' is unknown"),
        ("lcnet_050", [], f"holds a run of {TINY}, not lcnet_050"),
        (TINY, ["epochs=9"], "another recipe"),
        ("test_vit", [], "not a vision transformer"),
        ("hf_hub:a/b", [], "knows no model"),
    ],
)
def test_what_cannot_be_pretrained_is_said(
    backbone: str, options: list[str], said: str, pretrained: Path, stripes: Path
) -> None:
    with pytest.raises(PawMatchError, match=said):
        pretrain([stripes], backbone, pretrained, overrides=[*OPTIONS, *options], report=silently)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    with pytest.raises(TrainingError, match="1 images that can be read; give 16 or more"):
        pretrain([tmp_path], TINY, tmp_path / "out", overrides=OPTIONS, report=silently)
