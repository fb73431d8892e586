"""Heatmaps: agreement with the library, thread safety, honesty about nothing."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

import pawmatch.heatmaps as heatmaps
from pawmatch import load
from pawmatch.classifier import Classifier
from pawmatch.errors import BadOption, UnknownLabel
from pawmatch.heatmaps import colormap_stops, grad_cam, overlay
from pawmatch.images import InputSpec
from pawmatch.labels import COLORMAPS
from pawmatch.models import VARIANTS, Chae, build_model
from pawmatch.results import Heatmap


@pytest.fixture(scope="module", params=["breed", "artist"])
def classifier(request: pytest.FixtureRequest, tiny_checkpoints: Callable[..., Path]) -> Classifier:
    return load(request.param, tiny_checkpoints(request.param))


@pytest.fixture
def heatmap() -> Heatmap:
    cam = np.array([[0.0, 1.0], [0.0, 0.5]], dtype=np.float32)
    return Heatmap("cnn", "Beagle", cam, 2.0, 0.7, box=(0, 0, 80, 60), size=(80, 60))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("mode", ["heads", "published", "tokens"])
def test_equals_the_librarys_full_model_result(variant: str, mode: str) -> None:
    torch.manual_seed(3)
    model = build_model(
        family="hybrid",
        variant=variant,
        num_classes=5,
        backbone="resnet18d",
        backbone_config={"channels": [8, 8, 16, 32], "stem_width": 8},
        attention_mode=mode,
        morphology_channels=4,
        morphology_width=8,
    ).eval()
    images = torch.randn(1, 3, 128, 160)
    with torch.no_grad():
        ours = grad_cam(model.requires_grad_(False), model.forward_features(images), 2)
    model.requires_grad_(True)
    last = model.get_submodule("backbone.layer4")
    assert isinstance(last, nn.Sequential)
    layer = last[-1]
    # Under an average pool the two are one.
    library = (HiResCAM if mode == "tokens" else GradCAM)(model=model, target_layers=[layer])
    target = [ClassifierOutputTarget(2)]
    library(input_tensor=images, targets=target)
    recorded = library.activations_and_grads
    raw = library.get_cam_image(
        images, layer, target, recorded.activations[0].numpy(), recorded.gradients[0].numpy(), False
    )
    recorded.release()
    # The library's own last steps, at the map's grid: each layer is scaled, and so is their mean.
    expected = library.aggregate_multi_layers([scale_cam_image(np.maximum(raw, 0))[:, None]])[0]
    assert ours.values.shape == (4, 5)
    np.testing.assert_allclose(ours.values, expected, atol=1e-5)
    assert ours.raw_max == pytest.approx(max(0, raw.max()), rel=1e-4, abs=1e-7)


def test_the_service_needs_no_grad_cam_library(tiny_checkpoints: Callable[..., Path]) -> None:
    code = (
        "import sys, PIL.Image, pawmatch.ui.handlers\n"
        f"classifier = pawmatch.load('breed', {str(tiny_checkpoints('breed'))!r}, engine='torch')\n"
        "print(len(classifier.explain(PIL.Image.new('RGB', (80, 80))).heatmaps))\n"
        "print(*[name for name in ('pytorch_grad_cam', 'sklearn', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]


def test_leaves_the_model_as_it_was(classifier: Classifier, photo: Image.Image) -> None:
    classifier.explain(photo)
    for member in classifier.members.values():
        assert not member.model.training
        assert all(value.grad is None for value in member.model.parameters())
        assert not any(value.requires_grad for value in member.model.parameters())
        assert not any(module._forward_hooks for module in member.model.modules())


def test_explanation_has_one_map_and_overlay_per_variant(classifier: Classifier, photo: Image.Image) -> None:
    explanation = classifier.explain(photo)
    assert explanation.label == explanation.prediction.top.label
    assert tuple(explanation.heatmaps) == tuple(explanation.overlays) == tuple(VARIANTS)
    for variant, heatmap in explanation.heatmaps.items():
        assert heatmap.values.shape == (photo.height, photo.width)
        assert heatmap.values.dtype == np.float32
        assert 0 <= heatmap.values.min() <= heatmap.values.max() <= 1
        assert explanation.overlays[variant].size == photo.size
    assert set(explanation.to_dict()["explanation"]["heatmaps"]) == set(VARIANTS)


def test_a_label_to_explain_can_be_chosen_by_name(classifier: Classifier, photo: Image.Image) -> None:
    explanation = classifier.explain(photo, label=classifier.names[-1].lower())
    assert explanation.label == classifier.labels[-1]
    top = classifier.explain(photo)
    if top.label != explanation.label:
        pairs = [(top.heatmaps[v], explanation.heatmaps[v]) for v in VARIANTS]
        assert any(not np.array_equal(a.cam, b.cam) for a, b in pairs)
    with pytest.raises(UnknownLabel):
        classifier.explain(photo, label="Unicorn")


def test_threads_get_the_lone_heatmaps(classifier: Classifier, photo: Image.Image) -> None:
    images = [photo.rotate(20 * i) for i in range(5)]
    alone = [classifier.explain(image) for image in images]
    jobs = [i % len(images) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: classifier.explain(images[i]), jobs))
    for i, explanation in zip(jobs, together, strict=True):
        for variant, heatmap in explanation.heatmaps.items():
            np.testing.assert_array_equal(heatmap.cam, alone[i].heatmaps[variant].cam)


def test_a_randomised_head_changes_the_map() -> None:
    torch.manual_seed(0)
    model = build_model(family="chae", variant="cnn_transformer", num_classes=4, input_size=64).eval()
    assert isinstance(model, Chae)
    assert model.encoder is not None
    model.requires_grad_(False)
    feature_map = model.forward_features(torch.rand(1, 3, 64, 64))
    # With random weights the map of a class may be empty, and which one's is depends on the version of torch.
    label = next(label for label in range(4) if grad_cam(model, feature_map, label).values.any())
    before = grad_cam(model, feature_map, label).values
    for value in (*model.encoder.parameters(), *model.classifier.parameters()):
        torch.nn.init.normal_(value, std=0.1)
    after = grad_cam(model, feature_map, label).values
    assert not after.any() or np.corrcoef(before.ravel(), after.ravel())[0, 1] < 0.9


def test_a_map_of_nothing_stays_nothing() -> None:
    model = build_model(family="chae", variant="cnn", num_classes=2, input_size=32, filters=(4, 4, 4, 8))
    model.eval().requires_grad_(False)
    torch.nn.init.zeros_(model.get_parameter("classifier.weight"))
    cam = grad_cam(model, torch.rand(1, 8, 2, 2), 0)
    assert cam.raw_max == 0
    assert not cam.values.any()


def test_values_lie_where_the_model_looked(heatmap: Heatmap) -> None:
    cropped = replace(heatmap, box=(20, 0, 60, 60))
    values = cropped.values
    assert not values[:, :20].any()
    assert not values[:, 60:].any()
    assert values[0, 59] == 1
    assert values.shape == (60, 80)


def test_overlay_is_red_where_the_map_is_high(heatmap: Heatmap) -> None:
    photo = Image.new("RGB", (80, 60), (128, 128, 128))
    pixels = np.asarray(overlay(photo, heatmap, strength=1.0)).astype(int)
    hot, cold = pixels[0, 79], pixels[0, 0]
    assert hot[0] > hot[2] + 60
    assert cold[2] > cold[0]


@pytest.mark.parametrize("box", [(0, 0, 240, 180), (30, 0, 210, 180), (0, 40, 240, 140)])
@pytest.mark.parametrize("name", COLORMAPS)
def test_overlay_mixes_colour_and_photo_by_the_map(
    name: str, box: tuple[int, int, int, int], photo: Image.Image
) -> None:
    cam = np.random.default_rng(0).random((7, 9), dtype=np.float32)
    heatmap = Heatmap("cnn", "Beagle", cam / cam.max(), 2.0, 0.7, box=box, size=photo.size)
    found = np.asarray(overlay(photo, heatmap, colormap=name, strength=0.6)).astype(int)
    stops = np.array([[int(s[i : i + 2], 16) for i in (1, 3, 5)] for s in colormap_stops(name, 256)])
    values = heatmap.values.astype(np.float64)
    opacity = np.zeros_like(values)
    left, top, right, bottom = box
    opacity[top:bottom, left:right] = 0.6 * (0.35 + 0.65 * values[top:bottom, left:right])
    mixed = np.asarray(photo) * (1 - opacity[..., None])
    expected = mixed + stops[(heatmap.values * 255).astype(int)] * opacity[..., None]
    assert np.abs(found - expected).max() <= 1


def test_overlay_of_nothing_is_the_photo(heatmap: Heatmap, photo: Image.Image) -> None:
    empty = replace(heatmap, raw_max=0.0, box=(0, 0, *photo.size), size=photo.size)
    assert np.array_equal(np.asarray(overlay(photo, empty)), np.asarray(photo))


def test_strength_zero_is_the_photo(heatmap: Heatmap) -> None:
    photo = Image.new("RGB", (80, 60), (10, 200, 30))
    assert np.array_equal(np.asarray(overlay(photo, heatmap, strength=0)), np.asarray(photo))


@pytest.mark.parametrize("name", COLORMAPS)
def test_legend_runs_from_cold_to_hot(name: str) -> None:
    stops = colormap_stops(name, 5)
    assert len(set(stops)) == 5
    assert all(len(stop) == 7 and stop.startswith("#") for stop in stops)


def test_bad_options_are_named(heatmap: Heatmap, photo: Image.Image) -> None:
    with pytest.raises(BadOption, match="'rainbow'"):
        overlay(photo, heatmap, colormap="rainbow")
    with pytest.raises(BadOption, match=r"1\.5"):
        overlay(photo, heatmap, strength=1.5)


def test_explaining_a_large_photo_gives_the_answer_that_predicting_gives(
    classifier: Classifier, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "large.jpg"
    noise = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    noise.resize((2400, 1800), Image.Resampling.BICUBIC).save(path)
    explanation = classifier.explain(path)
    assert explanation.prediction.predictions == classifier.predict(path).predictions
    assert explanation.photo.size == (2048, 1536)


def test_an_overlay_is_drawn_once_and_only_when_it_is_asked_for(
    classifier: Classifier, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(image: Image.Image, heatmap: Heatmap, *, colormap: str, strength: float) -> Image.Image:
        drawn.append(heatmap)
        return overlay(image, heatmap, colormap=colormap, strength=strength)

    monkeypatch.setattr(heatmaps, "overlay", draw)
    overlays = classifier.explain(photo).overlays
    assert drawn == []
    assert overlays["cnn"] is overlays["cnn"]
    assert len(drawn) == 1


def test_a_label_that_is_ruled_out_does_not_glow(classifier: Classifier, photo: Image.Image) -> None:
    """What a map may reach is set beside the map of the variant's first choice."""
    outputs = classifier.run_models([classifier.prepare(photo)])[0]
    own = classifier.main.variant
    first, *_, last = np.argsort(-outputs.probabilities[own]).tolist()
    shown = {
        index: classifier.heatmaps(outputs, classifier.labels[index], photo.size)[own]
        for index in (first, last)
    }
    assert shown[first].strength == 1
    assert shown[last].strength <= (shown[last].confidence / shown[first].confidence) ** 0.5
    assert shown[last].cam.max() == pytest.approx(shown[last].strength if shown[last].raw_max else 0)
    sure = np.full(len(classifier.labels), 1e-4)
    sure[first] = 1 - sure[1:].sum()
    certain = replace(outputs, probabilities=dict.fromkeys(classifier.variants, sure))
    for heatmap in classifier.heatmaps(certain, classifier.labels[last], photo.size).values():
        assert heatmap.is_weak
        assert heatmap.cam.max() <= 0.011


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (3, 3), (640, 480)])
def test_a_narrow_picture_has_an_overlay(heatmap: Heatmap, size: tuple[int, int]) -> None:
    """A box of less than a pixel is one pixel."""
    cropped = InputSpec(resize="crop", crop_pct=0.875).box(*size)
    narrow = replace(heatmap, box=cropped, size=size)
    assert narrow.values.shape == size[::-1]
    assert overlay(Image.new("RGB", size), narrow).size == size
