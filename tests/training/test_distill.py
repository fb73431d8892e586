"""Learning from a teacher: the divergence and its formula, what the teacher sees, what a run asks for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import softmax

from pawmatch.checkpoint import load_checkpoint
from pawmatch.checkpoint.backbone import imagenet_classes, load_backbone
from pawmatch.errors import PawMatchError, TrainingError
from pawmatch.images import InputSpec
from pawmatch.training.distill import (
    Teacher,
    Teachers,
    build_mixer,
    distillation_loss,
    label_loss,
    repeat_targets,
)
from pawmatch.training.recipe import Recipe
from tests.support.training import RECIPE, normalized, train_tiny, write_backbone


def random(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_divergence_is_that_of_the_formula(temperature: float) -> None:
    student, teacher = random(6, 5), random(6, 5).flip(0)
    p, q = softmax(teacher / temperature, dim=-1), softmax(student / temperature, dim=-1)
    expected = temperature**2 * (p * (p / q).log()).sum(dim=1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, temperature), expected)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that tells red from blue."""
    out = tmp_path_factory.mktemp("teacher")
    place = train_tiny(data, out)
    return place


def test_it_sees_the_image_in_its_own_normalization(trained: Path) -> None:
    student = InputSpec(size=32, mean=(0.1, 0.2, 0.3), std=(0.9, 1.0, 1.1))
    checkpoint = load_checkpoint(str(trained))
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    taught = Teacher(str(trained), ("blue", "red"), student).logits(normalized(pixels, student))
    expected = checkpoint.model(normalized(pixels, checkpoint.config.input))
    torch.testing.assert_close(taught, expected, rtol=1e-4, atol=1e-4)
    assert not taught.requires_grad


def test_a_teacher_of_other_classes_is_refused(trained: Path) -> None:
    with pytest.raises(TrainingError, match="knows 1 of the 2 classes; use one that was trained"):
        Teacher(str(trained), ("blue", "green"), InputSpec(size=32))


BREEDS = ("My_Dog", "Collie", "Beagle", "Pug", "Boxer")
SPEC = InputSpec(size=64)


