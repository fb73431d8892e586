"""Where the subject of a picture is, from how likely it is at every position of a feature map.

A classifier that ends in an average pool says at each position what it sees there (Zhou et al. 2016, arXiv
1512.04150). The box around what it sees needs no training of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pawmatch.images import Box

SPREAD = 1.8  # half a box, in standard deviations of the mass; sqrt(3) for mass spread evenly over it
MIN_SIDE = 0.35  # of a closer look, in shorter sides of the picture: below it there are too few pixels
MAX_SIDE = 0.95  # of a closer look: a subject that fills more than that is seen large already
MIN_MASS = 0.3  # at the likeliest position: below it there is no subject to look at
MAX_CUT = 0.22  # mean mass along edges behind which the picture goes on: above it, the subject does too
EVEN = 1e-4  # mass at every position besides, so that a sum is never 0


class Subject(NamedTuple):
    """A subject's box in shares of the picture's width and height, and how likely it is at its best place.

    `cut` is how likely it is, on average, along those edges of the view behind which the picture goes on.
    """

    box: Box
    score: float
    cut: float = 0.0


def find_subject(mass: NDArray[np.float32], view: Box) -> Subject | None:
    """The subject in a view, from its probability (h, w) at each position of the feature map.

    `view` is the part of the picture that was seen, in shares of its width and height. The box is centered
    on the mean of the mass and as large as its spread. None where nothing is likely anywhere.
    """
    if float(mass.max()) < MIN_MASS:
        return None
    shares = (mass + EVEN) / (mass + EVEN).sum()
    middle_x, half_x = _mean_and_half(shares.sum(axis=0))
    middle_y, half_y = _mean_and_half(shares.sum(axis=1))
    wide, tall = view.right - view.left, view.bottom - view.top
    box = Box(
        view.left + wide * max(0.0, middle_x - half_x),
        view.top + tall * max(0.0, middle_y - half_y),
        view.left + wide * min(1.0, middle_x + half_x),
        view.top + tall * min(1.0, middle_y + half_y),
    )
    edges = [mass[:, [0, -1]]] * (wide < 1) + [mass[[0, -1], :].T] * (tall < 1)
    cut = float(np.concatenate(edges).mean()) if edges else 0.0
    return Subject(box, min(1.0, float(mass.max())), cut)  # a sum of probabilities may be rounded up


def second_look(subject: Subject, width: int, height: int) -> Box | None:
    """What to look at after a centered square, in shares of the picture; None where that showed it well.

    The whole picture where the square cuts the subject off, or else the square around a subject that shows
    it larger. `width` and `height` give the picture's shape, in pixels of any size.
    """
    if subject.cut > MAX_CUT:
        return Box(0, 0, 1, 1)
    short = min(width, height)
    box = subject.box
    side = max((box.right - box.left) * width, (box.bottom - box.top) * height, MIN_SIDE * short)
    if side > MAX_SIDE * short:
        return None
    left = min(max((box.left + box.right) / 2 * width - side / 2, 0), width - side)
    top = min(max((box.top + box.bottom) / 2 * height - side / 2, 0), height - side)
    return Box(left / width, top / height, (left + side) / width, (top + side) / height)


def _mean_and_half(shares: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and SPREAD standard deviations of a distribution over equal steps of [0, 1]."""
    places = (np.arange(len(shares)) + 0.5) / len(shares)
    mean = float(shares @ places)
    return mean, SPREAD * float(np.sqrt(shares @ (places - mean) ** 2))
