"""Studies and searches on tiny data: read and refused, cut and resumed, failing, drawing values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pawmatch.checkpoint import load_checkpoint
from pawmatch.cli import main
from pawmatch.errors import TrainingError
from pawmatch.models import build_model
from pawmatch.training import search as searching
from pawmatch.training.run import run_training
from pawmatch.training.search import (
    STUDIES,
    Range,
    Search,
    Study,
    failures,
    latest,
    open_journal,
    read_study,
    run_search,
    study_table,
)
from tests.support.training import changes, write_colours

BUNDLED = sorted(path.stem for path in STUDIES.glob("*.toml"))
RECIPE = """
task = "artist"
family = "chae"
variant = "cnn_transformer"
license = "made for tests"
epochs = 1
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


def parameters(study: str, trial: str) -> int:
    search = Search(read_study(study), Path("data"), Path("out"))
    recipe = search.recipe(search.study.trials[trial])
    with torch.device("meta"):
        model = build_model(
            family=recipe.family, variant=recipe.variant, num_classes=11, **recipe.architecture
        )
    return sum(value.numel() for value in model.parameters())


@pytest.mark.parametrize("name", BUNDLED)
def test_every_trial_of_a_bundled_study_can_be_built(name: str) -> None:
    study = read_study(name)
    assert study.about
    assert all(parameters(name, trial) > 0 for trial in study.trials)


def test_the_chae_study_varies_what_the_paper_varied() -> None:
    trials = read_study("chae").trials
    assert next(iter(trials.items())) == ("published", {})
    assert len(trials) == 1 + 11 + 2  # the paper's ablations, ReLU and a vision transformer
    plain = parameters("chae", "published")
    assert plain == 402_417 - (16**2 - 8**2) * 128
    assert parameters("chae", "4 heads") == parameters("chae", "ReLU") == plain
    assert parameters("chae", "vision transformer") == pytest.approx(plain, rel=0.02)


def test_the_attention_study_crosses_modes_and_variants() -> None:
    trials = read_study("attention").trials.values()
    crossed = {(values["variant"], values.get("architecture.attention_mode")) for values in trials}
    modes = ("heads", "published", "tokens")
    expected = {(variant, mode) for variant in ("cnn_transformer", "cnn_transformer_mfe") for mode in modes}
    assert crossed == expected | {("cnn", None)}


