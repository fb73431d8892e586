"""`pawmatch train`: a recipe and a folder of images in, a checkpoint folder out."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from pawmatch.commands.console import Listing, say
from pawmatch.errors import BadOption
from pawmatch.settings import whole
from pawmatch.tasks import VARIANT_NAMES

SUMMARY = "Train one variant, or all of them, on a folder of images."
EPILOG = """\
The data folder holds train/ and val/, each with one subfolder of images per class; without these two,
a fifth of the images is held out for validation. A run that was cut goes on where it stopped when the
same command is given again. It leaves summary.json and history.csv, the learning curve, in --out.

Several processes share a run, one per GPU, when torchrun starts them; the recipe's batch is shared out:
  torchrun --nproc-per-node 2 -m pawmatch train --recipe breed-full --data photos --out runs/full

example:
  pawmatch train --recipe breed --data photos --out runs/breed --set epochs=2
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
    parser.add_argument("--recipe", required=True, metavar="NAME", help="a bundled recipe, or a .toml file")
    parser.add_argument(
        "--variant",
        help=f"{', '.join(VARIANT_NAMES)}, or all: the three together, on one shared feature extractor "
        "(default: the recipe's own, or else all)",
    )
    parser.add_argument(
        "--data",
        required=True,
        action="append",
        type=Path,
        metavar="DIR",
        help="folder of images; may be given several times, for classes or images from several places",
    )
    parser.add_argument(
        "--val",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="folder of images to validate on instead of the data's own val/; may be given several times",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the checkpoint")
    parser.add_argument(
        "--init", metavar="SRC", help="backbone or checkpoint to start from (default: the recipe's)"
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
        "--outside",
        type=Path,
        metavar="DIR",
        help="images that do not belong to the task, from which it learns to say no",
    )
    parser.add_argument(
        "--unknown",
        type=Path,
        metavar="DIR",
        help="images of classes that the data does not have, from which the checkpoint learns to say so",
    )
    parser.add_argument(
        "--scenes",
        type=Path,
        metavar="DIR",
        help="images that a recipe with zoom_out sets others into (default: their own edges)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a value of the recipe, such as epochs=2; may be given several times",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")
    parser.add_argument(
        "--engine", default="torch", help="torch or openvino, for layers whose maps a recipe caches"
    )
    parser.add_argument("--threads", metavar="N", help="threads for arithmetic (default: torch's choice)")
    parser.add_argument("--compile", action="store_true", help="compile the model first; pays on long runs")
    parser.add_argument("--autocast", metavar="TYPE", help="bfloat16 or float16 (default: full float32)")
    parser.add_argument(
        "--tensorboard", action="store_true", help="write the learning curve to OUT/tensorboard too"
    )


def run(args: argparse.Namespace) -> int:
    """Train, and write the checkpoints."""
    from pawmatch.training.recipe import read_recipe

    threads = number("--threads", args.threads, lowest=1) if args.threads is not None else None
    if args.autocast is not None and args.autocast not in PRECISIONS:
        raise BadOption(f"--autocast is {args.autocast!r}; use {' or '.join(PRECISIONS)}.")
    recipe = read_recipe(args.recipe, args.overrides)

    import torch

    from pawmatch.engines import ENGINES, resolve_device
    from pawmatch.training.distributed import joined
    from pawmatch.training.loop import Settings
    from pawmatch.training.run import ALL, run_training

    if args.engine.partition(" ")[0] not in ENGINES:  # a recipe asks for it late, or never
        raise BadOption(f"--engine is {args.engine!r}; use one of {', '.join(ENGINES)}.")
    if threads is not None:
        torch.set_num_threads(threads)
    with joined(resolve_device(args.device)) as device:
        settings = Settings(
            device=device,
            engine=args.engine,
            compile=args.compile,
            autocast=args.autocast or "",
            tensorboard=args.tensorboard,
        )
        run_training(
            recipe,
            args.variant or recipe.variant or ALL,
            args.data,
            args.out,
            val=args.val,
            init=args.init,
            teachers=args.teachers,
            outside=args.outside,
            unknown=args.unknown,
            scenes=args.scenes,
            settings=settings,
            report=say,
        )
    return 0


def number(flag: str, text: str, *, lowest: int) -> int:
    """A whole number from a flag; raises BadOption naming both."""
    try:
        return whole(lowest, 1024)(text)
    except ValueError as exc:
        raise BadOption(f"{flag} is {text!r}; {exc}.") from exc
