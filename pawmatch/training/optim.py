"""Optimization: which stages learn, variants on a shared backbone, precision, schedule, averaging."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import torch
from timm.models._manipulate import group_with_matcher
from timm.optim._optim_factory import create_optimizer_v2
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pawmatch.errors import TrainingError
from pawmatch.models import ImageModel
from pawmatch.training.recipe import Recipe


class Together(nn.Module):
    """Several variants whose `forward_features` is one and the same module.

    They see the same batches under the same schedule, and differ in their heads alone.
    """

    def __init__(self, models: Mapping[str, ImageModel]) -> None:
        super().__init__()
        first = next(iter(models.values()))
        for model in models.values():
            setattr(model, model.features_module, getattr(first, first.features_module))
        self.models = nn.ModuleDict(models)

    def variants(self) -> dict[str, ImageModel]:
        """The variants by name; they share the feature extractor's tensors."""
        return {name: model for name, model in self.models.items() if isinstance(model, ImageModel)}

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (V, N, classes), one row of the first axis per variant."""
        models = list(self.variants().values())
        feature_map = models[0].forward_features(images)
        return torch.stack([model.forward_head(feature_map) for model in models])


def first_member(model: nn.Module) -> ImageModel:
    """A model itself, or the first of variants together."""
    member = next(iter(model.variants().values())) if isinstance(model, Together) else model
    assert isinstance(member, ImageModel)
    return member


def stages(features: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of a feature extractor, stage by stage from the image on.

    timm knows the stages of its networks; those of a plain sequence are its members. What timm counts to
    no stage, such as a last norm, belongs to the head and is left out.
    """
    matcher = getattr(features, "group_matcher", None)
    if matcher is None:
        return [list(child.parameters()) for child in features.children()]
    nowhere = ("-", None)  # falls into the group of what matches no stage
    named = chain(features.named_parameters(), [nowhere])
    groups = group_with_matcher(named, matcher(coarse=True), return_values=True)
    return [group for _, group in sorted(groups.items()) if None not in group]


def train_stages(model: nn.Module, count: int | None) -> tuple[int, int]:
    """Let the last `count` stages of the feature extractor learn, None for all; the head always does.

    Returns how many learn, of how many.
    """
    everything = stages(first_member(model).features())
    learning = len(everything) if count is None else min(count, len(everything))
    model.requires_grad_(True)
    for group in everything[: len(everything) - learning]:
        for parameter in group:
            parameter.requires_grad_(False)
    return learning, len(everything)


def training_mode(model: nn.Module) -> None:
    """Set training mode, except for frozen modules: their BatchNorm statistics stay as they are."""
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.training = False  # this module alone, not what is in it


MAX_SKIPPED = 10  # steps in a row; scaling float16 losses takes fewer to find its scale


class Optimization:
    """Optimizer, learning rate schedule, loss scaling and averaged weights of one model."""

    def __init__(
        self, model: nn.Module, recipe: Recipe, *, steps: int, device: str = "cpu", precision: str = ""
    ) -> None:
        self.model = model
        self.kind = device.partition(":")[0]
        self.precision = precision
        self.clip = recipe.clip_gradient or math.inf
        try:
            self.optimizer: torch.optim.Optimizer = create_optimizer_v2(
                model, opt=recipe.optimizer, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
            )
        except ValueError as exc:  # timm knows the names
            raise TrainingError(f"Recipe key 'optimizer' is {recipe.optimizer!r}; use adamw or sgd.") from exc
        self.schedule = build_schedule(self.optimizer, recipe, steps)
        # float16 alone has too small a range for gradients.
        self.scaler = torch.amp.GradScaler(self.kind, enabled=precision == "float16")
        self.averaged = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)  # type: ignore[no-untyped-call]
            if recipe.ema
            else None
        )
        self.skipped_in_a_row = 0
        self._groups = clipped_apart(model)
        self._buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._kept = [buffer.clone() for buffer in self._buffers]

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def judged(self) -> nn.Module:
        """The model whose weights count: the averaged one, if there is one."""
        return self.model if self.averaged is None else self.averaged.module

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the forward pass; entering it begins a step."""
        if self._buffers:  # networks without BatchNorm have none
            torch._foreach_copy_(self._kept, self._buffers)
        dtype = getattr(torch, self.precision) if self.precision else torch.bfloat16
        return torch.autocast(self.kind, dtype, enabled=bool(self.precision))

    def step(self, loss: Tensor) -> bool:
        """Go one step down the loss, or skip it and return False where a gradient is no finite number.

        Processes that share the run agree without asking: they see the same averaged gradients. Raises
        TrainingError after MAX_SKIPPED skips in a row.
        """
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        learning = [[p for p in group if p.grad is not None] for group in self._groups]
        norms = [nn.utils.clip_grad_norm_(group, self.clip) for group in learning if group]
        finite = bool(torch.stack(norms).isfinite().all())
        if finite:
            self.scaler.step(self.optimizer)
            self.schedule.step()
            if self.averaged is not None:
                self.averaged.update_parameters(self.model)
            self.skipped_in_a_row = 0
        else:
            self._skip()
        self.scaler.update()
        return finite

    def _skip(self) -> None:
        self.skipped_in_a_row += 1
        # The forward pass has taken what overflowed into BatchNorm's running statistics, for good.
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            buffer.copy_(kept)
        if self.skipped_in_a_row >= MAX_SKIPPED:
            raise TrainingError(
                f"The gradients of {MAX_SKIPPED} steps in a row are no finite numbers; "
                "lower learning_rate and start again."
            )

    def state_dict(self) -> dict[str, Any]:
        """All but the model's own weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        if state["scaler"]:  # empty after a part of the run in another precision
            self.scaler.load_state_dict(state["scaler"])
        self.skipped_in_a_row = state["skipped_in_a_row"]


def clipped_apart(model: nn.Module) -> list[list[nn.Parameter]]:
    """Parameters whose gradients are clipped together: one model's, or of several each one's own.

    What variants share is a group of its own, so that on a frozen backbone none changes what another learns.
    """
    if not isinstance(model, Together):
        return [list(model.parameters())]
    shared = list(first_member(model).features().parameters())
    known = {id(parameter) for parameter in shared}
    own = [[p for p in member.parameters() if id(p) not in known] for member in model.variants().values()]
    return [group for group in (shared, *own) if group]


def build_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    """The learning rate over all `steps` of a run."""
    if recipe.schedule == "constant":
        return LambdaLR(optimizer, lambda _: 1.0)
    total = max(4, steps + 1)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total,
        pct_start=max(recipe.warmup, 2 / total),  # the schedule divides by its first two steps
    )
