"""How faithful the heatmaps of a trained checkpoint are, in the two figures that a search compares by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pawmatch.errors import ImageError
from pawmatch.evaluation.faithfulness import measure_faithfulness, spread
from pawmatch.evaluation.folders import labelled_files
from pawmatch.images import read_image
from pawmatch.loading import load


@dataclass(frozen=True)
class Heat:
    """Mean gains of the heatmaps over random maps in deletion and insertion; positive is better."""

    deletion: float
    insertion: float


def measure_heat(folder: Path, task: str, data: Path, *, images: int, device: str) -> Heat:
    """Test the heatmaps of the checkpoint in `folder` on `images` validation images of `data`.

    The images are spread evenly over the classes; those that cannot be read are left out.
    """
    classifier = load(task, folder, device)
    (variant,) = classifier.variants
    chosen = spread(labelled_files(data, classifier.labels), images)
    found = measure_faithfulness(classifier, [variant], [file for file in chosen if _readable(file.path)])
    return Heat(
        deletion=found[variant].deletion.over_random.value,
        insertion=found[variant].insertion.over_random.value,
    )


def _readable(path: Path) -> bool:
    try:
        read_image(path)
    except ImageError:
        return False
    return True
