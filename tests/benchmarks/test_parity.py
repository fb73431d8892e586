"""Heatmaps that are compared by the batch are those that the product shows."""

from __future__ import annotations

import numpy as np
import torch

from pawmatch.engines.choose import outcome
from pawmatch.explain import grad_cam
from pawmatch.models import build_model


def test_a_batch_of_heatmaps_has_the_shape_of_those_that_are_shown() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        backbone = {"channels": [4, 4, 8, 8], "stem_width": 4, "output_stride": 8}
        model = build_model(
            family="hybrid",
            variant="cnn_transformer",
            num_classes=5,
            backbone="resnet18d",
            backbone_config=backbone,
        )
        feature_map = torch.rand(6, 8, 4, 4)
    model.eval().requires_grad_(False)
    classes = torch.tensor([0, 1, 2, 3, 4, 0])
    seen = 0
    for row, found in enumerate(outcome(model, feature_map, classes).maps.numpy()):
        shown = grad_cam(model, feature_map[row : row + 1], int(classes[row]))
        np.testing.assert_allclose(found.max(), shown.raw_max, rtol=1e-4, atol=1e-7)
        if shown.raw_max:
            seen += 1
            span = found.max() - found.min()
            np.testing.assert_allclose((found - found.min()) / span, shown.values.ravel(), atol=1e-3)
    assert seen
