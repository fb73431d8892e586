"""The outcome of a search: what each trial came to, and which trials no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from pawmatch.training.latency import Latency


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
