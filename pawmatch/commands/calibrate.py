"""`pawmatch calibrate`: fit a checkpoint's confidence anew, on images like those it will see."""

from __future__ import annotations

import argparse
from pathlib import Path

from pawmatch.commands.console import add_folder_options, add_source_options, say
from pawmatch.errors import BadOption

SUMMARY = "Fit confidence, review flag and scope gates of a source anew, on labelled images."
EPILOG = """\
For an imported checkpoint, which has no calibration yet, and for one that will see other photos than those
it was calibrated on. The weights stay as they are. The data folder is one for `train`: train/ and val/,
each with one subfolder of images per class, named as the checkpoint's labels; without these two, a share of
each class is held out and the calibration fitted on it. Some hundred validation images are needed for it
to mean something. They must not have been used to train the weights.

All variants that the source has are written to --out, with a new model card.

example:
  pawmatch calibrate --source runs/original --data photos --outside others --unknown unlabeled --out runs/new
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `calibrate`."""
    add_source_options(parser)
    add_folder_options(parser)
    parser.add_argument("--engine", default="torch", help="torch or openvino (default: torch)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the checkpoint")


def run(args: argparse.Namespace) -> int:
    """Fit, and write the checkpoints."""
    from pawmatch.engines import resolve_device
    from pawmatch.training.export import recalibrate

    if not args.data and not args.val:
        raise BadOption("There is nothing to fit on; give --data or --val.")
    recalibrate(
        args.task,
        args.source,
        args.data,
        args.out,
        val=args.val,
        outside=args.outside,
        unknown=args.unknown,
        val_share=args.val_share,
        device=resolve_device(args.device),
        engine=args.engine,
        report=say,
    )
    return 0
