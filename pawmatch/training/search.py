"""A search: trains every trial of a study, one after another, and puts them into one table."""

from __future__ import annotations

import json
import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState
from torch import Tensor

from pawmatch.checkpoint import load_checkpoint, save_checkpoint
from pawmatch.checkpoint.config import CONFIG_FILE
from pawmatch.classifier import load
from pawmatch.errors import ImageError, PawMatchError, TrainingError
from pawmatch.evaluation.faithfulness import measure_faithfulness, spread
from pawmatch.evaluation.folders import labelled_files
from pawmatch.images import InputSpec, read_image
from pawmatch.models import VARIANTS, ImageModel, build_model
from pawmatch.training.loop import Settings
from pawmatch.training.recipe import Recipe, read_recipe
from pawmatch.training.run import run_training
from pawmatch.training.study import Range, Study, as_overrides, folder_name


@dataclass(frozen=True)
class Heat:
    """Mean gains of the heatmaps over random maps in deletion and insertion; positive is better."""

    deletion: float
    insertion: float


def measure_heat(folder: Path, task: str, data: Path, *, images: int, device: str) -> Heat:
    """Test the heatmaps of the checkpoint in `folder` on `images` validation images of `data`.

    The images are spread evenly over the classes; those that cannot be read are left out.
    """
    classifier = load(task, folder, device)
    (variant,) = classifier.variants
    chosen = spread(labelled_files(data, classifier.labels), images)
    found = measure_faithfulness(classifier, [variant], [file for file in chosen if _readable(file.path)])
    return Heat(
        deletion=found[variant].deletion.over_random.value,
        insertion=found[variant].insertion.over_random.value,
    )


def _readable(path: Path) -> bool:
    try:
        read_image(path)
    except ImageError:
        return False
    return True


WARM_UP = 3  # calls before the clock runs: the first ones choose kernels and take memory


@dataclass(frozen=True)
class Latency:
    """Median milliseconds for one image, and the median of the ratios to the first model."""

    milliseconds: float
    ratio: float


def measure_latencies(
    models: Mapping[str, tuple[ImageModel, InputSpec]], *, device: str = "cpu", rounds: int = 50
) -> dict[str, Latency]:
    """The latency of each model for one image, in all the views that its InputSpec names.

    The models take turns, so that whatever else the machine does slows all of them alike; a ratio compares
    calls of the same round.
    """
    ready = {
        name: (model.eval().to(device), torch.rand(len(spec.views), 3, spec.size, spec.size, device=device))
        for name, (model, spec) in models.items()
    }
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(WARM_UP):
        for model, image in ready.values():
            _call(model, image)
    for _ in range(rounds):
        for name, (model, image) in ready.items():
            times[name].append(_call(model, image))
    reference = next(iter(times.values()), [])
    return {
        name: Latency(
            milliseconds=1000 * statistics.median(own),
            ratio=statistics.median(a / b for a, b in zip(own, reference, strict=True)),
        )
        for name, own in times.items()
    }


@torch.inference_mode()
def _call(model: ImageModel, image: Tensor) -> float:
    """Seconds that one forward pass takes."""
    started = time.perf_counter()
    model(image)
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    return time.perf_counter() - started


@dataclass(frozen=True)
class Run:
    """What one seed of a trial came to on the validation images; rates are shares in [0, 1].

    `loss` is the negative log-likelihood that the checkpoint states, after temperature scaling. `deletion`
    and `insertion` are those of a Heat, None where the study does not ask for them.
    """

    seed: int
    parameters: int
    loss: float
    top1: float
    ece: float
    seconds: float  # of training
    deletion: float | None = None
    insertion: float | None = None


