"""How much of a photo to show a pretrained backbone, and how large: its own ImageNet head's answers.

python -m benchmarks.views --data photos/ [--backbone efficientnet_lite2] [--sizes 192 224 240 260]

The folder has one subfolder for each class, named as ImageNet names it. Nothing is trained: the head's 1000
logits are read among the folders' classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pawmatch.checkpoint.backbone import Backbone, backbone_folder, imagenet_classes, load_backbone
from pawmatch.errors import BadOption
from pawmatch.images import open_image
from pawmatch.images.spec import RESIZE_RULES, InputSpec
from pawmatch.metrics import top_k_accuracy
from pawmatch.training.data import list_classes

BATCH = 16


@torch.inference_mode()
def logits(backbone: Backbone, files: list[Path], spec: InputSpec, rows: list[int]) -> NDArray[np.float32]:
    """The head's logits (N, len(rows)) of the plain view of each file."""
    found = []
    for start in range(0, len(files), BATCH):
        images = torch.stack([spec.prepare(open_image(file)) for file in files[start : start + BATCH]])
        pooled = backbone.pooled(images.contiguous(memory_format=torch.channels_last))
        found.append(backbone.head(pooled)[:, rows])
    answer: NDArray[np.float32] = torch.cat(found).numpy()
    return answer


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", default="efficientnet_lite2")
    parser.add_argument("--sizes", type=int, nargs="+", default=[192, 224, 240, 260])
    args = parser.parse_args()
    folder = backbone_folder(args.backbone)
    if folder is None:
        raise BadOption(
            f"There is no backbone {args.backbone}; give the name of a bundled one or its folder."
        )
    backbone = load_backbone(folder, args.backbone)
    backbone.network.to(memory_format=torch.channels_last)
    data = list_classes(args.data)
    known = imagenet_classes(data.labels)
    named = ((file.path, data.labels[file.target]) for file in data.files)
    kept = [(path, name) for path, name in named if name in known]
    names = sorted({name for _, name in kept})
    targets = np.array([names.index(name) for _, name in kept])
    rows = [known[name] for name in names]
    print(f"{len(kept)} photos of {len(names)} classes\n\n| size | what is seen | top-1 | top-5 |")
    print("|---|---|---|---|")
    for size in args.sizes:
        for rule in RESIZE_RULES:
            spec = InputSpec(size=size, resize=rule, mean=backbone.input.mean, std=backbone.input.std)
            scores = logits(backbone, [file for file, _ in kept], spec, rows)
            seen = "all of it, squashed" if rule == "squash" else "the centered square"
            best, five = top_k_accuracy(scores, targets), top_k_accuracy(scores, targets, 5)
            print(f"| {size} | {seen} | {best:.1%} | {five:.1%} |", flush=True)


if __name__ == "__main__":
    main()
