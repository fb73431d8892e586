"""Scope gates: what an image of the task looks like, as against images from elsewhere and scrambled ones."""

from __future__ import annotations

import random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pawmatch.calibration import ScopeGate
from pawmatch.training.data import LabelledImages

Floats = NDArray[np.float32]

GATE_PENALTY = 1e-3
# Shares of the task's own validation images that the gates may turn away, together 4 %.
OUTSIDE_FLAGGED = 0.03
SCRAMBLED_FLAGGED = 0.01
LEAST_CAUGHT = 0.2  # share of the scrambled images; a gate that sees fewer of them earns nothing
PIECES = (2, 3, 4)  # rows and columns into which a scrambled image is cut
CORNER = (0.15, 0.3)  # share of width and height that a corner shows


def fit_scope_gates(
    inside: Floats, outside: Floats, pieces: Floats, held_out: Floats
) -> tuple[ScopeGate, ...]:
    """The gates of one variant, from pooled features (N, C) of four kinds of images.

    One gate says no to images from outside. The other learns from scrambled images of the task itself: other
    animals and objects share their textures, and not their arrangement. Where arrangement says little, as
    with paintings, it catches hardly anything, and what it may turn away goes to the first gate instead.
    """
    own = f"{len(inside)} training images against"
    against_pieces = f"{own} {len(pieces)} scrambled and cut-up training images"
    against_outside = f"{own} {len(outside)} images of another kind"
    second = fit_scope_gate(inside, pieces, held_out, flagged=SCRAMBLED_FLAGGED, fitted_on=against_pieces)
    scores = pieces.astype(np.float64) @ np.asarray(second.weight) + second.bias
    earned = float((scores < second.threshold).mean()) >= LEAST_CAUGHT
    share = OUTSIDE_FLAGGED if earned else OUTSIDE_FLAGGED + SCRAMBLED_FLAGGED
    first = fit_scope_gate(inside, outside, held_out, flagged=share, fitted_on=against_outside)
    return (first, second) if earned else (first,)


def fit_scope_gate(
    inside: Floats, outside: Floats, held_out: Floats, *, flagged: float, fitted_on: str
) -> ScopeGate:
    """A linear gate that tells the task's images from others by their pooled features (N, C).

    Logistic regression on standardised features, both sides weighing alike. The threshold is the score
    below which the share `flagged` of `held_out` (images of the task, not used in the fit) falls.
    """
    both = np.concatenate([inside, outside]).astype(np.float64)
    mean, std = both.mean(axis=0), both.std(axis=0) + 1e-6
    features = torch.from_numpy((both - mean) / std)
    target = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).double()
    balance = torch.where(target == 1, 0.5 / len(inside), 0.5 / len(outside))
    weight = torch.zeros(both.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        losses = nn.functional.binary_cross_entropy_with_logits(
            features @ weight + bias, target, reduction="none"
        )
        loss = (losses * balance).sum() + GATE_PENALTY * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    # Fold the standardisation in, so that using the gate is one dot product.
    folded = weight.detach().numpy() / std
    shift = float(bias.detach()) - float(mean @ folded)
    scores = held_out.astype(np.float64) @ folded + shift
    return ScopeGate(
        weight=tuple(float(f"{value:.6g}") for value in folded),
        bias=shift,
        threshold=float(np.quantile(scores, flagged)),
        fitted_on=fitted_on,
    )


def scrambled(data: LabelledImages, seed: int = 0) -> LabelledImages:
    """Twice as many images: each cut into tiles that are put back in another order, and a corner of each."""
    rng = random.Random(seed)
    tiled = [shuffle_tiles(image, rng.choice(PIECES), rng) for image in data.images]
    corners = [corner(image, rng.uniform(*CORNER), rng) for image in data.images]
    return LabelledImages(data.labels, (*tiled, *corners), data.targets * 2, data.skipped)


def shuffle_tiles(image: NDArray[np.uint8], count: int, rng: random.Random) -> NDArray[np.uint8]:
    """Cut an image (H, W, 3) into count x count equal tiles and put them back in random order."""
    height, width = image.shape[0] // count, image.shape[1] // count
    places = [(row * height, column * width) for row in range(count) for column in range(count)]
    tiles = [image[top : top + height, left : left + width] for top, left in places]
    rng.shuffle(tiles)
    mixed = np.empty((height * count, width * count, 3), dtype=np.uint8)
    for (top, left), tile in zip(places, tiles, strict=True):
        mixed[top : top + height, left : left + width] = tile
    return mixed


def corner(image: NDArray[np.uint8], share: float, rng: random.Random) -> NDArray[np.uint8]:
    """One of the four corners of an image (H, W, 3), `share` of its height and width."""
    height, width = (max(8, round(share * side)) for side in image.shape[:2])
    rows = slice(None, height) if rng.random() < 0.5 else slice(-height, None)
    columns = slice(None, width) if rng.random() < 0.5 else slice(-width, None)
    return image[rows, columns]
