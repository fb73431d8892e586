"""Recipes: every number that a training run depends on, read from a small TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pawmatch.errors import TrainingError

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """One training recipe. Fractions of `epochs` say when image size and trained stages change."""

    name: str
    task: str
    family: str
    about: str = ""
    variant: str = ""  # the variant that this recipe is for; empty: any
    base: str = ""  # recipe whose run the weights start from
    init: str = ""  # or a pretrained backbone, by the name of a bundled one or its folder
    architecture: dict[str, Any] = field(default_factory=dict)
    input: dict[str, Any] = field(default_factory=dict)  # values of InputSpec
    sizes: tuple[tuple[float, int], ...] = ()  # (from this fraction of the epochs on, image size)
    # (from this fraction of the epochs on, so many last stages of the feature extractor are trained);
    # what comes after the feature extractor always is. Empty: everything, always.
    unfreeze: tuple[tuple[float, int], ...] = ()

    # Of layers that never learn, so many random views of each image are run once, before the first epoch.
    cached_views: int = 0

    epochs: int = 20
    patience: int = 0  # stop after so many epochs without a lower validation loss; 0 is off
    keep_best: bool = False  # keep the weights of the epoch with the lowest validation loss, not the last
    batch_size: int = 64  # of all processes together
    balanced: bool = False  # draw every class alike often, where the classes have unlike many images
    optimizer: str = "adamw"
    schedule: str = "one-cycle"  # or "constant"
    learning_rate: float = 2e-3  # peak of the one-cycle schedule
    weight_decay: float = 0.05
    warmup: float = 0.2  # share of the steps on which the learning rate rises
    clip_gradient: float = 5.0  # largest gradient norm; 0 is off
    label_smoothing: float = 0.1
    focal_gamma: float = 0.0  # exponent of the focal loss; 0 is cross-entropy
    distillation: float = 0.0  # a teacher's share of the loss; the labels have the rest
    distillation_temperature: float = 1.0  # softens the answers of teacher and student before they compare
    ema: float = 0.0  # decay per step of the averaged weights that are kept in the end; 0 is off
    refit: bool = False  # in the end, fit BatchNorm and class offsets to images as answering sees them

    # Area of a random resized crop; from 1.0 on, no crop: the whole image as the input table says.
    crop_scale: tuple[float, float] = (0.3, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 1.3333)
    rotation: float = 0.0  # largest angle in degrees, either way
    shear: float = 0.0  # largest shift to the side, in heights of the image
    zoom: float = 0.0  # largest change of scale: 0.2 is 0.8 to 1.2
    plain: float = 0.0  # share of the images that are shown as they are
    flip: float = 0.5
    color_jitter: float = 0.2
    rand_augment: int = 0  # strength of RandAugment (Cubuk et al. 2019) in steps of 30, 0 is off
    zoom_out: float = 0.0  # share of the images that are set into a larger scene first
    zoom_out_factor: float = 1.8  # largest side of that scene, in sides of the image
    mixup: float = 0.0  # alpha of the beta distribution; 0 is off
    cutmix: float = 0.0
    mix_probability: float = 0.5  # share of the batches that are mixed

    license: str = ""
    seed: int = 0

    def size_at(self, epoch: int) -> int:
        """Side in pixels of the training images in `epoch`, counted from 0."""
        size = int(self.input.get("size", 224))
        return self._value_at(epoch, self.sizes, size)

    def stages_at(self, epoch: int) -> int | None:
        """How many last stages are trained in `epoch`, counted from 0; None is all of them."""
        return self._value_at(epoch, self.unfreeze, 0) if self.unfreeze else None

    def _value_at(self, epoch: int, changes: tuple[tuple[float, int], ...], value: int) -> int:
        for start, later in changes:
            if epoch >= start * self.epochs:
                value = later
        return value

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return asdict(self)


def read_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read the bundled recipe `name` or the TOML file at that path, with `key=value` overrides applied.

    A key of a table is written with a dot, a value as in TOML: `architecture.backbone="resnet18d"`.
    Raises TrainingError for an unknown recipe, key or malformed value.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise TrainingError(f"There is no recipe {name!r}; use one of {known}, or the path of a .toml file.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise TrainingError(f"Recipe {name!r} is not valid TOML: {exc}.") from exc
    values.setdefault("name", path.stem)
    for override in overrides:
        apply_override(values, override)
    known_keys = {entry.name for entry in fields(Recipe)}
    if unknown := sorted(set(values) - known_keys):
        known = ", ".join(sorted(known_keys))
        raise TrainingError(f"Recipe key {unknown[0]!r} is unknown; use one of {known}.")
    check_kinds(values)
    for key in ("sizes", "unfreeze", "crop_scale", "crop_ratio"):
        if key in values:
            values[key] = tuple(tuple(v) if isinstance(v, list) else v for v in values[key])
    try:
        return Recipe(**values)
    except TypeError as exc:
        raise TrainingError(f"Recipe {name!r} is incomplete: {exc}.") from exc


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one `key=value` in a recipe's values, in place."""
    key, sign, text = override.partition("=")
    if not sign:
        raise TrainingError(f"Override {override!r} is malformed; write key=value.")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string: --set optimizer=adam
    *tables, last = key.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise TrainingError(f"Recipe key {table!r} is no table; write {table}=value.")
    values[last] = value


def check_kinds(values: dict[str, Any]) -> None:
    """Raise TrainingError for a value of another kind than its key's: epochs=many."""
    kinds: dict[type, tuple[type | tuple[type, ...], str]] = {
        bool: (bool, "true or false"),
        int: (int, "a whole number"),
        float: ((int, float), "a number"),
        str: (str, "a text"),
        tuple: (list, "a list"),
        dict: (dict, "a table"),
    }
    usual = Recipe("", "", "").to_dict()
    for key, value in values.items():
        kind, words = kinds[type(usual[key])]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TrainingError(f"Recipe key {key!r} is {value!r}; it must be {words}.")
    for key in ("epochs", "batch_size"):
        if values.get(key, 1) < 1:
            raise TrainingError(f"Recipe key {key!r} is {values[key]}; it must be 1 or more.")
    if not 0 <= values.get("distillation", 0) <= 1:
        raise TrainingError(
            f"Recipe key 'distillation' is {values['distillation']}; it must be between 0 and 1."
        )
    if values.get("distillation_temperature", 1) <= 0:
        raise TrainingError(
            f"Recipe key 'distillation_temperature' is {values['distillation_temperature']}; "
            "it must be above 0."
        )


def same_recipe(saved: dict[str, Any], recipe: Recipe) -> bool:
    """Whether a saved recipe trains as this one does; a key added since it was saved counts as default."""
    completed = {**Recipe("", "", "").to_dict(), **saved}
    return bool(_numbers(completed) == _numbers(recipe.to_dict()))


def _numbers(values: dict[str, Any]) -> Any:
    """What the epochs of a run depend on: no prose, no check of --variant, nothing that comes after them."""
    idle = ("about", "license", "variant", "refit")
    kept = {key: value for key, value in values.items() if key not in idle}
    kept["input"] = {key: value for key, value in kept["input"].items() if key != "views"}
    return _plain(kept)


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value


def training_command(recipe: Recipe, variant: str) -> str:
    """The command that trains by a recipe, as Markdown."""
    teacher = " --teacher DIR" if recipe.distillation else ""
    return f"`pawmatch train --recipe {recipe.name} --variant {variant} --data DIR --out DIR{teacher}`"
