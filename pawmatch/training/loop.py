"""The training loop: epochs of steps, each judged on the validation images, saved and plotted."""

from __future__ import annotations

import csv
import math
import pickle
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from pawmatch.calibration.apply import tempered
from pawmatch.errors import TrainingError
from pawmatch.images import InputSpec
from pawmatch.metrics import macro_f1, negative_log_likelihood, top_k_accuracy
from pawmatch.training.augment import TrainingBatches, normalise, steps_per_epoch
from pawmatch.training.data import LabelledImages, eval_batches
from pawmatch.training.distill import Teachers, build_loss, build_mixer, repeat_targets
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
from pawmatch.training.optim import Optimisation, train_stages, training_mode
from pawmatch.training.recipe import Recipe, same_recipe

CURVE_FILE = "history.csv"


@dataclass(frozen=True)
class Scores:
    """Measures on the validation images, averaged over the variants where several train together.

    Rates are shares in [0, 1].
    """

    val_loss: float
    top1: float
    top5: float
    macro_f1: float


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. `seconds` counts training and validation; `learning_rate` is its last one."""

    number: int
    size: int
    train_loss: float
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
        return (
            f"epoch {self.number:3d}/{total}  {self.size} px  loss {self.train_loss:.3f}  "
            f"val loss {self.val_loss:.3f}  top-1 {self.top1:6.1%}  top-5 {self.top5:6.1%}  "
            f"macro-F1 {self.macro_f1:6.1%}  {self.seconds:.0f} s{skipped}"
        )


def score(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> Scores:
    """Scores of logits (N, classes), or (V, N, classes) for V variants."""
    variants = logits.reshape(-1, *logits.shape[-2:])

    def mean(metric: Callable[[NDArray[np.float32]], float]) -> float:
        return float(np.mean([metric(rows) for rows in variants]))

    return Scores(
        val_loss=mean(lambda rows: negative_log_likelihood(tempered(rows, 1.0), targets)),
        top1=mean(lambda rows: top_k_accuracy(rows, targets)),
        top5=mean(lambda rows: top_k_accuracy(rows, targets, 5)),
        macro_f1=mean(lambda rows: macro_f1(rows.argmax(axis=1), targets, rows.shape[1])),
    )


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch with the lowest validation loss, the first of equals; one that is no number is no best."""
    return min(history, key=lambda epoch: math.inf if math.isnan(epoch.val_loss) else epoch.val_loss)


def stopped_early(history: Sequence[Epoch], recipe: Recipe) -> bool:
    """Whether the validation loss has not fallen for as many epochs as the recipe's patience."""
    waited = len(history) - best_epoch(history).number if history else 0
    return bool(recipe.patience) and waited >= recipe.patience and len(history) < recipe.epochs


def finished(history: Sequence[Epoch], recipe: Recipe) -> bool:
    """Whether the run has had its epochs, or has stopped early."""
    return len(history) >= recipe.epochs or stopped_early(history, recipe)


def write_curve(history: Sequence[Epoch], folder: Path) -> None:
    """Write the history as a table, one row per epoch, for whoever draws it."""
    with (folder / CURVE_FILE).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [entry.name for entry in fields(Epoch)])
        table.writeheader()
        table.writerows(asdict(epoch) for epoch in history)


SCALARS = {
    "loss/train": "train_loss",
    "loss/validation": "val_loss",
    "validation/top1": "top1",
    "validation/top5": "top5",
    "validation/macro_f1": "macro_f1",
    "training/learning_rate": "learning_rate",
    "training/image_size": "size",
    "training/skipped_steps": "skipped_steps",
    "training/seconds": "seconds",
}


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
    # Whatever a killed run had plotted after its last whole epoch is hidden.
    writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)

    def plot(epoch: Epoch) -> None:
        values = asdict(epoch)
        for name, key in SCALARS.items():
            writer.add_scalar(name, values[key], epoch.number)
        writer.flush()

    try:
        yield plot
    finally:
        writer.close()


STATE_FILE = "state.pt"
REMEDY = "name another --out, or delete that folder"
Weights = dict[str, Tensor]


class RunState:
    """Reads and writes the state file of one run.

    `identity` says what the run is of beside its recipe: its variant and a code of its images.
    """

    def __init__(
        self,
        run: Path,
        recipe: Recipe,
        identity: Mapping[str, str],
        model: nn.Module,
        optimisation: Optimisation,
    ) -> None:
        self.run, self.recipe, self.identity = run, recipe, dict(identity)
        self.model, self.optimisation = model, optimisation
        self.best: Weights | None = None  # of the best epoch so far, if the recipe keeps them

    def save(self, history: list[Epoch]) -> None:
        """Write the state beside the old one and swap: a kill at any moment leaves a whole file."""
        state = {
            "model": self.model.state_dict(),
            **self.optimisation.state_dict(),
            "best": self.best,
            "recipe": self.recipe.to_dict(),
            "identity": self.identity,
            "history": [asdict(epoch) for epoch in history],
        }
        temporary = self.run / "state.tmp"
        torch.save(state, temporary)
        temporary.replace(self.run / STATE_FILE)

    def resume(self) -> list[Epoch]:
        """Load the state if there is one, and give the epochs that are done.

        Raises TrainingError if it is of another recipe, variant or set of images, or cannot be read.
        """
        path = self.run / STATE_FILE
        if not path.is_file():
            return []
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as exc:
            raise TrainingError(f"The state of the run in {self.run} cannot be read; {REMEDY}.") from exc
        self._check(state)
        try:
            self.model.load_state_dict(state["model"])
            self.optimisation.load_state_dict(state)
            self.best = state.get("best")
            return [Epoch(**values) for values in state["history"]]
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise TrainingError(
                f"Folder {self.run} holds a run of another variant or number of classes; {REMEDY}."
            ) from exc

    def _check(self, state: Any) -> None:
        if not isinstance(state, dict) or not isinstance(state.get("recipe"), dict):
            raise TrainingError(f"The state of the run in {self.run} cannot be read; {REMEDY}.")
        if not same_recipe(state["recipe"], self.recipe):
            raise TrainingError(f"Folder {self.run} holds a run of another recipe; {REMEDY}.")
        saved = state.get("identity", {})
        for key, words in (
            ("variant", "of variant {}, not {}"),
            ("data", "on other images"),
            ("teacher", "with teacher {}, not {}"),
        ):
            theirs, ours = saved.get(key), self.identity.get(key)
            if theirs is not None and ours is not None and theirs != ours:
                said = words.format(theirs, ours)
                raise TrainingError(f"Folder {self.run} holds a run {said}; {REMEDY}.")


def copied(model: nn.Module) -> Weights:
    """The model's tensors as they are now, in memory of their own on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


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
