"""The training loop: epochs of steps, each epoch judged on the validation images and then saved."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from pawmatch.preprocess import InputSpec
from pawmatch.training.batches import TrainingBatches, normalise, steps_per_epoch
from pawmatch.training.curves import tensorboard
from pawmatch.training.data import LabelledImages, eval_batches
from pawmatch.training.distributed import (
    average_statistics,
    gathered,
    in_parallel,
    rank,
    share,
    silent,
    world,
)
from pawmatch.training.feature_cache import CachedBatch, FeatureCache
from pawmatch.training.history import Epoch, best_epoch, finished, score, write_curve
from pawmatch.training.losses import build_loss, build_mixer, repeat_targets
from pawmatch.training.optimisation import Optimisation
from pawmatch.training.recipe import Recipe
from pawmatch.training.state import RunState, copied
from pawmatch.training.teacher import Teachers
from pawmatch.training.unfreezing import train_stages, training_mode


@dataclass(frozen=True)
class Settings:
    """How to run, as against what to train: none of these changes the recipe."""

    device: str = "cpu"
    engine: str = "torch"  # what runs the layers that never learn, where their maps are cached
    compile: bool = False
    autocast: str = ""  # "", "bfloat16" or "float16"
    tensorboard: bool = False


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
    identity: Mapping[str, str] | None = None,
    teachers: Teachers | None = None,
) -> list[Epoch]:
    """Train `model` in place and return one Epoch per epoch.

    State and curve go to `run` after every epoch; called again with the same recipe, the run goes on where
    it stopped. In the end the model has the weights of the last epoch, averaged if the recipe says so, or
    those of the best epoch. Raises TrainingError if the state is of another run, or if steps in a row have
    no finite gradients.
    """
    if rank() != 0:
        report = silent
    model.to(settings.device).to(memory_format=torch.channels_last)
    torch.set_float32_matmul_precision("high")  # TensorFloat-32 on a GPU, as convolutions have it by default
    run.mkdir(parents=True, exist_ok=True)
    steps = steps_per_epoch(len(train_data.images), recipe) * recipe.epochs
    optimisation = Optimisation(
        model, recipe, steps=steps, device=settings.device, precision=settings.autocast
    )
    state = RunState(run, recipe, identity or {}, model, optimisation)
    history = state.resume()
    runner = _Runner(
        model, optimisation, recipe, spec, train_data, settings, backgrounds, report, teachers, run
    )
    held_out = eval_batches(val_data, spec)
    if runner.cache is not None:
        held_out = runner.cache.maps_of(held_out)
    plotting = settings.tensorboard and rank() == 0
    with (
        tensorboard(run / "tensorboard", done=len(history), report=report)
        if plotting
        else nullcontext(lambda _: None)
    ) as plot:
        while not finished(history, recipe):
            started = time.monotonic()
            number = len(history) + 1
            loss, skipped = runner.epoch(number - 1)
            judged = optimisation.judged
            if runner.cache is not None:
                judged = runner.cache.heads(judged)
            logits = predict_logits(judged, held_out, settings)
            scores = score(logits, np.asarray(val_data.targets))
            history.append(
                Epoch(
                    number=number,
                    size=recipe.size_at(number - 1),
                    train_loss=loss,
                    seconds=time.monotonic() - started,
                    learning_rate=optimisation.learning_rate,
                    skipped_steps=skipped,
                    **asdict(scores),
                )
            )
            if recipe.keep_best and best_epoch(history).number == number:
                state.best = copied(optimisation.judged)
            report(history[-1].line(recipe.epochs))
            if rank() == 0:
                plot(history[-1])
                write_curve(history, run)
                state.save(history)
    if recipe.keep_best and state.best is not None:
        model.load_state_dict(state.best)
    elif optimisation.averaged is not None:
        model.load_state_dict(optimisation.judged.state_dict())
    model.requires_grad_(True)
    return history


class _Runner:
    """Runs single epochs of one training run."""

    def __init__(
        self,
        model: nn.Module,
        optimisation: Optimisation,
        recipe: Recipe,
        spec: InputSpec,
        data: LabelledImages,
        settings: Settings,
        backgrounds: Sequence[NDArray[np.uint8]],
        report: Callable[[str], None],
        teachers: Teachers | None,
        run: Path,
    ) -> None:
        self.model, self.optimisation, self.recipe, self.spec = model, optimisation, recipe, spec
        self.settings, self.report = settings, report
        self.batches = TrainingBatches(data, recipe, settings.device, backgrounds)
        self.cache: FeatureCache | None = None
        if recipe.cached_views:
            self.cache = FeatureCache(
                model,
                self.batches,
                recipe,
                spec,
                teachers,
                run.parent / "cached_views",
                engine=settings.engine,
                device=settings.device,
                report=report,
            )
        self.loss = build_loss(recipe)
        self.teachers = teachers
        self.mixer = build_mixer(recipe, len(data.labels))
        self.learning: tuple[int, int] | None = None  # stages that learn, of how many
        self.step_model: Callable[[Tensor], Tensor] = model

    def epoch(self, index: int) -> tuple[float, int]:
        """Run epoch `index`, counted from 0; gives the mean loss and the number of steps skipped."""
        _seed(self.recipe.seed * 100_003 + index)
        self._thaw(index)
        training_mode(self.model)
        total, seen, skipped = 0.0, 0, 0
        sharing = {"rank": rank(), "world": world()}
        batches: Iterable[tuple[Tensor, Tensor] | CachedBatch] = self.batches.epoch(index, **sharing)
        if self.cache is not None:
            batches = self.cache.epoch(self.batches.order(index, **sharing), index)
        title = f"epoch {index + 1}/{self.recipe.epochs}"
        # disable=None: a bar on a terminal, nothing in a file
        for batch in tqdm(batches, title, leave=False, unit="batch", disable=None if rank() == 0 else True):
            value, stepped, count = self._step(batch)
            if stepped:
                total += value * count
                seen += count
            skipped += not stepped
        average_statistics(self.model)
        if self.optimisation.averaged is not None:
            average_statistics(self.optimisation.averaged.module)
        parts = gathered([(total, seen)])
        return sum(part[0] for part in parts) / max(1, sum(part[1] for part in parts)), skipped

    def _step(self, batch: tuple[Tensor, Tensor] | CachedBatch) -> tuple[float, bool, int]:
        """One step; gives the loss, whether it was taken, and the number of images."""
        taught: Tensor | None = None
        if isinstance(batch, CachedBatch):
            inputs, targets, taught = batch.maps, batch.targets, batch.taught
        else:
            views, targets = batch
            inputs = normalise(views, self.spec)
            if self.mixer is not None and len(inputs) % 2 == 0:
                inputs, targets = self.mixer(inputs, targets)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self.optimisation.autocast():
            logits = self.step_model(inputs)  # (N, classes), or (V, N, classes) for variants together
            rows = logits.flatten(0, -2)
            variants = len(rows) // len(inputs)
            own = self.loss(rows, repeat_targets(targets, logits))
            loss = own.mean()
            if self.teachers is not None:
                if taught is None:
                    taught = self.teachers.logits(inputs)
                # Labels have all of the loss for classes that no teacher knows.
                share = self.recipe.distillation
                left = 1 - share * self.teachers.known_share(targets, rows.shape[-1]).repeat(variants)
                further = self.teachers.loss(rows, targets, taught, self.recipe.distillation_temperature)
                loss = (left * own).mean() + share * further
        # Variants together count as much as each would alone: the loss is a mean over them too.
        return loss.item(), self.optimisation.step(loss * variants), len(inputs)

    def _thaw(self, index: int) -> None:
        """Freeze and thaw stages as the recipe says; where that changes, wrap the model anew."""
        learning = train_stages(self.model, self.recipe.stages_at(index))
        if learning == self.learning:
            return
        if self.recipe.unfreeze:
            last, count = learning
            self.report(f"from epoch {index + 1} on, the last {last} of {count} backbone stages learn")
        self.learning = learning
        stepped = self.model if self.cache is None else self.cache.heads(self.model)
        parallel = in_parallel(stepped)
        self.step_model = torch.compile(parallel, dynamic=False) if self.settings.compile else parallel


@torch.inference_mode()
def predict_logits(model: nn.Module, batches: Sequence[Tensor], settings: Settings) -> NDArray[np.float32]:
    """Logits (N, classes), or (V, N, classes), of prepared batches in evaluation mode and float32.

    Processes that share the run share the batches, and each gets all logits.
    """
    model.eval()
    device = settings.device
    mine = [
        model(batch.to(device, memory_format=torch.channels_last)).float().cpu().numpy()
        for batch in share(batches)
    ]
    logits: NDArray[np.float32] = np.concatenate(gathered(mine), axis=-2)
    return logits


def _seed(seed: int) -> None:
    """Seed every generator that augmentation, mixing and dropout draw from, in each process on its own.

    Seeding at the start of each epoch, not once, makes a resumed run equal to one that was not cut.
    """
    seed += 7_777_777 * rank()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
