"""The training loop: epochs of steps, each judged on the validation images, saved and plotted."""

from __future__ import annotations

import csv
import math
import pickle
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize
from tqdm import tqdm

from pawmatch.calibration.apply import tempered
from pawmatch.errors import TrainingError
from pawmatch.images import InputSpec
from pawmatch.metrics import macro_f1, negative_log_likelihood, top_k_accuracy
from pawmatch.training.augment import TrainingBatches, steps_per_epoch
from pawmatch.training.data import Images, ValidationBatches
from pawmatch.training.distill import Teachers, build_mixer, label_loss, repeat_targets
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
from pawmatch.training.optim import Optimization, train_stages, training_mode
from pawmatch.training.recipe import Recipe, same_recipe

CURVE_FILE = "history.csv"
STATE_FILE = "state.pt"
REMEDY = "name another --out, or delete that folder"


@dataclass(frozen=True)
class Settings:
    """How to run, as against what to train: none of these changes the recipe."""

    device: str = "cpu"
    engine: str = "torch"  # what runs the layers that never learn, where their maps are cached
    compile: bool = False
    autocast: str = ""  # "", "bfloat16" or "float16"
    tensorboard: bool = False
    stream: bool = False  # decode images when a batch wants them, and keep none


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to; `train_loss` is None where no step could be taken.

    Measures are of the validation images in one view, averaged over variants that train together; rates are
    shares in [0, 1]. `seconds` counts training and validation; `learning_rate` is the epoch's last one.
    """

    number: int
    size: int
    train_loss: float | None
    val_loss: float
    top1: float
    top5: float
    macro_f1: float
    seconds: float
    learning_rate: float = 0.0
    skipped_steps: int = 0

    def line(self, total: int) -> str:
        """The epoch as the one line that a run prints."""
        skipped = f"  {self.skipped_steps} steps skipped" if self.skipped_steps else ""
        loss = "none" if self.train_loss is None else f"{self.train_loss:.3f}"
        return (
            f"epoch {self.number:3d}/{total}  {self.size} px  loss {loss}  "
            f"val loss {self.val_loss:.3f}  top-1 {self.top1:6.1%}  top-5 {self.top5:6.1%}  "
            f"macro-F1 {self.macro_f1:6.1%}  {self.seconds:.0f} s{skipped}"
        )


def score(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> dict[str, float]:
    """The measures of an Epoch for logits (N, classes), or (V, N, classes) of V variants."""
    variants = logits.reshape(-1, *logits.shape[-2:])

    def mean(metric: Callable[[NDArray[np.float32]], float]) -> float:
        return float(np.mean([metric(rows) for rows in variants]))

    return {
        "val_loss": mean(lambda rows: negative_log_likelihood(tempered(rows, 1.0), targets)),
        "top1": mean(lambda rows: top_k_accuracy(rows, targets)),
        "top5": mean(lambda rows: top_k_accuracy(rows, targets, 5)),
        "macro_f1": mean(lambda rows: macro_f1(rows.argmax(axis=1), targets, rows.shape[1])),
    }


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch with the lowest validation loss, the first of equals."""
    return min(history, key=lambda epoch: epoch.val_loss)


def stopped_early(history: Sequence[Epoch], recipe: Recipe) -> bool:
    """Whether the validation loss has not fallen for as many epochs as the recipe's patience."""
    waited = len(history) - best_epoch(history).number if history else 0
    return bool(recipe.patience) and waited >= recipe.patience and len(history) < recipe.epochs


def write_curve(history: Sequence[Any], folder: Path) -> None:
    """Write the history, dataclasses of one kind, as a table, one row per epoch, for whoever draws it."""
    with (folder / CURVE_FILE).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [entry.name for entry in fields(history[0])])
        table.writeheader()
        table.writerows(asdict(epoch) for epoch in history)


