"""After the last epoch: what training views have shifted, set right for the views that answering takes.

Random crops, mixed images and smaller sizes give features other means and variances than whole images do,
and favour some classes over others (Touvron et al. 2019, "Fixing the train-test resolution discrepancy").
Training images, seen as photos are when they are answered, tell by how much; validation images take no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from pawmatch.calibration.minimise import minimise
from pawmatch.calibration.temperature import fit_temperature
from pawmatch.models import ImageModel
from pawmatch.preprocess import InputSpec
from pawmatch.training.data import LabelledImages, view_batches
from pawmatch.training.outputs import Outputs

Floats = NDArray[np.float32]

BATCH = 16  # images, each in all its views: enough for the statistics of one step
OFFSET_PENALTY = 1e-4


@torch.no_grad()
def estimate_statistics(
    models: Mapping[str, ImageModel], data: LabelledImages, specs: Mapping[str, InputSpec], device: str
) -> None:
    """Set the running statistics of every BatchNorm to the mean over `data`, in place.

    Each variant sees the images as it does when answering. A feature extractor that variants share gets them
    from the first of those.
    """
    done: set[int] = set()
    for name, model in models.items():
        layers = [
            layer for layer in model.modules() if isinstance(layer, _BatchNorm) and id(layer) not in done
        ]
        done.update(id(layer) for layer in layers)
        if not layers:
            continue
        model.eval()
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch then keeps the plain mean over the batches
            layer.train()
        for batch in view_batches(data, specs[name], BATCH):
            if len(batch) > 1:  # one row has no variance
                model(batch.to(device))
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.eval()


def without_favor(
    models: Mapping[str, ImageModel],
    training: Mapping[str, Outputs],
    targets: NDArray[np.int64],
    outputs: Mapping[str, Outputs],
    labels: NDArray[np.int64],
) -> dict[str, Outputs]:
    """Give every model the class offsets that its training images ask for; the `outputs` with them.

    `training` is what the models say of training images of classes `targets` (N,), `outputs` of validation
    images of classes `labels` (M,).
    """
    changed: dict[str, Outputs] = {}
    for name, own in outputs.items():
        offsets = class_offsets(training[name].logits, targets, fit_temperature(own.logits, labels))
        add_offsets(models[name], offsets)
        changed[name] = replace(own, logits=own.logits + offsets)
    return changed


def class_offsets(logits: Floats, labels: NDArray[np.int64], temperature: float) -> Floats:
    """Offsets (classes,) to add to logits, so that no class is favoured.

    They minimise the mean negative log-likelihood of softmax((logits + offsets) / temperature) over training
    images, logits (N, classes) and labels (N,), plus OFFSET_PENALTY times the squared offsets / temperature.
    """
    scores = torch.from_numpy(logits.astype(np.float64)) / temperature
    target = torch.from_numpy(labels)
    offsets = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)
    minimise(
        lambda: cross_entropy(scores + offsets, target) + OFFSET_PENALTY * offsets.square().sum(), [offsets]
    )
    found: Floats = (offsets.detach().numpy() * temperature).astype(np.float32)
    return found


@torch.no_grad()
def add_offsets(model: ImageModel, offsets: Floats) -> None:
    """Add offsets (classes,) to a model's logits, in the bias of its last layer."""
    classifier = model.classifier
    last = classifier[-1] if isinstance(classifier, nn.Sequential) else classifier
    assert isinstance(last, nn.Linear)
    last.bias.add_(torch.from_numpy(offsets).to(last.bias))
