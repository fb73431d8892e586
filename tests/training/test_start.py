"""Where weights start from, and what is said when the Hub cannot give them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save

from pawmatch.cli import main
from pawmatch.errors import TrainingError
from pawmatch.models import ImageModel, build_model
from pawmatch.training.recipe import Recipe
from pawmatch.training.start import build_models, plain_architecture, take_over
from tests.support.hub_server import Fault, HubServer
from tests.support.training import RECIPE, changes, write_colours

pytest_plugins = ("tests.support.hub_fixture",)

BACKBONE = "lcnet_050"  # the smallest whose published name timm knows
PRETRAINED = Recipe(
    "r",
    "breed",
    "hybrid",
    architecture={
        "backbone": BACKBONE,
        "pretrained_backbone": True,
        "morphology_channels": 4,
        "morphology_width": 8,
    },
)


def build(recipe: Recipe, *, resuming: bool = False) -> tuple[dict[str, ImageModel], list[str]]:
    lines: list[str] = []
    names = ("cnn", "cnn_transformer")
    models = build_models(recipe, names, ("a", "b", "c"), init=None, resuming=resuming, report=lines.append)
    return models, lines


def hub_name() -> str:
    """Where timm says that the backbone's weights are."""
    known = timm.get_pretrained_cfg(BACKBONE)
    assert known is not None
    assert known.hf_hub_id is not None
    return known.hf_hub_id


@pytest.fixture
def published(hub_server: HubServer) -> dict[str, torch.Tensor]:
    """Weights, with a classifier, where timm's are on the Hub."""
    torch.manual_seed(7)
    weights: dict[str, torch.Tensor] = timm.create_model(BACKBONE).state_dict()
    weights = {key: value for key, value in weights.items() if "num_batches" not in key}  # as some are
    hub_server.commit(hub_name(), {"model.safetensors": save(weights)})
    return weights


def test_take_over_copies_what_agrees_and_no_more() -> None:
    values: dict[str, Any] = {"family": "chae", "num_classes": 2, **RECIPE.architecture}
    small = build_model(variant="cnn", **values)
    large = build_model(variant="cnn_transformer", **values)
    before = large.get_parameter("encoder.0.mlp.0.weight").clone()
    share = take_over(large, small)
    assert 0 < share < 1
    assert torch.equal(large.get_parameter("stem.0.1.weight"), small.get_parameter("stem.0.1.weight"))
    assert torch.equal(large.get_parameter("encoder.0.mlp.0.weight"), before)


def test_a_backbone_starts_from_published_weights(
    hub_server: HubServer, published: dict[str, torch.Tensor]
) -> None:
    models, lines = build(PRETRAINED)
    backbone: Any = models["cnn"].backbone
    for key, value in backbone.state_dict().items():
        assert "num_batches" in key or torch.equal(value, published[key]), key
    assert lines == [f"the backbone starts from hf://{hub_name()}"]
    # Once fetched, they serve without the Hub too.
    hub_server.faults.append(Fault(reset=True))
    backbone = build(PRETRAINED)[0]["cnn"].backbone
    assert torch.equal(backbone.conv_stem.weight, published["conv_stem.weight"])


def test_a_run_that_resumes_fetches_nothing(hub_server: HubServer) -> None:
    assert build(PRETRAINED, resuming=True)[1] == []
    assert hub_server.requests == []


def test_a_checkpoint_never_asks_for_a_download() -> None:
    assert set(plain_architecture(PRETRAINED)) == set(PRETRAINED.architecture) - {"pretrained_backbone"}


def test_a_network_without_published_weights_is_named() -> None:
    architecture = {"backbone": "lcnet_035", "pretrained_backbone": True}
    with pytest.raises(TrainingError, match="no pretrained weights for lcnet_035"):
        build(replace(PRETRAINED, architecture=architecture))


def test_weights_that_do_not_fit_are_named(hub_server: HubServer, published: dict[str, torch.Tensor]) -> None:
    published["conv_stem.weight"] = torch.zeros(3, 3, 3, 3)
    hub_server.commit(hub_name(), {"model.safetensors": save(published)})
    with pytest.raises(TrainingError, match="do not fit its backbone_config"):
        build(PRETRAINED)


def test_a_hub_that_is_away_is_one_sentence(
    hub_server: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub_server.faults.append(Fault(reset=True))
    data = write_colours(tmp_path / "data", train=4, val=2)
    arguments = ["train", "--recipe", "breed-full", "--data", str(data), "--out", str(tmp_path / "run")]
    arguments += ["--device", "cpu", *changes([f"architecture.backbone={BACKBONE}"])]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"pretrained weights of {BACKBONE} could not be had from the Hub" in line
    assert line.endswith("--set architecture.pretrained_backbone=false.")
    assert not (tmp_path / "run" / "state.pt").exists()
