"""Faithfulness of heatmaps: a model whose evidence has a known place, and tiny real ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from pawmatch import load
from pawmatch.checkpoint import Checkpoint, CheckpointConfig, load_checkpoint
from pawmatch.classifier import Classifier
from pawmatch.evaluation import faithfulness
from pawmatch.evaluation.faithfulness import (
    PERCENTILES,
    SUBJECT,
    area_under,
    centre_map,
    compose,
    deleted,
    inserted,
    measure_faithfulness,
    pointing,
    random_map,
    ranked,
    road_images,
    road_score,
    spread,
    with_random_head,
)
from pawmatch.evaluation.folders import LabelledFile
from pawmatch.heatmaps import Cam, grad_cam
from pawmatch.images import InputSpec
from pawmatch.labels import new_task
from pawmatch.models import ImageModel
from pawmatch.results import Heatmap

SIDE, STEPS = 32, 8


class CornerModel(ImageModel):
    """Answers "coarse" as long as the top left quarter is grainy; it sees nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(SIDE // 8)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[20.0] * 3, [-20.0] * 3]))
            self.head.bias.copy_(torch.tensor([-1.9, 1.9]))
        self.requires_grad_(False)

    def features(self) -> nn.Module:
        return self.pool

    def forward_features(self, images: Tensor) -> Tensor:
        grain = (images - nn.functional.avg_pool2d(images, 3, stride=1, padding=1)).abs()
        seen = torch.zeros(8, 8)
        seen[:4, :4] = 1
        features: Tensor = self.pool(grain) * seen
        return features

    def forward_head(self, feature_map: Tensor) -> Tensor:
        logits: Tensor = self.head(feature_map.mean(dim=(2, 3)))
        return logits


@pytest.fixture
def corner_classifier() -> Classifier:
    config = CheckpointConfig(
        task=new_task("breed"),
        family="hybrid",
        variant="cnn",
        architecture={},
        labels=("coarse", "fine"),
        input=InputSpec(size=SIDE, mean=(0.0,) * 3, std=(1.0,) * 3),
        license="made for tests",
    )
    return Classifier("breed", [Checkpoint(config, CornerModel().eval(), "nowhere")])


@pytest.fixture
def grainy(tmp_path: Path) -> list[LabelledFile]:
    """Six pictures of grain all over."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(6):
        files.append(LabelledFile(tmp_path / f"{number}.png", 0))
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(files[-1].path)
    return files


def test_heatmaps_of_the_true_place_beat_their_rivals(
    corner_classifier: Classifier, grainy: list[LabelledFile], few_resamples: None
) -> None:
    found = measure_faithfulness(corner_classifier, ["cnn"], grainy)["cnn"]
    assert (found.images, found.empty, found.pointing) == (6, 0, None)
    for comparison in (found.deletion, found.insertion, found.road):
        assert comparison.over_random.low > 0
        assert comparison.over_centre.low > 0
    assert found.deletion.heatmap.value < found.deletion.random.value
    assert found.insertion.heatmap.value > found.insertion.random.value
    assert found.road.heatmap.value > 0.1


def test_heatmaps_of_the_wrong_place_lose(
    corner_classifier: Classifier,
    grainy: list[LabelledFile],
    few_resamples: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def turned(model: ImageModel, feature_map: Tensor, index: int) -> Cam:
        cam = grad_cam(model, feature_map, index)
        return Cam(np.ascontiguousarray(cam.values[::-1, ::-1]), cam.raw_max)

    monkeypatch.setattr(faithfulness, "grad_cam", turned)
    found = measure_faithfulness(corner_classifier, ["cnn"], grainy)["cnn"]
    for comparison in (found.deletion, found.insertion, found.road):
        assert comparison.over_random.high < 0


def test_every_variant_is_measured_and_left_as_it_was(
    tiny_checkpoints: Callable[..., Path],
    kennel: Path,
    dog: Path,
    few_resamples: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faithfulness, "ROAD_IMAGES", 1)
    monkeypatch.setattr(faithfulness, "STEPS", 4)
    classifier = load("artist", tiny_checkpoints("artist"))
    before = {v: m.model.state_dict() for v, m in classifier.members.items()}
    before = {v: {k: value.clone() for k, value in state.items()} for v, state in before.items()}
    files = [LabelledFile(path, 1) for path in sorted(kennel.rglob("*.png"))[:3]]
    found = measure_faithfulness(classifier, classifier.variants, files, [dog])
    assert list(found) == list(classifier.variants)
    for variant, result in found.items():
        assert result.images == result.deletion.images == result.insertion.images == 3
        assert result.road.images == 1
        assert -1 <= result.after_randomisation.value <= 1
        assert result.pointing is None or 0 <= result.pointing.heat.value <= 1
        model = classifier.members[variant].model
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert all(torch.equal(v, before[variant][k]) for k, v in model.state_dict().items())
    # Rivals are the same for all variants, images too; the same files give the same numbers.
    again = measure_faithfulness(classifier, ["cnn"], files, [dog])
    assert again["cnn"] == found["cnn"]


def test_a_shared_extractor_sees_the_rivals_images_once(
    corner_classifier: Classifier,
    grainy: list[LabelledFile],
    few_resamples: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    member = corner_classifier.members["cnn"]
    rows = []
    features = member.engine.features

    def counted(images: Tensor) -> Tensor:
        rows.append(len(images))
        return features(images)

    monkeypatch.setattr(member.engine, "features", counted)
    photo = Image.open(grainy[0].path)
    one = faithfulness.Case(photo, 0)
    cam, index = one.heatmap(member)
    first = one.scores(member, cam, index)
    assert len(rows) == 4  # the image itself, then the images of three maps
    assert one.scores(member, cam, index) == first
    assert len(rows) == 4


def test_files_are_spread_evenly() -> None:
    files = [LabelledFile(Path(str(i)), i) for i in range(10)]
    assert [file.target for file in spread(files, 4)] == [0, 3, 6, 9]
    assert spread(files, 99) == files
    assert spread(files, 0) == []


def test_rivals_are_as_coarse_as_heatmaps() -> None:
    rng = np.random.default_rng(0)
    one, other = random_map(rng, (4, 4), 64), random_map(rng, (4, 4), 64)
    assert not np.allclose(one, other)
    assert np.abs(np.diff(one, axis=0)).max() < 0.1
    blob = centre_map(33)
    assert int(blob.argmax()) == 16 * 33 + 16
    np.testing.assert_allclose(blob, blob[::-1, ::-1])


def test_ranks_are_all_different_and_ties_follow_the_other_map() -> None:
    saliency = np.array([[0, 0], [5, 0]], dtype=np.float32)
    tie_break = np.array([[3, 1], [0, 2]], dtype=np.float32)
    assert ranked(saliency, tie_break).tolist() == [[0.5, 0], [0.75, 0.25]]


@pytest.fixture
def image() -> Tensor:
    return torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def ranks() -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return ranked(random_map(rng, (4, 4), SIDE), random_map(rng, (4, 4), SIDE))


def test_pixels_go_and_come_in_equal_portions(image: Tensor, ranks: NDArray[np.float32]) -> None:
    before = image.clone()
    gone, come = deleted(image, ranks, STEPS), inserted(image, ranks, STEPS)
    assert gone.shape == come.shape == (STEPS + 1, 3, SIDE, SIDE)
    for step in range(STEPS + 1):
        changed = (gone[step] != image).any(dim=0)
        assert changed.sum() == SIDE * SIDE * step // STEPS
        # The most important ones go first.
        assert (ranks[changed.numpy()] >= 1 - step / STEPS).all()
    assert torch.equal(come[-1], image)
    assert gone[-1].std(dim=(1, 2)).max() == 0
    assert 0 < come[0].std() < image.std() / 2
    assert torch.equal(image, before)


def test_area_of_known_curves() -> None:
    assert area_under(np.array([1.0, 1, 1])) == 1
    assert area_under(np.array([1.0, 0.0])) == 0.5
    assert area_under(np.array([1.0, 0, 0, 0, 0])) == 0.125


def test_road_agrees_with_the_library(image: Tensor, ranks: NDArray[np.float32]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 4))
    state = torch.get_rng_state()
    with torch.no_grad():
        ours = road_score(model(road_images(image, ranks, seed=5))[:, 2].double().numpy())
    assert torch.equal(torch.get_rng_state(), state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.manual_seed(5)
        theirs = ROADCombined(list(PERCENTILES))(image[None], ranks[None], [ClassifierOutputTarget(2)], model)
    assert ours == pytest.approx(float(theirs[0]), abs=1e-5)


def test_flat_maps_leave_pixels_to_impute_from(image: Tensor, ranks: NDArray[np.float32]) -> None:
    images = road_images(image, ranked(np.zeros_like(ranks), ranks), seed=0)
    assert images.isfinite().all()
    kept = [(changed == image).all(dim=0).float().mean() for changed in images]
    assert np.allclose(kept[3:], [p / 100 for p in PERCENTILES], atol=0.01)


@pytest.mark.parametrize(
    ("task", "variant"), [("breed", "cnn_transformer_mfe"), ("artist", "cnn_transformer"), ("breed", "cnn")]
)
def test_a_random_head_is_new_and_nothing_else(
    tiny_checkpoints: Callable[..., Path], task: str, variant: str
) -> None:
    model = load_checkpoint(tiny_checkpoints(task) / variant).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin, again, other = (with_random_head(model, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    head = {
        name
        for name, value in model.named_parameters()
        if not name.startswith(f"{model.features_module}.") and value.std(correction=0) > 0
    }
    assert {name for name in before if not torch.equal(twin[name], before[name])} == head
    assert {name for name in before if not torch.equal(twin[name], other[name])} == head
    assert all(torch.equal(twin[name], again[name]) for name in before)
    name = max(head, key=lambda name: before[name].numel())
    assert twin[name].std() == pytest.approx(float(before[name].std()), rel=0.3)


@pytest.mark.parametrize("size", [(60, 90), (200, 50), (30, 30)])
def test_the_subject_is_where_the_box_says(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    boxes = set()
    for _ in range(5):
        scene = compose(Image.new("RGB", size, "red"), Image.new("RGB", (300, 200), "blue"), rng)
        left, top, right, bottom = scene.box
        red = np.asarray(scene.image)[..., 0] > 128
        assert red[top:bottom, left:right].all()
        assert red.sum() == (right - left) * (bottom - top)
        share = max(right - left, bottom - top) / scene.image.width
        assert SUBJECT[0] - 0.01 <= share <= SUBJECT[1] + 0.01
        assert (right - left) / (bottom - top) == pytest.approx(size[0] / size[1], rel=0.05)
        boxes.add(scene.box)
    assert len(boxes) == 5


WHOLE = (0.0, 0.0, 64.0, 64.0)
EVEN, CORNER = np.ones((4, 4)), np.eye(4)[:1].repeat(4, axis=0) * np.eye(4)[:, :1]


@pytest.mark.parametrize(
    ("cam", "seen", "box", "expected"),
    [
        (EVEN, WHOLE, (0, 0, 32, 64), (0.5, 0.5, True)),
        (CORNER, WHOLE, (0, 0, 32, 32), (1, 0.25, True)),
        (CORNER, WHOLE, (32, 32, 64, 64), (0, 0.25, False)),
        # What a model does not see counts as no area.
        (EVEN, (16.0, 0.0, 48.0, 64.0), (0, 0, 32, 64), (0.5, 0.5, True)),
        (0 * EVEN, WHOLE, (0, 0, 32, 32), None),
    ],
)
def test_heat_and_area_of_known_maps(
    cam: NDArray[np.float64],
    seen: tuple[float, float, float, float],
    box: tuple[int, int, int, int],
    expected: tuple[float, float, bool] | None,
) -> None:
    heatmap = Heatmap("cnn", "Beagle", cam.astype(np.float32), float(cam.max()), 0.5, seen, (64, 64))
    found = pointing(heatmap, box)
    assert (found and (found.heat, found.area, found.peak)) == expected
