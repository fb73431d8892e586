"""The outcome of a search: means, spreads and the Pareto front on values made by hand."""

from __future__ import annotations

import json

import pytest

from pawmatch.training.search import Latency, Row, Run, Table, pareto_front, with_front


def row(name: str, losses: list[float], parameters: int, milliseconds: float | None) -> Row:
    runs = [Run(seed, parameters, loss, 0.5, 0.1, 3.0) for seed, loss in enumerate(losses)]
    latency = None if milliseconds is None else Latency(milliseconds, milliseconds / 2)
    return Row(name, {}, tuple(runs), latency=latency)


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(1, 1, 1)], [True]),
        ([(1, 2, 3), (3, 2, 1)], [True, True]),
        ([(1, 2, 3), (1, 2, 4)], [True, False]),
        ([(1, 2, 3), (2, 3, 4), (2, 1, 9)], [True, False, True]),
        ([(1, 1), (1, 1), (2, 0), (2, 1)], [True, True, True, False]),  # equals do not beat each other
    ],
)
def test_a_point_is_on_the_front_unless_another_beats_it(
    points: list[tuple[float, ...]], front: list[bool]
) -> None:
    assert pareto_front(points) == front


def test_the_front_is_of_mean_loss_parameters_and_latency() -> None:
    rows = [
        row("published", [1.0, 1.2], 400, 5.0),
        row("lucky once", [0.9, 1.5], 400, 5.0),  # its mean is worse, its best seed is not
        row("small", [1.4], 100, 6.0),
        row("slow and large", [1.2], 500, 7.0),
        Row("failed", {}, failure="out of memory"),
    ]
    marked = {one.name: one.front for one in with_front(rows)}
    assert marked == {
        "published": True,
        "lucky once": False,
        "small": True,
        "slow and large": False,
        "failed": False,
    }


def test_mean_and_spread_over_seeds() -> None:
    several = row("a", [1.0, 1.4, 1.1], 400, None)
    assert several.mean("loss") == pytest.approx(3.5 / 3)
    assert several.spread("loss") == pytest.approx(0.2)
    assert row("a", [1.0], 400, None).spread("loss") == 0


def test_a_table_is_plain_json() -> None:
    failed = Row("b", {"kernel": 99}, failure="too wide")
    table = Table("mine", "about", (row("a", [1.0], 400, 5.0), failed), {"seeds": 1})
    values = json.loads(json.dumps(table.to_dict()))
    assert table.failed == 1
    assert [one["name"] for one in values["trials"]] == ["a", "b"]
    assert values["trials"][0]["runs"][0]["loss"] == 1.0
    assert values["trials"][0]["latency"] == {"milliseconds": 5.0, "ratio": 2.5}
    assert values["trials"][0]["failure"] is None
    assert values["trials"][1]["failure"] == "too wide"
