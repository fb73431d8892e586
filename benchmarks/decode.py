"""A 12-megapixel JPEG to a model's input tensor, against Pillow and torchvision as one would write it first.

The photo is made here, with structure at every scale and grain as a camera leaves it. The peer opens it,
converts it to RGB and applies Resize, ToTensor and Normalize; for a rule with several views it decodes once
and resizes for each view that is no mirror image, which is the least that it can do.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from benchmarks.side_by_side import arguments, compare
from pawmatch.images import InputSpec, prepare

SIZE = (4032, 3024)


def camera_photo() -> bytes:
    """A JPEG of 4032 x 3024 pixels at quality 90."""
    rng = np.random.default_rng(0)
    total = np.zeros((SIZE[1], SIZE[0], 3), dtype=np.float32)
    for cells in (4, 16, 64, 256, 1024):
        patches = rng.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8)
        scaled = Image.fromarray(patches).resize(SIZE, Image.Resampling.BICUBIC)
        total += (np.asarray(scaled, dtype=np.float32) - 128) * (4 / cells) ** 0.4
    total += rng.normal(0, 4, total.shape).astype(np.float32)
    file = io.BytesIO()
    Image.fromarray((128 + total / 2).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def ours(data: bytes, spec: InputSpec) -> Tensor:
    """(V, 3, size, size), as the classifier makes it."""
    return spec.normalise(torch.from_numpy(prepare(data, (spec,)).pixels[spec]))


def theirs(data: bytes, spec: InputSpec) -> Tensor:
    """(V, 3, size, size), by Pillow and torchvision."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    steps = transforms.Compose(
        [
            transforms.Resize((spec.size, spec.size), InterpolationMode(spec.interpolation)),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    views: dict[str, Tensor] = {}
    for view in spec.views:
        if view == "mirror":
            views[view] = views["plain"].flip(-1)
        else:
            left, top, right, bottom = (round(edge) for edge in spec.box(*image.size, view))
            views[view] = steps(image if view == "plain" else image.crop((left, top, right, bottom)))
    return torch.stack(list(views.values()))


def main() -> None:
    """Measure, print, write."""
    options = arguments(__doc__ or "", rounds=7).parse_args()
    data = camera_photo()
    print(f"JPEG of {SIZE[0]} x {SIZE[1]} pixels, {len(data) / 1e6:.1f} MB")
    several = InputSpec(size=128, views=("plain", "mirror", "square", "middle"))
    rules = {"224 px, one view": InputSpec(size=224), "128 px, four views": several}
    peers: dict[str, Callable[[], object]] = {}
    differences = {}
    for name, spec in rules.items():
        peers[f"ours, {name}"] = partial(ours, data, spec)
        peers[f"Pillow + torchvision, {name}"] = partial(theirs, data, spec)
        scale = 255 * torch.tensor(spec.std).reshape(3, 1, 1)
        differences[name] = float(((ours(data, spec) - theirs(data, spec)) * scale).abs().mean())
    result = compare(peers, options.rounds)
    print(result.table(f"ours, {next(iter(rules))}"))
    for name in rules:
        faster = result.ratio(f"Pillow + torchvision, {name}", f"ours, {name}")
        print(f"{name}: {faster:.1f} x faster, mean absolute difference {differences[name]:.2f} of 255")
    if options.json:
        result.write_json(options.json, bytes=len(data), mean_difference_of_255=differences)


if __name__ == "__main__":
    main()
