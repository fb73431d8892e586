"""InputSpec and Prepared: from an image to what the models of a task take."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pawmatch.errors import BadOption, BrokenImage
from pawmatch.images import Box, ImageFile, InputSpec, hold_file, prepare

PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def test_squash_sees_the_whole_image() -> None:
    spec = InputSpec(size=32, resize="squash", **PLAIN)
    assert spec.box(400, 200) == Box(0, 0, 400, 200)
    image = Image.new("RGB", (400, 200), (255, 0, 0))
    image.paste((0, 0, 255), (200, 0, 400, 200))
    tensor = spec.prepare(image)
    assert tensor.shape == (3, 32, 32)
    assert tensor.dtype == torch.float32
    assert tensor[0, :, :12].min() == 1
    assert tensor[2, :, 20:].min() == 1


def test_crop_sees_the_centred_square() -> None:
    spec = InputSpec(size=32, resize="crop", crop_pct=0.5, **PLAIN)
    assert spec.box(400, 200) == Box(150, 50, 250, 150)
    image = Image.new("RGB", (400, 200), (0, 0, 0))
    image.paste((255, 255, 255), (150, 50, 250, 150))
    assert spec.prepare(image).mean() > 0.99


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (1, 1), (2, 3), (640, 480)])
def test_every_view_sees_a_whole_pixel_at_least(size: tuple[int, int]) -> None:
    spec = InputSpec(size=32, resize="crop", crop_pct=0.875, views=("plain", "square", "middle"))
    for view in spec.views:
        left, top, right, bottom = spec.box(*size, view)
        assert left >= 0
        assert top >= 0
        assert right <= size[0]
        assert bottom <= size[1]
        assert round(left) < round(right)
        assert round(top) < round(bottom)
    assert spec.pixels(Image.new("RGB", size)).shape == (3, 32, 32, 3)


def test_normalisation_is_per_channel() -> None:
    spec = InputSpec(size=16, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    tensor = spec.prepare(Image.new("RGB", (20, 20), (255, 255, 255)))
    torch.testing.assert_close(tensor[:, 0, 0], torch.tensor([1.0, 3.0, 0.5]))


def test_large_images_shrink_like_a_plain_resize() -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    image = small.resize((1600, 1200), Image.Resampling.BICUBIC)
    spec = InputSpec(size=64, **PLAIN)
    plain = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC), dtype=np.float32)
    ours = spec.prepare(image).permute(1, 2, 0).numpy() * 255
    assert np.abs(ours - plain).mean() < 1


def test_views_show_their_parts() -> None:
    spec = InputSpec(size=32, views=("plain", "mirror", "square", "middle"), **PLAIN)
    image = Image.new("RGB", (400, 200), (255, 0, 0))  # red, its right half blue
    image.paste((0, 0, 255), (200, 0, 400, 200))
    image.paste((0, 255, 0), (0, 0, 90, 200))  # the left edge green: outside square
    views = spec.normalise(torch.from_numpy(spec.pixels(image)))
    assert views.shape == (4, 3, 32, 32)
    torch.testing.assert_close(views[0], spec.prepare(image))
    torch.testing.assert_close(views[1], views[0].flip(-1))
    assert views[0][1].max() == 1
    assert views[2][1].max() == 0
    assert spec.box(400, 200, "square") == Box(100, 0, 300, 200)
    assert spec.box(400, 200, "middle") == pytest.approx(Box(60, 30, 340, 170))


def test_round_trip_through_json_values() -> None:
    spec = InputSpec(size=96, resize="crop", crop_pct=0.9, views=("plain", "mirror"))
    assert InputSpec.from_dict(spec.to_dict()) == spec
    assert hash(InputSpec.from_dict(spec.to_dict())) == hash(spec)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"size": 4}, "4"),
        ({"size": 100_000}, "100000"),
        ({"resize": "stretch"}, "stretch"),
        ({"interpolation": "magic"}, "magic"),
        ({"crop_pct": 0.0}, "crop_pct"),
        ({"std": (0.0, 1.0, 1.0)}, "std"),
        ({"mean": (0.5, 0.5)}, "mean"),
        ({"mean": "abc"}, "mean must be a list"),
        ({"colour": 1}, "colour"),
        ({"views": ["mirror"]}, "begin with plain"),
        ({"views": ["plain", "plain"]}, "once"),
        ({"views": ["plain", "sideways"]}, "'sideways'"),
    ],
)
def test_impossible_values_are_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        InputSpec.from_dict(values)


def test_a_canvas_is_shrunk_to_what_a_closer_look_needs_and_never_enlarged() -> None:
    spec = InputSpec(size=32, views=("plain", "focus"))
    assert spec.has_focus
    assert spec.fixed_views == ("plain",)
    assert spec.canvas(Image.new("RGB", (400, 200))).shape == (64, 128, 3)
    assert spec.canvas(Image.new("RGB", (50, 40))).shape == (40, 50, 3)


def test_a_closer_look_shows_the_part_that_was_asked_for() -> None:
    spec = InputSpec(size=16, views=("plain", "focus"))
    canvas = np.zeros((40, 80, 3), dtype=np.uint8)
    canvas[10:30, 20:60] = 200
    seen = spec.closer(canvas, Box(0.25, 0.25, 0.75, 0.75))
    assert seen.shape == (16, 16, 3)
    assert (seen[2:-2, 2:-2] == 200).all()
    assert spec.pixels(Image.fromarray(canvas)).shape == (1, 16, 16, 3)


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