@pytest.fixture(scope="module")
def breeds(tiny_checkpoints: Callable[..., Path]) -> Path:
    """A teacher of Beagle, Border_Collie, Boxer, Collie and Maltese_Dog."""
    return tiny_checkpoints("breed") / "cnn"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of all that ImageNet has, in another normalization."""
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@torch.no_grad()
def test_a_teacher_speaks_of_the_classes_that_it_knows_in_the_students_order(breeds: Path) -> None:
    teacher = Teacher(str(breeds), BREEDS, SPEC)
    assert teacher.classes.tolist() == [1, 2, 4]
    checkpoint = load_checkpoint(str(breeds))
    places = [checkpoint.config.labels.index(label) for label in ("Collie", "Beagle", "Boxer")]
    images = random(4, 3, 64, 64)
    torch.testing.assert_close(teacher.logits(images), checkpoint.model(images)[:, places])


@torch.no_grad()
def test_a_backbone_teaches_by_the_head_it_was_trained_with(backbone: Path) -> None:
    teacher = Teacher(str(backbone), BREEDS, SPEC)
    assert teacher.classes.tolist() == [1, 2, 3, 4]
    it = load_backbone(backbone, "it")
    pixels = torch.rand(4, 3, 64, 64)
    theirs = it.head(it.pooled(normalized(pixels, it.input)))
    places = [imagenet_classes([label])[label] for label in ("Collie", "Beagle", "Pug", "Boxer")]
    taught = teacher.logits(normalized(pixels, SPEC))
    torch.testing.assert_close(taught, theirs[:, places], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_several_teachers_speak_of_the_classes_that_all_of_them_know(breeds: Path, backbone: Path) -> None:
    labels = ("Border_Collie", "Pug", "Boxer", "Beagle")
    both = Teachers([str(breeds), str(backbone)], labels, SPEC)
    assert both.classes.tolist() == [0, 2, 3]
    images = random(4, 3, 64, 64)
    one = Teacher(str(breeds), labels, SPEC).logits(images)
    two = Teacher(str(backbone), labels, SPEC).logits(images)[:, [0, 2, 3]]
    expected = (one.softmax(dim=1) * two.softmax(dim=1)).sqrt()
    torch.testing.assert_close(
        both.logits(images).softmax(dim=1), expected / expected.sum(dim=1, keepdim=True)
    )


def test_teachers_without_two_classes_in_common_are_refused(breeds: Path, trained: Path) -> None:
    labels = ("Beagle", "Boxer", "blue", "red")
    with pytest.raises(TrainingError, match="have 0 of the 4 classes in common; use teachers of the same"):
        Teachers([str(breeds), str(trained)], labels, SPEC)


def test_only_classes_that_the_teacher_knows_are_taught(breeds: Path) -> None:
    """An image of another class counts nothing, and no answer about another class is pulled."""
    teachers = Teachers([str(breeds)], BREEDS, SPEC)
    taught, targets = random(4, 3), torch.tensor([0, 1, 3, 4])  # the first and third are unknown
    logits = random(4, 5).requires_grad_()
    loss = teachers.loss(logits, targets, taught, 2.0)
    expected = distillation_loss(logits[:, [1, 2, 4]], taught, 2.0, torch.tensor([0.0, 1.0, 0.0, 1.0]))
    torch.testing.assert_close(loss, expected)
    known = distillation_loss(logits[[1, 3]][:, [1, 2, 4]], taught[[1, 3]], 2.0)
    torch.testing.assert_close(loss, known / 2)  # the mean is over all images
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[[0, 2]].any()
    assert not gradient[:, [0, 3]].any()
    assert bool((gradient[[1, 3]][:, [1, 2, 4]] != 0).all())


def test_a_mixed_image_counts_by_its_share_of_known_classes(breeds: Path) -> None:
    teachers = Teachers([str(breeds)], BREEDS, SPEC)
    taught, logits = random(2, 3), random(2, 5)
    shares = torch.tensor([[0.3, 0.5, 0.2, 0.0, 0.0], [0.6, 0.0, 0.0, 0.4, 0.0]])
    expected = distillation_loss(logits[:, [1, 2, 4]], taught, 1.0, torch.tensor([0.7, 0.0]))
    torch.testing.assert_close(teachers.loss(logits, shares, taught, 1.0), expected)


def test_variants_together_are_taught_as_each_alone(breeds: Path) -> None:
    teachers = Teachers([str(breeds)], BREEDS, SPEC)
    taught, targets = random(4, 3), torch.tensor([0, 1, 2, 4])
    logits = random(3, 4, 5)
    alone = torch.stack([teachers.loss(one, targets, taught, 2.0) for one in logits])
    torch.testing.assert_close(teachers.loss(logits.flatten(0, 1), targets, taught, 2.0), alone.mean())


def test_a_teacher_is_looked_at_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, distillation=0.5)
    with pytest.raises(PawMatchError, match="nowhere"):
        train_tiny(data, tmp_path / "run", recipe=recipe, teachers=[str(tmp_path / "nowhere")])
    assert not list(tmp_path.iterdir())


def test_the_student_learns_what_only_the_teacher_says(trained: Path, data: Path, tmp_path: Path) -> None:
    """All labels of the training images changed over: whoever listens to the labels gets everything wrong."""
    swapped = tmp_path / "swapped"
    for half, red, blue in (("train", "blue", "red"), ("val", "red", "blue")):
        (swapped / half).mkdir(parents=True)
        (swapped / half / "red").symlink_to(data / half / red)
        (swapped / half / "blue").symlink_to(data / half / blue)
    top1 = {}
    for share in (0.0, 1.0):
        recipe = replace(RECIPE, epochs=12, distillation=share, distillation_temperature=2.0)
        place = train_tiny(
            swapped, tmp_path / f"run{share}", recipe=recipe, teachers=[str(trained)] if share else []
        )
        config = load_checkpoint(str(place)).config
        top1[share] = config.metrics["top1"]
        assert config.training.get("teacher") == (trained.name if share else None)
    assert top1[0.0] < 0.1
    assert top1[1.0] > 0.9


def test_a_recipe_and_its_teacher_come_together(trained: Path, data: Path, tmp_path: Path) -> None:
    listening = replace(RECIPE, distillation=0.5)
    with pytest.raises(TrainingError, match="learns from a teacher; name a checkpoint with --teacher"):
        train_tiny(data, tmp_path, recipe=listening)
    with pytest.raises(TrainingError, match="has no use for a teacher; leave out --teacher"):
        train_tiny(data, tmp_path, teachers=[str(trained)])
    assert not list(tmp_path.iterdir())


def test_another_teacher_does_not_go_on_with_a_run(trained: Path, data: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1, distillation=0.5)
    other = tmp_path / "other"
    shutil.copytree(trained, other)

    def go(teacher: Path) -> None:
        train_tiny(data, tmp_path / "run", recipe=recipe, teachers=[str(teacher)])

    go(trained)
    with pytest.raises(TrainingError, match=f"with teacher {trained.name}, not other; name another --out"):
        go(other)


LOGITS = 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 4, 2, 2, 1, 3])


def test_a_recipe_mixes_if_it_says_so() -> None:
    assert build_mixer(Recipe("r", "breed", "hybrid"), 5) is None
    mixer = build_mixer(Recipe("r", "breed", "hybrid", mixup=0.5, mix_probability=1.0), 5)
    assert mixer is not None
    _, targets = mixer(torch.rand(6, 3, 8, 8), TARGETS)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(6))


def test_targets_are_repeated_for_each_variant() -> None:
    together = torch.zeros(3, 6, 5)
    assert repeat_targets(TARGETS, LOGITS).tolist() == TARGETS.tolist()
    assert repeat_targets(TARGETS, together).tolist() == TARGETS.tolist() * 3
    assert repeat_targets(torch.rand(6, 5), together).shape == (18, 5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_focal_loss_is_that_of_its_formula(smoothing: float) -> None:
    recipe = Recipe("r", "breed", "hybrid", label_smoothing=smoothing)
    logits, targets = random(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    mixed = softmax(random(5, 6).T, dim=-1)
    for aim in (targets, mixed):  # gamma 0 is the plain loss, which is another function
        almost = label_loss(replace(recipe, focal=1e-9))(logits, aim)
        torch.testing.assert_close(label_loss(recipe)(logits, aim), almost)
    p = softmax(logits, dim=-1)[range(6), targets]
    focal = label_loss(replace(recipe, focal=2.0, label_smoothing=0.0))
    torch.testing.assert_close(focal(logits, targets), -((1 - p) ** 2) * p.log())
    sure = torch.tensor([[200.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(focal(sure, torch.tensor([0])).sum(), sure)
    assert gradient.isfinite().all()
