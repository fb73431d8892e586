"""Configs and weights of strangers: refused in a sentence, or served with probabilities."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pawmatch import load
from pawmatch.checkpoint import load_task
from pawmatch.classifier import Classifier
from pawmatch.errors import CheckpointError, ModelError, NotACheckpoint
from tests.support.checkpoints import Tensors, change_weights
from tests.support.hostile import BASES, hostile_configs, write_base


@pytest.mark.parametrize("family", BASES)
def test_a_hostile_config_is_refused_in_a_sentence_or_answers(
    family: str, tmp_path: Path, photo: Image.Image
) -> None:
    folder = write_base(tmp_path, family)
    refused, served = 0, 0
    for what, config in hostile_configs(folder, one_in=3):
        (folder / "config.json").write_bytes(config)
        try:
            (checkpoint,) = load_task(folder, "artist")
        except (CheckpointError, ModelError) as exc:
            said = str(exc).replace(str(folder), "")
            assert said.endswith("."), what
            assert len(said) < 300, what
            assert said.isprintable(), what
            refused += 1
            continue
        (outputs,) = Classifier("artist", [checkpoint], engine="torch").run_batches([photo])
        assert not isinstance(outputs, Exception), what
        (probabilities,) = outputs.probabilities.values()
        assert np.isfinite(probabilities).all(), what
        assert probabilities.sum() == pytest.approx(1), what
        served += 1
    assert refused > 50
    assert served > 10


@pytest.mark.parametrize("name", ["stem.0.1.weight", "classifier.weight", "encoder.0.mlp.0.weight"])
def test_weights_that_overflow_are_refused_before_they_answer(
    name: str, tmp_path: Path, tiny_checkpoints: Callable[..., Path]
) -> None:
    def inflate(tensors: Tensors) -> None:
        for other, tensor in tensors.items():
            if other in (name, "stem.0.0.weight", "norm.weight"):
                tensors[other] = torch.full_like(tensor, 60_000.0).float() ** 7  # 2.8e33

    shutil.copytree(tiny_checkpoints("artist") / "cnn_transformer", tmp_path / "artist")
    change_weights(tmp_path / "artist", "cnn_transformer.safetensors", inflate)
    with pytest.raises(NotACheckpoint, match="computes NaN or infinity; train it again"):
        load("artist", tmp_path / "artist", engine="torch")