@dataclass(frozen=True)
class Row:
    """One trial: the recipe values that it sets and its runs, or why it failed."""

    name: str
    values: dict[str, Any]
    runs: tuple[Run, ...] = ()
    failure: str = ""
    latency: Latency | None = None
    front: bool = False

    def mean(self, measure: str) -> float:
        """The mean of one measure over the seeds."""
        return fmean(getattr(run, measure) for run in self.runs)

    def spread(self, measure: str) -> float:
        """Half the distance between the lowest and the highest seed."""
        values = [getattr(run, measure) for run in self.runs]
        return float(max(values) - min(values)) / 2

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON values."""
        return {
            "name": self.name,
            "values": self.values,
            "failure": self.failure or None,
            "front": self.front,
            "latency": asdict(self.latency) if self.latency else None,
            "runs": [asdict(run) for run in self.runs],
        }


@dataclass(frozen=True)
class Table:
    """All trials of a search. `conditions` say what the figures hold for."""

    study: str
    about: str
    rows: tuple[Row, ...]
    conditions: dict[str, Any]

    @property
    def failed(self) -> int:
        """How many trials failed."""
        return sum(bool(row.failure) for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """All figures, of every seed, as JSON values."""
        return {
            "study": self.study,
            "about": self.about,
            "conditions": self.conditions,
            "trials": [row.to_dict() for row in self.rows],
        }


def with_front(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with the Pareto front of mean validation loss, parameters and latency marked."""
    points = {
        index: (row.mean("loss"), row.mean("parameters"), row.latency.milliseconds)
        for index, row in enumerate(rows)
        if row.runs and row.latency
    }
    front = dict(zip(points, pareto_front(list(points.values())), strict=True))
    return tuple(replace(row, front=front.get(index, False)) for index, row in enumerate(rows))


def pareto_front(points: Sequence[tuple[float, ...]]) -> list[bool]:
    """Which points no other one beats, by being as low in every coordinate and lower in one."""

    def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    return [not any(beats(other, point) for other in points) for point in points]


JOURNAL = "journal.log"


class Record:
    """The record of one search; trials are found by name, and the latest of a name counts.

    `shared` is what all trials have in common, as JSON values. Raises TrainingError if the folder holds
    a search with another one.
    """

    def __init__(self, folder: Path, study: str, shared: dict[str, Any]) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        folder.mkdir(parents=True, exist_ok=True)
        path = str(folder.resolve() / JOURNAL)
        self.journal = optuna.create_study(
            study_name="search",
            storage=JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path))),
            directions=["minimize"] * 3,  # validation loss, parameters, latency
            load_if_exists=True,
        )
        shared = json.loads(json.dumps({"study": study, **shared}))
        saved = self.journal.user_attrs.get("shared")
        if saved is None:
            self.journal.set_user_attr("shared", shared)
        # A key that is newer than the search counts as empty, or an update would end every search.
        elif odd := [key for key in shared if (saved.get(key) or None) != (shared[key] or None)]:
            raise TrainingError(f"Folder {folder} holds a search with other {odd[0]}; name another --out.")
        # A kill may have left one trial that waits and one that runs. Failed, they lack a reason.
        for _ in self._trials(TrialState.WAITING):
            self.journal.ask()
        for trial in self._trials(TrialState.RUNNING):
            self.journal.tell(trial.number, state=TrialState.FAIL)
        # With the same seed after every start, the values drawn first would be drawn again.
        self.journal.sampler = optuna.samplers.TPESampler(seed=len(self._trials()))

    def latest(self, name: str) -> FrozenTrial | None:
        """The last trial of that name."""
        named = (trial for trial in reversed(self._trials()) if trial.user_attrs.get("name") == name)
        return next(named, None)

    def begin(self, name: str) -> Trial:
        """A new trial; if there was one of that name, with the values that were drawn for it."""
        before = self.latest(name)
        drawn = {**before.system_attrs.get("fixed_params", {}), **before.params} if before else {}
        self.journal.enqueue_trial(drawn, user_attrs={"name": name})
        return self.journal.ask()

    def complete(self, trial: Trial, objectives: Sequence[float], **attributes: Any) -> None:
        """Note that a trial succeeded: validation loss, parameters, latency, and whatever else to keep."""
        for key, value in attributes.items():
            trial.set_user_attr(key, value)
        self.journal.tell(trial, list(objectives))

    def fail(self, trial: Trial, reason: str) -> None:
        """Note that a trial failed, and why."""
        trial.set_user_attr("failure", reason)
        self.journal.tell(trial, state=TrialState.FAIL)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.journal.get_trials(deepcopy=False, states=states or None)


def draw(trial: Trial, ranges: Sequence[Range]) -> dict[str, Any]:
    """Recipe values from the ranges, by what the trials before have shown."""
    values: dict[str, Any] = {}
    for entry in ranges:
        if entry.choices:
            # A choice may be a list, which Optuna does not store; its JSON is a text.
            texts = [json.dumps(choice) for choice in entry.choices]
            values[entry.key] = json.loads(trial.suggest_categorical(entry.key, texts))
        elif entry.whole:
            values[entry.key] = trial.suggest_int(entry.key, int(entry.low), int(entry.high), log=entry.log)
        else:
            values[entry.key] = trial.suggest_float(entry.key, entry.low, entry.high, log=entry.log)
    return values


