"""Deletion and insertion: what becomes of the answer as the important pixels go, or come.

Petsiuk, Das and Saenko 2018 (arXiv 1806.07421), section 4.2.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pawmatch.evaluation.saliency import Map

BLUR = 0.05  # standard deviation of the blur that insertion starts from, as a share of the side


def deleted(image: Tensor, ranks: Map, steps: int) -> Tensor:
    """The image (3, S, S) as its most important pixels turn into its mean colour: (steps + 1, 3, S, S).

    The first is the whole image, the last a plain one. `ranks` (S, S) comes from `saliency.ranked`.
    """
    plain = image.mean(dim=(1, 2), keepdim=True).expand_as(image)
    return torch.where(_chosen(ranks, steps), plain, image)


def inserted(image: Tensor, ranks: Map, steps: int) -> Tensor:
    """The blurred image (3, S, S) as its most important pixels turn sharp: (steps + 1, 3, S, S)."""
    pixels = image.permute(1, 2, 0).numpy()
    blurred = torch.from_numpy(cv2.GaussianBlur(pixels, (0, 0), BLUR * image.shape[-1])).permute(2, 0, 1)
    return torch.where(_chosen(ranks, steps), image, blurred)


def _chosen(ranks: Map, steps: int) -> Tensor:
    """Which pixels are chosen after 0, 1, ... `steps` equal portions: (steps + 1, 1, S, S)."""
    portions = torch.arange(steps + 1).view(-1, 1, 1, 1) / steps
    return torch.from_numpy(ranks).double() >= 1 - portions.double() - 1e-9


def area_under(probabilities: NDArray[np.float64]) -> float:
    """The mean height of a curve of probabilities (steps + 1,), by the trapezoid rule."""
    return float((probabilities[1:] + probabilities[:-1]).mean() / 2)
