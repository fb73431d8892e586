"""Draw the example pictures: four dogs and four painted scenes, the same every time."""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from drawing import anatomy, backdrops, drop_eared, fruit, fur, night, prick_eared, sea, water
from drawing.solids import Camera
from drawing.strokes import Image
from PIL import Image as Pictures

HERE = Path(__file__).parent
LONG_SIDE = 960
DOGS: dict[
    str, tuple[Callable[[], anatomy.Dog], backdrops.Backdrop, fur.Light, tuple[float, float], float]
] = {
    "beagle": (drop_eared.beagle, backdrops.MEADOW, fur.DAYLIGHT, (0.02, -0.44), 2.5),
    "golden_retriever": (drop_eared.golden_retriever, backdrops.SUNSET, fur.EVENING, (0.0, -0.50), 2.55),
    "husky": (prick_eared.husky, backdrops.SNOW, fur.WINTER, (0.02, -0.34), 2.5),
    "westie": (prick_eared.westie, backdrops.HEATHER, fur.SOFT, (0.0, -0.36), 2.6),
}
SCENES: dict[str, tuple[Callable[[int, int, np.random.Generator], Image], float]] = {
    "water_garden": (water.water_garden, 0.79),
    "starry_field": (night.starry_field, 0.71),
    "moonlit_sea": (sea.moonlit_sea, 0.71),
    "apples_and_jug": (fruit.apples_and_jug, 0.71),
}


def draw(name: str, long_side: int = LONG_SIDE, seed: int = 1) -> Image:
    """Draw one picture by name as RGB bytes."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name in SCENES:
        paint, ratio = SCENES[name]
        return paint(long_side, round(long_side * ratio), rng)
    make, backdrop, light, centre, height = DOGS[name]
    size = (round(long_side * 0.8), long_side)
    big = (size[0] * 2, size[1] * 2)
    canvas = cv2.resize(backdrops.paint_backdrop(backdrop, *size, rng), big, interpolation=cv2.INTER_CUBIC)
    camera = Camera(*big, centre, height)
    anatomy.draw_dog(canvas, make(), camera, light, rng, trace=max(60, round(long_side * 0.34)))
    return cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)


def save(picture: Image, path: Path, limit: int = 295_000) -> None:
    """Write a JPEG, lowering the quality from 88 only where the file would pass the limit."""
    for quality in range(88, 60, -3):
        Pictures.fromarray(picture).save(path, "JPEG", quality=quality, optimize=True, progressive=True)
        if path.stat().st_size <= limit:
            return


def main() -> None:
    """Draw the pictures that are named, or all of them."""
    names = [*DOGS, *SCENES]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of: {', '.join(names)}")
    parser.add_argument(
        "--out", type=Path, default=HERE, help="folder to write to (default: beside this script)"
    )
    parser.add_argument("--long-side", type=int, default=LONG_SIDE, help="pixels along the longer side")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"unknown picture: {', '.join(sorted(unknown))}")
    for name in options.names or names:
        path = options.out / f"{name}.jpg"
        save(draw(name, options.long_side), path)
        print(f"{path.name}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
