"""Where weights start from, and what is said when the Hub cannot give them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save
from torch import Tensor, nn

from pawmatch.checkpoint.backbone import Backbone, imagenet_classes, load_backbone
from pawmatch.errors import HubUnavailable, TrainingError
from pawmatch.models import Hybrid, ImageModel, build_model
from pawmatch.training.init import build_models, plain_architecture, start_from_backbone, take_over
from pawmatch.training.recipe import Recipe
from tests.support.hub_server import Fault, HubServer
from tests.support.training import RECIPE, silently, write_backbone

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


def test_a_hub_that_is_away_is_one_sentence(hub_server: HubServer) -> None:
    hub_server.faults.append(Fault(reset=True))
    with pytest.raises(HubUnavailable, match=f"weights of {BACKBONE} could not be had from the Hub; check"):
        build(PRETRAINED)


DOGS = ("Boxer", "my own dog", "beagle", "basenji", "whippet", "pug")  # all but one are ImageNet's
KNOWN = [0, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Backbone:
    return load_backbone(folder, "it")


def started(
    backbone: Backbone, *, variant: str = "cnn", labels: tuple[str, ...] = DOGS, **architecture: Any
) -> Hybrid:
    torch.manual_seed(1)
    model = build_model(
        family="hybrid",
        variant=variant,
        num_classes=len(labels),
        backbone=backbone.timm_name,
        morphology_channels=4,
        morphology_width=8,
        **architecture,
    )
    assert isinstance(model, Hybrid)
    start_from_backbone(model, backbone, labels, seed=0)
    return model.eval()


def imagenet_rows(backbone: Backbone) -> Tensor:
    """The head's rows of the labels that it knows, less what they have in common."""
    rows = backbone.head.weight[list(imagenet_classes(DOGS).values())]
    return rows - rows.mean(dim=0)


def centred(logits: Tensor) -> Tensor:
    """Logits but for what changes none of the answers."""
    return logits - logits.mean(dim=1, keepdim=True)


def random_maps() -> Tensor:
    return torch.rand(200, 1280, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("width", [3, 4, 16, 1280])
def test_the_projection_is_orthonormal_and_spans_the_rows(width: int, backbone: Backbone) -> None:
    model = started(backbone, projection=width)
    basis = model.get_parameter("projection.weight")[:, :, 0, 0].double()
    torch.testing.assert_close(basis @ basis.T, torch.eye(width).double(), atol=1e-5, rtol=0)
    rows = imagenet_rows(backbone).double()
    kept = rows @ basis.T @ basis
    if width >= len(KNOWN) - 1:  # so many directions tell so many classes apart
        torch.testing.assert_close(kept, rows, atol=1e-5, rtol=0)
    else:  # the directions that keep the most
        lost = torch.linalg.svdvals(rows)[width:].square().sum()
        torch.testing.assert_close((rows - kept).square().sum(), lost, rtol=1e-4, atol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    "architecture",
    [
        {},
        {"projection": 16},
        {"projection": 16, "variant": "cnn_transformer", "attention_mode": "tokens"},
    ],
)
def test_the_head_starts_as_imagenets_but_for_bias_and_norm(
    architecture: dict[str, Any], backbone: Backbone
) -> None:
    """Exactly so without LayerNorm; it takes the mean of a vector off and divides by its deviation."""
    model = started(backbone, **architecture)
    maps = random_maps()
    pooled = maps.mean(dim=(2, 3))
    expected = centred(pooled @ backbone.head.weight[list(imagenet_classes(DOGS).values())].T)
    logits = model.forward_head(maps)[:, KNOWN]
    vector = pooled if model.projection is None else model.projection(maps).mean(dim=(2, 3))
    last = model.classifier[-1]
    assert isinstance(last, nn.Linear)
    deviation = vector.var(dim=1, correction=0, keepdim=True).add(1e-5).sqrt()
    shift = vector.mean(dim=1, keepdim=True) * last.weight[KNOWN].sum(dim=1)
    torch.testing.assert_close(centred(logits * deviation + shift), expected, atol=1e-5, rtol=1e-3)
    model.classifier[0] = nn.Identity()
    without = model.forward_head(maps)[:, KNOWN]
    torch.testing.assert_close(centred(without), expected, atol=1e-5, rtol=1e-3)
    assert torch.equal(without.argmax(dim=1), expected.argmax(dim=1))


def test_other_heads_and_labels_start_at_random(backbone: Backbone) -> None:
    names = ("cnn_transformer", "cnn_transformer_mfe")
    for variant, mode in ((names[0], "heads"), (names[1], "heads"), (names[1], "tokens")):
        model = started(backbone, variant=variant, projection=16, attention_mode=mode)
        torch.manual_seed(1)
        fresh = build_model(
            family="hybrid",
            variant=variant,
            num_classes=len(DOGS),
            backbone=backbone.timm_name,
            morphology_channels=4,
            morphology_width=8,
            projection=16,
            attention_mode=mode,
        )
        assert torch.equal(
            model.get_parameter("classifier.2.weight"), fresh.get_parameter("classifier.2.weight")
        )
    for labels in (("my own dog", "my other dog"), ("beagle", "my own dog")):
        model = started(backbone, labels=labels, projection=16)
        assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def test_a_network_that_widens_its_vector_gets_the_weights_alone(tmp_path: Path) -> None:
    wide = load_backbone(write_backbone(tmp_path, name="lcnet_050"), "it")
    model = started(wide)
    assert torch.equal(
        model.backbone.state_dict()["conv_stem.weight"], wide.network.state_dict()["conv_stem.weight"]
    )


def test_another_network_is_refused(folder: Path, backbone: Backbone) -> None:
    recipe = replace(RECIPE, family="hybrid", architecture={"backbone": "lcnet_050"})
    for other in (recipe, RECIPE):
        with pytest.raises(TrainingError, match=r'--set architecture.backbone="tf_efficientnet_lite0"'):
            build_models(other, ("cnn",), DOGS, init=str(folder), resuming=False, report=silently)


def test_a_run_starts_from_a_backbone_by_its_folder(folder: Path, backbone: Backbone) -> None:
    architecture = {"backbone": backbone.timm_name, "projection": 16, "attention_mode": "tokens"}
    recipe = replace(RECIPE, family="hybrid", architecture=architecture)
    lines: list[str] = []
    models = build_models(
        recipe, ("cnn", "cnn_transformer"), DOGS, init=str(folder), resuming=False, report=lines.append
    )
    assert lines == [f"the backbone starts from {folder}"]
    maps = random_maps()
    with torch.no_grad():
        one, other = (model.eval().forward_head(maps)[:, KNOWN] for model in models.values())
    torch.testing.assert_close(one, other)
    assert all(take_over(model.features(), backbone.network) == 1 for model in models.values())
