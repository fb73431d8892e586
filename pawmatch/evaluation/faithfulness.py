"""Do the heatmaps show what the answer rests on? Four ways to ask, for every variant alike.

Deletion, insertion and ROAD ask what happens to the answer when pixels change in the heatmap's order;
a random map and a centred blob are asked the same. The randomisation check asks whether the map depends
on what the head has learnt, the composed scenes whether it lies on the subject. All of them look at the
whole image once, as the heatmap does, even where an answer averages several views.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pawmatch.evaluation.case import Case, probabilities
from pawmatch.evaluation.folders import LabelledFile
from pawmatch.evaluation.randomisation import with_random_head
from pawmatch.evaluation.scenes import Pointing, compose, pointing
from pawmatch.explain import grad_cam
from pawmatch.images import open_image
from pawmatch.metrics import Estimate, mean, rank_correlation, share
from pawmatch.predict import Classifier, Member
from pawmatch.results import Heatmap

RANDOM_HEADS = 5
RIVALS = ("random", "centre")
MEASURES = {"deletion": -1, "insertion": 1, "road": 1}  # the sign says whether more is better


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


@dataclass(frozen=True)
class _Finding:
    """What one image says about one variant; `scores` are keyed by measure and kind of map."""

    empty: bool
    scores: dict[tuple[str, str], float]
    correlation: float
    pointing: Pointing | None


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
    found: dict[str, list[_Finding]] = defaultdict(list)
    for number, file in enumerate(files):
        photo = open_image(file.path)
        scenes = _scene_pointing(members, photo, file.target, number, backgrounds)
        case = Case(photo, number)
        for member in members:
            random_head = heads[member.variant][number % RANDOM_HEADS]
            cam, index, plain = case.heatmap(member)
            after = grad_cam(random_head, plain, index)
            found[member.variant].append(
                _Finding(
                    empty=cam.raw_max == 0,
                    scores=case.scores(member, cam, index),
                    correlation=rank_correlation(cam.values, after.values),
                    pointing=scenes.get(member.variant),
                )
            )
    return {variant: _summary(findings, bool(backgrounds)) for variant, findings in found.items()}


def _scene_pointing(
    members: Sequence[Member],
    photo: Image.Image,
    target: int,
    number: int,
    backgrounds: Sequence[Path],
) -> dict[str, Pointing]:
    """Where each variant sees the true class in one scene; variants with an empty map are left out."""
    if not backgrounds:
        return {}
    # A stride that is no divisor of the usual folder sizes walks through all kinds of backgrounds.
    background = open_image(backgrounds[number * 97 % len(backgrounds)])
    scene = compose(photo, background, np.random.default_rng(number))
    case, found = Case(scene.image, number), {}
    for member in members:
        config = member.checkpoint.config
        plain = case.features(member, "plain", partial(lambda m: case.prepared(m)[None], member))
        cam = grad_cam(member.model, plain, target)
        heatmap = Heatmap(
            variant=member.variant,
            label=config.labels[target],
            cam=cam.values,
            raw_max=cam.raw_max,
            confidence=float(probabilities(member, plain)[0, target]),
            box=config.input.box(*scene.image.size),
            size=scene.image.size,
        )
        if (result := pointing(heatmap, scene.box)) is not None:
            found[member.variant] = result
    return found


def _summary(findings: Sequence[_Finding], has_scenes: bool) -> Faithfulness:
    return Faithfulness(
        images=len(findings),
        empty=sum(finding.empty for finding in findings),
        deletion=_compare(findings, "deletion"),
        insertion=_compare(findings, "insertion"),
        road=_compare(findings, "road"),
        after_randomisation=mean(np.array([finding.correlation for finding in findings])),
        pointing=_scene_summary(findings) if has_scenes else None,
    )


def _compare(findings: Sequence[_Finding], measure: str) -> Comparison:
    values = {
        kind: np.array([f.scores[measure, kind] for f in findings if (measure, kind) in f.scores])
        for kind in ("heatmap", *RIVALS)
    }
    sign = MEASURES[measure]
    gains = {kind: mean(sign * (values["heatmap"] - values[kind])) for kind in RIVALS}
    return Comparison(
        images=len(values["heatmap"]),
        heatmap=mean(values["heatmap"]),
        random=mean(values["random"]),
        centre=mean(values["centre"]),
        over_random=gains["random"],
        over_centre=gains["centre"],
    )


def _scene_summary(findings: Sequence[_Finding]) -> ScenePointing | None:
    points = [finding.pointing for finding in findings if finding.pointing is not None]
    if not points:
        return None
    heat, area = (np.array([getattr(point, name) for point in points]) for name in ("heat", "area"))
    return ScenePointing(
        scenes=len(findings),
        empty=len(findings) - len(points),
        heat=mean(heat),
        area=mean(area),
        gain=mean(heat - area),
        peak=share(np.array([point.peak for point in points])),
    )
