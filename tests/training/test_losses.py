"""Focal loss against timm's, soft targets against cross-entropy, mixing."""

import pytest
import torch
from timm.loss.asymmetric_loss import AsymmetricLossSingleLabel
from torch import nn

from pawmatch.training.distill import FocalLoss, build_loss, build_mixer, repeat_targets
from pawmatch.training.recipe import Recipe

LOGITS = 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 4, 2, 2, 1, 3])


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_equals_timms_for_hard_targets(gamma: float) -> None:
    theirs = AsymmetricLossSingleLabel(gamma_pos=gamma, gamma_neg=0, eps=0.0)
    torch.testing.assert_close(FocalLoss(gamma)(LOGITS, TARGETS).mean(), theirs(LOGITS, TARGETS))


def test_without_focus_it_is_cross_entropy_for_hard_and_soft_targets() -> None:
    shares = LOGITS.flip(0).softmax(dim=-1)
    for targets in (TARGETS, shares):
        for smoothing in (0.0, 0.1):
            plain = nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")(LOGITS, targets)
            torch.testing.assert_close(FocalLoss(0.0, smoothing)(LOGITS, targets), plain)


def test_a_sure_answer_has_a_finite_gradient() -> None:
    logits = torch.tensor([[60.0, -60.0]], requires_grad=True)
    loss = FocalLoss(0.5)(logits, torch.tensor([0]))
    loss.sum().backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_recipe_chooses() -> None:
    assert isinstance(build_loss(Recipe("r", "breed", "hybrid")), nn.CrossEntropyLoss)
    assert isinstance(build_loss(Recipe("r", "breed", "hybrid", focal_gamma=2.0)), FocalLoss)
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
