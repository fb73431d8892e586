"""Files of every accepted format: turned, animated, cut short, altered at random."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pawmatch.errors import BrokenImage, ImageError
from pawmatch.images import ANIMATED, PAGED, ROTATED, open_image, read_image
from tests.support.pictures import (
    FORMATS,
    LOSSLESS,
    QUARTERS,
    RED,
    assert_sentence,
    encode,
    exif,
    failure,
    quarters,
    seen,
    seen_quarters,
    with_png_chunk,
)

# How an upright picture is stored under each EXIF orientation.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


# --- turning


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_images_come_upright(image_format: str, orientation: int) -> None:
    turn = STORED[orientation]
    stored = quarters() if turn is None else quarters().transpose(turn)
    loaded = read_image(encode(stored, image_format, exif=exif(orientation), **FORMATS[image_format]))
    assert (loaded.width, loaded.height) == loaded.image.size == (48, 32)
    assert seen_quarters(loaded.image) == QUARTERS
    assert loaded.warnings == ((ROTATED,) if orientation > 1 else ())


def test_imagemagick_exif_in_png_text_counts() -> None:
    hexadecimal = exif(3)[6:].hex().encode()
    body = b"Raw profile type exif\0" + b"\nexif\n      %d\n%s\n" % (len(hexadecimal) // 2, hexadecimal)
    loaded = read_image(with_png_chunk(encode(quarters(), "PNG"), b"tEXt", body))
    assert loaded.warnings == (ROTATED,)
    assert seen_quarters(loaded.image) == QUARTERS[::-1]


@pytest.mark.parametrize(
    "block",
    [
        exif(0),
        exif(9),
        exif(6)[:-8],
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0nonsense",
        exif(1, *[(0x9000 + number, 7, 2**32 - 1, 0) for number in range(50)]),
    ],
)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_does_not_cost_the_photo(block: bytes, image_format: str) -> None:
    loaded = read_image(encode(quarters(), image_format, exif=block))
    assert loaded.warnings == ()
    assert seen_quarters(loaded.image) == QUARTERS


# --- frames and pages


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "AVIF", "TIFF", "MPO"])
def test_the_first_of_several_frames_is_used(image_format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:])
    loaded = read_image(data)
    assert seen(loaded.image) == RED
    assert loaded.image.size == (16, 16)
    # An MPO file is what some phones call a photo with a second view; to its owner it is one photo.
    expected = {"TIFF": (PAGED,), "MPO": ()}.get(image_format, (ANIMATED,))
    assert loaded.warnings == expected
    assert loaded.format == ("JPEG" if image_format == "MPO" else image_format)


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_still_image_gets_no_notes(image_format: str) -> None:
    loaded = read_image(encode(quarters(), image_format, **FORMATS[image_format]))
    assert loaded.warnings == ()
    assert loaded.format == image_format
    if image_format in LOSSLESS:
        assert loaded.image.tobytes() == quarters().tobytes()
    assert seen_quarters(loaded.image) == QUARTERS


# --- damage


@pytest.mark.parametrize("image_format", [*FORMATS, "MPO"])
def test_files_cut_short_are_named_so(image_format: str, photo: Image.Image) -> None:
    data = encode(photo, image_format)
    for share in (0.01, 0.1, 0.5, 0.9):
        text = failure(data[: max(12, int(share * len(data)))], BrokenImage)
        assert ("cut short" in text) == (image_format in ("JPEG", "PNG", "GIF", "WEBP", "MPO"))


def test_damage_is_named_whatever_pillow_stumbles_over(photo: Image.Image) -> None:
    data = encode(photo, "PNG")
    middle = len(data) // 2
    assert "PNG" in failure(data[:middle] + bytes(50) + data[middle + 50 :], BrokenImage)
    assert "PNG" in failure(data[:8] + data[33:], BrokenImage)
    assert "JPEG" in failure(b"\xff\xd8\xff", BrokenImage)
    assert "GIF" in failure(b"GIF89a", BrokenImage)
    assert "TIFF" in failure(b"II*\0\xff\xff\xff\xff", BrokenImage)
    assert "BMP" in failure(b"BM", BrokenImage)


MUTABLE = {name: encode(quarters(24, 24), name, exif=exif(6)) for name in ("JPEG", "PNG", "WEBP", "TIFF")} | {
    "GIF": encode(quarters(24, 24), "GIF"),
    "BMP": encode(quarters(24, 24).convert("P"), "BMP"),
}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(MUTABLE)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_damaged_bytes_give_an_image_or_one_sentence(
    name: str, changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(MUTABLE[name])
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        image = open_image(bytes(data[: int(kept * len(data))]))
    except ImageError as exc:
        assert_sentence(exc)
    else:
        assert image.mode == "RGB"
        assert max(image.size) <= 2048


@pytest.mark.shared_data
@pytest.mark.timeout(120)
def test_odd_files_give_an_image_or_one_sentence(shared_data: Path) -> None:
    files = sorted((shared_data / "odd_files").iterdir())
    opened = 0
    for path in files:
        started = time.process_time()
        try:
            image = open_image(path)
        except ImageError as exc:
            assert_sentence(exc)
        else:
            opened += 1
            assert image.mode == "RGB"
        assert time.process_time() - started < 5
    assert (len(files), opened) == (57, 43)
