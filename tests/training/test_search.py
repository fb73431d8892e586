"""Searches on tiny data: cut and resumed, with trials that fail, with values that are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pawmatch.checkpoint import load_checkpoint
from pawmatch.errors import TrainingError
from pawmatch.training import search as searching
from pawmatch.training.loop import Settings
from pawmatch.training.run import run_training
from pawmatch.training.search import Record, Search, run_search
from pawmatch.training.study import Range, Study

RECIPE = """
task = "artist"
family = "chae"
variant = "cnn_transformer"
license = "made for tests"
epochs = 2
batch_size = 8
color_jitter = 0.0
[architecture]
input_size = 32
filters = [4, 4, 8, 8]
heads = 2
layers = 1
mlp_width = 16
[input]
size = 32
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ in colour."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for half, count in (("train", 8), ("val", 4)):
        for channel, name in enumerate(("red", "green")):
            (folder / half / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(folder / half / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring with models as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def search(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Two trials of a tiny recipe, on a clock that ticks fast."""
    monkeypatch.setattr(searching, "LATENCY_ROUNDS", 2)
    monkeypatch.setattr(searching, "GLANCE_ROUNDS", 1)
    (tmp_path / "tiny.toml").write_text(RECIPE)
    study = Study(
        name="mine",
        recipe=str(tmp_path / "tiny.toml"),
        about="",
        values={"epochs": 2},
        trials={"plain": {}, "two layers": {"architecture.layers": 2}},
    )
    return Search(study, data, tmp_path / "out", settings=Settings())


class Cut(BaseException):
    """Stands for a kill: nothing in the search may catch it."""


def cut_at(start: str) -> Callable[[str], None]:
    def report(line: str) -> None:
        if line.strip().startswith(start):
            raise Cut

    return report


def cut_after(start: str) -> Callable[[str], None]:
    """Cuts at the first line after the one that starts so."""
    lines: list[str] = []

    def report(line: str) -> None:
        if lines and lines[-1].startswith(start):
            raise Cut
        lines.append(line)

    return report


def trained(search: Search) -> tuple[Any, list[str]]:
    lines: list[str] = []
    table = run_search(search, lines.append)
    return table, [line.strip() for line in lines]


def test_a_cut_search_goes_on_to_the_same_table_and_repeats_nothing(search: Search, tmp_path: Path) -> None:
    whole, lines = trained(replace(search, out=tmp_path / "whole"))
    assert sum(line.startswith("epoch") for line in lines) == 4
    with pytest.raises(Cut):
        run_search(search, cut_at("trial 2"))
    with pytest.raises(Cut):
        run_search(search, cut_at("epoch   2"))
    table, lines = trained(search)
    assert [line for line in lines if line.startswith("trial")] == ["trial 2 of 2: two layers"]
    assert sum(line.startswith("epoch") for line in lines) == 1  # the first was saved before the cut

    def figures(one: Any) -> list[tuple[float, ...]]:
        return [(row.mean("loss"), row.mean("top1"), row.mean("ece")) for row in one.rows]

    assert figures(table) == figures(whole)
    assert [row.name for row in table.rows] == ["plain", "two layers"]
    again, lines = trained(search)
    assert not [line for line in lines if line.startswith(("trial", "epoch"))]
    assert figures(again) == figures(whole)


def test_figures_are_those_of_the_checkpoints(search: Search) -> None:
    table, _ = trained(replace(search, seeds=2, limit=1, overrides=("epochs=1",)))
    (row,) = table.rows
    assert [run.seed for run in row.runs] == [0, 1]
    for number, run in enumerate(row.runs):
        checkpoint = load_checkpoint(str(search.folder("plain", number)))
        metrics = checkpoint.config.metrics
        assert (run.loss, run.top1, run.ece) == (metrics["nll"], metrics["top1"], metrics["ece"])
        assert run.parameters == sum(value.numel() for value in checkpoint.model.parameters())
        assert checkpoint.config.training["epochs"] == 1
    assert row.latency.milliseconds > 0
    assert row.latency.ratio == 1
    assert row.front
    assert table.conditions["train_images"] == 16
    assert table.conditions["overrides"] == ["epochs=1"]


def test_a_further_seed_or_a_deleted_folder_is_trained_and_the_rest_is_kept(search: Search) -> None:
    search = replace(search, limit=1, overrides=("epochs=1",))
    trained(search)
    table, lines = trained(replace(search, seeds=2))
    assert sum(line.startswith("epoch") for line in lines) == 1
    assert [run.seed for run in table.rows[0].runs] == [0, 1]
    for path in search.folder("plain", 1).iterdir():
        path.unlink()
    _, lines = trained(replace(search, seeds=2))
    assert sum(line.startswith("epoch") for line in lines) == 1


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = {"odd heads": {"architecture.heads": 3}, "breaks": {"seed": 66}, "plain": {}}
    search = replace(search, study=replace(search.study, trials=trials), overrides=("epochs=1",))

    def breaking(recipe: Any, *rest: Any, **options: Any) -> Any:
        if recipe.seed == 66:
            raise MemoryError("no\nroom")
        return run_training(recipe, *rest, **options)

    monkeypatch.setattr(searching, "run_training", breaking)
    table, lines = trained(search)
    failures = {row.name: row.failure for row in table.rows}
    assert "must be a multiple of heads, 3" in failures["odd heads"]
    assert failures["breaks"] == "MemoryError: no room"
    assert failures["plain"] == ""
    assert table.failed == 2
    assert [row.front for row in table.rows] == [False, False, True]
    monkeypatch.setattr(searching, "run_training", run_training)
    again, lines = trained(search)
    assert not [line for line in lines if line.startswith("trial")]
    assert again.failed == 2
    retried, lines = trained(replace(search, retry_failed=True))
    assert [line for line in lines if line.startswith("trial")] == [
        "trial 1 of 3: odd heads",
        "trial 2 of 3: breaks",
    ]
    assert {row.name: bool(row.failure) for row in retried.rows} == {
        "odd heads": True,
        "breaks": False,
        "plain": False,
    }


def test_values_are_drawn_from_the_ranges_and_kept_over_a_cut(search: Search) -> None:
    ranges = (
        Range("architecture.filters", choices=([4, 4, 8, 8], [2, 2, 4, 4])),
        Range("architecture.layers", low=1, high=3),
        Range("learning_rate", low=1e-4, high=1e-2, log=True),
    )
    study = replace(search.study, trials={"plain": {}}, ranges=ranges, samples=2)
    search = replace(search, study=study, overrides=("epochs=1",))
    with pytest.raises(Cut):
        run_search(search, cut_after("trial 2"))
    begun = Record(search.out, "mine", search.shared()).latest("sample 1")
    assert begun is not None
    table, _ = trained(search)
    assert [row.name for row in table.rows] == ["plain", "sample 1", "sample 2"]
    first, second = (row.values for row in table.rows[1:])
    assert first == begun.user_attrs["values"]
    assert first != second
    for values in (first, second):
        assert values["architecture.filters"] in ([4, 4, 8, 8], [2, 2, 4, 4])
        assert values["architecture.layers"] in (1, 2, 3)
        assert 1e-4 <= values["learning_rate"] <= 1e-2
    more, lines = trained(replace(search, limit=4))
    assert [line for line in lines if line.startswith("trial")] == ["trial 4 of 4: sample 3"]
    assert more.rows[3].values not in (first, second)


def test_heatmaps_are_tested_where_the_study_asks(search: Search) -> None:
    study = replace(search.study, heatmaps=3)
    table, _ = trained(replace(search, study=study, limit=1, overrides=("epochs=1",)))
    (run,) = table.rows[0].runs
    assert -1 <= run.deletion <= 1
    assert -1 <= run.insertion <= 1
    assert table.conditions["heatmaps"] == 3


@pytest.mark.parametrize("fresh", [False, True])
def test_fresh_heads_take_over_the_feature_extractor_alone(
    fresh: bool, search: Search, tmp_path: Path
) -> None:
    """With a learning rate of zero, every trial still has the weights that it started from."""
    still = ("epochs=1", "learning_rate=0.0", "weight_decay=0.0")
    trained(replace(search, out=tmp_path / "base", limit=1, overrides=("epochs=1",)))
    base = tmp_path / "base" / "trials" / "plain" / "seed-0"
    study = replace(search.study, fresh_heads=fresh, seeds=2)
    search = replace(search, study=study, init=str(base), limit=1, overrides=still)
    trained(search)
    before = load_checkpoint(str(base)).model.state_dict()
    first, second = (load_checkpoint(str(search.folder("plain", run))).model.state_dict() for run in (0, 1))
    stem, head = "stem.0.1.weight", "classifier.weight"
    assert torch.equal(first[stem], before[stem])
    assert torch.equal(first[head], before[head]) is not fresh
    assert torch.equal(first[head], second[head])  # all start alike, and none from a trained head


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"overrides": ("epochs=3",)}, "other overrides"),
        ({"init": "weights/artist"}, "other init"),
    ],
)
def test_a_folder_holds_one_search(search: Search, change: dict[str, Any], named: str) -> None:
    with pytest.raises(Cut):
        run_search(search, cut_at("trial 1"))
    with pytest.raises(TrainingError, match=f"{named}; name another --out"):
        run_search(replace(search, **change), print)


def test_a_search_from_before_a_key_goes_on(search: Search) -> None:
    shared = search.shared()
    older = {key: value for key, value in shared.items() if key not in ("heatmaps", "fresh heads")}
    Record(search.out, "mine", older)
    Record(search.out, "mine", shared)
    with pytest.raises(TrainingError, match="other heatmaps"):
        Record(search.out, "mine", {**shared, "heatmaps": 60})


@pytest.mark.parametrize(
    ("values", "named"),
    [({"speed": 3}, "'speed' is unknown"), ({"variant": "all"}, "must say which variant")],
)
def test_a_study_that_does_not_fit_stops_before_anything_is_trained(
    search: Search, values: dict[str, Any], named: str
) -> None:
    study = replace(search.study, trials={"plain": {}, "odd": values})
    with pytest.raises(TrainingError, match=named):
        run_search(replace(search, study=study))
    with pytest.raises(TrainingError, match=named):
        run_search(replace(search, study=replace(search.study, values=values)))
    assert not search.out.exists()


def test_without_data_nothing_starts(search: Search) -> None:
    with pytest.raises(TrainingError, match="There is no folder no/data"):
        run_search(replace(search, data=Path("no/data")))
    assert not search.out.exists()


def test_overrides_leave_the_trials_different(search: Search) -> None:
    search = replace(search, overrides=("architecture.layers=3", "epochs=5"))
    recipes = [search.recipe(values, run=2) for values in search.study.trials.values()]
    assert [recipe.architecture["layers"] for recipe in recipes] == [3, 2]
    assert [(recipe.epochs, recipe.seed) for recipe in recipes] == [(5, 2), (5, 2)]
