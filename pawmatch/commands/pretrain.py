"""`pawmatch pretrain`: a backbone from unlabelled images, by a masked autoencoder."""

from __future__ import annotations

import argparse
from pathlib import Path

from pawmatch.commands.console import add_machine_options, add_overrides, number, say
from pawmatch.commands.train import precision

SUMMARY = "Pretrain a backbone on images without labels."
EPILOG = """\
The folders hold images, flat or nested; no name in them counts. 60 % of each image is hidden, and the network
learns to tell what was there (FCMAE). A run that was cut goes on where it stopped when the same command is
given again. --out becomes a folder for `pawmatch train --init`, with history.csv, the learning curve, and
reconstructions.png: what is visible, what the network makes of it, and what it is.

example:
  pawmatch pretrain --data photos/ --backbone convnextv2_atto --out runs/fcmae --set epochs=100
  pawmatch train --recipe my.toml --data labelled/ --init runs/fcmae
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `pretrain`."""
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of images, nested or not; may be given several times",
    )
    parser.add_argument("--backbone", required=True, metavar="NAME", help="a CNN, by timm's name")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the backbone")
    add_overrides(
        parser, "change a value, such as epochs=50, input.size=64, batch_size=32 or learning_rate=1e-3"
    )
    add_machine_options(parser)
    parser.add_argument("--autocast", metavar="TYPE", help="bfloat16 or float16 (default: full float32)")


def run(args: argparse.Namespace) -> int:
    """Pretrain, and write the backbone."""
    threads = number("--threads", args.threads)
    autocast = precision(args.autocast)
    import torch

    from pawmatch.engines import resolve_device
    from pawmatch.training.fcmae import pretrain
    from pawmatch.training.loop import Settings

    if threads is not None:
        torch.set_num_threads(threads)
    settings = Settings(device=resolve_device(args.device), autocast=autocast)
    pretrain(args.data, args.backbone, args.out, overrides=args.overrides, settings=settings, report=say)
    return 0
