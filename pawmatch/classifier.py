"""Classifier: an image in, a calibrated Prediction or Explanation out, from all variants of a task."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pawmatch.calibration.apply import calibrated
from pawmatch.calibration.decide import Known, Observed, decide, know
from pawmatch.calibration.facts import best_question, fact_table, given_facts, with_facts
from pawmatch.checkpoint import Checkpoint, load_task, main_variant
from pawmatch.checkpoint.architecture import draw_architecture
from pawmatch.checkpoint.backbone import (
    ImagenetHead,
    default_backbone,
    imagenet_classes,
    imagenet_head,
    imagenet_names,
    subject_classes,
)
from pawmatch.checkpoint.config import IMAGENET_CLASSES
from pawmatch.checkpoint.load import check_finite
from pawmatch.engines import Engine, create_engine, limit_torch_threads, resolve_device
from pawmatch.errors import BadOption, ImageError, KeyMismatch, NotACheckpoint, PawMatchError
from pawmatch.heatmaps import HeadOutput, Overlays, evidence, relative_strength, run_head, scaled_cam
from pawmatch.images import Box, ImageSource, InputSpec, Prepared, hold_file, is_address, prepare, read_image
from pawmatch.images.fetch import fetch
from pawmatch.labels import VARIANT_NAMES, display_name, find_label, find_task
from pawmatch.models import ImageModel
from pawmatch.parts import look_into
from pawmatch.results import (
    Candidate,
    Explanation,
    Fact,
    Heatmap,
    LookAlike,
    ModelInfo,
    Parts,
    Prediction,
    SubjectBox,
    VariantAnswer,
)
from pawmatch.settings import fetches_urls
from pawmatch.subjects import Subject, find_subject, second_look

BATCH_SIZE = 16
LOOK_ALIKES = 3  # that are named of a picture without the subject
MIN_LOOK_ALIKE = 0.05  # their confidence

# It runs outside the queue of the models: pictures that are turned away must not crowd out the others.
_second_backbone = threading.Lock()


@dataclass(frozen=True)
class Member:
    """One variant of a task, ready to run."""

    checkpoint: Checkpoint
    engine: Engine

    @property
    def variant(self) -> str:
        """The variant's name as the API has it."""
        return self.checkpoint.config.variant

    @property
    def spec(self) -> InputSpec:
        """How an image becomes the model's input."""
        return self.checkpoint.config.input

    @property
    def extractor(self) -> object:
        """A key that is equal for variants whose feature maps are the same."""
        return _extractor(self.checkpoint)

    @property
    def model(self) -> ImageModel:
        """The whole model; its head runs in torch whatever the engine is."""
        return self.checkpoint.model


@dataclass(frozen=True)
class ModelOutputs:
    """What every variant made of one image.

    Feature maps (1, C, h, w) are those of the plain view, which is what a heatmap shows; `pooled` (C,) is the
    average-pooled map and `logits` (classes,) the model's, both averaged over the views, and `probabilities`
    (classes,) are those logits calibrated. `imagenet` (1000,) are the probabilities of the backbone's own
    head, averaged too, where the main variant's backbone is a bundled one, and `subject` is where that head
    sees what the task is about. `doubted` says whether the main variant took a second look. `heads` has what
    a gradient still leads back through, if it was asked for.
    """

    prepared: Prepared
    feature_maps: Mapping[str, Tensor]
    pooled: Mapping[str, NDArray[np.float32]]
    logits: Mapping[str, NDArray[np.float32]]
    probabilities: Mapping[str, NDArray[np.float64]]
    imagenet: NDArray[np.float32] | None
    subject: Subject | None
    timing_ms: Mapping[str, float]
    doubted: bool = False
    heads: Mapping[str, HeadOutput] = field(default_factory=dict)


