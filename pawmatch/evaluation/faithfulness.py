"""Do the heatmaps show what the answer rests on? Four ways to ask, for every variant alike.

Deletion and insertion (Petsiuk, Das and Saenko 2018, arXiv 1806.07421, section 4.2) and ROAD (Rong et al.
2022, arXiv 2202.00449) ask what happens to the answer when pixels change in the heatmap's order; a random
map and a centred blob are asked the same. The randomisation check (Adebayo et al. 2018, arXiv 1810.03292,
section 4) asks whether the map depends on what the head has learnt, the composed scenes whether it lies on
the subject. All of them look at the whole image once, as the heatmap does, even where an answer averages
several views.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pytorch_grad_cam.metrics.perturbation_confidence import RemoveLeastRelevantFirst, RemoveMostRelevantFirst
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from torch import Tensor

from pawmatch.calibration.apply import calibrated
from pawmatch.classifier import Classifier, Member
from pawmatch.evaluation.folders import LabelledFile
from pawmatch.heatmaps import Cam, grad_cam
from pawmatch.images import open_image
from pawmatch.metrics import Estimate, mean, rank_correlation, share
from pawmatch.models import ImageModel
from pawmatch.results import Heatmap

Map = NDArray[np.float32]

RANDOM_HEADS = 5
STEPS = 20  # portions of pixels per deletion or insertion curve
ROAD_IMAGES = 20  # imputation costs seconds an image, so ROAD is measured on the first few only
PERCENTILES = (50, 70, 90)  # the part that ROAD leaves; each needs a sparse system solved for the rest
MEASURES = {"deletion": -1, "insertion": 1, "road": 1}  # the sign says whether more is better
BLUR = 0.05  # standard deviation of the blur that insertion starts from, as a share of the side
BLOB_WIDTH = 0.25  # standard deviation of the centred blob, likewise
SCENE_SIDE = 448  # pixels, twice the usual input: nothing is lost before the model's own resizing
SUBJECT = (0.4, 0.65)  # the subject's longer side as a share of the scene's, from and to


# --- maps of importance that a heatmap has to beat, and the order that a map gives


def random_map(rng: np.random.Generator, grid: tuple[int, ...], side: int) -> Map:
    """A random map as coarse as a heatmap of `grid` (h, w): noise of single pixels would be no rival."""
    return _enlarged(rng.random(grid, dtype=np.float32), side)


def _enlarged(cam: Map, side: int) -> Map:
    """A coarse map (h, w) drawn over a square image (side, side), as heatmaps are drawn."""
    enlarged: Map = cv2.resize(cam, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    return enlarged


def centre_map(side: int) -> Map:
    """A round blob in the middle (side, side): where photographers put what matters."""
    offset = (np.arange(side) - (side - 1) / 2) / (BLOB_WIDTH * side)
    bell = np.exp(-(offset**2) / 2)
    return np.outer(bell, bell).astype(np.float32)


def ranked(saliency: Map, tie_break: Map) -> Map:
    """The pixels' order of importance: 0 for the least, near 1 for the most, no two alike (side, side).

    Heatmaps are flat zero over wide areas. In the image's own order these would be taken row by row,
    in random order as a noise that disturbs any network; `tie_break`, a smooth map, settles it.
    """
    order = np.lexsort((tie_break.ravel(), saliency.ravel()))
    ranks = np.empty(saliency.size, dtype=np.float32)
    ranks[order] = np.arange(saliency.size, dtype=np.float32) / saliency.size
    return ranks.reshape(saliency.shape)


# --- images with pixels changed in that order


def deleted(image: Tensor, ranks: Map, steps: int) -> Tensor:
    """The image (3, S, S) as its most important pixels turn into its mean color: (steps + 1, 3, S, S).

    The first is the whole image, the last a plain one. `ranks` (S, S) comes from `ranked`.
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


def road_images(image: Tensor, ranks: Map, seed: int) -> Tensor:
    """The image (3, S, S) with its least important pixels imputed, then with its most important ones.

    (2 * len(PERCENTILES), 3, S, S), by the grad-cam library. Imputed pixels leave no edge that would betray
    the map's shape to the network, as a grey patch does. `ranks` (S, S) comes from `ranked`: with ties, the
    library may be left without a single known pixel to impute from.
    """
    mask, imputer = torch.from_numpy(ranks), NoisyLinearImputer()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # The library hands tensors to numpy in a way that numpy will drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.manual_seed(seed)
        removers = (RemoveLeastRelevantFirst, RemoveMostRelevantFirst)
        images = [remove(left, imputer)(image, mask) for remove in removers for left in PERCENTILES]
    return torch.stack(images)


def road_score(probabilities: NDArray[np.float64]) -> float:
    """Half of what the most important pixels cost more than the least important, from `road_images`' rows.

    In [-0.5, 0.5], higher is better; the library's ROADCombined.
    """
    least, most = probabilities.reshape(2, -1).mean(axis=1)
    return float((least - most) / 2)


