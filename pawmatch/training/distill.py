"""The loss beside the labels: mixed images, and what teachers say of one (knowledge distillation)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from timm.data.mixup import Mixup
from torch import Tensor
from torch.nn import CrossEntropyLoss
from torch.nn.functional import kl_div, log_softmax, one_hot

from pawmatch.checkpoint import load_checkpoint
from pawmatch.checkpoint.backbone import backbone_folder, load_backbone
from pawmatch.errors import TrainingError
from pawmatch.images import InputSpec
from pawmatch.models import ImageModel
from pawmatch.training.recipe import Recipe


def build_mixer(recipe: Recipe, classes: int) -> Mixup | None:
    """What mixes a batch by mixup and CutMix, if the recipe has either; it needs batches of even size."""
    if not (recipe.mixup or recipe.cutmix):
        return None
    return Mixup(  # type: ignore[no-untyped-call]
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mix_probability,
        label_smoothing=0.0,  # the loss smooths
        num_classes=classes,
    )


def label_loss(recipe: Recipe) -> Callable[[Tensor, Tensor], Tensor]:
    """Logits (N, classes) and targets (N,) or (N, classes) -> losses (N,): cross-entropy, or the focal loss.

    -(1 - p)^gamma log p of each class, by its share of the target (Lin et al. 2017, arXiv 1708.02002).
    """

    def focal(logits: Tensor, targets: Tensor) -> Tensor:
        classes = logits.shape[-1]
        shares = targets if targets.ndim == 2 else one_hot(targets, classes)
        shares = (1 - recipe.label_smoothing) * shares + recipe.label_smoothing / classes
        log_p = log_softmax(logits.float(), dim=-1)
        doubt = (1 - log_p.exp()).clamp_min(1e-6) ** recipe.focal
        return -(shares * doubt * log_p).sum(dim=-1)

    return (
        focal if recipe.focal else CrossEntropyLoss(label_smoothing=recipe.label_smoothing, reduction="none")
    )


def repeat_targets(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets (N,) or (N, classes), once for each of the V variants in logits (V, N, classes)."""
    copies = logits.shape[0] if logits.ndim == 3 else 1
    return targets.repeat(copies, *[1] * (targets.ndim - 1))


class Teacher:
    """A checkpoint, or a pretrained backbone with its ImageNet head, that says how likely each class is.

    It sees what the student sees, the same crop and the same mix of images (Beyer et al. 2022, "Knowledge
    distillation: a good teacher is patient and consistent"), in its own normalisation.
    `classes` are the student's classes that it knows, in the order of its logits. Raises TrainingError where
    it knows fewer than two of `labels`.
    """

    def __init__(self, source: str, labels: Sequence[str], spec: InputSpec, device: str = "cpu") -> None:
        folder = backbone_folder(source)
        known: dict[str, int]  # for each label that it knows, the place among its logits
        self.features: Callable[[Tensor], Tensor]  # images to a map
        self.head: Callable[[Tensor], Tensor]  # a map to the logits of all its classes
        if folder is not None:
            backbone = load_backbone(folder, source)
            known, theirs = backbone.classes(labels), backbone.input
            linear = backbone.head.to(device)
            self.extractor = backbone.network
            self.features = backbone.feature_map
            self.head = lambda maps: linear(maps.mean(dim=(2, 3)))
        else:
            checkpoint = load_checkpoint(source)
            own, theirs = checkpoint.config.labels, checkpoint.config.input
            known = {label: own.index(label) for label in labels if label in own}
            model = checkpoint.model.to(device)
            self.extractor = model.features()
            self.features, self.head = model.forward_features, model.forward_head
        self.extractor.to(device).to(memory_format=torch.channels_last)
        if len(known) < 2:
            raise TrainingError(
                f"The teacher {source} knows {len(known)} of the {len(labels)} classes; "
                "use one that was trained on a folder with the same subfolders."
            )
        self.rows = torch.tensor([known[label] for label in labels if label in known], device=device)
        self.classes = torch.tensor(
            [index for index, label in enumerate(labels) if label in known], device=device
        )
        self.same_input = (spec.mean, spec.std) == (theirs.mean, theirs.std)
        # (x * std + mean - theirs.mean) / theirs.std, in one multiplication and one addition
        mean, std, mean_there, std_there = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (spec.mean, spec.std, theirs.mean, theirs.std)
        )
        self._scale = std / std_there
        self._shift = (mean - mean_there) / std_there

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """The teacher's logits (N, known classes) for the student's normalised images (N, 3, H, W)."""
        return self.on_map(self.features(images * self._scale + self._shift))

    @torch.no_grad()
    def on_map(self, maps: Tensor) -> Tensor:
        """The logits (N, known classes) for the feature maps (N, C, h, w) of its own extractor."""
        return self.head(maps)[:, self.rows].float()