logger = logging.getLogger(__name__)

DEFAULTS = Settings()
LATENCY_ROUNDS = 50
GLANCE_ROUNDS = 10  # after each trial, to guide what is drawn next; the table is measured anew

Report = Callable[[str], None]


@dataclass(frozen=True)
class Search:
    """What to search, on which data, and where the trials go.

    `overrides` are `key=value` texts for every trial. `init` is a checkpoint that every trial starts from;
    where the study wants fresh heads, from its feature extractor alone. `limit` is how many trials there
    shall be in all, `seeds` replaces the study's own number.
    """

    study: Study
    data: Path
    out: Path
    overrides: tuple[str, ...] = ()
    init: str | None = None
    limit: int | None = None
    seeds: int | None = None
    retry_failed: bool = False
    settings: Settings = DEFAULTS

    @property
    def runs_each(self) -> int:
        """How many seeds each trial is trained with."""
        return self.seeds or self.study.seeds

    def folder(self, name: str, run: int) -> Path:
        """Where one run of a trial goes."""
        return self.out / "trials" / folder_name(name) / f"seed-{run}"

    def recipe(self, values: dict[str, Any], run: int = 0) -> Recipe:
        """The recipe of one run of a trial that sets `values`.

        A trial's own values come last, so that an override leaves the trials different.
        """
        changes = [*as_overrides(self.study.values), *self.overrides, *as_overrides(values)]
        recipe = read_recipe(self.study.recipe, changes)
        if recipe.variant not in VARIANTS:
            raise TrainingError(
                f"Study {self.study.name} must say which variant to train; set variant to one of "
                f"{', '.join(VARIANTS)}."
            )
        return replace(recipe, seed=recipe.seed + run)

    def shared(self) -> dict[str, Any]:
        """What all trials have in common; a folder holds trials of one kind only."""
        return {
            "recipe": self.study.recipe,
            "values": self.study.values,
            "ranges": [asdict(entry) for entry in self.study.ranges],
            "overrides": list(self.overrides),
            "init": self.init,
            "fresh heads": self.study.fresh_heads,
            "heatmaps": self.study.heatmaps,
            "data": str(self.data.resolve()),
        }


def run_search(search: Search, report: Report = print) -> Table:
    """Train the trials that are not finished yet and return the table of all.

    A trial that fails is recorded with its reason, and the search goes on. Cut at any moment, the same
    call goes on where it stopped; trials that are finished, or have failed, are not trained again. Raises
    TrainingError if the study does not fit its recipe, or the folder holds another search.
    """
    if not search.data.is_dir():
        raise TrainingError(f"There is no folder {search.data}; name a folder with one subfolder per class.")
    examples = {entry.key: entry.example for entry in search.study.ranges}
    for values in (*search.study.trials.values(), examples):
        search.recipe(values)  # a wrong key is better found now than in the middle of the night
    record = Record(search.out, search.study.name, search.shared())
    names = search.study.trial_names(search.limit)
    for number, name in enumerate(names, 1):
        before = record.latest(name)
        if before is None or not _settled(search, name, before):
            report(f"trial {number} of {len(names)}: {name}")
            _run_trial(search, name, record, record.begin(name), report)
    return _table(search, [_row(search, record, name) for name in names], report)


def _settled(search: Search, name: str, trial: FrozenTrial) -> bool:
    """Whether nothing is left to do for a trial."""
    if trial.state is TrialState.COMPLETE:
        runs = range(search.runs_each)
        return len(trial.user_attrs["runs"]) >= len(runs) and all(
            (search.folder(name, run) / CONFIG_FILE).is_file() for run in runs
        )
    return "failure" in trial.user_attrs and not search.retry_failed


