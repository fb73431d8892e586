"""One image under test: its heatmaps, the maps they have to beat, and what each does to the answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pawmatch.calibration.apply import calibrated
from pawmatch.evaluation.perturbation import area_under, deleted, inserted
from pawmatch.evaluation.road import road_images, road_score
from pawmatch.evaluation.saliency import Map, centre_map, enlarge, random_map, ranked
from pawmatch.explain import Cam, grad_cam
from pawmatch.predict import Member

STEPS = 20  # portions of pixels per deletion or insertion curve
ROAD_IMAGES = 20  # imputation costs seconds an image, so ROAD is measured on the first few only


class Case:
    """One image under test; variants that share an extractor share the features of the rivals' images.

    `number` seeds the rival maps and says whether the image is among the first, which get ROAD too.
    """

    def __init__(self, photo: Image.Image, number: int) -> None:
        self.photo = photo
        self.number = number
        self.shared: dict[object, Tensor] = {}

    def heatmap(self, member: Member) -> tuple[Cam, int, Tensor]:
        """The map of the variant's own first choice, that choice, and the feature map (1, C, h, w)."""
        plain = self.features(member, "plain", lambda: self.prepared(member)[None])
        index = int(probabilities(member, plain)[0].argmax())
        return grad_cam(member.model, plain, index), index, plain

    def scores(self, member: Member, cam: Cam, index: int) -> dict[tuple[str, str], float]:
        """Deletion, insertion and, for the first images, ROAD of the heatmap and of its rivals."""
        image, grid = self.prepared(member), cam.values.shape
        side = image.shape[-1]
        rng = np.random.default_rng(self.number)  # anew for each variant, so that all meet the same rivals
        rival, tie_break = random_map(rng, grid, side), random_map(rng, grid, side)
        maps = {"heatmap": enlarge(cam.values, side), "random": rival, "centre": centre_map(side)}
        scores = {}
        for kind, saliency in maps.items():
            ranks = ranked(saliency, tie_break)
            key = (kind, member.variant if kind == "heatmap" else grid)
            features = self.features(member, key, partial(self.perturbed, image, ranks))
            curve = probabilities(member, features)[:, index]
            scores["deletion", kind] = area_under(curve[: STEPS + 1])
            scores["insertion", kind] = area_under(curve[STEPS + 1 : 2 * STEPS + 2])
            if self.number < ROAD_IMAGES:
                scores["road", kind] = road_score(curve[2 * STEPS + 2 :])
        return scores

    def perturbed(self, image: Tensor, ranks: Map) -> Tensor:
        """Every changed image that one map asks for, one after another: (rows, 3, S, S)."""
        rows = [deleted(image, ranks, STEPS), inserted(image, ranks, STEPS)]
        if self.number < ROAD_IMAGES:
            rows.append(road_images(image, ranks, self.number))
        return torch.cat(rows)

    def prepared(self, member: Member) -> Tensor:
        """The variant's input (3, S, S)."""
        return member.checkpoint.config.input.prepare(self.photo)

    def features(self, member: Member, kind: object, images: Callable[[], Tensor]) -> Tensor:
        """The feature maps (N, C, h, w) of images, computed once for all variants of one extractor."""
        key = (member.extractor, kind)
        if key not in self.shared:
            self.shared[key] = member.engine.features(images())
        return self.shared[key]


@torch.no_grad()
def probabilities(member: Member, features: Tensor) -> NDArray[np.float64]:
    """Calibrated probabilities (N, classes) of feature maps (N, C, h, w)."""
    logits = member.model.forward_head(features).float().cpu().numpy()
    return calibrated(logits, member.checkpoint.config.calibration)
