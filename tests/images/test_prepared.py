"""Prepared: one image, read once, as all models of a task take it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pawmatch.errors import BrokenImage
from pawmatch.images import ImageFile, InputSpec, hold_file, prepare

SMALL = InputSpec(size=32)
VIEWS = InputSpec(size=48, views=("plain", "mirror", "square", "middle"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG photo of six megapixels with something to see at every scale."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    path = tmp_path_factory.mktemp("large") / "photo.jpg"
    coarse.resize((2880, 2160), Image.Resampling.BICUBIC).save(path, quality=90)
    return path


def test_every_rule_has_its_views(photo: Image.Image) -> None:
    prepared = prepare(photo, (SMALL, VIEWS, SMALL))
    assert {spec: pixels.shape for spec, pixels in prepared.pixels.items()} == {
        SMALL: (1, 32, 32, 3),
        VIEWS: (4, 48, 48, 3),
    }
    assert all(pixels.dtype == np.uint8 for pixels in prepared.pixels.values())
    assert (prepared.width, prepared.height) == photo.size


def test_a_photo_decoded_small_looks_the_same(large: Path) -> None:
    with Image.open(large) as image:
        whole = image.convert("RGB")
    prepared = prepare(large, (SMALL, VIEWS))
    assert (prepared.width, prepared.height) == whole.size
    for spec, pixels in prepared.pixels.items():
        difference = np.abs(pixels.astype(float) - spec.pixels(whole))
        assert difference.mean() < 1


def test_the_closest_view_says_how_small_a_photo_may_be_decoded() -> None:
    assert InputSpec(size=100).least_side == 200
    assert InputSpec(size=70, views=("plain", "middle")).least_side == 200
    assert InputSpec(size=100, resize="crop", crop_pct=0.5).least_side == 400


def test_it_can_come_from_another_process(photo: Image.Image) -> None:
    prepared = prepare(photo, (VIEWS,))
    again = pickle.loads(pickle.dumps(prepared))
    np.testing.assert_array_equal(again.pixels[VIEWS], prepared.pixels[VIEWS])


def test_a_file_that_is_held_can_be_prepared_and_is_refused_when_decoded(large: Path) -> None:
    held = hold_file(large)
    assert isinstance(held, ImageFile)
    assert hold_file(held) is held
    np.testing.assert_array_equal(
        prepare(held, (SMALL,)).pixels[SMALL], prepare(large, (SMALL,)).pixels[SMALL]
    )
    with pytest.raises(BrokenImage):
        prepare(ImageFile(held.data[:1000], held.format), (SMALL,))
