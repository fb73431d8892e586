"""Faithfulness of heatmaps: a model whose evidence has a known place, and tiny real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pawmatch import load
from pawmatch.checkpoint import Checkpoint, CheckpointConfig
from pawmatch.classifier import Classifier
from pawmatch.evaluation import faithfulness as case
from pawmatch.evaluation.faithfulness import Comparison, measure_faithfulness, spread
from pawmatch.evaluation.folders import LabelledFile
from pawmatch.heatmaps import Cam, grad_cam
from pawmatch.images import InputSpec
from pawmatch.models import ImageModel
from pawmatch.tasks import new_task

SIDE = 32


class CornerModel(ImageModel):
    """Answers "coarse" as long as the top left quarter is grainy; it sees nothing else."""

    features_module = "pool"

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(SIDE // 8)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[20.0] * 3, [-20.0] * 3]))
            self.head.bias.copy_(torch.tensor([-1.9, 1.9]))
        self.requires_grad_(False)

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

    monkeypatch.setattr(case, "grad_cam", turned)
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
    monkeypatch.setattr(case, "ROAD_IMAGES", 1)
    monkeypatch.setattr(case, "STEPS", 4)
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
    one = case.Case(photo, 0)
    cam, index, _ = one.heatmap(member)
    first = one.scores(member, cam, index)
    assert len(rows) == 4  # the image itself, then the images of three maps
    assert one.scores(member, cam, index) == first
    assert len(rows) == 4


def test_gains_are_positive_where_the_heatmap_is_better(
    corner_classifier: Classifier, grainy: list[LabelledFile], few_resamples: None
) -> None:
    found = measure_faithfulness(corner_classifier, ["cnn"], grainy[:2])["cnn"]

    def difference(comparison: Comparison) -> float:
        return comparison.heatmap.value - comparison.centre.value

    assert found.deletion.over_centre.value == pytest.approx(-difference(found.deletion))
    assert found.insertion.over_centre.value == pytest.approx(difference(found.insertion))


def test_files_are_spread_evenly() -> None:
    files = [LabelledFile(Path(str(i)), i) for i in range(10)]
    assert [file.target for file in spread(files, 4)] == [0, 3, 6, 9]
    assert spread(files, 99) == files
    assert spread(files, 0) == []
    assert len(spread(files, 1)) == 1
