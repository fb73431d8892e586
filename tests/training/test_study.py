"""Studies read from TOML: the bundled ones fit the models, and each mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pawmatch.errors import TrainingError
from pawmatch.models import build_model
from pawmatch.training.search import Search
from pawmatch.training.study import STUDIES, Range, as_overrides, folder_name, read_study

PAGE = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
BUNDLED = sorted(path.stem for path in STUDIES.glob("*.toml"))


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


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
    for trial in study.trials:
        assert parameters(name, trial) > 0


def test_the_chae_study_varies_what_the_paper_varied() -> None:
    trials = read_study("chae").trials
    assert next(iter(trials)) == "published"
    assert trials["published"] == {}
    assert len(trials) == 15  # eleven ablations, of which the width has two rows, and two further options
    plain = parameters("chae", "published")
    assert plain == 402_417 - (16**2 - 8**2) * 128
    for trial in ("4 heads", "keep 24 tokens", "attention in a window"):
        assert parameters("chae", trial) == plain
    larger = trials["larger input"]
    assert larger["input.size"] == larger["architecture.input_size"] == 448 * 128 // 256


def test_the_attention_study_crosses_modes_and_variants() -> None:
    study = read_study("attention")
    crossed = {
        (values["variant"], values.get("architecture.attention_mode")) for values in study.trials.values()
    }
    modes = ("heads", "published", "tokens")
    expected = {(variant, mode) for variant in ("cnn_transformer", "cnn_transformer_mfe") for mode in modes}
    assert crossed == expected | {("cnn", None)}
    assert study.seeds >= 2


def test_values_come_in_order_and_ranges_in_all_kinds(tmp_path: Path) -> None:
    study = read_study(
        write(
            tmp_path,
            """
            recipe = "artist-stage1"
            about = '''two
            lines'''
            samples = 5
            [values]
            epochs = 2
            input.size = 64
            [trials."as it is"]
            [trials.wide]
            architecture = { filters = [8, 8], heads = 2 }
            [ranges]
            learning_rate = { low = 1e-4, high = 1e-2, log = true }
            architecture.layers = { low = 1, high = 4 }
            architecture.filters = { choices = [[8, 8], [16, 16]] }
            """,
        )
    )
    assert (study.name, study.about, study.seeds) == ("mine", "two lines", 1)
    assert study.values == {"epochs": 2, "input.size": 64}
    assert study.trials == {
        "as it is": {},
        "wide": {"architecture.filters": [8, 8], "architecture.heads": 2},
    }
    assert study.ranges == (
        Range("learning_rate", low=1e-4, high=1e-2, log=True),
        Range("architecture.layers", low=1, high=4),
        Range("architecture.filters", choices=([8, 8], [16, 16])),
    )
    assert [entry.whole for entry in study.ranges[:2]] == [False, True]
    assert study.trial_names()[-2:] == ["sample 4", "sample 5"]
    assert study.trial_names(3) == ["as it is", "wide", "sample 1"]
    assert study.trial_names(1) == ["as it is"]


def test_without_ranges_a_limit_makes_no_trials_up() -> None:
    study = read_study("attention")
    assert study.trial_names(100) == list(study.trials)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("recipe = 'x'\nepoch = 1\n[trials.a]", "'epoch' is unknown"),
        ("[trials.a]", "names no recipe"),
        ("recipe = 'x'", "nothing to try"),
        ("recipe = 'x'\nseeds = 0\n[trials.a]", "0 seeds"),
        ("recipe = 'x'\nseeds = 'two'\n[trials.a]", "'seeds' must be a whole number"),
        ("recipe = 'x'\ntrials = 3", "'trials' must be a table"),
        ("recipe = 'x'\n[trials]\na = 3", "Trial 'a' must be a table"),
        ("recipe = 'x'\n[trials.'1 layer']\n[trials.'+1 layer']", "share its folder with trial '1 layer'"),
        ("recipe = 'x'\n[trials.'+']", "no letter or digit"),
        ("recipe = 'x'\n[ranges]\nepochs = 3", "'epochs' is malformed"),
        ("recipe = 'x'\n[ranges]\nepochs = { low = 3 }", "'epochs' is malformed"),
        ("recipe = 'x'\n[ranges]\nepochs = { low = true, high = 3 }", "'epochs' is malformed"),
        ("recipe = 'x'\n[ranges]\nepochs = { low = 1, high = 3, step = 2 }", "'epochs' is malformed"),
        ("recipe = 'x'\n[ranges]\nepochs = { choices = [] }", "'epochs' needs a list"),
        ("recipe = 'x'\n[ranges]\nepochs = { low = 3, high = 1 }", "from 3 to 1"),
        ("recipe = 'x'\n[ranges]\nema = { low = 0, high = 1, log = true }", "above 0"),
        ("recipe = ", "not valid TOML"),
    ],
)
def test_mistakes_are_named(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=named):
        read_study(write(tmp_path, text))


def test_an_unknown_study_gets_the_known_ones() -> None:
    with pytest.raises(TrainingError, match="use one of attention, chae"):
        read_study("unheard-of")


def test_overrides_are_texts_that_a_recipe_takes() -> None:
    values = {"architecture.filters": [8, 16], "optimizer": "adam", "ema": 0.5, "sizes": []}
    assert as_overrides(values) == [
        "architecture.filters=[8, 16]",
        'optimizer="adam"',
        "ema=0.5",
        "sizes=[]",
    ]


def test_folders_are_named_for_their_trials() -> None:
    assert folder_name("Wider filters, 2x") == "wider-filters-2x"


def test_the_page_on_studies_has_a_place_for_each_bundled_one() -> None:
    for name in BUNDLED:
        place = PAGE.split(f"<!-- study {name} -->")[1].split(f"<!-- /study {name} -->")[0]
        assert place.strip()
        assert f"pawmatch search --study {name} --data " in PAGE


def test_the_example_on_the_page_fits_its_recipe(tmp_path: Path) -> None:
    example = PAGE.split("```toml\n")[1].split("```")[0]
    search = Search(read_study(write(tmp_path, example)), Path("data"), Path("out"))
    recipe = search.recipe({entry.key: entry.example for entry in search.study.ranges})
    assert recipe.architecture["layers"] == 1
    assert len(search.study.trial_names()) == 31
