"""`pawmatch evaluate`: measure a source on a folder of labelled images."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pawmatch.commands.console import add_model_options, complain, note, say, say_json
from pawmatch.commands.evaluation_text import class_rows, describe
from pawmatch.commands.inputs import find_images
from pawmatch.commands.progress import progress
from pawmatch.errors import BadOption

if TYPE_CHECKING:
    from pawmatch.evaluation.report import Evaluation
    from pawmatch.predict import Classifier

SUMMARY = "Measure accuracy, calibration, review flag and heatmaps on labelled images."
EPILOG = """\
The data folder has one subfolder of images per class, named as the class; if it has train/ and val/,
val/ is measured. Answers are those that users get. docs/evaluation.md says what each number means.

Training fits confidence, candidate sets and review threshold on all validation images. On that very
folder use --calibration halves: it fits them on random halves of the images and measures each image by
those that it is not in. On any other folder the default is right.

With --out: metrics.json, classes.csv, and as figures reliability.png, confusions.png and
risk_coverage.png. Files of that name are replaced.

example:
  pawmatch evaluate --data photos --outside paintings --out report --faithfulness 50
"""
MOST_NAMED = 10  # unreadable files written out one by one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate`."""
    add_model_options(parser)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="labelled images")
    parser.add_argument(
        "--calibration",
        default="own",
        metavar="WHICH",
        help="own: the checkpoint's; halves: fitted anew, for the images it was fitted on (default: own)",
    )
    parser.add_argument(
        "--outside", metavar="DIR", help="images that do not belong to the task, for the out-of-scope flag"
    )
    parser.add_argument(
        "--variant",
        action="append",
        metavar="NAME",
        help="report this variant only; may be given several times (default: all that the source has)",
    )
    parser.add_argument(
        "--faithfulness",
        type=int,
        default=0,
        metavar="N",
        help="test the heatmaps on N of the images, which costs about 150 passes of the model for each",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for metrics.json and the figures")
    parser.add_argument("--json", action="store_true", help="print metrics.json instead of the table")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write; 1 if some images could not be read."""
    if args.faithfulness < 0:
        raise BadOption(f"--faithfulness is {args.faithfulness}; give the number of images, from 0 on.")
    outside = images_of(args.outside)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)  # said before an hour of measuring, not after it
    from pawmatch.evaluation.evaluate import evaluate
    from pawmatch.loading import load

    classifier = load(args.task, args.source, args.device, args.engine)
    if classifier.notice:
        note(classifier.notice)
    evaluation = evaluate(
        classifier,
        args.data,
        calibration=args.calibration,
        variants=args.variant or (),
        outside=outside,
        faithfulness=args.faithfulness,
        follow=progress,
    )
    for entry in evaluation.unreadable[:MOST_NAMED]:
        complain(f"{entry.file}: {entry.message}")
    if (more := len(evaluation.unreadable) - MOST_NAMED) > 0:
        note(f"and {more} more that could not be read.")
    if args.json:
        say_json(evaluation.to_dict(), indent=2)
    else:
        for line in describe(evaluation):
            say(line)
    if args.calibration == "own" and fitted_on_these(classifier, evaluation.images):
        note("the calibration was fitted on as many images; on the same ones, use --calibration halves.")
    if args.out is not None:
        write(evaluation, args.out)
    return 1 if evaluation.unreadable else 0


def images_of(folder: str | None) -> list[Path]:
    """Every image in a folder and below it; raises BadOption or ImageError where there is none."""
    if folder is None:
        return []
    if not Path(folder).is_dir():
        raise BadOption(f"There is no folder {folder}; name a folder of images that are no part of the task.")
    found = []
    for path, error in find_images([folder]):
        if error is not None:
            raise error
        found.append(Path(path))
    return found


def fitted_on_these(classifier: Classifier, images: int) -> bool:
    """Whether a checkpoint was calibrated on a folder of just as many images."""
    configs = [member.checkpoint.config for member in classifier.members.values()]
    return any(config.metrics.get("validation_images") == images for config in configs)


def write(evaluation: Evaluation, out: Path) -> None:
    """Write metrics.json, classes.csv and the figures into a folder."""
    from pawmatch.evaluation.figures import save_figures

    metrics, classes = out / "metrics.json", out / "classes.csv"
    metrics.write_text(json.dumps(evaluation.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with classes.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows(class_rows(evaluation))
    for path in [metrics, classes, *save_figures(evaluation, out)]:
        note(f"wrote {path}")