class Classifier:
    """The variants of one task; `main` is the one whose answer is given, by what the checkpoints say.

    `notice` is one line to show when another model than the one asked for serves. `engine` is one name for
    all, or has one for each variant. An `adaptive` one asks the other variants only where the main one took a
    second look: where it was sure at the first, an answer's `variants` has it alone. Explanations have all.
    Safe to call from several threads: nothing is stored on the models.
    """

    def __init__(
        self,
        task: str,
        checkpoints: Sequence[Checkpoint],
        *,
        engine: str | Mapping[str, str] = "auto",
        device: str = "cpu",
        adaptive: bool = False,
    ) -> None:
        self.adaptive = adaptive
        self.task = checkpoints[0].config.task
        if self.task.name != task:
            raise NotACheckpoint(
                f"{checkpoints[0].source} is for the task {self.task.name}, not {task}; give another source."
            )
        together: dict[object, list[Checkpoint]] = {}
        for checkpoint in checkpoints:
            together.setdefault(_extractor(checkpoint), []).append(checkpoint)
        names = dict.fromkeys(VARIANT_NAMES, engine) if isinstance(engine, str) else engine
        engines = {
            key: create_engine(
                names.get(group[0].config.variant, "auto"),
                [c.model for c in group],
                device,
                group[0].config.input,
            )
            for key, group in together.items()
        }
        self.members = {c.config.variant: Member(c, engines[_extractor(c)]) for c in checkpoints}
        self.main = self.members[main_variant([c.config for c in checkpoints])]
        config = self.main.checkpoint.config
        self.imagenet_head = imagenet_head(self.main.checkpoint, device)
        self.subject_classes = subject_classes(config.labels) if self.imagenet_head else ()
        self.own_classes = (
            tuple(sorted(set(imagenet_classes(config.labels).values()))) if self.subject_classes else ()
        )
        self.labels = config.labels
        self.names = tuple(display_name(label) for label in self.labels)
        self.table = fact_table(self.labels)
        self.variants = tuple(self.members)
        self.specs = tuple(dict.fromkeys(member.spec for member in self.members.values()))
        self.source = self.main.checkpoint.source
        self.card = self.main.checkpoint.card
        self.notice = next((c.notice for c in checkpoints if c.notice), None)
        for member in self.members.values():
            if member.checkpoint.config.labels != self.labels:
                raise KeyMismatch(
                    f"Variants {self.main.variant} and {member.variant} of {self.source} have different "
                    "labels; train them on the same classes."
                )

    @property
    def info(self) -> ModelInfo:
        """The main variant's description."""
        config = self.main.checkpoint.config
        backbone = str(config.architecture.get("backbone", config.family))
        return ModelInfo(self.source, config.variant, backbone, len(config.labels))

    @cached_property
    def architecture(self) -> str:
        """An SVG of the stages of the largest variant."""
        return draw_architecture(list(self.members.values())[-1].checkpoint.config)

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What was measured of the main variant."""
        return self.main.checkpoint.config.metrics

    @property
    def engines(self) -> dict[str, str]:
        """What runs each variant's feature extractor, such as "openvino float32"."""
        return {
            variant: f"{member.engine.name} {member.engine.precision}"
            for variant, member in self.members.items()
        }

    def moved(self, device: str) -> Classifier:
        """The same models on another device, run by torch there; they move, so this one is done with."""
        checkpoints = [member.checkpoint for member in self.members.values()]
        for checkpoint in checkpoints:
            checkpoint.model.to(device)
        return Classifier(self.task.name, checkpoints, engine="torch", device=device, adaptive=self.adaptive)

    def predict(
        self, image: ImageSource, top_k: int = 5, facts: Mapping[str, str] | None = None
    ) -> Prediction:
        """Classify one image: a path, a public web address, the bytes of a file, or a PIL image.

        Gives the `top_k` likeliest classes, or all where there are fewer. `facts` are what is known beside
        the picture, as given_facts takes them. Raises ImageError if the image cannot be used, BadOption if
        `top_k` is not a positive whole number or a fact is not one of the task's.
        """
        _check_top_k(top_k)
        given = given_facts(self.table, facts)
        return self.to_prediction(self.run_models([self.prepare(image)])[0], top_k, given)

    def predict_batch(
        self, images: Iterable[ImageSource | Prepared], top_k: int = 5
    ) -> Iterator[Prediction | PawMatchError]:
        """Classify many images, giving one Prediction or PawMatchError each, in order, as they come.

        Raises BadOption, at the call, if `top_k` is not a positive whole number.
        """
        _check_top_k(top_k)
        return (
            entry if isinstance(entry, PawMatchError) else self.to_prediction(entry, top_k)
            for entry in self.run_batches(images)
        )

    def explain(
        self,
        image: ImageSource,
        label: str | None = None,
        *,
        top_k: int = 5,
        colormap: str = "jet",
        strength: float = 0.6,
        parts: bool = False,
    ) -> Explanation:
        """Classify one image and map the evidence for one label, by default the main variant's first choice.

        `label` may be a label or a display name; with `parts` come the views into the variants' parts. Raises
        ImageError, UnknownLabel and BadOption.
        """
        _check_top_k(top_k)
        if label is not None:
            find_label(self.labels, label)
        held = hold_file(_at_hand(image))
        prepared = prepare(held, self.specs, keep_photo=True)
        photo = prepared.photo
        # A large photo was decoded smaller, as for predict, so that the answer is the same to the last digit.
        if photo is None or photo.size != (prepared.width, prepared.height):
            photo = read_image(held).image
        outputs = self.run_models([prepared], gradients=True)[0]
        found = self.explain_outputs(outputs, photo, label, top_k=top_k, colormap=colormap, strength=strength)
        return replace(found, parts=self.parts(outputs, found.label)) if parts else found

    def prepare(self, image: ImageSource, *, keep_photo: bool = False) -> Prepared:
        """Read one image and make of it what the variants take. Raises ImageError.

        What comes out suits every classifier whose variants have the same input rules.
        """
        return prepare(_at_hand(image), self.specs, keep_photo=keep_photo)

    def run_batches(self, images: Iterable[ImageSource | Prepared]) -> Iterator[ModelOutputs | PawMatchError]:
        """What every variant makes of each image, or the PawMatchError, in order, as they come."""
        queue = iter(images)
        while chunk := list(islice(queue, BATCH_SIZE)):
            prepared = [self._try_prepare(image) for image in chunk]
            outputs = iter(self.run_models([entry for entry in prepared if isinstance(entry, Prepared)]))
            for entry in prepared:
                yield next(outputs) if isinstance(entry, Prepared) else entry

    def _try_prepare(self, image: ImageSource | Prepared) -> Prepared | ImageError:
        try:
            return image if isinstance(image, Prepared) else self.prepare(image)
        except ImageError as exc:
            return exc

    def run_models(self, prepared: Sequence[Prepared], *, gradients: bool = False) -> list[ModelOutputs]:
        """Run every variant on one batch: each input rule is one tensor, and a shared backbone runs once.

        `gradients` keeps in `heads` what heatmaps need, which saves them a pass through each head.
        """
        if not prepared:
            return []
        started = time.perf_counter()
        leading = next(one for one in self.members.values() if one.extractor == self.main.extractor)
        main = self._look(leading, prepared)
        features_ms = (time.perf_counter() - started) * 1000 / len(prepared)
        if not (self.adaptive and self.main.spec.has_focus) or gradients:
            return self._outputs(self.members, prepared, main, features_ms, gradients=gradients)
        looks = torch.bincount(main.owners)
        found: dict[int, ModelOutputs] = {}
        for doubted, members in ((False, {self.main.variant: self.main}), (True, self.members)):
            rows = ((looks > len(self.main.spec.fixed_views)) == doubted).nonzero()[:, 0].tolist()
            if rows:
                part = [prepared[row] for row in rows]
                outputs = self._outputs(members, part, main.only(rows), features_ms)
                found |= dict(zip(rows, outputs, strict=True))
        return [found[row] for row in range(len(prepared))]

    def _outputs(
        self,
        members: Mapping[str, Member],
        prepared: Sequence[Prepared],
        main: _Views,
        features_ms: float,
        *,
        gradients: bool = False,
    ) -> list[ModelOutputs]:
        """What these variants, the main one among them, make of images whose `main` views it has seen."""
        started = time.perf_counter()
        views: dict[object, _Views] = {self.main.extractor: main}
        for member in members.values():
            if member.extractor not in views:
                views[member.extractor] = self._look(member, prepared)
        after_features = time.perf_counter()
        count = len(prepared)
        heads: list[dict[str, HeadOutput]] = [{} for _ in prepared]
        logits: dict[str, NDArray[np.float32]] = {}
        pooled: dict[object, NDArray[np.float32]] = {}
        with torch.no_grad():
            for variant, member in members.items():
                of = views[member.extractor]
                if gradients:
                    for row, kept in enumerate(heads):  # the plain view of each comes first
                        kept[variant] = run_head(member.model, of.maps[of.owners == row])
                    together = torch.cat([kept[variant].logits.detach() for kept in heads])
                    rows = torch.empty_like(together)
                    rows[of.owners.argsort(stable=True)] = together
                elif of.first is not None and variant == of.decided_by:
                    further = of.maps[len(of.first) :]
                    rows = of.first
                    if len(further):
                        rows = torch.cat([rows, member.model.forward_head(further)])
                else:
                    rows = member.model.forward_head(of.maps)
                logits[variant] = of.mean(rows, member)
                if member.extractor not in pooled:
                    pooled[member.extractor] = of.mean(of.maps.mean(dim=(2, 3)), member)
            head = self.imagenet_head
            imagenet = main.mean(head.probabilities(main.maps), self.main) if head else None
        probabilities = {
            variant: calibrated(logits[variant], member.checkpoint.config.calibration)
            for variant, member in members.items()
        }
        after_head = time.perf_counter()
        # Copies: with a part of it, each image would keep the map of the whole batch in memory.
        plain = {
            extractor: [of.maps[row : row + 1].clone() for row in of.plain] for extractor, of in views.items()
        }
        return [
            ModelOutputs(
                prepared=entry,
                feature_maps={variant: plain[member.extractor][row] for variant, member in members.items()},
                pooled={variant: pooled[member.extractor][row] for variant, member in members.items()},
                logits={variant: values[row] for variant, values in logits.items()},
                probabilities={variant: values[row] for variant, values in probabilities.items()},
                imagenet=imagenet[row] if imagenet is not None else None,
                subject=main.subjects[row],
                timing_ms={
                    "decode": round(entry.decode_ms, 1),
                    "features": round(features_ms + (after_features - started) * 1000 / count, 1),
                    "head": round((after_head - after_features) * 1000 / count, 1),
                },
                doubted=bool((main.owners == row).sum() > len(self.main.spec.fixed_views)),
                heads=heads[row],
            )
            for row, entry in enumerate(prepared)
        ]

    def _look(self, member: Member, prepared: Sequence[Prepared]) -> _Views:
        """The feature maps of all views of a batch; a second look only where the first leaves doubt."""
        spec, count, views = member.spec, len(prepared), len(member.spec.fixed_views)
        pixels = np.concatenate([entry.pixels[spec] for entry in prepared])
        maps = member.engine.features(spec.normalise(torch.from_numpy(pixels)))
        check_finite(maps, member.checkpoint)
        owners = [row for row in range(count) for _ in range(views)]
        plain = list(range(0, len(maps), views))
        subjects: list[Subject | None] = [None] * count
        first: Tensor | None = None
        head = self.imagenet_head if member.extractor == self.main.extractor else None
        if head is not None and self.subject_classes:
            with torch.no_grad():
                masses = head.mass(maps[plain], self.subject_classes).float().cpu().numpy()
            for row, entry in enumerate(prepared):
                left, top, right, bottom = spec.box(entry.width, entry.height)
                seen = Box(left / entry.width, top / entry.height, right / entry.width, bottom / entry.height)
                subjects[row] = find_subject(masses[row], seen)
        if spec.has_focus:
            seconds: list[NDArray[np.uint8]] = []
            with torch.no_grad():  # the first variant decides for all, since they share the maps
                first = member.model.forward_head(maps)
            sure = first[plain].softmax(dim=1).amax(dim=1).tolist()
            for row, (entry, subject) in enumerate(zip(prepared, subjects, strict=True)):
                doubted = subject is not None and sure[row] < spec.focus_below
                box = second_look(subject, entry.width, entry.height) if subject and doubted else None
                if box is not None:
                    seconds.append(spec.closer(entry.canvases[spec], box))
                    owners.append(row)
            if seconds:
                further = member.engine.features(spec.normalise(torch.from_numpy(np.stack(seconds))))
                maps = torch.cat([maps, further])
        if maps.is_cuda:
            torch.cuda.synchronize(maps.device)  # else the time of the backbone would count as the head's
        return _Views(maps, torch.tensor(owners), plain, subjects, member.variant, first)

    def know(self, outputs: ModelOutputs) -> Known:
        """What the main variant's calibration makes of one image's outputs: Known of one row."""
        main, imagenet = self.main.variant, outputs.imagenet
        observed = Observed(
            logits=outputs.logits[main][None],
            choices=np.array([[int(row.argmax())] for row in outputs.logits.values()], dtype=np.int64),
            pooled=outputs.pooled[main][None],
            imagenet=None if imagenet is None else imagenet[None],
            probabilities=outputs.probabilities[main][None],
            doubted=np.array([outputs.doubted]),
        )
        return know(self.main.checkpoint.config.calibration, observed, self.own_classes)

    def to_prediction(self, outputs: ModelOutputs, top_k: int = 5, facts: Sequence[Fact] = ()) -> Prediction:
        """The answer that is given for what the models made of an image, and for facts beside it.

        Whether the image belongs to the task is a matter of the image alone.
        """
        calibration, imagenet = self.main.checkpoint.config.calibration, outputs.imagenet
        probabilities = with_facts(outputs.probabilities[self.main.variant], self.table, facts)
        known = replace(self.know(outputs), probabilities=probabilities[None])
        pixels = outputs.prepared.pixels.get(self.main.spec)  # those of an image that is kept are gone
        if imagenet is None and known.margin is not None and known.margin[0] < 0 and pixels is not None:
            imagenet = self._elsewhere(outputs.prepared)
        looks_like = () if imagenet is None else _look_alikes(imagenet, self.subject_classes)
        decision = decide(
            calibration,
            self.task,
            self.labels,
            known,
            size=(outputs.prepared.width, outputs.prepared.height),
            pixels=None if pixels is None else pixels[0],
            looks_like=looks_like[0].name if looks_like else "",
        )
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        # Who has begun is asked on while that helps: one answer that may be wrong makes nothing sure.
        doubted = (decision.review.needed or facts) and decision.verdict.code in ("answer", "group")
        return Prediction(
            task=self.task.name,
            words=self.task,
            model=self.info,
            verdict=decision.verdict,
            predictions=tuple(
                Candidate(self.labels[i], self.names[i], float(probabilities[i])) for i in order.tolist()
            ),
            review=decision.review,
            candidates_90=tuple(self.names[index] for index in decision.candidates),
            variants=tuple(self._answer(variant, row) for variant, row in outputs.probabilities.items()),
            facts=tuple(facts),
            question=best_question(probabilities, self.table, facts) if doubted else None,
            group=decision.group,
            looks_like=looks_like if decision.verdict.code == "outside" else (),
            boxes=() if outputs.subject is None else (_in_pixels(outputs.subject, outputs.prepared),),
            timing_ms=outputs.timing_ms,
            warnings=outputs.prepared.warnings,
        )

    def _elsewhere(self, prepared: Prepared) -> NDArray[np.float32]:
        """ImageNet probabilities (1000,) of the plain view, for a model whose backbone has no such head.

        Asked only of pictures that are turned away: it costs a second backbone.
        """
        backbone = default_backbone()
        if backbone is None:
            return np.zeros(IMAGENET_CLASSES, dtype=np.float32)
        pixels = torch.from_numpy(prepared.pixels[self.main.spec][:1])
        with _second_backbone, torch.no_grad():
            maps = backbone.feature_map(backbone.input.normalise(pixels))
            answer: NDArray[np.float32] = ImagenetHead(backbone.head).probabilities(maps)[0].numpy()
        return answer

    def _answer(self, variant: str, probabilities: NDArray[np.float64]) -> VariantAnswer:
        best = int(probabilities.argmax())
        return VariantAnswer(variant, self.labels[best], self.names[best], float(probabilities[best]))

    def explain_outputs(
        self,
        outputs: ModelOutputs,
        photo: Image.Image,
        label: str | None = None,
        *,
        top_k: int = 5,
        colormap: str = "jet",
        strength: float = 0.6,
    ) -> Explanation:
        """As explain, for an image that the models have run on; `photo` is that image, upright.

        Raises UnknownLabel and BadOption.
        """
        prediction = self.to_prediction(outputs, top_k)
        wanted = prediction.top.label if label is None else find_label(self.labels, label)
        started = time.perf_counter()
        heatmaps = self.heatmaps(outputs, wanted, photo.size)
        explain_ms = round(1000 * (time.perf_counter() - started), 1)
        return Explanation(
            prediction=replace(prediction, timing_ms={**prediction.timing_ms, "explain": explain_ms}),
            label=wanted,
            name=display_name(wanted),
            photo=photo,
            heatmaps=heatmaps,
            overlays=Overlays(photo, heatmaps, colormap=colormap, strength=strength),
        )

    def parts(self, outputs: ModelOutputs, label: str) -> dict[str, Parts]:
        """What each variant's attention heads and branches did with an image, for one of `labels`."""
        index = self.labels.index(label)
        return {
            variant: look_into(member.model, outputs.feature_maps[variant], index)
            for variant, member in self.members.items()
        }

    def heatmaps(self, outputs: ModelOutputs, label: str, size: tuple[int, int]) -> dict[str, Heatmap]:
        """Each variant's evidence for one of `labels`, over a picture of this size (width, height).

        One backward pass through each head, or two where the label is not the variant's first choice, beside
        which its evidence is shown: the backbones do not run again.
        """
        index = self.labels.index(label)
        found = {}
        for variant, member in self.members.items():
            head = outputs.heads.get(variant) or run_head(member.model, outputs.feature_maps[variant])
            own = evidence(head, torch.tensor([index]))
            check_finite(own, member.checkpoint)
            cam, probabilities = scaled_cam(own), outputs.probabilities[variant]
            first, strength = int(probabilities.argmax()), 1.0
            if index != first:
                most = float(evidence(head, first).max())
                strength = relative_strength(cam.raw_max, most, probabilities[index] / probabilities[first])
            found[variant] = Heatmap(
                variant=variant,
                label=label,
                cam=cam.values * np.float32(strength),
                raw_max=cam.raw_max,
                confidence=float(probabilities[index]),
                box=member.spec.box(*size),
                size=size,
                strength=strength,
            )
        return found


