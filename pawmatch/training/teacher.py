"""Trained models whose answers a run learns from, besides the labels: knowledge distillation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from pawmatch.checkpoint import load_checkpoint
from pawmatch.errors import TrainingError
from pawmatch.preprocess import InputSpec


class Teacher:
    """A checkpoint that says of every image how likely each class is.

    It sees what the student sees, the same crop and the same mix of images (Beyer et al. 2022, "Knowledge
    distillation: a good teacher is patient and consistent"), in its own normalisation and in float32.
    Raises TrainingError where its labels are not those of the data.
    """

    def __init__(self, source: str, labels: Sequence[str], spec: InputSpec, device: str = "cpu") -> None:
        checkpoint = load_checkpoint(source)
        if checkpoint.config.labels != tuple(labels):
            raise TrainingError(
                f"The teacher {source} knows other classes than the data has; "
                "use one that was trained on a folder with the same subfolders."
            )
        self.model = checkpoint.model.requires_grad_(False)
        self.model.to(device).to(memory_format=torch.channels_last)
        theirs = checkpoint.config.input
        # (x * std + mean - theirs.mean) / theirs.std, in one multiplication and one addition
        mean, std, mean_there, std_there = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (spec.mean, spec.std, theirs.mean, theirs.std)
        )
        self._scale = std / std_there
        self._shift = (mean - mean_there) / std_there

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """The teacher's logits (N, classes) for the student's normalised images (N, 3, H, W)."""
        with torch.autocast(images.device.type, enabled=False):
            answer: Tensor = self.model(images.float() * self._scale + self._shift)
        return answer


class Teachers:
    """Several teachers that answer as one, by the geometric mean of their probabilities.

    Teachers that err differently know more together than any of them (Hinton et al. 2015, section 1).
    """

    def __init__(
        self, sources: Sequence[str], labels: Sequence[str], spec: InputSpec, device: str = "cpu"
    ) -> None:
        self.members = [Teacher(source, labels, spec, device) for source in sources]

    def logits(self, images: Tensor) -> Tensor:
        """Their logits (N, classes), up to a constant, for the student's normalised images (N, 3, H, W)."""
        answers = [log_softmax(member.logits(images), dim=-1) for member in self.members]
        return torch.stack(answers).mean(dim=0)


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """How far the student's softened answers are from the teacher's (Hinton et al. 2015, section 2).

    Both logits (N, classes). The Kullback-Leibler divergence of softmax(logits / temperature) from the
    teacher's, times temperature squared, so that its gradients keep their size; the mean over the images.
    """
    ours, theirs = (log_softmax(values.float() / temperature, dim=-1) for values in (logits, teacher))
    return temperature**2 * kl_div(ours, theirs, reduction="batchmean", log_target=True)