def _run_trial(search: Search, name: str, record: Record, trial: Trial, report: Report) -> None:
    named = search.study.trials.get(name)
    values = named if named is not None else draw(trial, search.study.ranges)
    trial.set_user_attr("values", values)
    try:
        runs = [_train(search, name, values, run, report) for run in range(search.runs_each)]
        glance = _latencies(search, [name], GLANCE_ROUNDS)[name]
    except Exception as exc:  # whatever one trial breaks on, the night's other trials are worth having
        logger.debug("trial %s", name, exc_info=exc)
        reason = str(exc) if isinstance(exc, PawMatchError) else f"{type(exc).__name__}: {exc}"
        record.fail(trial, " ".join(reason.split()))
        report(f"{name} failed: {reason}")
        return
    row = Row(name, values, tuple(runs))
    objectives = (row.mean("loss"), row.mean("parameters"), glance.milliseconds)
    record.complete(trial, objectives, runs=[asdict(run) for run in runs])
    report(
        f"{name}: validation loss {row.mean('loss'):.3f}, top-1 {row.mean('top1'):.1%}, "
        f"{row.mean('parameters'):,.0f} parameters, {sum(run.seconds for run in runs):.0f} s"
    )


def _train(search: Search, name: str, values: dict[str, Any], run: int, report: Report) -> Run:
    """One run of a trial, and the figures that its checkpoint states."""
    recipe, folder = search.recipe(values, run), search.folder(name, run)
    run_training(
        recipe,
        recipe.variant,
        search.data,
        folder,
        init=_start(search),
        settings=search.settings,
        report=lambda line: report(f"  {line}"),
    )
    checkpoint = load_checkpoint(str(folder))
    metrics = checkpoint.config.metrics
    if not math.isfinite(metrics["nll"]):
        raise TrainingError(f"The validation loss is {metrics['nll']}; lower learning_rate.")
    heat = None
    if images := search.study.heatmaps:
        heat = measure_heat(folder, recipe.task, search.data, images=images, device=search.settings.device)
    return Run(
        seed=recipe.seed,
        parameters=sum(value.numel() for value in checkpoint.model.parameters()),
        loss=metrics["nll"],
        top1=metrics["top1"],
        ece=metrics["ece"],
        seconds=float(checkpoint.config.training["seconds"]),
        deletion=heat.deletion if heat else None,
        insertion=heat.insertion if heat else None,
    )


def _start(search: Search) -> str | None:
    """The checkpoint that trials start from. For fresh heads it is written with everything else at random."""
    if search.init is None or not search.study.fresh_heads:
        return search.init
    folder = search.out / "start"
    if not (folder / CONFIG_FILE).is_file():
        trained = load_checkpoint(search.init)
        config = trained.config
        torch.manual_seed(0)
        model = build_model(
            family=config.family,
            variant=config.variant,
            num_classes=len(config.labels),
            **config.architecture,
        )
        features = model.get_submodule(model.features_module)
        features.load_state_dict(trained.model.get_submodule(model.features_module).state_dict())
        save_checkpoint(folder, model.eval(), config)
    return str(folder)


def _row(search: Search, record: Record, name: str) -> Row:
    trial = record.latest(name)
    kept = trial.user_attrs if trial is not None else {}
    runs = kept.get("runs", [])[: search.runs_each]
    return Row(
        name=name,
        values=kept.get("values", {}),
        runs=tuple(Run(**run) for run in runs),
        failure=kept.get("failure", ""),
    )


def _latencies(search: Search, names: Sequence[str], rounds: int) -> dict[str, Latency]:
    checkpoints = {name: load_checkpoint(str(search.folder(name, 0))) for name in names}
    models = {name: (one.model, one.config.input) for name, one in checkpoints.items()}
    return measure_latencies(models, device=search.settings.device, rounds=rounds)


def _table(search: Search, rows: Sequence[Row], report: Report) -> Table:
    done = [row.name for row in rows if row.runs]
    report(f"measuring the latency of {len(done)} trials side by side")
    latencies = _latencies(search, done, LATENCY_ROUNDS)
    conditions: dict[str, Any] = {
        "recipe": search.study.recipe,
        "values": search.study.values,
        "overrides": list(search.overrides),
        "init": Path(search.init).name if search.init else None,
        "seeds": search.runs_each,
        "heatmaps": search.study.heatmaps,
        "latency_rounds": LATENCY_ROUNDS,
        "device": search.settings.device,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
    if done:
        config = load_checkpoint(str(search.folder(done[0], 0))).config
        conditions |= {
            "commit": config.training.get("commit"),
            "train_images": config.training.get("train_images"),
            "validation_images": config.metrics.get("validation_images"),
        }
    timed = [replace(row, latency=latencies.get(row.name)) for row in rows]
    return Table(search.study.name, search.study.about, with_front(timed), conditions)