def load(
    task: str,
    source: str | Path | None = None,
    device: str = "auto",
    engine: str | Mapping[str, str] = "auto",
    *,
    strict: bool = True,
    adaptive: bool = False,
) -> Classifier:
    """Load every variant that `source` has for `task`.

    `source` is None for the bundled starter weights, a folder, or `hf://user/repo[/subfolder][@revision]`.
    `engine` is one name for all variants, or has one for each. With `strict` off, a Hub repository that
    cannot be had is replaced by the bundled weights, and the classifier's `notice` says so. For `adaptive`
    see Classifier. Torch's threads are lowered to the cores that a container grants. Raises UnknownTask,
    BadOption, CheckpointError and HubError.
    """
    if source is None:
        find_task(task)
    place = resolve_device(device, engine if isinstance(engine, str) else "auto")
    limit_torch_threads()
    checkpoints = load_task(source, task, place, strict=strict)
    return Classifier(task, checkpoints, engine=engine, device=place, adaptive=adaptive)


def _at_hand(image: ImageSource) -> ImageSource:
    """The image, fetched where it is a web address, unless PAWMATCH_FETCH_URLS forbids that."""
    return fetch(image) if is_address(image) and fetches_urls() else image


def _check_top_k(top_k: int) -> None:
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise BadOption(f"top_k is {top_k!r}; give a whole number from 1 on.")


