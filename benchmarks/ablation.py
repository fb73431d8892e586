"""What attention and morphology do in a checkpoint's answers, and how alike its variants' heatmaps are.

python -m benchmarks.ablation --task breed --data photos/ [--label Border_Collie] [--most 400]

Each variant answers as it is, then with attention that weighs all positions alike (query and key at
zero), without attention (its output at zero), and with morphology replaced by zeros. One plain view of
each photo.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pawmatch import load
from pawmatch.errors import PawMatchError
from pawmatch.evaluation.folders import labelled_files
from pawmatch.heatmaps import grad_cam
from pawmatch.labels import VARIANT_NAMES
from pawmatch.models import ImageModel


class _Zeros(nn.Module):
    def forward(self, features: Tensor, branches: Tensor | None = None) -> Tensor:
        return torch.zeros_like(features)


def zero(*layers: str) -> Callable[[ImageModel], None]:
    """A change that sets these layers of the attention to zero."""

    def change(model: ImageModel) -> None:
        for layer in layers:
            for parameter in model.get_submodule(f"attention.{layer}").parameters():
                parameter.data.zero_()

    return change


def no_morphology(model: ImageModel) -> None:
    """Replace the morphology vector by zeros."""
    model.morphological_extractor = _Zeros()


CHANGES: dict[str, Callable[[ImageModel], None]] = {
    "as trained": lambda model: None,
    "uniform attention": zero("query", "key"),
    "no attention": zero("fc_out"),
    "morphology zero": no_morphology,
}


def changed(model: ImageModel) -> Iterator[tuple[str, ImageModel]]:
    """The model with each change that it has a module for."""
    for name, change in CHANGES.items():
        module = "morphological_extractor" if change is no_morphology else "attention"
        if name == "as trained" or getattr(model, module, None) is not None:
            other = copy.deepcopy(model)
            change(other)
            yield name, other


def correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Pearson's correlation of two heatmaps; 0 where one of them is flat."""
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def main() -> None:
    """Print three tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", default="breed")
    parser.add_argument("--source")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--label", help="a class to count the right answers of")
    parser.add_argument("--most", type=int, default=10_000, help="photos, evenly through the classes")
    args = parser.parse_args()
    classifier = load(args.task, args.source, engine="torch")
    files = labelled_files(args.data, classifier.labels)
    files = files[:: max(1, len(files) // args.most)]
    models = {
        (variant, name): model
        for variant, member in classifier.members.items()
        for name, model in changed(member.model)
    }
    right: dict[tuple[str, str], list[bool]] = {key: [] for key in models}
    alike: dict[tuple[str, str], list[float]] = {
        pair: [] for pair in itertools.combinations(classifier.variants, 2)
    }
    truths: list[str] = []
    for file, entry in zip(files, classifier.run_batches(f.path for f in files), strict=True):
        if isinstance(entry, PawMatchError):
            continue
        truth = classifier.labels[file.target]
        truths.append(truth)
        for (variant, name), model in models.items():
            with torch.no_grad():
                best = int(model.forward_head(entry.feature_maps[variant]).argmax())
            right[variant, name].append(classifier.labels[best] == truth)
        index = int(np.argmax(entry.logits[classifier.main.variant]))
        cams = {
            variant: grad_cam(member.model, entry.feature_maps[variant], index).values
            for variant, member in classifier.members.items()
        }
        for pair in alike:
            alike[pair].append(correlation(cams[pair[0]], cams[pair[1]]))
    print(f"{len(truths)} photos, one plain view\n\n| variant | change | right |\n|---|---|---|")
    for (variant, name), hits in right.items():
        print(f"| {VARIANT_NAMES[variant]} | {name} | {np.mean(hits):.1%} |")
    print("\n| heatmaps of | correlation |\n|---|---|")
    for (first, second), values in alike.items():
        print(f"| {VARIANT_NAMES[first]} and {VARIANT_NAMES[second]} | {np.mean(values):.2f} |")
    if args.label:
        rows = [place for place, truth in enumerate(truths) if truth == args.label]
        print(f"\n| variant | right on {len(rows)} of {args.label} |\n|---|---|")
        for variant in classifier.variants:
            print(f"| {VARIANT_NAMES[variant]} | {sum(right[variant, 'as trained'][row] for row in rows)} |")


if __name__ == "__main__":
    main()
