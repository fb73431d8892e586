"""Recipes: the bundled ones, overrides, mistakes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pawmatch.errors import TrainingError
from pawmatch.images import InputSpec
from pawmatch.models import VARIANTS, build_model
from pawmatch.training.init import plain_architecture
from pawmatch.training.recipe import RECIPES, Recipe, pick_recipe, read_recipe, same_recipe
from pawmatch.training.run import ALL

BUNDLED = sorted(path.stem for path in RECIPES.glob("*.toml"))


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_recipes_build_every_variant(name: str) -> None:
    recipe = read_recipe(name)
    InputSpec.from_dict(recipe.input)
    with torch.device("meta"):
        for variant in VARIANTS if recipe.variant in {"", ALL} else [recipe.variant]:
            build_model(family=recipe.family, variant=variant, num_classes=3, **plain_architecture(recipe))


def test_sizes_change_at_their_share_of_the_epochs() -> None:
    recipe = Recipe("r", "breed", "hybrid", epochs=10, sizes=((0.0, 96), (0.7, 128)), input={"size": 160})
    assert [recipe.size_at(epoch) for epoch in (0, 6, 7, 9)] == [96, 96, 128, 128]
    assert Recipe("r", "breed", "hybrid", input={"size": 160}).size_at(3) == 160


def test_overrides_reach_tables_and_keep_types() -> None:
    recipe = read_recipe(
        "breed",
        ["epochs=3", "optimizer=sgd", 'architecture.attention_mode="tokens"', "crop_scale=[0.5, 1.0]"],
    )
    assert (recipe.epochs, recipe.optimizer) == (3, "sgd")
    assert recipe.architecture["attention_mode"] == "tokens"
    assert recipe.crop_scale == (0.5, 1.0)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [(["epochs"], "key=value"), (["speed=3"], "'speed'"), (["epochs.x=3"], "'epochs' is no table")],
)
def test_bad_overrides_are_named(overrides: list[str], named: str) -> None:
    with pytest.raises(TrainingError, match=named):
        read_recipe("breed", overrides)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("epochs=many", "Recipe: epochs must be a whole number."),
        ("epochs=0", "epochs 0 must be 1 or more"),
        ("distillation=1.5", "distillation 1.5 must be 1.0 or less"),
        ("distillation_temperature=0", "distillation_temperature 0 must be above 0"),
        ("learning_rate=true", "learning_rate must be a finite number"),
        ("balanced=1", "balanced must be true or false"),
        ("sizes=128", "sizes must be a list"),
        ("input=128", "input must be an object"),
    ],
)
def test_values_of_the_wrong_kind_are_named(override: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        read_recipe("artist-chae", [override])


def test_the_published_chae_recipe_says_what_the_paper_says() -> None:
    recipe = read_recipe("artist-chae")
    model = build_model(family=recipe.family, variant=recipe.variant, num_classes=11, **recipe.architecture)
    assert sum(parameter.numel() for parameter in model.parameters()) == 402_417
    said = (recipe.optimizer, recipe.learning_rate, recipe.schedule, recipe.batch_size, recipe.epochs)
    assert said == ("adam", 1e-4, "constant", 32, 90)
    assert (recipe.rotation, recipe.shear, recipe.zoom, recipe.plain) == (30, 0.2, 0.2, 0.2)


def test_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(TrainingError, match="artist, artist-chae, artist-chae-taught, breed, phases, or"):
        read_recipe("cat")


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('task = "breed"\nfamily = "hybrid"\nepochs = 2\n')
    assert read_recipe(str(path)).name == "mine"
    path.write_text("epochs = = 2")
    with pytest.raises(TrainingError, match="not valid TOML"):
        read_recipe(str(path))
    path.write_text("epochs = 2")
    with pytest.raises(TrainingError, match="lacks the key task; add it"):
        read_recipe(str(path))


def test_a_saved_recipe_equals_itself_whatever_is_said_of_it() -> None:
    recipe = read_recipe("breed")
    saved = recipe.to_dict()
    assert same_recipe(saved, recipe)
    assert same_recipe({**saved, "about": "", "variant": "cnn"}, recipe)
    assert not same_recipe({**saved, "epochs": 99}, recipe)
    earlier = {key: value for key, value in saved.items() if key != "repeats"}
    assert same_recipe(earlier, recipe)
    assert not same_recipe(earlier, replace(recipe, repeats=2))


def test_a_recipe_is_picked_for_the_data_and_the_machine() -> None:
    few = pick_recipe("birds", images=240, classes=10, cores=2, gpu=False)
    assert (few.name, few.task, few.init) == ("auto", "birds", "efficientnet_lite2")
    assert few.stages_at(0) == 0  # the backbone stays as it is
    many, machine = (
        pick_recipe("birds", images=images, classes=10, cores=cores, gpu=False)
        for images, cores in ((20_000, 2), (20_000, 8))
    )
    assert few.epochs > many.epochs >= 4
    assert few.cached_views > many.cached_views == 1
    assert few.batch_size < many.batch_size
    assert few.crop_scale[0] > many.crop_scale[0]  # few pictures: milder crops
    assert (few.input["size"], many.input["size"]) == (224, 160)
    assert machine.cached_views >= many.cached_views
    assert pick_recipe("birds", images=20_000, classes=10, cores=2, gpu=True).cached_views == 8
    changed = pick_recipe("birds", images=9, classes=2, cores=1, gpu=False, overrides=["epochs=2"])
    assert changed.epochs == 2
    InputSpec.from_dict(changed.input)