def test_values_come_in_order_and_ranges_in_all_kinds(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        recipe = "artist-chae"
        samples = 5
        [values]
        input.size = 64
        [trials."as it is"]
        [trials.wide]
        architecture = { filters = [8, 8], heads = 2 }
        [ranges]
        learning_rate = { low = 1e-4, high = 1e-2, log = true }
        architecture.layers = { low = 1, high = 4 }
        architecture.filters = { choices = [[8, 8], [16, 16]] }
        """
    )
    study = read_study(str(path))
    assert study.values == {"input.size": 64}
    assert list(study.trials.items()) == [
        ("as it is", {}),
        ("wide", {"architecture.filters": [8, 8], "architecture.heads": 2}),
    ]
    assert study.ranges == {
        "learning_rate": Range(low=1e-4, high=1e-2, log=True),
        "architecture.layers": Range(low=1, high=4),
        "architecture.filters": Range(choices=([8, 8], [16, 16])),
    }
    assert study.trial_names()[-2:] == ["sample 4", "sample 5"]
    assert study.trial_names(3) == ["as it is", "wide", "sample 1"]
    assert read_study("attention").trial_names(100) == list(read_study("attention").trials)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("recipe = 'x'\nepoch = 1\n[trials.a]", "'epoch' is unknown"),
        ("[trials.a]", "lacks the key recipe"),
        ("recipe = 'x'", "nothing to try"),
        ("recipe = 'x'\nseeds = 0\n[trials.a]", "seeds 0 must be 1 or more"),
        ("recipe = 'x'\nseeds = 'two'\n[trials.a]", "seeds must be a whole number"),
        ("recipe = 'x'\ntrials = 3", "trials must be an object"),
        ("recipe = 'x'\n[trials.'1 layer']\n[trials.'+1 layer']", "share a folder"),
        ("recipe = 'x'\n[trials.'+']", "share a folder"),
        ("recipe = 'x'\n[ranges]\na = { low = 3, high = 1 }", "put the lower number first"),
        ("recipe = 'x'\n[ranges]\na = { low = 0, high = 1, log = true }", "above 0 for log = true"),
        ("recipe = 'x'\n[ranges]\na = { choices = [] }", r"write \{ choices = "),
        ("recipe = 'x'\n[ranges]\na = { low = 1, choices = [1], step = 2 }", "unknown key ranges.a.step"),
        ("recipe = = 'x'", "not valid TOML"),
    ],
)
def test_mistakes_in_a_study_are_named(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(TrainingError, match=named):
        read_study(str(tmp_path / "mine.toml"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("data"), train=8, val=4)


@pytest.fixture
def search(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Two trials of a tiny recipe, on a clock that ticks fast."""
    monkeypatch.setattr(searching, "LATENCY_ROUNDS", 1)
    monkeypatch.setattr(searching, "WARM_UP", 0)
    (tmp_path / "tiny.toml").write_text(RECIPE)
    trials: dict[str, dict[str, Any]] = {"plain": {}, "two layers": {"architecture.layers": 2}}
    return Search(Study("mine", str(tmp_path / "tiny.toml"), trials=trials), small, tmp_path / "out")


class Cut(BaseException):
    """Stands for a kill: nothing in the search may catch it."""


def cut_at(start: str) -> Callable[[str], None]:
    def report(line: str) -> None:
        if line.strip().startswith(start):
            raise Cut

    return report


def said_by(search: Search) -> list[str]:
    """The lines about trials and epochs of a search that runs to its end."""
    lines: list[str] = []
    run_search(search, lambda line: lines.append(line.strip()))
    return [line for line in lines if line.startswith(("trial", "epoch"))]


def test_a_cut_search_goes_on_and_repeats_nothing(search: Search) -> None:
    with pytest.raises(Cut):
        run_search(search, cut_at("trial 2"))
    lines: list[str] = []
    with pytest.raises(Cut):
        run_search(search, cut_at("wrote"))
    lines = said_by(search)
    assert lines[0] == "trial 2 of 2: two layers"
    assert not any(line.startswith("epoch") for line in lines)  # it was saved before the cut
    assert said_by(search) == []
    journal = open_journal(search)
    for name in search.names:
        trial, config = latest(journal, name), load_checkpoint(search.folder(name, 0)).config
        assert trial is not None
        (figures,) = trial.user_attrs["runs"]
        assert (figures["loss"], figures["top1"]) == (config.metrics["nll"], config.metrics["top1"])
        assert trial.values[2] > 0
    table = study_table(search, journal)
    assert [line.split(" | ")[0] for line in table[2:]] == ["| plain", "| two layers"]
    assert "`layers=2`" in table[3]
    assert "yes" in "".join(table)
    assert (search.out / "trials.csv").read_text().count("mine") == 0
    assert "values_0" in (search.out / "trials.csv").read_text()


def test_a_further_seed_or_a_deleted_folder_is_trained_and_the_rest_is_kept(search: Search) -> None:
    search = replace(search, limit=1)
    run_search(search)
    two = replace(search, seeds=2)
    assert sum(line.startswith("epoch") for line in said_by(two)) == 1
    trial = latest(open_journal(two), "plain")
    assert trial is not None
    assert [run["seed"] for run in trial.user_attrs["runs"]] == [0, 1]
    assert "±" in study_table(two, open_journal(two))[2]
    for path in search.folder("plain", 1).iterdir():
        path.unlink()
    assert sum(line.startswith("epoch") for line in said_by(two)) == 1


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials: dict[str, dict[str, Any]] = {"odd heads": {"architecture.heads": 3}, "breaks": {"seed": 66}}
    search = replace(search, study=replace(search.study, trials={**trials, "plain": {}}))

    def breaking(recipe: Any, *rest: Any, **options: Any) -> Any:
        if recipe.seed == 66:
            raise MemoryError("no\nroom")
        return run_training(recipe, *rest, **options)

    monkeypatch.setattr(searching, "run_training", breaking)
    failed = failures(search, run_search(search))
    assert "must be a multiple of heads, 3" in failed["odd heads"]
    assert failed["breaks"] == "MemoryError: no room"
    assert set(failed) == set(trials)
    assert said_by(search) == []
    monkeypatch.setattr(searching, "run_training", run_training)
    again = replace(search, retry_failed=True)
    begun = [line for line in said_by(again) if line.startswith("trial")]
    assert begun == ["trial 1 of 3: odd heads", "trial 2 of 3: breaks"]
    table = study_table(again, open_journal(again))
    assert table[-1].startswith("- odd heads failed: ")
    assert [line.split(" | ")[0] for line in table[2:4]] == ["| breaks", "| plain"]


def test_values_are_drawn_from_the_ranges_and_kept_over_a_cut(search: Search) -> None:
    ranges = {
        "architecture.filters": Range(choices=([4, 4, 8, 8], [2, 2, 4, 4])),
        "architecture.layers": Range(low=1, high=3),
        "learning_rate": Range(low=1e-4, high=1e-2, log=True),
    }
    search = replace(search, study=replace(search.study, trials={}, ranges=ranges, samples=2))
    with pytest.raises(Cut):
        run_search(search, cut_at("epoch"))
    begun = latest(open_journal(search), "sample 1")
    assert begun is not None
    run_search(search)
    drawn = []
    for name in search.names:
        trial = latest(open_journal(search), name)
        assert trial is not None
        drawn.append(trial.user_attrs["values"])
    assert drawn[0] == begun.user_attrs["values"]
    assert drawn[0] != drawn[1]
    for values in drawn:
        assert values["architecture.filters"] in ([4, 4, 8, 8], [2, 2, 4, 4])
        assert values["architecture.layers"] in (1, 2, 3)
        assert 1e-4 <= values["learning_rate"] <= 1e-2


def test_a_folder_holds_one_search(search: Search) -> None:
    open_journal(search)
    open_journal(search)
    for change, named in (({"overrides": ("epochs=3",)}, "overrides"), ({"init": "weights/artist"}, "init")):
        with pytest.raises(TrainingError, match=f"other {named}; name another --out"):
            open_journal(replace(search, **change))


@pytest.mark.parametrize(
    ("values", "named"),
    [({"speed": 3}, "'speed' is unknown"), ({"variant": "all"}, "must say which variant")],
)
def test_what_does_not_fit_stops_a_search_before_anything_is_trained(
    search: Search, values: dict[str, Any], named: str
) -> None:
    study = replace(search.study, trials={"plain": {}, "odd": values})
    for odd in (study, replace(search.study, values=values)):
        with pytest.raises(TrainingError, match=named):
            run_search(replace(search, study=odd))
    with pytest.raises(TrainingError, match="There is no folder no/data"):
        run_search(replace(search, data=Path("no/data")))
    assert not search.out.exists()


def test_overrides_leave_the_trials_different(search: Search) -> None:
    search = replace(search, overrides=("architecture.layers=3", "epochs=5"))
    recipes = [search.recipe(values, run=2) for values in search.study.trials.values()]
    assert [recipe.architecture["layers"] for recipe in recipes] == [3, 2]
    assert [(recipe.epochs, recipe.seed) for recipe in recipes] == [(5, 2), (5, 2)]


def test_the_command_writes_the_table_as_a_page(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "LATENCY_ROUNDS", 1)
    (tmp_path / "tiny.toml").write_text(RECIPE)
    study = tmp_path / "mine.toml"
    study.write_text(
        f"recipe = '{tmp_path / 'tiny.toml'}'\n[trials.plain]\n[trials.odd]\narchitecture.heads = 3"
    )
    out = tmp_path / "runs" / "mine"
    options = ["--study", str(study), "--data", str(small), "--device", "cpu", *changes(["seed=5"])]
    assert main(["search", *options, "--out", str(out)]) == 1  # one trial failed
    page = (out / "study.md").read_text()
    made = "pawmatch search --study mine.toml --data"
    assert page.startswith(f"Made by `{made} {small.name} --out mine --set seed=5`.\n\n| trial |")
    for line in ("| plain |", "- odd failed: ", "relative is to that trial"):
        assert line in page
    assert "| plain |" in capsys.readouterr().out
    assert main(["search", *options, "--seeds", "0", "--out", str(out)]) == 2
    assert "--seeds is '0'" in capsys.readouterr().err


def test_studies_are_listed_and_optuna_is_asked_for(
    search: Search, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(SystemExit):
        main(["search", "--list-studies"])
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == BUNDLED
    with pytest.raises(TrainingError, match="pip install optuna"):
        run_search(search)


def test_the_four_phases_add_one_thing_each_and_the_small_ones_change_the_networks_alone() -> None:
    full, small = (read_study(name).trials for name in ("phases", "phases-small"))
    assert list(full) == list(small)
    steps = [set(map(str, values.items())) for values in full.values()]
    heads, second, third, fourth = steps[:3], *steps[3:]
    assert [len(one) for one in heads] == [1, 1, 1]
    assert second < third < fourth
    assert fourth - third == {"('variant', 'cnn_transformer_mfe')"}
    for name, values in full.items():
        ours, theirs = (dict(one, **{"architecture.backbone": ""}) for one in (values, small[name]))
        assert ours == theirs
