"""What every architecture offers, and all that prediction, explanation and training use of it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn


class ImageModel(nn.Module):
    """A classifier cut in two at its last feature map."""

    features_module: ClassVar[str]  # attribute that holds all parameters of forward_features
    feature_dim: int  # width of the pooled feature vector

    def features(self) -> nn.Module:
        """The module that holds all parameters of `forward_features`."""
        module: nn.Module = getattr(self, self.features_module)
        return module

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> feature map (N, C, h, w): the costly part."""
        raise NotImplementedError

    def forward_head(self, feature_map: Tensor) -> Tensor:
        """Feature map (N, C, h, w) -> logits (N, classes): cheap and differentiable."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, classes)."""
        return self.forward_head(self.forward_features(images))
