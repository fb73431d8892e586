"""`pawmatch train`: a recipe and a folder of images in, a checkpoint folder out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pawmatch.commands.console import Listing, add_folder_options, add_training_options, number, say
from pawmatch.errors import BadOption
from pawmatch.labels import VARIANT_NAMES

SUMMARY = "Train one variant, or all of them, on a folder of images."
EPILOG = """\
The data folder holds train/ and val/, each with one subfolder of images per class; without these two,
a share of each class is held out for validation. In place of subfolders there may be .tar shards as
WebDataset has them: key.jpg with key.cls (a class, or the number of a line of classes.txt, from 0), or
class/key.jpg. Without a recipe, one is picked for the images and the
machine: three heads on the bundled backbone, which stays as it is. A run that was cut goes on where it
stopped when the same command is given again. It leaves summary.json and history.csv, the learning curve,
in --out.

Several processes share a run, one per GPU, when torchrun starts them; the recipe's batch is shared out:
  torchrun --nproc-per-node 2 -m pawmatch train --recipe my.toml --data photos --out runs/my

examples:
  pawmatch train --task birds --data birds/
  pawmatch train --recipe my.toml --data photos --out runs/my --set epochs=2
"""
PRECISIONS = ("bfloat16", "float16")


def recipes() -> Iterator[str]:
    """A line for each bundled recipe."""
    from pawmatch.training.recipe import RECIPES, read_recipe

    for path in sorted(RECIPES.glob("*.toml")):
        yield f"{path.stem}: {' '.join(read_recipe(path.stem).about.split())}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `train`."""
    parser.add_argument(
        "--list-recipes", action=Listing, lines=recipes, help="list the bundled recipes and exit"
    )
    parser.add_argument(
        "--recipe", metavar="NAME", help="a bundled recipe, or a .toml file (default: picked for the data)"
    )
    parser.add_argument(
        "--task", metavar="NAME", help="what the checkpoint is for, such as birds (default: the recipe's)"
    )
    parser.add_argument(
        "--variant",
        help=f"{', '.join(VARIANT_NAMES)}, or all: the three together, on one shared feature extractor "
        "(default: the recipe's own, or else all)",
    )
    add_folder_options(parser, required=True)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for the checkpoint (default: runs/ and the recipe or task)",
    )
    parser.add_argument(
        "--teacher",
        action="append",
        default=[],
        metavar="SRC",
        dest="teachers",
        help="checkpoint that a recipe with `distillation` learns from; may be given several times",
    )
    parser.add_argument(
        "--scenes",
        type=Path,
        metavar="DIR",
        help="images that a recipe with zoom_out sets others into (default: their own edges)",
    )
    add_training_options(parser)
    parser.add_argument(
        "--engine",
        help="torch, openvino or auto, for layers whose maps a recipe caches (default: torch with "
        "a recipe, else auto)",
    )
    parser.add_argument("--compile", action="store_true", help="compile the model first; pays on long runs")
    parser.add_argument("--autocast", metavar="TYPE", help="bfloat16 or float16 (default: full float32)")
    parser.add_argument(
        "--stream",
        action="store_true",
        help="decode images anew in each epoch instead of keeping them in memory",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write the learning curve to OUT/tensorboard too"
    )


def run(args: argparse.Namespace) -> int:
    """Train, and write the checkpoints."""
    threads = number("--threads", args.threads)
    autocast = precision(args.autocast)
    if args.recipe is None and args.task is None:
        raise BadOption("There is neither a --recipe nor a --task; name a recipe, or what to train for.")
    overrides = args.overrides + ([f"task={json.dumps(args.task)}"] if args.task is not None else [])
    from pawmatch.training.recipe import AUTO, read_recipe

    recipe = read_recipe(args.recipe, overrides) if args.recipe is not None else None

    import torch

    from pawmatch.engines import ENGINES, resolve_device
    from pawmatch.training.distributed import joined
    from pawmatch.training.loop import Settings
    from pawmatch.training.run import ALL, recipe_for, run_training

    engine = args.engine or ("torch" if args.recipe else "auto")
    if engine.partition(" ")[0] not in ENGINES:  # a recipe asks for it late, or never
        raise BadOption(f"--engine is {engine!r}; use one of {', '.join(ENGINES)}.")
    if threads is not None:
        torch.set_num_threads(threads)
    split: dict[str, Any] = {"val": args.val, "val_share": args.val_share}
    with joined(resolve_device(args.device)) as device:
        if recipe is None:
            recipe = recipe_for(args.task, args.data, device=device, overrides=overrides, **split)
            say(
                f"{recipe.about} They are {recipe.epochs} epochs, batches of {recipe.batch_size}, "
                f"{recipe.cached_views} views of {recipe.input['size']} px; --set changes them."
            )
        run_training(
            recipe,
            args.variant or recipe.variant or ALL,
            args.data,
            args.out or Path("runs", recipe.task if recipe.name == AUTO else recipe.name),
            init=args.init,
            teachers=args.teachers,
            outside=args.outside,
            unknown=args.unknown,
            scenes=args.scenes,
            settings=Settings(
                device=device,
                engine=engine,
                compile=args.compile,
                autocast=autocast,
                tensorboard=args.tensorboard,
                stream=args.stream,
            ),
            report=say,
            **split,
        )
    return 0


def precision(text: str | None) -> str:
    """The value of --autocast; raises BadOption where there is none such."""
    if text is not None and text not in PRECISIONS:
        raise BadOption(f"--autocast is {text!r}; use {' or '.join(PRECISIONS)}.")
    return text or ""
