"""`pawmatch evaluate`: measure a source on a folder of labelled images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pawmatch.commands.console import (
    FIRST,
    Row,
    add_model_options,
    check_out_folder,
    complain,
    known_labels,
    line,
    load_models,
    note,
    progress,
    say,
    say_json,
    table,
    within,
)
from pawmatch.commands.rows import csv_table
from pawmatch.errors import BadOption
from pawmatch.evaluation.folders import fingerprint, images_below, labelled_files
from pawmatch.labels import VARIANT_NAMES, display_name

if TYPE_CHECKING:
    from pawmatch.classifier import Classifier
    from pawmatch.evaluation.report import Evaluation
    from pawmatch.metrics import Estimate


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
  pawmatch evaluate --data photos --outside others --out report --faithfulness 50
"""
MAX_NAMED = 10  # unreadable files written out one by one


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
        "--unknown", metavar="DIR", help="images of classes that have no label, for the verdict unknown"
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
    if args.calibration not in MEASURED_CALIBRATION:
        raise BadOption(
            f"Calibration {args.calibration!r} is unknown; use {' or '.join(MEASURED_CALIBRATION)}."
        )
    outside, unknown = (
        [] if folder is None else images_below(folder) for folder in (args.outside, args.unknown)
    )
    if (labels := known_labels(args.task, args.source)) is not None:
        labelled_files(args.data, labels)
    if args.out is not None:
        check_out_folder(args.out)  # said before an hour of measuring, not after it
    classifier = load_models(args)
    from pawmatch.evaluation.evaluate import evaluate

    evaluation = evaluate(
        classifier,
        args.data,
        calibration=args.calibration,
        variants=args.variant or (),
        outside=outside,
        unknown=unknown,
        faithfulness=args.faithfulness,
        follow=progress,
    )
    for entry in evaluation.unreadable[:MAX_NAMED]:
        complain(f"{entry.file}: {entry.message}")
    if (more := len(evaluation.unreadable) - MAX_NAMED) > 0:
        note(f"and {more} more that could not be read.")
    if args.json:
        say_json(evaluation.to_dict(), indent=2)
    else:
        for line in describe(evaluation):
            say(line)
    if args.calibration == "own":
        warn_of_fitted_images(classifier, args.data, evaluation.images)
    if args.out is not None:
        write(evaluation, args.out)
    return 1 if evaluation.unreadable else 0


def warn_of_fitted_images(classifier: Classifier, data: Path, images: int) -> None:
    """Say so where the checkpoint was calibrated on these images, or where it may have been."""
    config = classifier.main.checkpoint.config
    fitted = config.training.get("calibrated_on")
    if fitted == fingerprint(labelled_files(data, classifier.labels), classifier.labels):
        note("the calibration was fitted on these images; use --calibration halves.")
    elif fitted is None and config.metrics.get("validation_images") == images:
        note("the calibration was fitted on as many images; on the same ones, use --calibration halves.")


