"""What a search remembers on disk, in Optuna's journal: which trials there were and what came of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from pawmatch.errors import TrainingError
from pawmatch.training.study import Range

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
