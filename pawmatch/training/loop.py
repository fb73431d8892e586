"""The training loop: one process, a one-cycle schedule, resumable after each epoch."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data.mixup import Mixup
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from timm.optim._optim_factory import create_optimizer_v2
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pawmatch.confidence import calibrated
from pawmatch.errors import TrainingError
from pawmatch.evaluation.metrics import macro_f1, negative_log_likelihood, top_k_accuracy
from pawmatch.preprocess import InputSpec
from pawmatch.training.data import LabelledImages, eval_batches, normalise, train_loader
from pawmatch.training.recipe import Recipe, same_recipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to, averaged over the variants where several train together.

    Rates are shares in [0, 1]; `seconds` counts training and validation.
    """

    number: int
    size: int
    train_loss: float
    val_loss: float
    top1: float
    top5: float
    macro_f1: float
    seconds: float

    def line(self, total: int) -> str:
        """The epoch as the one line that a run prints."""
        return (
            f"epoch {self.number:3d}/{total}  {self.size} px  loss {self.train_loss:.3f}  "
            f"val loss {self.val_loss:.3f}  top-1 {self.top1:6.1%}  top-5 {self.top5:6.1%}  "
            f"macro-F1 {self.macro_f1:6.1%}  {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class Settings:
    """How to run, as against what to train: none of these changes the recipe."""

    device: str = "cpu"
    workers: int = 1
    compile: bool = False
    autocast: str = ""  # "", "bfloat16" or "float16"


def train(
    model: nn.Module,
    recipe: Recipe,
    spec: InputSpec,
    train_data: LabelledImages,
    val_data: LabelledImages,
    run: Path,
    settings: Settings,
    report: Callable[[str], None] = print,
    backgrounds: Sequence[NDArray[np.uint8]] = (),
) -> list[Epoch]:
    """Train `model` in place and return one Epoch per epoch.

    State goes to `run/state.pt` after every epoch; called again with the same recipe, the run goes on
    where it stopped. Raises TrainingError if the state belongs to another recipe or the loss is not finite.
    """
    model.to(settings.device).to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(
        model, opt=recipe.optimizer, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    steps = max(1, len(train_data.images) // recipe.batch_size)
    total_steps = max(4, steps * recipe.epochs + 1)
    schedule = OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=max(recipe.warmup, 2 / total_steps),  # the schedule divides by its first two steps
    )
    averaged = (
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)  # type: ignore[no-untyped-call]
        if recipe.ema
        else None
    )
    history = _resume(run, model, averaged, optimizer, schedule, recipe)
    step_model: Callable[[Tensor], Tensor] = (
        torch.compile(model, dynamic=False) if settings.compile else model
    )
    for epoch in range(len(history), recipe.epochs):
        started = time.monotonic()
        _seed(recipe.seed * 100_003 + epoch)
        loss = _train_epoch(
            model,
            step_model,
            averaged,
            recipe,
            spec,
            train_data,
            epoch,
            optimizer,
            schedule,
            settings,
            backgrounds,
        )
        judged = model if averaged is None else averaged.module
        logits = predict_logits(judged, eval_batches(val_data, spec), settings)
        history.append(
            _score(logits, np.asarray(val_data.targets), epoch + 1, recipe, loss, started)
        )
        report(history[-1].line(recipe.epochs))
        _save_state(run, model, averaged, optimizer, schedule, recipe, history)
    if averaged is not None:
        model.load_state_dict(averaged.module.state_dict())
    return history


def _train_epoch(
    model: nn.Module,
    step_model: Callable[[Tensor], Tensor],
    averaged: AveragedModel | None,
    recipe: Recipe,
    spec: InputSpec,
    data: LabelledImages,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    schedule: OneCycleLR,
    settings: Settings,
    backgrounds: Sequence[NDArray[np.uint8]],
) -> float:
    model.train()
    mix, loss_function = _loss(recipe, len(data.labels))
    total, seen = 0.0, 0
    for images, targets in train_loader(
        data, recipe, epoch=epoch, workers=settings.workers, backgrounds=backgrounds
    ):
        images = normalise(images.to(settings.device), spec)
        targets = targets.to(settings.device)
        if mix is not None and len(images) % 2 == 0:
            images, targets = mix(images, targets)
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(settings):
            logits = step_model(images)  # (N, classes), or (V, N, classes) for variants together
            loss = loss_function(logits.flatten(0, -2), repeat_targets(targets, logits))
        value = loss.item()
        if not np.isfinite(value):
            raise TrainingError(
                f"The loss became {value} in epoch {epoch + 1}; lower learning_rate and start again."
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_gradient)
        optimizer.step()
        schedule.step()
        if averaged is not None:
            averaged.update_parameters(model)
        total += value * len(images)
        seen += len(images)
    return total / max(1, seen)


def _loss(recipe: Recipe, classes: int) -> tuple[Mixup | None, nn.Module]:
    """The batch mixer, if the recipe has one, and the loss that fits its targets."""
    if recipe.mixup or recipe.cutmix:
        mix = Mixup(  # type: ignore[no-untyped-call]
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            prob=recipe.mix_probability,
            label_smoothing=recipe.label_smoothing,
            num_classes=classes,
        )
        return mix, SoftTargetCrossEntropy()  # type: ignore[no-untyped-call]
    return None, nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)


