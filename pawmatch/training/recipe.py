"""Recipes: every number that a training run depends on, from a small TOML file or picked for the data."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Interval

from pawmatch.errors import TrainingError
from pawmatch.strict import Refused, Share, decode

RECIPES = Path(__file__).parent / "recipes"
AUTO = "auto"  # the recipe of a run that names none

Count = Annotated[int, Interval(ge=1)]
Amount = Annotated[float, Interval(ge=0)]
Above0 = Annotated[float, Interval(gt=0)]
Changes = tuple[tuple[Share, Annotated[int, Interval(ge=0)]], ...]

# Measured on one core of a server of 2023 with torch alone, rounded down.
CORE_IMAGES, GPU_IMAGES = 10, 1000  # images a second through the backbone
MAX_CORES = 8  # more make one pass no faster
BACKBONE_SECONDS = 180
HEAD_STEPS = 400
MIN_EPOCHS, MAX_EPOCHS = 4, 40
MAX_VIEWS = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """One training recipe. Fractions of `epochs` say when image size and trained stages change."""

    name: str
    task: str
    family: str
    about: str = ""
    variant: str = ""  # the variant that this recipe is for; empty: any
    init: str = ""  # a pretrained backbone to start from, by the name of a bundled one or its folder
    words: dict[str, str] = field(default_factory=dict)  # title, subject, noun and plural of a new task
    architecture: dict[str, Any] = field(default_factory=dict)
    input: dict[str, Any] = field(default_factory=dict)  # values of InputSpec
    sizes: Changes = ()  # (from this fraction of the epochs on, image size)
    # (from this fraction of the epochs on, so many last stages of the feature extractor are trained);
    # what comes after the feature extractor always is. Empty: everything, always.
    unfreeze: Changes = ()

    # Of layers that never learn, so many random views of each image are run once, before the first epoch.
    cached_views: Annotated[int, Interval(ge=0)] = 0

    # Of each class, this share of its training images is used, one at least; another one with another seed.
    label_share: Annotated[float, Interval(gt=0, le=1)] = 1.0
    repeats: Count = 1  # how often an epoch shows each image

    epochs: Count = 20
    # Epochs without a lower validation loss before it stops; 0 is off.
    patience: Annotated[int, Interval(ge=0)] = 0
    keep_best: bool = False  # keep the weights of the epoch with the lowest validation loss, not the last
    batch_size: Count = 64  # of all processes together
    balanced: bool = False  # draw every class alike often, where the classes have unlike many images
    optimizer: str = "adamw"
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    learning_rate: Amount = 2e-3  # peak of the one-cycle schedule
    weight_decay: Amount = 0.05
    warmup: Share = 0.2  # share of the steps on which the learning rate rises
    clip_gradient: Amount = 5.0  # largest gradient norm; 0 is off
    label_smoothing: Share = 0.1
    focal: Amount = 0.0  # gamma of the focal loss; 0 is plain cross-entropy
    distillation: Share = 0.0  # a teacher's share of the loss; the labels have the rest
    # Softens the answers of teacher and student before they are compared.
    distillation_temperature: Above0 = 1.0
    ema: Annotated[float, Interval(ge=0, lt=1)] = 0.0  # decay of the averaged weights that are kept; 0 is off

    # Area of a random resized crop; from 1.0 on, no crop: the whole image as the input table says.
    crop_scale: tuple[Above0, Above0] = (0.3, 1.0)
    crop_ratio: tuple[Above0, Above0] = (0.75, 1.3333)
    rotation: Amount = 0.0  # largest angle in degrees, either way
    shear: Amount = 0.0  # largest angle in degrees, either way
    zoom: Amount = 0.0  # largest change of scale, of width and height apart: 0.2 is 0.8 to 1.2
    plain: Share = 0.0  # share of the images that are shown as they are
    flip: Share = 0.5
    color_jitter: Amount = 0.2
    # Magnitude, out of 30, of RandAugment's two changes of each view (Cubuk et al. 2019); 0 is off.
    rand_augment: Annotated[int, Interval(ge=0, le=30)] = 0
    zoom_out: Share = 0.0  # share of the images that are set into a larger scene first
    zoom_out_factor: Annotated[float, Interval(ge=1)] = (
        1.8  # largest side of that scene, in sides of the image
    )
    mixup: Amount = 0.0  # alpha of the beta distribution; 0 is off
    cutmix: Amount = 0.0
    mix_probability: Share = 0.5  # share of the batches that are mixed

    license: str = ""
    seed: Annotated[int, Interval(ge=0, le=2**32)] = 0

    def size_at(self, epoch: int) -> int:
        """Side in pixels of the training images in `epoch`, counted from 0."""
        return self._value_at(epoch, self.sizes, int(self.input.get("size", 224)))

    def stages_at(self, epoch: int) -> int | None:
        """How many last stages are trained in `epoch`, counted from 0; None is all of them."""
        return self._value_at(epoch, self.unfreeze, 0) if self.unfreeze else None

    def _value_at(self, epoch: int, changes: Changes, value: int) -> int:
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
    values = read_toml("recipe", name, RECIPES)
    values.setdefault("name", Path(name).stem)
    return parse_recipe(values, overrides)


def pick_recipe(
    task: str, *, images: int, classes: int, cores: int, gpu: bool, overrides: Sequence[str] = ()
) -> Recipe:
    """The recipe for a folder that no recipe was made for: three heads on the frozen bundled backbone.

    What is frozen runs once for some random views of each training image; a machine of so many `cores`
    does that in about BACKBONE_SECONDS. The heads then take about HEAD_STEPS steps, fewer on large folders
    than on small ones have passes. The same folder on the same machine gives the same recipe.
    """
    affordable = BACKBONE_SECONDS * (GPU_IMAGES if gpu else CORE_IMAGES * min(cores, MAX_CORES))
    size = 224 if images <= affordable else 160  # half the work; few pixels are better than no second view
    views = max(1, min(MAX_VIEWS, round(affordable * (224 / size) ** 2 / images)))
    batch_size = 64 if images >= 2000 else 32 if images >= 200 else 16
    epochs = max(MIN_EPOCHS, min(MAX_EPOCHS, round(HEAD_STEPS * batch_size / images)))
    scarce = images < 100 * classes
    values = {
        "name": AUTO,
        "about": f"Three heads on the frozen ImageNet backbone, with settings picked for {images} training "
        f"images of {classes} classes.",
        "task": task,
        "family": "hybrid",
        "init": "efficientnet_lite2",
        "license": "not stated; whoever owns the training images decides",
        "epochs": epochs,
        "batch_size": batch_size,
        "balanced": True,
        "unfreeze": [[0.0, 0]],
        "cached_views": views,
        "learning_rate": 1e-3,
        "clip_gradient": 1.0,
        "ema": 0.99,
        "crop_scale": [0.4 if scarce else 0.25, 1.0],
        "architecture": {
            "backbone": "tf_efficientnet_lite2",
            "projection": 320,
            "attention_mode": "tokens",
            "morphology_channels": 16,
            "morphology_width": 32,
        },
        "input": {
            "size": size,
            "resize": "squash",
            "views": ["plain", "mirror"],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
    }
    return parse_recipe(values, overrides)


def parse_recipe(values: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A recipe of TOML values and `key=value` overrides; raises TrainingError naming the first bad key."""
    for override in overrides:
        apply_override(values, override)
    return parse(Recipe, values, "Recipe")


