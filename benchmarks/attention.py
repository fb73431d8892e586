"""CHAE's encoder with attention in a window and with tokens dropped, beside the dense one: clock time.

python -m benchmarks.attention [--data paintings/] [--grids 16 32 48] [--rounds 15]

The bundled artist-chae weights on one picture at a time, one thread. The encoders take turns, and of
each picture the fastest round counts, so that what else the machine does falls on none.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pawmatch.checkpoint import load_task
from pawmatch.evaluation.folders import images_below
from pawmatch.images import read_image
from pawmatch.models import Chae

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ENCODERS: dict[str, tuple[float, int | None]] = {
    "dense": (1.0, None),
    "window 2": (1.0, 2),
    "window 4": (1.0, 4),
    "share 0.9": (0.9, None),
    "share 0.7": (0.7, None),
    "share 0.5": (0.5, None),
    "share 0.5, window 4": (0.5, 4),
}


@torch.inference_mode()
def main() -> None:
    """Print a row for each grid and encoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="folder of pictures")
    parser.add_argument("--grids", type=int, nargs="+", default=[16, 32, 48], help="positions a side")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pictures", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = next(c for c in load_task(None, "artist-chae") if c.config.variant == "cnn_transformer")
    model, spec = checkpoint.model.eval(), checkpoint.config.input
    assert isinstance(model, Chae)
    assert model.encoder is not None
    files = images_below(args.data)
    files = files[:: max(1, len(files) // args.pictures)][: args.pictures]
    print("| positions | encoder | ms a picture | times dense | positions kept: least, median, most |")
    print("|---|---|---|---|---|")
    for grid in args.grids:
        maps = []
        for file in files:
            image = replace(spec, size=16 * grid).prepare(read_image(file).image)
            maps.append(model.forward_features(image[None]))
        fastest = {name: [math.inf] * len(maps) for name in ENCODERS}
        counts: dict[str, list[int]] = {}
        for _ in range(args.rounds):
            for name, options in ENCODERS.items():
                model.encoder.keep_share, model.encoder.window = options
                fastest[name] = [min(pair) for pair in zip(fastest[name], answer(model, maps), strict=True)]
                counts[name] = counts.get(name) or [int(model.kept(one)) for one in maps]
        dense = sum(fastest["dense"])
        for name, kept in counts.items():
            seconds = sum(fastest[name])
            print(
                f"| {grid} x {grid} | {name} | {1000 * seconds / len(maps):.1f} "
                f"| {seconds / dense:.2f} | {min(kept)}, {statistics.median(kept):.0f}, {max(kept)} |",
                flush=True,
            )


def answer(model: Chae, maps: list[Tensor]) -> list[float]:
    """Seconds for the head of each map."""
    seconds = []
    for feature_map in maps:
        started = time.perf_counter()
        model.forward_head(feature_map)
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
