"""Where weights start from, and what is said when the Hub cannot give them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from pawmatch.cli import main
from pawmatch.errors import BadOption
from pawmatch.models import ImageModel, build_model
from pawmatch.training import start
from pawmatch.training.recipe import Recipe
from pawmatch.training.start import build_models, plain_architecture, take_over
from tests.support.training import RECIPE, changes, write_colours

PRETRAINED = Recipe(
    "r",
    "breed",
    "hybrid",
    architecture={
        "backbone": "resnet18d",
        "backbone_config": {"channels": [8, 8, 16, 16], "stem_width": 8},
        "pretrained_backbone": True,
        "morphology_channels": 4,
        "morphology_width": 8,
    },
)


def test_take_over_copies_what_agrees_and_no_more() -> None:
    values: dict[str, Any] = {"family": "chae", "num_classes": 2, **RECIPE.architecture}
    small = build_model(variant="cnn", **values)
    large = build_model(variant="cnn_transformer", **values)
    before = large.encoder[0].mlp[0].weight.clone()
    share = take_over(large, small)
    assert 0 < share < 1
    assert torch.equal(large.stem[0][1].weight, small.stem[0][1].weight)
    assert torch.equal(large.encoder[0].mlp[0].weight, before)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each model built asked for pretrained weights; none is fetched."""
    flags: list[bool] = []

    def build(*, pretrained_backbone: bool = False, **values: Any) -> ImageModel:
        flags.append(pretrained_backbone)
        return build_model(**values)

    monkeypatch.setattr(start, "build_model", build)
    return flags


@pytest.mark.parametrize(("resuming", "flags"), [(False, [True, False]), (True, [False, False])])
def test_pretrained_weights_are_fetched_once_and_not_to_resume(
    resuming: bool, flags: list[bool], asked: list[bool]
) -> None:
    lines: list[str] = []
    names = ("cnn", "cnn_transformer")
    build_models(PRETRAINED, names, 3, init=None, resuming=resuming, report=lines.append)
    assert asked == flags
    assert len(lines) == sum(flags)


def test_a_checkpoint_never_asks_for_a_download() -> None:
    assert set(plain_architecture(PRETRAINED)) == set(PRETRAINED.architecture) - {"pretrained_backbone"}


def test_mistakes_in_the_architecture_are_not_blamed_on_the_hub() -> None:
    recipe = Recipe("r", "breed", "hybrid", architecture={"width": 3, "pretrained_backbone": True})
    with pytest.raises(BadOption, match="width"):
        build_models(recipe, ("cnn",), 3, init=None, resuming=False, report=print)


def test_a_hub_that_is_away_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    data = write_colours(tmp_path / "data", train=4, val=2)
    arguments = ["train", "--recipe", "breed-full", "--data", str(data), "--out", str(tmp_path / "run")]
    arguments += ["--device", "cpu", *changes(["architecture.backbone=convnextv2_atto"])]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pretrained weights of convnextv2_atto could not be had from the Hub" in line
    assert line.endswith("--set architecture.pretrained_backbone=false.")
    assert not (tmp_path / "run" / "state.pt").exists()
