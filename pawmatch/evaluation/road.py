"""ROAD: remove what matters most, or least, by imputing it from its surroundings.

Rong et al. 2022 (arXiv 2202.00449), in the grad-cam library's implementation. Imputed pixels leave no
edge that would betray the map's shape to the network, as a grey patch does.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.metrics.perturbation_confidence import RemoveLeastRelevantFirst, RemoveMostRelevantFirst
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from torch import Tensor

from pawmatch.evaluation.saliency import Map

PERCENTILES = (50, 70, 90)  # the part that stays; each needs a sparse system solved for the rest


def road_images(image: Tensor, ranks: Map, seed: int) -> Tensor:
    """The image (3, S, S) with its least important pixels imputed, then with its most important ones.

    (2 * len(PERCENTILES), 3, S, S). `ranks` (S, S) comes from `saliency.ranked`: with ties, the library
    may be left without a single known pixel to impute from.
    """
    mask = torch.from_numpy(ranks)
    imputer = NoisyLinearImputer()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # The library hands tensors to numpy in a way that numpy will drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.manual_seed(seed)
        least = [RemoveLeastRelevantFirst(percentile, imputer)(image, mask) for percentile in PERCENTILES]
        most = [RemoveMostRelevantFirst(percentile, imputer)(image, mask) for percentile in PERCENTILES]
    return torch.stack([*least, *most])


def road_score(probabilities: NDArray[np.float64]) -> float:
    """Half of what the most important pixels cost more than the least important, from `road_images`' rows.

    In [-0.5, 0.5], higher is better; the library's ROADCombined.
    """
    least, most = probabilities.reshape(2, -1).mean(axis=1)
    return float((least - most) / 2)