def read_toml(kind: str, name: str, folder: Path) -> dict[str, Any]:
    """The values of the bundled file `name` of `folder`, or of the TOML file at that path."""
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.toml")))
        raise TrainingError(f"There is no {kind} {name!r}; use one of {known}, or the path of a .toml file.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise TrainingError(f"{kind.capitalize()} {name!r} is not valid TOML: {exc}.") from exc


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


def parse(model: type[T], values: dict[str, Any], kind: str) -> T:
    """`values` of a TOML file as a dataclass; raises TrainingError with the first fault, in words."""
    try:
        return decode(model, values, optional=None)
    except Refused as exc:
        if exc.unknown and exc.key.isidentifier():  # not one of a table within
            known = ", ".join(sorted(model.__annotations__))
            raise TrainingError(f"{kind} key {exc.key!r} is unknown; use one of {known}.") from exc
        raise TrainingError(exc.sentence(kind)) from exc


def same_recipe(saved: dict[str, Any], recipe: Recipe) -> bool:
    """Whether a saved recipe trains as this one does: prose, terms and views of answers change no epoch."""
    return _numbers(saved) == _numbers(recipe.to_dict())


def _numbers(values: dict[str, Any]) -> str:
    # Runs of before a key was known have what it does by default.
    values = {entry.name: entry.default for entry in fields(Recipe) if entry.default is not MISSING} | values
    kept = {key: v for key, v in values.items() if key not in ("about", "license", "variant", "words")}
    kept["input"] = {key: v for key, v in kept.get("input", {}).items() if key != "views"}
    return json.dumps(kept, sort_keys=True)  # in which tuples and lists are alike


def training_command(recipe: Recipe, variant: str) -> str:
    """The command that trains by a recipe, as Markdown."""
    which = f"--task {recipe.task}" if recipe.name == AUTO else f"--recipe {recipe.name}"
    teacher = " --teacher DIR" if recipe.distillation else ""
    return f"`pawmatch train {which} --variant {variant} --data DIR --out DIR{teacher}`"