def with_random_head(model: ImageModel, seed: int) -> ImageModel:
    """The model with every parameter behind its feature map drawn anew; the extractor is shared.

    Each parameter keeps its own mean and spread, so the new head has learnt nothing and its outputs are
    about as large as before. The model given is not changed.
    """
    extractor = model.features()
    twin = copy.deepcopy(model, {id(extractor): extractor})
    generator = torch.Generator().manual_seed(seed)
    kept = {id(parameter) for parameter in extractor.parameters()}
    with torch.no_grad():
        for parameter in twin.parameters():
            if id(parameter) not in kept:
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.copy_(parameter.mean() + noise * parameter.std(correction=0))
    return twin


# --- scenes in which the subject's place is known: a picture of it, pasted into another one


class Scene(NamedTuple):
    """A square picture and the part of it that holds the subject: left, top, right, bottom in pixels."""

    image: Image.Image
    box: tuple[int, int, int, int]


class Pointing(NamedTuple):
    """How a heatmap lies on a scene: shares of its heat and of the visible area inside the box.

    `peak` says whether the hottest pixel lies in the box, as in the pointing game (Zhang et al. 2016).
    """

    heat: float
    area: float
    peak: bool


def compose(subject: Image.Image, background: Image.Image, rng: np.random.Generator) -> Scene:
    """The subject at a random place and size on the background, which is cut to a square."""
    scene = ImageOps.fit(background, (SCENE_SIDE, SCENE_SIDE), Image.Resampling.BICUBIC)
    scale = SCENE_SIDE * rng.uniform(*SUBJECT) / max(subject.size)
    width, height = (max(1, round(length * scale)) for length in subject.size)
    left, top = (int(rng.integers(0, SCENE_SIDE - length + 1)) for length in (width, height))
    scene.paste(subject.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0), (left, top))
    return Scene(scene, (left, top, left + width, top + height))


def pointing(heatmap: Heatmap, box: tuple[int, int, int, int]) -> Pointing | None:
    """Compare a scene's heatmap with the subject's box; None where the map found nothing at all."""
    if heatmap.raw_max <= 0:
        return None
    values = heatmap.values
    inside, seen = _mask(values.shape, box), _mask(values.shape, heatmap.box)
    return Pointing(
        heat=float(values[inside].sum() / values.sum()),
        area=float((inside & seen).sum() / seen.sum()),
        peak=bool(inside[np.unravel_index(int(values.argmax()), values.shape)]),
    )


def _mask(shape: tuple[int, ...], box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    left, top, right, bottom = (round(edge) for edge in box)
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


# --- one image under test


class Case:
    """One image under test; variants that share an extractor share the features of the rivals' images.

    `number` seeds the rival maps and says whether the image is among the first, which get ROAD too.
    """

    def __init__(self, photo: Image.Image, number: int) -> None:
        self.photo = photo
        self.number = number
        self.shared: dict[object, Tensor] = {}

    def features(self, member: Member, kind: object, images: Callable[[], Tensor]) -> Tensor:
        """The feature maps (N, C, h, w) of images, computed once for all variants of one extractor."""
        key = (member.extractor, kind)
        if key not in self.shared:
            self.shared[key] = member.engine.features(images())
        return self.shared[key]

    def plain(self, member: Member) -> Tensor:
        """The feature map (1, C, h, w) of the image as it is."""
        return self.features(member, "plain", lambda: member.spec.prepare(self.photo)[None])

    def heatmap(self, member: Member) -> tuple[Cam, int]:
        """The map of the variant's own first choice, and that choice."""
        index = int(probabilities(member, self.plain(member))[0].argmax())
        return grad_cam(member.model, self.plain(member), index), index

    def scores(self, member: Member, cam: Cam, index: int) -> dict[tuple[str, str], float]:
        """Deletion, insertion and, for the first images, ROAD of the heatmap and of its rivals."""
        image, grid = member.spec.prepare(self.photo), cam.values.shape
        side = image.shape[-1]
        rng = np.random.default_rng(self.number)  # anew for each variant, so that all meet the same rivals
        rival, tie_break = random_map(rng, grid, side), random_map(rng, grid, side)
        maps = {"heatmap": _enlarged(cam.values, side), "random": rival, "centre": centre_map(side)}
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

    def pointing(self, member: Member, target: int, box: tuple[int, int, int, int]) -> Pointing | None:
        """How the map of class `target` lies on this image, a scene, whose subject is in the box."""
        cam = grad_cam(member.model, self.plain(member), target)
        confidence = float(probabilities(member, self.plain(member))[0, target])
        label, size = member.checkpoint.config.labels[target], self.photo.size
        seen = member.spec.box(*size)
        return pointing(Heatmap(member.variant, label, cam.values, cam.raw_max, confidence, seen, size), box)


@torch.no_grad()
def probabilities(member: Member, features: Tensor) -> NDArray[np.float64]:
    """Calibrated probabilities (N, classes) of feature maps (N, C, h, w)."""
    logits = member.model.forward_head(features).float().cpu().numpy()
    return calibrated(logits, member.checkpoint.config.calibration)


# --- what many images say


@dataclass(frozen=True)
class Comparison:
    """One measure of the heatmap and of its rivals, over `images` images.

    `over_random` and `over_centre` are the mean gains of the heatmap over them on the same images,
    positive where the heatmap is the better one, whichever way the measure runs.
    """

    images: int
    heatmap: Estimate
    random: Estimate
    centre: Estimate
    over_random: Estimate
    over_centre: Estimate


@dataclass(frozen=True)
class ScenePointing:
    """How heatmaps of the true class lie on composed scenes.

    `heat` is the share of a map's heat inside the subject's box, `area` the box's share of the scene,
    `gain` their difference, `peak` the share of maps whose hottest pixel is inside. `empty` maps, which
    found no evidence, are in none of these.
    """

    scenes: int
    empty: int
    heat: Estimate
    area: Estimate
    gain: Estimate
    peak: Estimate


@dataclass(frozen=True)
class Faithfulness:
    """One variant's results over `images` images, of which `empty` have a heatmap without any evidence.

    `after_randomisation` is the rank correlation of the heatmap with that of a randomised head: near 1
    the map would not depend on what was learnt. `pointing` is None without backgrounds for scenes.
    """

    images: int
    empty: int
    deletion: Comparison
    insertion: Comparison
    road: Comparison
    after_randomisation: Estimate
    pointing: ScenePointing | None


def spread(files: Sequence[LabelledFile], count: int) -> list[LabelledFile]:
    """`count` of the files, evenly spaced, or all where there are fewer."""
    if count < 1:
        return []
    rows = np.unique(np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int))
    return [files[row] for row in rows]


