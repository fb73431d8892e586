"""Studies: variations of one recipe, trained one by one, remembered by Optuna, put into one table."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pawmatch.checkpoint import load_checkpoint
from pawmatch.checkpoint.config import CONFIG_FILE
from pawmatch.errors import PawMatchError, TrainingError
from pawmatch.labels import VARIANT_NAMES
from pawmatch.training.distributed import sole_writer
from pawmatch.training.loop import Settings
from pawmatch.training.recipe import Count, Recipe, parse, read_recipe, read_toml
from pawmatch.training.run import run_training

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial

STUDIES = Path(__file__).parent / "studies"
JOURNAL = "journal.log"
TRIALS_FILE = "trials.csv"
LATENCY_ROUNDS = 30
WARM_UP = 3  # rounds that do not count: the first calls choose kernels and take memory
MEASURES = {"loss": "{:.3f}", "top1": "{:.1%}", "ece": "{:.3f}"}  # of one seed, as its checkpoint states them

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Range:
    """Values that a recipe key may take: one of `choices`, or a number from `low` to `high`, both included.

    Between two whole numbers only whole numbers are drawn; `log` draws on a logarithmic scale.
    """

    choices: tuple[Any, ...] = ()
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        if bool(self.choices) is (self.low is not None and self.high is not None):
            raise ValueError("write { choices = [...] } or { low = ..., high = ... }")
        if self.low is not None and (self.low > (self.high or 0) or (self.log and self.low <= 0)):
            raise ValueError("put the lower number first, above 0 for log = true")

    @property
    def example(self) -> Any:
        """One of the values, to check the key with."""
        return self.choices[0] if self.choices else self.low

    def draw(self, key: str, trial: Trial) -> Any:
        """A value, by what the trials before have shown."""
        if self.choices:
            # A choice may be a list, which Optuna does not store; its JSON is a text.
            return json.loads(trial.suggest_categorical(key, [json.dumps(one) for one in self.choices]))
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Study:
    """One study. Values are recipe values under dotted keys, as `--set` takes them.

    `trials` are named variations, in the order of the table; the first is what the others are compared
    with. `ranges` are drawn from for `samples` further trials. Every trial is trained once for each of
    `seeds` seeds.
    """

    name: str
    recipe: str
    about: str = ""
    values: dict[str, Any] = field(default_factory=dict)  # of every trial
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)
    samples: Count = 20
    seeds: Count = 1

    def trial_names(self, limit: int | None = None) -> list[str]:
        """Names of the trials: those that have one, then "sample 1", "sample 2" and so on.

        `limit` is how many trials there are in all; without ranges there are no more than the named ones.
        """
        names = list(self.trials)
        if self.ranges:
            samples = self.samples if limit is None else max(0, limit - len(names))
            names += [f"sample {number}" for number in range(1, samples + 1)]
        return names[:limit]


def read_study(name: str) -> Study:
    """Read the bundled study `name` or the TOML file at that path.

    Raises TrainingError for an unknown study, key or malformed value.
    """
    values = {"name": Path(name).stem, **read_toml("study", name, STUDIES)}
    for key in ("values", "ranges"):
        if isinstance(values.get(key), dict):
            values[key] = flatten(values[key])
    if isinstance(values.get("trials"), dict):
        values["trials"] = {
            trial: flatten(table) if isinstance(table, dict) else table
            for trial, table in values["trials"].items()
        }
    study = parse(Study, values, "Study")
    if not study.trials and not study.ranges:
        raise TrainingError(f"Study {name!r} has nothing to try; add [trials.NAME] or [ranges].")
    folders = [folder_name(trial) for trial in study.trials]
    if "" in folders or len(set(folders)) < len(folders):
        raise TrainingError(f"Trials of study {name!r} share a folder; name them by other letters or digits.")
    return study


def flatten(table: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables as one with dotted keys: {"a": {"b": 1}} -> {"a.b": 1}; ranges stay tables."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and not value.keys() & {"low", "high", "choices"}:
            flat |= {f"{key}.{rest}": entry for rest, entry in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def as_overrides(values: Mapping[str, Any]) -> list[str]:
    """Values under dotted keys as the `key=value` texts that read_recipe takes."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def folder_name(trial: str) -> str:
    """The trial's name as a folder's: "4 heads" -> "4-heads"."""
    return re.sub(r"[^a-z0-9]+", "-", trial.lower()).strip("-")