@contextmanager
def tensorboard(
    folder: Path, *, done: int, report: Callable[[str], None]
) -> Iterator[Callable[[Epoch], None]]:
    """Give what plots an epoch into `folder`; a resumed run goes on after its `done` epochs.

    Without the package, says so once and plots nothing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        report("no scalars are written: TensorBoard is missing; pip install tensorboard")
        yield lambda epoch: None
        return

    def plot(epoch: Epoch) -> None:
        for name, value in asdict(epoch).items():
            if name != "number" and value is not None:
                writer.add_scalar(name, value, epoch.number)
        writer.flush()

    # Whatever a killed run had plotted after its last whole epoch is hidden.
    with SummaryWriter(str(folder), purge_step=done + 1 if done else None) as writer:
        yield plot


def train(
    model: nn.Module,
    recipe: Recipe,
    spec: InputSpec,
    images: Images,
    run: Path,
    settings: Settings,
    report: Callable[[str], None] = print,
    *,
    backgrounds: Sequence[NDArray[np.uint8]] = (),
    identity: Mapping[str, str] | None = None,
    teachers: Teachers | None = None,
) -> list[Epoch]:
    """Train `model` in place and return one Epoch per epoch.

    State and curve go to `run` after every epoch; called again with the same recipe, the run goes on where
    it stopped. In the end the model has the weights of the last epoch, averaged if the recipe says so, or
    those of the best epoch. Raises TrainingError if the state is of another run, and where the loss is no
    finite number any more.
    """
    if rank() != 0:
        report = silent
    model.to(settings.device).to(memory_format=torch.channels_last)
    torch.set_float32_matmul_precision("high")  # TensorFloat-32 on a GPU, as convolutions have it by default
    run.mkdir(parents=True, exist_ok=True)
    steps = steps_per_epoch(len(images.train.images), recipe) * recipe.epochs
    optimization = Optimization(
        model, recipe, steps=steps, device=settings.device, precision=settings.autocast
    )
    state = RunState(run, recipe, identity or {}, model, optimization)
    history: list[Epoch] = state.resume()
    batches = TrainingBatches(images.train, recipe, settings.device, backgrounds)
    held_out: Sequence[Tensor] = ValidationBatches(images.val, spec)
    cache = None
    if recipe.cached_views:
        cache = FeatureCache(
            model,
            batches,
            recipe,
            spec,
            teachers,
            run.parent / "cached_views",
            engine=settings.engine,
            device=settings.device,
            report=report,
        )
        held_out = cache.maps_of(held_out)
    runner = _Runner(model, optimization, recipe, spec, settings, report, batches, cache, teachers)
    plotting = tensorboard(run / "tensorboard", done=len(history), report=report)
    with plotting if settings.tensorboard and rank() == 0 else nullcontext(lambda _: None) as plot:
        while len(history) < recipe.epochs and not stopped_early(history, recipe):
            started, index = time.monotonic(), len(history)
            loss, skipped = runner.epoch(index)
            judged = optimization.judged if cache is None else cache.heads(optimization.judged)
            scores = score(
                validation_logits(judged, held_out, settings.device), np.asarray(images.val.targets)
            )
            # With float16, the first steps of a run may find no scale.
            stuck = loss is None and (settings.autocast != "float16" or index == recipe.epochs - 1)
            if stuck or not math.isfinite(scores["val_loss"]):
                raise TrainingError(
                    f"The loss is no finite number any more in epoch {index + 1}; lower learning_rate and "
                    "start again with another --out."
                )
            epoch = Epoch(
                number=index + 1,
                size=recipe.size_at(index),
                train_loss=loss,
                seconds=time.monotonic() - started,
                learning_rate=optimization.learning_rate,
                skipped_steps=skipped,
                **scores,
            )
            history.append(epoch)
            if recipe.keep_best and best_epoch(history) is epoch:
                state.best = copied(optimization.judged)
            report(epoch.line(recipe.epochs))
            if rank() == 0:
                plot(epoch)
                write_curve(history, run)
                state.save(history)
    if recipe.keep_best and state.best is not None:
        model.load_state_dict(state.best)
    elif optimization.averaged is not None:
        model.load_state_dict(optimization.judged.state_dict())
    model.requires_grad_(True)
    return history


@dataclass
class _Runner:
    """Runs single epochs of one training run."""

    model: nn.Module
    optimization: Optimization
    recipe: Recipe
    spec: InputSpec
    settings: Settings
    report: Callable[[str], None]
    batches: TrainingBatches
    cache: FeatureCache | None
    teachers: Teachers | None
    learning: tuple[int, int] | None = field(default=None, init=False)  # stages that learn, of how many

    def __post_init__(self) -> None:
        self.loss = label_loss(self.recipe)
        self.mixer = build_mixer(self.recipe, len(self.batches.labels))
        self.step_model: Callable[[Tensor], Tensor] = self.model

    def epoch(self, index: int) -> tuple[float | None, int]:
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
        if self.optimization.averaged is not None:
            average_statistics(self.optimization.averaged.module)
        parts = gathered([(total, seen)])
        everything = sum(part[1] for part in parts)
        return sum(part[0] for part in parts) / everything if everything else None, skipped

    def _step(self, batch: tuple[Tensor, Tensor] | CachedBatch) -> tuple[float, bool, int]:
        """One step; gives the loss, whether it was taken, and the number of images."""
        taught: Tensor | None = None
        if isinstance(batch, CachedBatch):
            inputs, targets, taught = batch.maps, batch.targets, batch.taught
        else:
            views, targets = batch
            inputs = normalize(views, list(self.spec.mean), list(self.spec.std))
            if self.mixer is not None and len(inputs) % 2 == 0:
                inputs, targets = self.mixer(inputs, targets)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self.optimization.autocast():
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
        return loss.item(), self.optimization.step(loss * variants), len(inputs)

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
def validation_logits(model: nn.Module, batches: Sequence[Tensor], device: str) -> NDArray[np.float32]:
    """Logits (N, classes), or (V, N, classes), of one view of each validation image, to follow a run by.

    Batches may be images or cached maps. What a checkpoint states is measured by the classifier itself, in
    all views. Processes that share the run share the batches, and each gets all logits.
    """
    model.eval()
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


class RunState:
    """Reads and writes the state of one run after an epoch: cut at any moment, the run goes on from it.

    `identity` says what the run is of beside its recipe: its variant and a code of its images.
    """

    def __init__(
        self,
        run: Path,
        recipe: Recipe,
        identity: Mapping[str, str],
        model: nn.Module,
        optimization: Optimization,
        *,
        entry: Callable[..., Any] = Epoch,
    ) -> None:
        self.entry = entry  # the dataclass of the history
        self.run, self.recipe, self.identity = run, recipe, dict(identity)
        self.model, self.optimization = model, optimization
        self.best: dict[str, Tensor] | None = None  # of the best epoch so far, if the recipe keeps them

    def save(self, history: Sequence[Any]) -> None:
        """Write the state beside the old one and swap: a kill at any moment leaves a whole file."""
        state = {
            "model": self.model.state_dict(),
            **self.optimization.state_dict(),
            "best": self.best,
            "recipe": self.recipe.to_dict(),
            "identity": self.identity,
            "history": [asdict(epoch) for epoch in history],
        }
        temporary = self.run / "state.tmp"
        try:
            with temporary.open("wb") as file:  # given a name, torch hides what the system said
                torch.save(state, file)
            temporary.replace(self.run / STATE_FILE)
        finally:
            temporary.unlink(missing_ok=True)

    def resume(self) -> list[Any]:
        """Load the state if there is one, and give the epochs that are done.

        Raises TrainingError if it is of another recipe, variant or set of images, or cannot be read.
        """
        path = self.run / STATE_FILE
        if not path.is_file():
            return []
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self._check(state)
            self.model.load_state_dict(state["model"])
            self.optimization.load_state_dict(state)
            self.best = state["best"]
            return [self.entry(**values) for values in state["history"]]
        except (
            RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError
        ) as exc:  # fmt: skip
            raise TrainingError(f"The state of the run in {self.run} cannot be read; {REMEDY}.") from exc

    def _check(self, state: Any) -> None:
        if not same_recipe(state["recipe"], self.recipe):
            raise TrainingError(f"Folder {self.run} holds a run of another recipe; {REMEDY}.")
        for key, words in (
            ("variant", "of variant {}, not {}"),
            ("backbone", "of {}, not {}"),
            ("data", "on other images"),
            ("teacher", "with teacher {}, not {}"),
        ):
            theirs, ours = state["identity"].get(key), self.identity.get(key)
            if theirs is not None and ours is not None and theirs != ours:
                said = words.format(theirs, ours)
                raise TrainingError(f"Folder {self.run} holds a run {said}; {REMEDY}.")


def copied(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors as they are now, in memory of their own on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
