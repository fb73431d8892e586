"""Views that crops of the subject lack: the subject small, before some other background."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class ZoomOut:
    """Shrinks an image into a larger scene, at random.

    Data that is cropped to its subject teaches a model nothing about small subjects, yet users send whole
    photos. With the given probability the image lands at a random place of a background up to `largest`
    times its width and height. Backgrounds are uint8 (H, W, 3); without any, the image's own blurred colours
    serve.
    """

    def __init__(
        self, probability: float, largest: float, backgrounds: Sequence[NDArray[np.uint8]] = ()
    ) -> None:
        self.probability = probability
        self.largest = largest
        self.backgrounds = backgrounds

    def __call__(self, image: Image.Image) -> Image.Image:
        if random.random() >= self.probability:
            return image
        factor = random.uniform(1, self.largest)
        width, height = round(image.width * factor), round(image.height * factor)
        if self.backgrounds:
            scene = Image.fromarray(random.choice(self.backgrounds)).resize((width, height))
        else:
            scene = image.resize((4, 4), Image.Resampling.BOX).resize(
                (width, height), Image.Resampling.BICUBIC
            )
        corner = (random.randint(0, width - image.width), random.randint(0, height - image.height))
        scene.paste(image, corner)
        return scene