@dataclass(frozen=True)
class Search:
    """What to search, on which data, and where the trials go.

    `overrides` are `key=value` texts for every trial. `init` is a checkpoint or backbone that every trial
    starts from. `limit` is how many trials there shall be in all, `seeds` replaces the study's own number.
    """

    study: Study
    data: Path
    out: Path
    overrides: tuple[str, ...] = ()
    init: str | None = None
    limit: int | None = None
    seeds: int | None = None
    retry_failed: bool = False
    device: str = "cpu"

    @property
    def names(self) -> list[str]:
        """The trials, in the order of the table."""
        return self.study.trial_names(self.limit)

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
        if recipe.variant not in VARIANT_NAMES:
            raise TrainingError(
                f"Study {self.study.name} must say which variant to train; set variant to one of "
                f"{', '.join(VARIANT_NAMES)}."
            )
        return replace(recipe, seed=recipe.seed + run)

    def shared(self) -> dict[str, Any]:
        """What all trials have in common; a folder holds trials of one kind only."""
        return {
            "study": self.study.name,
            "recipe": self.study.recipe,
            "values": self.study.values,
            "ranges": repr(self.study.ranges),
            "overrides": list(self.overrides),
            "init": self.init,
            "data": str(self.data.resolve()),
        }


def run_search(search: Search, report: Callable[[str], None] = print) -> optuna.Study:
    """Train the trials that are not finished yet and return Optuna's study of all.

    A trial that fails is recorded with its reason, and the search goes on. Cut at any moment, the same
    call goes on where it stopped; trials that are finished, or have failed, are not trained again. Raises
    TrainingError if the study does not fit its recipe, or the folder holds another search.
    """
    if not search.data.is_dir():
        raise TrainingError(f"There is no folder {search.data}; name a folder with one subfolder per class.")
    examples = {key: entry.example for key, entry in search.study.ranges.items()}
    for values in (*search.study.trials.values(), examples):
        search.recipe(values)  # a wrong key is better found now than in the middle of the night
    with sole_writer(search.out):
        journal = open_journal(search)
        for number, name in enumerate(search.names, 1):
            before = latest(journal, name)
            if before is not None and _settled(search, name, before):
                continue
            report(f"trial {number} of {len(search.names)}: {name}")
            if before is None or before.state.is_finished():  # one that waits was cut before it began
                # With the same seed after every start, the values drawn first would be drawn again.
                journal.sampler = optuna_module().samplers.TPESampler(seed=len(journal.trials))
                journal.enqueue_trial(before.params if before else {}, user_attrs={"name": name})
            journal.optimize(partial(_run_trial, search, report), n_trials=1, catch=(Exception,))
        journal.trials_dataframe().to_csv(search.out / TRIALS_FILE, index=False)
        return journal


def optuna_module() -> Any:
    """Optuna, which only a search needs; raises TrainingError where it is missing."""
    try:
        import optuna
    except ModuleNotFoundError as exc:
        raise TrainingError("`pawmatch search` needs Optuna; install it with: pip install optuna.") from exc
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # what a trial fails of is reported here
    return optuna


def open_journal(search: Search) -> optuna.Study:
    """The record of a search in its folder; trials are found by name, and the latest of a name counts."""
    library = optuna_module()
    search.out.mkdir(parents=True, exist_ok=True)
    from optuna.storages import journal as backend

    path = str(search.out.resolve() / JOURNAL)
    lock = backend.JournalFileOpenLock(path)  # which every file system has, unlike links
    study: optuna.Study = library.create_study(
        study_name="search",
        storage=library.storages.JournalStorage(backend.JournalFileBackend(path, lock_obj=lock)),
        directions=["minimize"] * 3,  # validation loss, parameters, relative latency
        load_if_exists=True,
    )
    shared = json.loads(json.dumps(search.shared()))
    saved = study.user_attrs.get("shared") or shared
    if odd := [key for key in shared if saved.get(key) != shared[key]]:
        raise TrainingError(f"Folder {search.out} holds a search with other {odd[0]}; name another --out.")
    study.set_user_attr("shared", shared)
    states = library.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):  # one that a kill cut
        study.tell(trial.number, state=states.FAIL)
    return study


def latest(journal: optuna.Study, name: str) -> FrozenTrial | None:
    """The last trial of that name."""
    named = (trial for trial in reversed(journal.trials) if trial.user_attrs.get("name") == name)
    return next(named, None)


def _settled(search: Search, name: str, trial: FrozenTrial) -> bool:
    """Whether nothing is left to do for a trial."""
    if trial.values:
        runs = range(search.runs_each)
        return len(trial.user_attrs["runs"]) >= len(runs) and all(
            (search.folder(name, run) / CONFIG_FILE).is_file() for run in runs
        )
    return "failure" in trial.user_attrs and not search.retry_failed


