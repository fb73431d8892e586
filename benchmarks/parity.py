"""Whether the fast engine says what torch in float32 says: first choices and heatmaps on many images."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from benchmarks.side_by_side import machine
from pawmatch.classifier import Classifier, Examined, Member, load
from pawmatch.engines import openvino
from pawmatch.engines.choose import outcome
from pawmatch.engines.openvino import OpenVinoEngine
from pawmatch.errors import PawMatchError
from pawmatch.images import ImageSource, Prepared

BATCH = 16


def fast_twin(plain: Classifier, precision: str, folder: Path) -> Classifier:
    """The same checkpoints with OpenVINO engines, one for each feature extractor."""
    twin = Classifier(plain.task.name, [m.checkpoint for m in plain.members.values()], engine="torch")
    engines: dict[object, OpenVinoEngine] = {}
    for variant, member in plain.members.items():
        if member.extractor not in engines:
            engines[member.extractor] = OpenVinoEngine(
                member.model, member.spec.size, precision=precision, folder=folder
            )
        twin.members[variant] = Member(member.checkpoint, engines[member.extractor])
    return twin


def batches(classifier: Classifier, files: list[Path]) -> Iterator[list[Prepared]]:
    """Prepared images, BATCH at a time; files that are no images are left out."""

    def readable(sources: list[ImageSource]) -> Iterator[Prepared]:
        for source in sources:
            try:
                yield classifier.prepare(source)
            except PawMatchError:
                continue

    queue = readable(list(files))
    while chunk := list(islice(queue, BATCH)):
        yield chunk


def correlations_of(member: Member, wanted: list[Examined], given: list[Examined]) -> list[float]:
    """How each heatmap of one engine follows the other's, both for the first engine's first choice.

    A picture for which both maps are empty has none.
    """
    variant = member.variant
    classes = torch.tensor([int(one.logits[variant].argmax()) for one in wanted])
    ours, theirs = (
        outcome(member.model, torch.cat([one.feature_maps[variant] for one in side]), classes).maps.numpy()
        for side in (wanted, given)
    )
    pairs = zip(ours, theirs, strict=True)
    return [float(np.corrcoef(one, other)[0, 1]) for one, other in pairs if one.any() or other.any()]


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of images, searched to its depth")
    parser.add_argument("--task", default="breed")
    parser.add_argument("--source", help="weights (default: the bundled ones)")
    parser.add_argument("--every", type=int, default=1, help="take each n-th image only")
    parser.add_argument("--threads", type=int, help="threads of torch and OpenVINO (default: torch's)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    plain = load(options.task, options.source, "cpu", "torch")
    precision = "bfloat16" if openvino.has_fast_bfloat16() else "float32"
    files = sorted(path for path in options.data.rglob("*") if path.is_file())[:: options.every]
    counts = dict.fromkeys(plain.variants, 0)
    correlations: dict[str, list[float]] = {variant: [] for variant in plain.variants}
    seconds = {"torch": 0.0, "openvino": 0.0}
    images = 0
    with tempfile.TemporaryDirectory() as scratch:
        fast = fast_twin(plain, precision, openvino.default_folder() or Path(scratch))
        for chunk in batches(plain, files):
            started = time.perf_counter()
            wanted = plain.examine(chunk)
            between = time.perf_counter()
            given = fast.examine(chunk)
            seconds["torch"] += between - started
            seconds["openvino"] += time.perf_counter() - between
            images += len(chunk)
            for variant, member in plain.members.items():
                counts[variant] += sum(
                    int(one.logits[variant].argmax()) == int(other.logits[variant].argmax())
                    for one, other in zip(wanted, given, strict=True)
                )
                correlations[variant] += correlations_of(member, wanted, given)
    figures = {
        variant: {
            "top1_agrees": counts[variant],
            "images": images,
            "heatmaps": len(correlations[variant]),
            "lowest_correlation": min(correlations[variant], default=None),
        }
        for variant in plain.variants
    }
    print(f"{options.task}: openvino {precision} against torch float32")
    for variant, row in figures.items():
        print(
            f"{variant}: first choice agrees on {row['top1_agrees']} of {images}, lowest correlation of "
            f"{row['heatmaps']} heatmaps {row['lowest_correlation']:.6f}"
        )
    print(f"features and head: torch {seconds['torch']:.1f} s, openvino {seconds['openvino']:.1f} s")
    if options.json:
        values = {"task": options.task, "precision": precision, "figures": figures, "machine": machine()}
        Path(options.json).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