class Teachers:
    """Several teachers that answer as one, by the geometric mean of their probabilities.

    Teachers that err differently know more together than any of them (Hinton et al. 2015, section 1). They
    speak of the classes that all of them know.
    """

    def __init__(
        self, sources: Sequence[str], labels: Sequence[str], spec: InputSpec, device: str = "cpu"
    ) -> None:
        self.members = [Teacher(source, labels, spec, device) for source in sources]
        shared = set.intersection(*(set(member.classes.tolist()) for member in self.members))
        if len(shared) < 2:
            raise TrainingError(
                f"The teachers {' and '.join(sources)} have {len(shared)} of the {len(labels)} classes in "
                "common; use teachers of the same classes."
            )
        self.classes = torch.tensor(sorted(shared), device=device)
        self._columns = [torch.searchsorted(member.classes, self.classes) for member in self.members]

    def logits(self, images: Tensor) -> Tensor:
        """Their logits (N, known classes), up to a constant, for normalised images (N, 3, H, W)."""
        answers = [
            log_softmax(member.logits(images)[:, columns], dim=-1)
            for member, columns in zip(self.members, self._columns, strict=True)
        ]
        return torch.stack(answers).mean(dim=0)

    def on_map(self, student: ImageModel) -> Callable[[Tensor], Tensor] | None:
        """What answers from the student's own feature map, where it is also the only teacher's map."""
        teacher = self.members[0]
        if len(self.members) > 1 or not teacher.same_input:
            return None
        ours, theirs = student.features().state_dict(), teacher.extractor.state_dict()
        same = ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
        return (lambda maps: log_softmax(teacher.on_map(maps), dim=-1)) if same else None

    def known_share(self, targets: Tensor, classes: int) -> Tensor:
        """How much (N,) of each target, an index (N,) or shares (N, classes), is of classes they know."""
        if targets.ndim == 1:
            targets = one_hot(targets, classes)
        return targets[:, self.classes].sum(dim=-1).float()

    def loss(self, logits: Tensor, targets: Tensor, taught: Tensor, temperature: float) -> Tensor:
        """How far logits (V * N, classes) of V students are from the teachers', of the classes those know.

        `taught` are the teachers' logits (N, known classes), `targets` class indices (N,) or shares
        (N, classes); an image counts by its share of known ones.
        """
        counted = self.known_share(targets, logits.shape[-1])
        copies = len(logits) // len(taught)
        return distillation_loss(
            logits[:, self.classes], taught.repeat(copies, 1), temperature, counted.repeat(copies)
        )


def distillation_loss(
    logits: Tensor, teacher: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """How far the student's softened answers are from the teacher's (Hinton et al. 2015, section 2).

    Both logits (N, classes). The Kullback-Leibler divergence of softmax(logits / temperature) from the
    teacher's, times temperature squared, so that its gradients keep their size; the mean over the images,
    each times its weight (N,) where there are weights.
    """
    ours, theirs = (log_softmax(values.float() / temperature, dim=-1) for values in (logits, teacher))
    each = kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=-1)
    return temperature**2 * (each if weights is None else each * weights).mean()