def _run_trial(search: Search, report: Callable[[str], None], trial: Trial) -> tuple[float, float, float]:
    """Train a trial with every seed; gives validation loss, parameters and latency.

    Latency is in times of the first trial's, as milliseconds say what else the machine did meanwhile.
    """
    name = trial.user_attrs["name"]
    try:
        named = search.study.trials.get(name)
        ranges = search.study.ranges.items()
        values = {key: entry.draw(key, trial) for key, entry in ranges} if named is None else named
        trial.set_user_attr("values", values)
        runs = [_train(search, name, values, run, report) for run in range(search.runs_each)]
        milliseconds, relative = _latency(search, name)
    except Exception as exc:  # whatever one trial breaks on, the night's other trials are worth having
        logger.debug("trial %s", name, exc_info=exc)
        reason = str(exc) if isinstance(exc, PawMatchError) else f"{type(exc).__name__}: {exc}"
        trial.set_user_attr("failure", " ".join(reason.split()))
        report(f"{name} failed: {reason}")
        raise
    for key, value in (("runs", runs), ("milliseconds", milliseconds)):
        trial.set_user_attr(key, value)
    loss, parameters = (fmean(run[key] for run in runs) for key in ("loss", "parameters"))
    report(f"{name}: validation loss {loss:.3f}, {parameters:,.0f} parameters, {milliseconds:.1f} ms")
    return loss, parameters, relative


def _train(
    search: Search, name: str, values: dict[str, Any], run: int, report: Callable[[str], None]
) -> dict[str, float]:
    """One run of a trial, and the figures that its checkpoint states."""
    recipe, folder = search.recipe(values, run), search.folder(name, run)
    run_training(
        recipe,
        recipe.variant,
        search.data,
        folder,
        init=search.init,
        settings=Settings(device=search.device),
        report=lambda line: report(f"  {line}"),
    )
    checkpoint = load_checkpoint(str(folder))
    metrics = checkpoint.config.metrics
    return {
        "seed": recipe.seed,
        "parameters": sum(value.numel() for value in checkpoint.model.parameters()),
        "loss": metrics["nll"],
        "top1": metrics["top1"],
        "ece": metrics["ece"],
        "seconds": float(checkpoint.config.training["seconds"]),
    }


def _latency(search: Search, name: str) -> tuple[float, float]:
    """Median milliseconds for one image in all its views, and the same in times of the first trial's.

    The two models take turns, so that whatever else the machine does slows both alike.
    """
    first = search.folder(search.names[0], 0)
    calls: list[partial[Tensor]] = []
    for folder in (search.folder(name, 0), first):
        if (folder / CONFIG_FILE).is_file():
            checkpoint = load_checkpoint(str(folder))
            spec = checkpoint.config.input
            views = torch.rand(len(spec.views), 3, spec.size, spec.size, device=search.device)
            calls.append(partial(checkpoint.model.eval().to(search.device), views))
    rounds = [[_seconds(call) for call in calls] for _ in range(WARM_UP + LATENCY_ROUNDS)][WARM_UP:]
    return 1000 * median(row[0] for row in rounds), median(row[0] / row[-1] for row in rounds)


@torch.inference_mode()
def _seconds(call: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    call().sum().item()  # which waits for a GPU
    return time.perf_counter() - started


def study_table(search: Search, journal: optuna.Study) -> list[str]:
    """The trials as a Markdown table, then one line for each trial that failed."""
    trials = {name: trial for name in search.names if (trial := latest(journal, name)) is not None}
    front = {trial.number for trial in journal.best_trials}
    heads = ("trial", "sets", "parameters", "latency, ms", "relative", "validation loss", "top-1", "ECE",
             "Pareto front")  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, trial in trials.items():
        if not trial.values:
            continue
        kept = trial.user_attrs
        sets = (f"`{key.rpartition('.')[2]}={json.dumps(value)}`" for key, value in kept["values"].items())
        figures = [
            _over_seeds([run[key] for run in kept["runs"][: search.runs_each]], pattern)
            for key, pattern in MEASURES.items()
        ]
        cells = (
            name, " ".join(sets), f"{trial.values[1]:,.0f}", f"{kept['milliseconds']:.1f}",
            f"{trial.values[2]:.2f}", *figures, "yes" if trial.number in front else "",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    failed = [f"- {name} failed: {reason}" for name, reason in failures(search, journal).items()]
    return [*lines, "", *failed] if failed else lines


def failures(search: Search, journal: optuna.Study) -> dict[str, str]:
    """Why trials failed, by their names."""
    trials = {name: trial for name in search.names if (trial := latest(journal, name)) is not None}
    return {
        name: trial.user_attrs["failure"] for name, trial in trials.items() if "failure" in trial.user_attrs
    }


def _over_seeds(values: Sequence[float], pattern: str) -> str:
    """The mean over the seeds; where there are several, with half of the highest minus the lowest."""
    spread = f" ± {pattern.format((max(values) - min(values)) / 2)}" if len(values) > 1 else ""
    return pattern.format(fmean(values)) + spread
