"""A search: trains every trial of a study, one after another, and puts them into one table.

The figures of a trial are those that its own checkpoints state.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from optuna.trial import FrozenTrial, Trial, TrialState

from pawmatch.checkpoint import load_checkpoint, save_checkpoint
from pawmatch.checkpoint.config import CONFIG_FILE
from pawmatch.errors import PawMatchError, TrainingError
from pawmatch.models import VARIANTS, build_model
from pawmatch.training.heat import measure_heat
from pawmatch.training.latency import Latency, measure_latencies
from pawmatch.training.loop import Settings
from pawmatch.training.recipe import Recipe, read_recipe
from pawmatch.training.record import Record, draw
from pawmatch.training.run import run_training
from pawmatch.training.study import Study, as_overrides, folder_name
from pawmatch.training.table import Row, Run, Table, with_front

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