def measure_faithfulness(
    classifier: Classifier,
    variants: Sequence[str],
    files: Iterable[LabelledFile],
    backgrounds: Sequence[Path] = (),
) -> dict[str, Faithfulness]:
    """Measure the heatmaps of `variants` on readable `files`.

    Deletion, insertion, ROAD and randomisation explain each variant's own first choice, scenes the true
    class. `backgrounds` are readable images that do not belong to the task; without them no scene is
    composed. The same files give the same result. Raises ImageError for a file that cannot be read.
    """
    members = [classifier.members[variant] for variant in variants]
    heads = {
        member.variant: [with_random_head(member.model, seed) for seed in range(RANDOM_HEADS)]
        for member in members
    }
    found = {variant: _Findings() for variant in variants}
    for number, file in enumerate(files):
        photo = open_image(file.path)
        case, scene = Case(photo, number), None
        if backgrounds:
            # A stride that is no divisor of the usual folder sizes walks through all kinds of backgrounds.
            background = open_image(backgrounds[number * 97 % len(backgrounds)])
            scene = compose(photo, background, np.random.default_rng(number))
            scene_case = Case(scene.image, number)
        for member in members:
            findings = found[member.variant]
            cam, index = case.heatmap(member)
            findings.empty += cam.raw_max == 0
            for key, score in case.scores(member, cam, index).items():
                findings.scores[key].append(score)
            after = grad_cam(heads[member.variant][number % RANDOM_HEADS], case.plain(member), index)
            findings.correlations.append(rank_correlation(cam.values, after.values))
            if scene is not None:
                findings.scenes += 1
                if (point := scene_case.pointing(member, file.target, scene.box)) is not None:
                    findings.points.append(point)
    return {variant: findings.summary() for variant, findings in found.items() if findings.correlations}


class _Findings:
    """What the images say about one variant; `scores` are keyed by measure and kind of map."""

    def __init__(self) -> None:
        self.empty = self.scenes = 0
        self.scores: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.correlations: list[float] = []
        self.points: list[Pointing] = []

    def summary(self) -> Faithfulness:
        return Faithfulness(
            images=len(self.correlations),
            empty=self.empty,
            **{measure: self.compared(measure) for measure in MEASURES},
            after_randomisation=mean(np.array(self.correlations)),
            pointing=self.pointing() if self.points else None,
        )

    def compared(self, measure: str) -> Comparison:
        own, random, centre = (
            np.array(self.scores[measure, kind]) for kind in ("heatmap", "random", "centre")
        )
        gains = (mean(MEASURES[measure] * (own - rival)) for rival in (random, centre))
        return Comparison(len(own), mean(own), mean(random), mean(centre), *gains)

    def pointing(self) -> ScenePointing:
        heat, area, peak = (np.array(values) for values in zip(*self.points, strict=True))
        return ScenePointing(
            scenes=self.scenes,
            empty=self.scenes - len(self.points),
            heat=mean(heat),
            area=mean(area),
            gain=mean(heat - area),
            peak=share(peak),
        )
