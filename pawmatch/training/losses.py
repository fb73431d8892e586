"""What is minimised: cross-entropy or focal loss, on mixed images or plain ones."""

from __future__ import annotations

from timm.data.mixup import Mixup
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot

from pawmatch.training.recipe import Recipe


class FocalLoss(nn.Module):
    """Cross-entropy that counts an image less the surer the model is of it (Lin et al. 2017, equation 4).

    logits (N, C); targets are class indices (N,) or shares (N, C), as mixing gives them: each class's
    part of the cross-entropy, t * -log p, is weighted by (1 - p) ** gamma. Gives each image's loss (N,).
    """

    def __init__(self, gamma: float, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        classes = logits.shape[-1]
        if targets.ndim == 1:
            targets = one_hot(targets, classes)
        targets = targets * (1 - self.label_smoothing) + self.label_smoothing / classes
        log_p = log_softmax(logits.float(), dim=-1)
        # exp may round to just above 1, and a negative base has no fractional power
        weight = (1 - log_p.exp()).clamp(min=0) ** self.gamma
        return -(targets * weight * log_p).sum(dim=-1)


def build_loss(recipe: Recipe) -> nn.Module:
    """The recipe's loss of each image (N,), for targets as indices (N,) or as shares (N, C)."""
    if recipe.focal_gamma:
        return FocalLoss(recipe.focal_gamma, recipe.label_smoothing)
    return nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing, reduction="none")


def build_mixer(recipe: Recipe, classes: int) -> Mixup | None:
    """What mixes a batch by mixup and CutMix, if the recipe has either; it needs batches of even size."""
    if not (recipe.mixup or recipe.cutmix):
        return None
    return Mixup(  # type: ignore[no-untyped-call]
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mix_probability,
        label_smoothing=0.0,  # the loss smooths
        num_classes=classes,
    )


def repeat_targets(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets (N,) or (N, classes), once for each of the V variants in logits (V, N, classes)."""
    copies = logits.shape[0] if logits.ndim == 3 else 1
    return targets.repeat(copies, *[1] * (targets.ndim - 1))
