"""Every mode that Pillow decodes to becomes the RGB that the picture means."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pawmatch.images import open_image, read_image
from tests.support.pictures import (
    BLACK,
    BLUE,
    QUARTERS,
    RED,
    WHITE,
    encode,
    png,
    quarters,
    seen,
    seen_quarters,
    with_png_chunk,
)

NAN, INF = float("nan"), float("inf")


def greys(image: Image.Image) -> list[int]:
    """The pixels of a grey image from left to right, after making sure that it is grey."""
    values = np.asarray(image)
    assert (values == values[..., :1]).all()
    return [int(value) for value in values[..., 0].ravel()]


# --- more than 8 bits


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_grey_is_scaled_not_clipped(order: str) -> None:
    values = np.array([[0, 255, 256, 0x7FFF, 0x8000, 0xFFFF]], dtype=f"{order}u2")
    mode = "I;16" if order == "<" else "I;16B"
    image = Image.frombytes(mode, (6, 1), values.tobytes())
    for source in (image, encode(image, "PNG"), encode(image, "TIFF")):
        assert greys(open_image(source)) == [0, 0, 1, 127, 128, 255]


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_files_of_every_colour_kind(colour: int, channels: int) -> None:
    alpha = channels in (2, 4)
    opaque, clear = [0x8000] * (channels - alpha) + [0xFFFF] * alpha, [0] * channels
    row = b"\0" + struct.pack(f">{2 * channels}H", *opaque, *clear)
    assert greys(open_image(png((2, 1), 16, colour, row))) == [128, 255 if alpha else 0]


def test_16_bit_png_with_a_transparent_grey() -> None:
    data = png((2, 1), 16, 0, b"\0\x40\x01\x40\x00", (b"tRNS", b"\x40\x01"))
    assert greys(open_image(data)) == [255, 64]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.5, 1, NAN, INF, -INF], [0, 128, 255, 0, 255, 0]),
        ([0, 51, 255, NAN, INF, -INF], [0, 51, 255, 0, 255, 0]),
        ([0, 257, 65535, NAN, INF, -INF], [0, 1, 255, 0, 255, 0]),
        ([-10, 0, 10, NAN, INF, -INF], [0, 128, 255, 0, 255, 0]),
        ([-3e38, 0, 3e38], [0, 128, 255]),
        ([1e5, 1e5], [0, 0]),
        ([NAN, NAN], [0, 0]),
        ([INF, -INF, NAN], [255, 0, 0]),
    ],
)
def test_floating_point_of_any_range(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert image.mode == "F"
    for source in (image, encode(image, "TIFF"), encode(image, "TIFF", compression="tiff_lzw")):
        assert greys(open_image(source)) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1, 255], [0, 1, 255]), ([0, 0x8080, 65535], [0, 128, 255]), ([-100, 0, 100], [0, 128, 255])],
)
def test_32_bit_integers_of_any_range(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert image.mode == "I"
    for source in (image, encode(image, "TIFF")):
        assert greys(open_image(source)) == expected


# --- transparency


def with_alpha(mode: str) -> Image.Image:
    """A pixel that is red or black and opaque, and one that is red or black and wholly transparent."""
    image = Image.new("RGBA", (2, 1), "red")
    image.putpixel((1, 0), (255, 0, 0, 0))
    return image.convert(mode)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "GIF", "AVIF"])
def test_transparent_parts_become_white(image_format: str) -> None:
    opened = open_image(encode(with_alpha("RGBA").resize((16, 8), 0), image_format))
    assert (seen(opened), seen(opened, (15, 0))) == (RED, WHITE)


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "PA"])
def test_every_mode_with_alpha_becomes_white_where_transparent(mode: str) -> None:
    # Pillow converts to La from LA only.
    source = with_alpha("LA").convert(mode) if mode == "La" else with_alpha(mode)
    assert source.mode == mode
    opened = open_image(source)
    assert (seen(opened) in (RED, BLACK), seen(opened, (1, 0))) == (True, WHITE)


def test_half_transparent_is_half_white() -> None:
    for mode, colour, expected in (("RGBA", (0, 0, 0, 128), 127), ("LA", (0, 128), 127)):
        image = Image.new(mode, (1, 1), colour)
        assert greys(open_image(encode(image, "PNG"))) == [expected]


def test_palette_with_a_transparent_entry() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    for data in (encode(image, "PNG", transparency=0), encode(image, "GIF", transparency=0)):
        opened = open_image(data)
        assert (seen(opened), seen(opened, (1, 0))) == (WHITE, BLUE)
    opened = open_image(encode(image, "PNG", transparency=b"\xff\x00"))
    assert (seen(opened), seen(opened, (1, 0))) == (RED, WHITE)


@pytest.mark.parametrize(("depth", "code"), [(8, "B"), (16, "H")])
def test_png_with_a_transparent_colour(depth: int, code: str) -> None:
    top = 2**depth - 1
    row = b"\0" + struct.pack(f">6{code}", top, 0, 0, 0, 0, top)
    opened = open_image(png((2, 1), depth, 2, row, (b"tRNS", struct.pack(">3H", top, 0, 0))))
    assert (seen(opened), seen(opened, (1, 0))) == (WHITE, BLUE)


# --- other modes


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBX", "P", "CMYK", "YCbCr", "HSV", "LAB"])
def test_colours_survive_every_mode(mode: str) -> None:
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(quarters(), srgb, lab, outputMode="LAB")
        assert image is not None
    else:
        image = quarters().convert(mode)
    assert image.mode == mode
    assert seen_quarters(open_image(image)) == QUARTERS


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_modes(mode: str) -> None:
    image = Image.new(mode, (3, 1), 255)
    image.putpixel((1, 0), 0)
    for source in (image, encode(image, "PNG"), encode(image, "TIFF"), encode(image, "BMP")):
        assert greys(open_image(source)) == [255, 0, 255]


def test_cmyk_jpegs_look_as_in_browsers_with_and_without_adobe_marker() -> None:
    with_marker = encode(quarters().convert("CMYK"), "JPEG", quality=95)
    start = with_marker.index(b"\xff\xee\x00\x0eAdobe")
    without = with_marker[:start] + with_marker[start + 16 :]
    assert b"Adobe" not in without
    assert seen_quarters(open_image(with_marker)) == QUARTERS
    assert seen_quarters(open_image(without)) == QUARTERS
    assert seen_quarters(open_image(encode(quarters().convert("CMYK"), "TIFF"))) == QUARTERS


def test_large_images_of_every_mode_are_reduced() -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F"):
        source = Image.new("L", (3000, 40)).convert("I" if mode == "I;16" else mode).convert(mode)
        assert open_image(source).size == (2048, 27)


def test_reducing_does_not_mix_hues() -> None:
    reds = np.full((1, 3000, 3), 255, dtype=np.uint8)
    reds[:, ::2, 0] = 0  # both ends of the scale of hues are red, and its middle is cyan
    opened = open_image(Image.frombytes("HSV", (3000, 1), reds.tobytes()))
    assert {seen(opened, (x, 0)) for x in range(opened.width)} == {RED}


# --- colour profiles


def swapped_profile() -> bytes:
    """An sRGB profile in which red and blue have changed places, under another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    for first, second in ((b"rXYZ", b"bXYZ"), (b"bTRC", b"rTRC")):
        table = 132 + 12 * struct.unpack_from(">I", profile, 128)[0]
        head, rest = profile[:table], profile[table:]
        head = head.replace(first, b"----").replace(second, first).replace(b"----", second)
        profile = head + rest
    return profile


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_colours_follow_the_profile(image_format: str) -> None:
    red = Image.new("RGB", (32, 32), "red")
    assert seen(open_image(encode(red, image_format, icc_profile=swapped_profile()))) == BLUE
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert seen(open_image(encode(red, image_format, icc_profile=srgb))) == RED
    assert "icc_profile" not in open_image(encode(red, image_format, icc_profile=srgb)).info


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("profile", [b"nonsense", swapped_profile()[:200], bytes(3000)])
def test_a_profile_that_does_not_fit_is_ignored(mode: str, profile: bytes) -> None:
    image = quarters().convert(mode)
    opened = open_image(encode(image, "TIFF", icc_profile=profile))
    assert opened.tobytes() == image.convert("RGB").tobytes()
    grey = open_image(encode(quarters().convert("L"), "TIFF", icc_profile=swapped_profile()))
    assert grey.tobytes() == quarters().convert("L").convert("RGB").tobytes()


def test_a_huge_profile_in_a_png_is_left_out() -> None:
    body = b"name\0\0" + zlib.compress(swapped_profile() + bytes(2**21))
    assert (
        seen_quarters(read_image(with_png_chunk(encode(quarters(), "PNG"), b"iCCP", body)).image) == QUARTERS
    )


def test_the_kept_colours_are_exact(photo: Image.Image) -> None:
    pixels: NDArray[np.uint8] = np.asarray(open_image(encode(photo, "PNG")))
    assert np.array_equal(pixels, np.asarray(photo))
