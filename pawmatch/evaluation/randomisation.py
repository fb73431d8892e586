"""The parameter-randomisation check: a heatmap that survives another head explains nothing.

Adebayo et al. 2018 (arXiv 1810.03292), section 4.
"""

from __future__ import annotations

import copy

import torch

from pawmatch.models import ImageModel


def with_random_head(model: ImageModel, seed: int) -> ImageModel:
    """The model with every parameter behind its feature map drawn anew; the extractor is shared.

    Each parameter keeps its own mean and spread, so the new head has learnt nothing and its outputs are
    about as large as before. The model given is not changed.
    """
    extractor = getattr(model, model.features_module)
    twin = copy.deepcopy(model, {id(extractor): extractor})
    generator = torch.Generator().manual_seed(seed)
    kept = {id(parameter) for parameter in extractor.parameters()}
    with torch.no_grad():
        for parameter in twin.parameters():
            if id(parameter) not in kept:
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.copy_(parameter.mean() + noise * parameter.std(correction=0))
    return twin