def repeat_targets(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets (N,) or (N, classes), once for each of the V variants in logits (V, N, classes)."""
    copies = logits.shape[0] if logits.ndim == 3 else 1
    return torch.cat([targets] * copies)


def autocast(settings: Settings) -> AbstractContextManager[Any]:
    """The precision context that the settings name; full float32 by default."""
    dtype = getattr(torch, settings.autocast) if settings.autocast else torch.bfloat16
    return torch.autocast(settings.device.partition(":")[0], dtype, enabled=bool(settings.autocast))


@torch.inference_mode()
def predict_logits(
    model: nn.Module, batches: Sequence[Tensor], settings: Settings
) -> NDArray[np.float32]:
    """Logits (N, classes), or (V, N, classes), of prepared batches in evaluation mode and float32."""
    model.eval()
    device = settings.device
    parts = [model(batch.to(device, memory_format=torch.channels_last)).float().cpu() for batch in batches]
    logits: NDArray[np.float32] = torch.cat(parts, dim=-2).numpy()
    return logits


def _score(
    logits: NDArray[np.float32],
    targets: NDArray[np.int64],
    number: int,
    recipe: Recipe,
    loss: float,
    started: float,
) -> Epoch:
    variants = logits.reshape(-1, *logits.shape[-2:])

    def mean(metric: Callable[[NDArray[np.float32]], float]) -> float:
        return float(np.mean([metric(rows) for rows in variants]))

    return Epoch(
        number=number,
        size=recipe.size_at(number - 1),
        train_loss=loss,
        val_loss=mean(lambda rows: negative_log_likelihood(calibrated(rows, 1.0), targets)),
        top1=mean(lambda rows: top_k_accuracy(rows, targets)),
        top5=mean(lambda rows: top_k_accuracy(rows, targets, 5)),
        macro_f1=mean(lambda rows: macro_f1(rows.argmax(axis=1), targets, rows.shape[1])),
        seconds=time.monotonic() - started,
    )


def _seed(seed: int) -> None:
    """Seed every generator that augmentation, mixing and dropout draw from.

    Seeding at the start of each epoch, not once, makes a resumed run equal to one that was not cut.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _save_state(
    run: Path,
    model: nn.Module,
    averaged: AveragedModel | None,
    optimizer: torch.optim.Optimizer,
    schedule: OneCycleLR,
    recipe: Recipe,
    history: list[Epoch],
) -> None:
    """Write the state beside the old one and swap: a kill at any moment leaves a whole file."""
    run.mkdir(parents=True, exist_ok=True)
    state = {
        "averaged": averaged.state_dict() if averaged is not None else None,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "recipe": recipe.to_dict(),
        "history": [vars(epoch) for epoch in history],
    }
    torch.save(state, run / "state.tmp")
    (run / "state.tmp").replace(run / "state.pt")


def _resume(
    run: Path,
    model: nn.Module,
    averaged: AveragedModel | None,
    optimizer: torch.optim.Optimizer,
    schedule: OneCycleLR,
    recipe: Recipe,
) -> list[Epoch]:
    path = run / "state.pt"
    if not path.is_file():
        return []
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not same_recipe(state["recipe"], recipe):
        raise TrainingError(
            f"Folder {run} holds a run of another recipe; name another --out or delete that folder."
        )
    model.load_state_dict(state["model"])
    if averaged is not None:
        averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return [Epoch(**values) for values in state["history"]]
