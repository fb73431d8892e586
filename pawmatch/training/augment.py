"""From a decoded image to what the model is shown of it in training: random views, or the plain image."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_train
from torch import Tensor
from torchvision.transforms import Compose
from torchvision.transforms.functional import pil_to_tensor

from pawmatch.preprocess import INTERPOLATIONS, InputSpec
from pawmatch.training.recipe import Recipe

View = Callable[[Image.Image], Tensor]


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


class Affine:
    """Rotates, shears and zooms an image at random; what comes into view repeats the nearest pixel.

    `rotation` is the largest angle in degrees, `shear` the largest shift to the side in heights of the
    image, `zoom` the largest change of scale.
    """

    def __init__(self, rotation: float, shear: float, zoom: float) -> None:
        self.rotation, self.shear, self.zoom = math.radians(rotation), shear, zoom
        cv2.setNumThreads(1)  # the processes that load images are the parallel part

    def __call__(self, image: Image.Image) -> Image.Image:
        angle = random.uniform(-self.rotation, self.rotation)
        slant = random.uniform(-self.shear, self.shear)
        scale = random.uniform(1 - self.zoom, 1 + self.zoom)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        matrix = scale * turn @ np.array([[1, slant], [0, 1]])
        middle = np.array([image.width - 1, image.height - 1]) / 2
        shift = middle - matrix @ middle  # the middle stays where it is
        # torchvision's RandomAffine fills with one colour only.
        moved = cv2.warpAffine(
            np.asarray(image),
            np.column_stack([matrix, shift]),
            image.size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return Image.fromarray(moved)


def training_view(recipe: Recipe, size: int, backgrounds: Sequence[NDArray[np.uint8]] = ()) -> View:
    """What turns an image into a random view of it, a uint8 tensor (3, size, size)."""
    spec = replace(InputSpec.from_dict(recipe.input), size=size)

    def whole(image: Image.Image) -> Image.Image:
        box = spec.box(image.width, image.height)
        return image.resize((size, size), INTERPOLATIONS[spec.interpolation], box=box, reducing_gap=3.0)

    steps: list[Callable[..., object]] = []
    if recipe.zoom_out:
        steps.append(ZoomOut(recipe.zoom_out, recipe.zoom_out_factor, backgrounds))
    if recipe.crop_scale[0] >= 1:
        steps.append(whole)
    if recipe.rotation or recipe.shear or recipe.zoom:
        steps.append(Affine(recipe.rotation, recipe.shear, recipe.zoom))
    # `normalize=False` keeps uint8: a worker hands over a quarter of the bytes.
    crop = transforms_imagenet_train(
        img_size=size,
        scale=recipe.crop_scale,
        ratio=recipe.crop_ratio,
        hflip=recipe.flip,
        color_jitter=recipe.color_jitter,
        auto_augment=recipe.rand_augment or None,
        interpolation="bilinear",
        normalize=False,
    )
    augmented: View = Compose([*steps, crop])

    def view(image: Image.Image) -> Tensor:
        if recipe.plain and random.random() < recipe.plain:
            plain: Tensor = pil_to_tensor(whole(image))
            return plain
        return augmented(image)

    return view