def write(evaluation: Evaluation, out: Path) -> None:
    """Write metrics.json, classes.csv and the figures into a folder."""
    from pawmatch.evaluation.figures import save_figures

    out.mkdir(parents=True, exist_ok=True)
    metrics, classes = out / "metrics.json", out / "classes.csv"
    metrics.write_text(json.dumps(evaluation.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    classes.write_bytes(b"".join(csv_table(class_rows(evaluation))))
    for path in [metrics, classes, *save_figures(evaluation, out)]:
        note(f"wrote {path}")


SHOWN = 10  # confusions and classes
MEASURED_CALIBRATION = {
    "own": "the checkpoint's own, as users get it",
    "halves": "fitted on random halves of these images, each judged by those it is not in",
}
NONE = "none"


def shares(estimate: Estimate | None) -> str:
    """A share with its interval: "41.4 % (39.4 to 43.4)"."""
    return NONE if estimate is None else within(estimate.value, estimate.low, estimate.high)


def numbers(estimate: Estimate | None, digits: int = 3) -> str:
    """A number with its interval: "0.034 (0.021 to 0.047)"."""
    if estimate is None:
        return NONE
    value, low, high = (f"{n:.{digits}f}" for n in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def compared(measure: str) -> tuple[Row, ...]:
    """The rows of a measure of which the rivals have values as well."""
    return (
        ("heatmap", f"{measure}.heatmap", numbers),
        ("random map", f"{measure}.random", numbers),
        ("centred blob", f"{measure}.centre", numbers),
        ("gain over a random map", f"{measure}.over_random", numbers),
        ("gain over a centred blob", f"{measure}.over_centre", numbers),
    )


MEASURED: dict[str, tuple[Row, ...]] = {
    "Answers": (("top-1", "top1", shares), ("top-5", "top5", shares), ("macro-F1", "macro_f1", shares)),
    "Confidence": (
        ("calibration error, 15 bins", "ece", numbers),
        ("  before calibration", "ece_before", numbers),
        ("  of a perfect model, by chance", "ece_floor", "{:.3f}".format),
        ("  chance that it shows as much", "ece_p_value", lambda p: f"{100 * p:.0f} %"),
        ("negative log-likelihood", "nll", numbers),
        ("  before calibration", "nll_before", numbers),
        ("Brier score", "brier", numbers),
        ("  before calibration", "brier_before", numbers),
        ("temperature of the checkpoint", "temperature", "{:.3f}".format),
    ),
    "90 % candidate sets": (
        ("hold the truth", "set_coverage", shares),
        ("labels in a set", "set_size", lambda size: numbers(size, 1)),
    ),
    "Answering only when sure": (
        ("area of risk and coverage", "aurc", numbers),
        ("confidence at the threshold or above", "kept", shares),
        ("  of these right", "kept_accuracy", shares),
    ),
}
SCOPE: tuple[Row, ...] = (
    ("AUROC", "scope.auroc", numbers),
    ("  of confidence alone", "scope.auroc_of_confidence", numbers),
    ("own images turned away", "scope.own_flagged", shares),
    ("outside images turned away", "scope.outside_flagged", shares),
)
HEATMAPS: dict[str, tuple[Row, ...]] = {
    "Deletion, lower is better": compared("deletion"),
    "Insertion, higher is better": compared("insertion"),
    "ROAD, higher is better": compared("road"),
    "Heatmap of a random head": (("rank correlation with the true one", "after_randomisation", numbers),),
}
POINTING: tuple[Row, ...] = (
    ("heat inside its box", "pointing.heat", shares),
    ("box's share of the picture", "pointing.area", shares),
    ("  heat beyond that share", "pointing.gain", shares),
    ("hottest spot inside", "pointing.peak", shares),
)


def describe(evaluation: Evaluation) -> Iterator[str]:
    """The evaluation as lines of text; brackets hold 95 % intervals."""
    yield (
        f"{evaluation.task}: {evaluation.images} images, {evaluation.classes_with_images} of "
        f"{evaluation.classes} classes"
    )
    yield f"images: {evaluation.folder}"
    yield f"weights: {evaluation.source}"
    yield f"calibration: {MEASURED_CALIBRATION[evaluation.calibration]}"
    if evaluation.unreadable:
        yield f"left out because unreadable: {len(evaluation.unreadable)}"
    for title, rows in MEASURED.items():
        yield from table(title, evaluation.variants, rows)
    if any(report.scope for report in evaluation.variants.values()):
        yield from table(f"Scope, {evaluation.outside_images} outside images", evaluation.variants, SCOPE)
    yield from review(evaluation)
    yield from confusions(evaluation)
    yield from weakest(evaluation)
    if evaluation.faithfulness:
        yield from heatmaps(evaluation)


def review(evaluation: Evaluation) -> Iterator[str]:
    """How the flag does for the answers as users get them."""
    found = evaluation.review
    rows = [
        ("right", found.accuracy),
        ("flagged for a person", found.flagged),
        *((f"  {code}", share) for code, share in found.reasons.items()),
        ("right where not flagged", found.unflagged_accuracy),
        ("right where flagged", found.flagged_accuracy),
    ]
    if found.outside_flagged is not None:
        rows += [
            ("outside images flagged", found.outside_flagged),
            ("  out_of_scope", found.outside_out_of_scope),
        ]
    rows += [(f"verdict {code}", share) for code, share in found.verdicts.items()]
    rows += [(f"outside: verdict {code}", share) for code, share in found.outside_verdicts.items()]
    if (unknown := evaluation.unknown) is not None:
        rows += [("unknown: a plain answer", unknown.answered)]
        rows += [(f"unknown: verdict {code}", share) for code, share in unknown.verdicts.items()]
    yield ""
    yield line("Answers as users get them", [VARIANT_NAMES[evaluation.main]])
    for name, share in rows:
        yield line(f"  {name}", [shares(share)])
    if unknown is not None:
        yield line("  AUROC of the unknown score", [numbers(unknown.auroc)])
        yield line("    of confidence alone", [numbers(unknown.auroc_of_confidence)])


def confusions(evaluation: Evaluation) -> Iterator[str]:
    """The pairs that the leading variant confuses most."""
    report = evaluation.leading
    yield ""
    yield f"Most frequent mistakes of {VARIANT_NAMES[report.variant]}"
    for pair in report.confusions[:SHOWN]:
        what = f"{display_name(pair.truth)} taken for {display_name(pair.answer)}"
        yield f"  {pair.count:>3} of {pair.support:<4}  {what}"


def weakest(evaluation: Evaluation) -> Iterator[str]:
    """The classes that the leading variant knows least."""
    report = evaluation.leading
    known = [score for score in report.classes if score.support and score.f1 is not None]
    yield ""
    yield f"{'Weakest classes':<{FIRST}}  F1      precision  recall  images"
    for score in sorted(known, key=lambda score: score.f1 or 0.0)[:SHOWN]:
        cells = (score.f1, score.precision, score.recall)
        f1, precision, recall = (NONE if cell is None else f"{cell:.2f}" for cell in cells)
        name = f"  {display_name(score.label)}"
        yield f"{name:<{FIRST}}  {f1:<6}  {precision:<9}  {recall:<6}  {score.support}"


def heatmaps(evaluation: Evaluation) -> Iterator[str]:
    """What the tests of the heatmaps found."""
    found = evaluation.faithfulness
    some = next(iter(found.values()))
    yield ""
    yield f"Heatmaps, on {some.images} images; ROAD on {some.road.images}"
    for title, rows in HEATMAPS.items():
        yield from table(title, found, rows)
    if any(variant.pointing for variant in found.values()):
        yield from table("Subject pasted on another picture", found, POINTING)


def class_rows(evaluation: Evaluation) -> Iterator[list[str | float | None]]:
    """The per-class table of every variant, its head first."""
    yield ["variant", "label", "name", "precision", "recall", "f1", "images"]
    for variant, report in evaluation.variants.items():
        for score in report.classes:
            cells = (score.precision, score.recall, score.f1)
            yield [variant, score.label, display_name(score.label), *cells, score.support]
