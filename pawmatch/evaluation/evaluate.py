"""evaluate: a classifier and a folder of labelled images to an Evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pawmatch.errors import BadOption, NotACheckpoint, UnknownVariant
from pawmatch.evaluation.answers import Answers, collect
from pawmatch.evaluation.faithfulness import measure_faithfulness, spread
from pawmatch.evaluation.folders import evaluated_folder, labelled_files
from pawmatch.evaluation.judgement import CALIBRATIONS, judge, judge_by_halves, with_reasons_of
from pawmatch.evaluation.measure import measure_review, measure_variant
from pawmatch.evaluation.report import Evaluation
from pawmatch.predict import Classifier

Follow = Callable[[Sequence[Any], str], Iterable[Any]]


def unfollowed(things: Sequence[Any], what: str) -> Iterable[Any]:
    """The things themselves: no progress is shown."""
    return things


def evaluate(
    classifier: Classifier,
    folder: Path,
    *,
    calibration: str = "own",
    variants: Sequence[str] = (),
    outside: Sequence[Path] = (),
    faithfulness: int = 0,
    follow: Follow = unfollowed,
) -> Evaluation:
    """Measure `variants`, by default all, on the labelled images of `folder`.

    `calibration` is "own" for what users get, or "halves" on the images that it was fitted on; see
    `judgement`. `outside` are images that do not belong to the task, `faithfulness` is on how many images
    heatmaps are tested, `follow` wraps each long loop with its name. Images that cannot be read are left
    out and named. Raises BadOption where none can, UnknownVariant, NotACheckpoint if a model gives values
    that are no numbers, and what `folders.labelled_files` raises.
    """
    if calibration not in CALIBRATIONS:
        raise BadOption(f"Calibration {calibration!r} is unknown; use {' or '.join(CALIBRATIONS)}.")
    variants = _known(classifier, variants)
    files = labelled_files(folder, classifier.labels)
    answers = collect(classifier, follow([file.path for file in files], "images"))
    if not len(answers):
        raise BadOption(f"No image of {folder} can be measured; check that it holds pictures.")
    _check_numbers(answers)
    read = [files[row] for row in answers.rows]
    targets = np.array([file.target for file in read], dtype=np.int64)
    unreadable = answers.unreadable
    beyond = None
    backgrounds: list[Path] = []
    if outside:
        beyond = collect(classifier, follow(outside, "outside images"))
        if not len(beyond):
            raise BadOption("No image of the outside folder can be read; check that it holds pictures.")
        unreadable += beyond.unreadable
        backgrounds = [outside[row] for row in beyond.rows]
    own = {v: member.checkpoint.config.calibration for v, member in classifier.members.items()}
    if calibration == "own":
        judgements = {variant: judge(own[variant], answers, variant) for variant in own}
    else:
        judgements = {v: judge_by_halves(classifier.labels, answers, v, targets) for v in own}
    main = classifier.main.variant
    tested = spread(read, faithfulness)
    return Evaluation(
        task=classifier.task.name,
        source=classifier.source,
        main=main,
        folder=str(evaluated_folder(folder)),
        calibration=calibration,
        images=len(read),
        classes_with_images=len(np.unique(targets)),
        classes=len(classifier.labels),
        unreadable=unreadable,
        outside_images=len(backgrounds),
        review=measure_review(with_reasons_of(judgements[main], answers), targets, beyond),
        variants={
            v: measure_variant(v, own[v], classifier.labels, answers, targets, judgements[v], beyond)
            for v in variants
        },
        faithfulness=measure_faithfulness(classifier, variants, follow(tested, "heatmaps"), backgrounds)
        if tested
        else {},
    )


def _check_numbers(answers: Answers) -> None:
    for variant, logits in answers.logits.items():
        if not np.isfinite(logits).all():
            raise NotACheckpoint(f"Variant {variant} gives values that are no numbers; use other weights.")


def _known(classifier: Classifier, variants: Sequence[str]) -> tuple[str, ...]:
    """The variants asked for in the classifier's own order, or all of them."""
    for variant in variants:
        if variant not in classifier.members:
            known = ", ".join(classifier.variants)
            raise UnknownVariant(f"Variant {variant!r} is not in {classifier.source}; use one of {known}.")
    return tuple(variant for variant in classifier.variants if variant in (variants or classifier.variants))
