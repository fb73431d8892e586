"""What a second look only in doubt saves, and the other variants only after one: time, top-1, coverage.

python -m benchmarks.cascade --data photos/ [--data more/] [--source runs/breed] [--most 400] [--rounds 3]

Each photo is answered in every way, round after round, in an order that turns, so that what else the machine
does falls on all alike; the median of the rounds counts. ± is the standard error, of paired differences where
ways are compared. Coverage is that of the main variant's 90 % sets in each exit: as the checkpoint's
calibration has them, and as calibrations have them that were fitted on the other half of the photos.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawmatch import load
from pawmatch.calibration.decide import Observed
from pawmatch.calibration.fit import MAX_UNKNOWN_ANSWERED, REVIEW_TARGET, Evidence
from pawmatch.calibration.measure import judge_halves
from pawmatch.classifier import Classifier, ModelOutputs
from pawmatch.errors import PawMatchError
from pawmatch.evaluation.folders import labelled_files
from pawmatch.images import Prepared, prepare
from pawmatch.results import Prediction


@dataclass(frozen=True)
class Answered:
    """What one way made of a photo of the class `target`, and the milliseconds, by clock and of the CPU."""

    target: int
    outputs: ModelOutputs
    prediction: Prediction
    spent: tuple[float, float]


def main() -> None:
    """Print a row for each way, then one for each exit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="breed")
    parser.add_argument("--source")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--data", type=Path, required=True, action="append", help="photos by class")
    parser.add_argument("--most", type=int, default=400, help="photos, evenly spaced")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3600, help="after which no photo is begun")
    args = parser.parse_args()
    cascade = load(args.task, args.source, engine=args.engine)
    ways = {"two looks": always(cascade), "second look in doubt": cascade, "adaptive": copy.copy(cascade)}
    ways["adaptive"].adaptive = True
    specs = tuple(dict.fromkeys(spec for way in ways.values() for spec in way.specs))
    files = [file for folder in args.data for file in labelled_files(folder, cascade.labels)]
    files = files[:: max(1, len(files) // args.most)][: args.most]
    found: dict[str, list[Answered]] = {name: [] for name in ways}
    reading = []
    random.Random(0).shuffle(files)  # so that those of an earlier end are a fair sample
    end = time.monotonic() + args.seconds
    for number, file in enumerate([files[0], *files]):  # the first one warms up
        if time.monotonic() > end:
            break
        try:
            photo = prepare(file.path, specs)
        except PawMatchError:
            continue
        rounds: dict[str, list[Answered]] = {name: [] for name in ways}
        for turn in range(args.rounds):
            for name in list(ways)[:: 1 if (number + turn) % 2 else -1]:
                rounds[name].append(answered(ways[name], photo, file.target))
        if number:
            reading.append(photo.decode_ms)
            for name, several in rounds.items():
                clock, cpu = np.median([one.spent for one in several], axis=0).tolist()
                found[name].append(replace(several[0], spent=(clock, cpu)))
    print(f"{len(reading)} photos, engine {cascade.engines[cascade.main.variant]}")
    print(f"reading a photo takes {np.mean(reading):.1f} ms either way")
    print_ways(found)
    _, usual, adaptive = ([one.prediction for one in answers] for answers in found.values())
    pairs = list(zip(usual, adaptive, strict=True))
    labels = sum(
        one.top.label != other.top.label or one.candidates_90 != other.candidates_90 for one, other in pairs
    )
    flags = sum(
        one.verdict.code != other.verdict.code or one.review.needed != other.review.needed
        for one, other in pairs
    )
    print(
        f"adaptive: another label or set than without in {labels} photos, another verdict or flag in {flags}"
    )
    for name in list(ways)[1:]:
        print_exits(name, found[name], cascade)


def answered(way: Classifier, photo: Prepared, target: int) -> Answered:
    """One answer, timed."""
    clock, cpu = time.perf_counter(), time.process_time()
    (outputs,) = way.run_models([photo])
    prediction = way.to_prediction(outputs, 1)
    spent = 1000 * (time.perf_counter() - clock), 1000 * (time.process_time() - cpu)
    return Answered(target, outputs, prediction, spent)


def print_ways(found: dict[str, list[Answered]]) -> None:
    """Time and accuracy of each way, and of both the difference from the first one."""
    print(
        "| | ms by the clock | saved | ms of CPU | saved | top-1 | difference | flagged | the others right |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    (first, *_) = found.values()
    before = np.array([one.spent for one in first])
    for name, answers in found.items():
        spent = np.array([one.spent for one in answers])
        ratio = spent.sum(axis=0) / before.sum(axis=0)
        error = (spent - ratio * before).std(axis=0) / before.mean(axis=0) / len(spent) ** 0.5
        times = " | ".join(
            f"{mean:.1f} | {1 - share:.1%} ± {100 * off:.1f}"
            for mean, share, off in zip(spent.mean(axis=0), ratio, error, strict=True)
        )
        right, changed = is_right(answers), is_right(answers) - is_right(first)
        flagged = np.array([one.prediction.review.needed for one in answers])
        difference = f"{100 * changed.mean():+.1f} ± {100 * changed.std() / len(changed) ** 0.5:.1f}"
        print(
            f"| {name} | {times} | {right.mean():.1%} | {difference} | {flagged.mean():.1%} "
            f"| {share(right[~flagged])} |"
        )


def print_exits(name: str, answers: list[Answered], classifier: Classifier) -> None:
    """How many photos leave by each exit, in what time, and how often they are right and the sets hold."""
    main = classifier.main.variant
    doubted = np.array([one.outputs.doubted for one in answers])
    targets = np.array([one.target for one in answers])
    rows = [one.outputs for one in answers]
    logits = np.stack([one.logits[main] for one in rows])
    observed = Observed(logits, logits.argmax(axis=1)[None], doubted=doubted)
    evidence = Evidence(observed, targets, classifier.names)
    halves = judge_halves(evidence, target=REVIEW_TARGET, max_unknown=MAX_UNKNOWN_ANSWERED)
    fitted_elsewhere = halves.sets[np.arange(len(targets)), targets]
    held = np.array(
        [classifier.names[one.target] in one.prediction.candidates_90 for one in answers], dtype=bool
    )
    print(
        f"| {name} | photos | ms by the clock | top-1 | 90 % set | fitted on the other half | labels in it |"
    )
    print("|---|---|---|---|---|---|---|")
    for exit_name, chosen in (("one look", ~doubted), ("two looks", doubted)):
        part = [one for one, here in zip(answers, chosen, strict=True) if here]
        clock = np.mean([one.spent[0] for one in part])
        size = np.mean([len(one.prediction.candidates_90) for one in part])
        figures = " | ".join(map(share, (is_right(part), held[chosen], fitted_elsewhere[chosen])))
        print(f"| {exit_name} | {len(part)} ({chosen.mean():.1%}) | {clock:.1f} | {figures} | {size:.2f} |")


def is_right(answers: list[Answered]) -> NDArray[np.float64]:
    """Whether each first choice is right, as 1 or 0."""
    return np.array(
        [
            float(one.outputs.probabilities[one.prediction.model.variant].argmax() == one.target)
            for one in answers
        ]
    )


def share(values: NDArray[Any]) -> str:
    """The mean of flags, with its standard error."""
    mean = float(values.mean())
    return f"{mean:.1%} ± {100 * (mean * (1 - mean) / len(values)) ** 0.5:.1f}"


def always(classifier: Classifier) -> Classifier:
    """The same models, which take a second look at every photo."""
    everywhere = copy.copy(classifier)
    everywhere.members = {}
    for variant, member in classifier.members.items():
        spec = replace(member.spec, focus_below=1.0)
        config = replace(member.checkpoint.config, input=spec)
        everywhere.members[variant] = replace(member, checkpoint=replace(member.checkpoint, config=config))
    everywhere.main = everywhere.members[classifier.main.variant]
    everywhere.specs = tuple(dict.fromkeys(member.spec for member in everywhere.members.values()))
    return everywhere


if __name__ == "__main__":
    main()
