"""A second look only where the first leaves doubt, beside one at every photo: clock time, top-1, coverage.

python -m benchmarks.cascade --data photos/ [--task breed] [--source runs/breed] [--most 400]

Both answer each photo in turn, so that what else the machine does falls on both alike. Coverage is that
of the main variant's 90 % sets in each exit, on the photos and, cross-fitted, as the checkpoint states it.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from pawmatch import load
from pawmatch.classifier import Classifier
from pawmatch.errors import PawMatchError
from pawmatch.evaluation.folders import labelled_files


def main() -> None:
    """Print a row for each way, then the coverage in each exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", default="breed")
    parser.add_argument("--source")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder of photos per class")
    parser.add_argument("--most", type=int, default=400, help="photos, evenly spaced")
    args = parser.parse_args()
    cascade = load(args.task, args.source, engine=args.engine)
    ways = {"two looks": always(cascade, args.engine), "cascade": cascade}
    files = labelled_files(args.data, cascade.labels)
    files = files[:: max(1, len(files) // args.most)][: args.most]
    seconds = dict.fromkeys(ways, 0.0)
    heads = dict.fromkeys(ways, 0.0)
    preparing = 0.0
    right = {name: np.zeros(len(cascade.variants)) for name in ways}
    held: dict[bool, list[bool]] = {False: [], True: []}
    photos = 0
    for number, file in enumerate([files[0], *files]):  # the first one warms both up
        started = time.perf_counter()
        try:
            prepared = {name: classifier.prepare(file.path) for name, classifier in ways.items()}
        except PawMatchError:
            continue
        spent = (time.perf_counter() - started) / len(ways)
        for name, classifier in list(ways.items())[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            (outputs,) = classifier.run_models([prepared[name]])
            answer = classifier.to_prediction(outputs, 1)
            if number == 0:
                continue
            seconds[name] += time.perf_counter() - started
            heads[name] += outputs.timing_ms["head"] / 1000
            choices = np.array([row.argmax() for row in outputs.probabilities.values()])
            right[name] += choices == file.target
            if name == "cascade":
                held[outputs.doubted].append(cascade.names[file.target] in answer.candidates_90)
        photos += number > 0
        preparing += spent if number else 0.0
    print(f"{photos} photos, engine {cascade.engines[cascade.main.variant]}")
    print(f"reading a photo takes {1000 * preparing / photos:.1f} ms either way")
    print("| | ms a photo | of these the heads | " + " | ".join(cascade.variants) + " |")
    print("|---|---|---|" + "---|" * len(cascade.variants))
    for name in ways:
        shares = " | ".join(f"{value / photos:.1%}" for value in right[name])
        each, head = (1000 * spent[name] / photos for spent in (seconds, heads))
        print(f"| {name} | {each:.1f} | {head:.1f} | {shares} |")
    print(f"saved: {1 - seconds['cascade'] / seconds['two looks']:.1%} of the time")
    metrics = cascade.main.checkpoint.config.metrics
    for doubted, exit_name in ((False, "first"), (True, "second")):
        stated = metrics.get(f"coverage_of_90_{exit_name}_look")
        print(
            f"{exit_name} look: {len(held[doubted])} photos, the truth is in {np.mean(held[doubted]):.1%} "
            f"of the 90 % sets" + (f"; cross-fitted {stated:.1%}" if stated else "")
        )


def always(classifier: Classifier, engine: str) -> Classifier:
    """The same models, which take a second look at every photo."""
    checkpoints = []
    for member in classifier.members.values():
        spec = replace(member.spec, focus_below=1.0)
        checkpoints.append(replace(member.checkpoint, config=replace(member.checkpoint.config, input=spec)))
    return Classifier(classifier.task.name, checkpoints, engine=engine)


if __name__ == "__main__":
    main()
