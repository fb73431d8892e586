"""Photos to measure with, made up: as large in bytes and as slow to decode as real ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (500, 375)
DISTINCT = 200


def make_photos(folder: Path, count: int, size: tuple[int, int] = SIZE) -> list[Path]:
    """`count` JPEG files of `size`, at most DISTINCT of them different, the others links to these.

    Smooth regions with edges and some grain: about 0.3 bytes for each pixel at quality 90, as in photos.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{number:06}.jpg" for number in range(count)]
    for path in paths[:DISTINCT]:
        small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
        grain = rng.normal(0, 6, (size[1], size[0], 1)).astype(np.float32)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    for number, path in enumerate(paths[DISTINCT:]):
        os.link(paths[number % DISTINCT], path)
    return paths