def _extractor(checkpoint: Checkpoint) -> object:
    """A key that is equal for checkpoints whose feature maps are the same."""
    return (checkpoint.features_digest, checkpoint.config.input)


@dataclass(frozen=True)
class _Views:
    """Feature maps (M, C, h, w) of a batch of N images, each in one view or more.

    `owners` (M,) says whose view each map is, `plain` (N) which is each image's plain one. `first` are the
    logits by which the variant `decided_by` chose where to look again, of all views but the further ones.
    """

    maps: Tensor
    owners: Tensor
    plain: list[int]
    subjects: list[Subject | None]
    decided_by: str
    first: Tensor | None

    def only(self, rows: Sequence[int]) -> _Views:
        """Those of some of the images, in the same order."""
        kept = torch.isin(self.owners, torch.tensor(rows))
        place = kept.cumsum(0) - 1
        return _Views(
            self.maps[kept.to(self.maps.device)],
            torch.searchsorted(torch.tensor(rows), self.owners[kept]),
            place[[self.plain[row] for row in rows]].tolist(),
            [self.subjects[row] for row in rows],
            self.decided_by,
            None if self.first is None else self.first[kept[: len(self.first)].to(self.first.device)],
        )

    def mean(self, rows: Tensor, member: Member) -> NDArray[np.float32]:
        """What a variant made of the maps, (M, ...), averaged over an image's views: (N, ...) on the CPU."""
        rows = rows.float().cpu()
        check_finite(rows, member.checkpoint)
        total = torch.zeros(len(self.plain), *rows.shape[1:]).index_add_(0, self.owners, rows)
        counts = torch.bincount(self.owners, minlength=len(self.plain)).view(-1, *[1] * (rows.ndim - 1))
        mean: NDArray[np.float32] = (total / counts).numpy()
        return mean


def _in_pixels(subject: Subject, prepared: Prepared) -> SubjectBox:
    """A subject's box in pixels of the upright photo."""
    left, top, right, bottom = subject.box
    width, height = prepared.width, prepared.height
    return SubjectBox(
        left * width, top * height, (right - left) * width, (bottom - top) * height, subject.score
    )


def _look_alikes(imagenet: NDArray[np.float32], subject: Sequence[int]) -> tuple[LookAlike, ...]:
    """The likeliest classes of ImageNet probabilities (1000,), but for those that show the subject."""
    others = imagenet.copy()
    others[list(subject)] = 0
    best = np.argsort(-others, kind="stable")[:LOOK_ALIKES]
    return tuple(
        LookAlike(imagenet_names()[index], float(imagenet[index]))
        for index in best.tolist()
        if others[index] >= MIN_LOOK_ALIKE
    )
