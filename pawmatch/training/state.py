"""The state of a run after an epoch, on disk: cut at any moment, the run goes on from it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pawmatch.errors import TrainingError
from pawmatch.training.history import Epoch
from pawmatch.training.optimisation import Optimisation
from pawmatch.training.recipe import Recipe, same_recipe

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
