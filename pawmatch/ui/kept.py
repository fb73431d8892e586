"""Kept: what stays in memory of one visitor's answer, so that its heatmaps can be painted anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from pawmatch.results import Heatmap
from pawmatch.ui.handlers import Shown
from pawmatch.ui.pictures import as_jpeg


@dataclass(frozen=True)
class Kept:
    """The heatmaps for one label, by its name, and their photo as the bytes of a JPEG file.

    Hundreds of visitors have one each, and the pixels of a photo take some ten times as much.
    """

    name: str
    heatmaps: Mapping[str, Heatmap]
    jpeg: bytes

    def photo(self) -> Image.Image:
        """The photo, decoded anew."""
        return Image.open(BytesIO(self.jpeg))


def keep(shown: Shown) -> Kept:
    """What is to be kept of what a page shows."""
    explanation = shown.explanation
    return Kept(explanation.name, explanation.heatmaps, as_jpeg(shown.photo))
