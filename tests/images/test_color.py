"""Every mode that Pillow decodes to becomes the RGB that the picture means."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pawmatch.images import open_image
from pawmatch.images.color import cicp_profile, matrix_profile
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
    tiff,
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


def samples_tiff(bits: int, code: bytes, *, white_is_zero: bool = False, signed: bool = False) -> bytes:
    """A gray TIFF of one row of two pixels."""
    entries = [*((256, 4, 1, 2), (257, 4, 1, 1), (258, 3, 1, bits), (259, 3, 1, 1))]
    entries += [
        (262, 3, 1, 1 - white_is_zero),
        (273, 4, 1, 8 + 2 + 12 * 10 + 4),
        (277, 3, 1, 1),
        (278, 4, 1, 1),
        (279, 4, 1, len(code)),
    ]
    return tiff(*entries, (339, 3, 1, 2 if signed else 1), tail=code)


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize(
    ("bits", "signed", "code", "expected"),
    [
        (8, False, struct.pack("<2B", 200, 0), [200, 0]),
        (8, True, struct.pack("<2b", 100, 127), [100, 127]),
        (8, True, struct.pack("<2b", -128, 127), [0, 255]),
        (12, False, b"\xcc\xc0\0", [204, 0]),  # 3276 of 4095, as film scanners write it
        (16, False, struct.pack("<2H", 60_000, 0), [234, 0]),
        (16, True, struct.pack("<2h", 32_767, 16_384), [255, 128]),
        (32, False, struct.pack("<2I", 3_000_000_000, 0), [178, 0]),
        (32, False, struct.pack("<2I", 65_535, 257), [255, 1]),
        (32, True, struct.pack("<2i", 2**31 - 1, 2**30), [255, 128]),
    ],
)
def test_gray_tiff_is_read_as_it_says(
    bits: int, signed: bool, code: bytes, expected: list[int], white_is_zero: bool
) -> None:
    """TIFF 6.0, page 37: with WhiteIsZero the highest sample is black."""
    data = samples_tiff(bits, code, white_is_zero=white_is_zero, signed=signed)
    assert greys(open_image(data)) == [255 - value if white_is_zero else value for value in expected]


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


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_gray_png_with_a_transparent_level(depth: int) -> None:
    """Two pixels of the lowest levels, of which the second is transparent."""
    row = b"\0" + {1: b"\x40", 2: b"\x10", 4: b"\x01", 8: b"\0\1"}[depth]
    assert greys(open_image(png((2, 1), depth, 0, row, (b"tRNS", b"\0\1")))) == [0, 255]


def test_16_bit_png_compares_whole_samples_with_the_transparent_color() -> None:
    key = struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)
    row = b"\0" + key + struct.pack(">3H", 0x1234, 0x5679, 0x9ABC)  # the second differs in the last bit
    opened = open_image(png((2, 1), 16, 2, row, (b"tRNS", key)))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0x12, 0x56, 0x9A)]


def test_a_bmp_without_any_opacity_is_opaque() -> None:
    header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0)
    header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    start = b"BM" + struct.pack("<IHHI", 130, 0, 0, 122) + header
    assert seen(open_image(start + b"\0\0\xff\0" * 2)) == RED
    opened = open_image(start + b"\0\0\xff\0" + b"\0\0\xff\xff")
    assert (seen(opened), seen(opened, (1, 0))) == (WHITE, RED)


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


# --- what files say about their colors

SAMPLE = (55, 120, 200)
LINEAR = (128, 183, 229)  # the sRGB encoding of the sample's values as shares of light (IEC 61966-2-1)
LINEAR_RGB = matrix_profile((0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329), lambda v: v) or b""
# As GIMP calls its profile of linear light.
NAMED_SRGB = LINEAR_RGB + b"GIMP built-in Linear sRGB"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("profile", [b"nonsense", LINEAR_RGB[:200], bytes(3000)])
def test_a_profile_that_does_not_fit_is_ignored(mode: str, profile: bytes) -> None:
    image = quarters().convert(mode)
    opened = open_image(encode(image, "TIFF", icc_profile=profile))
    assert opened.tobytes() == image.convert("RGB").tobytes()


def gray_profile() -> bytes:
    """A profile of linear gray."""
    tags = {b"wtpt": LINEAR_RGB[LINEAR_RGB.index(b"XYZ \0\0\0\0") :][:20], b"kTRC": b"curv" + bytes(8)}
    table, body = b"", b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content
    size = struct.pack(">I", 132 + len(table) + len(body))
    return (
        size + LINEAR_RGB[4:16] + b"GRAY" + LINEAR_RGB[20:128] + struct.pack(">I", len(tags)) + table + body
    )


def close(image: Image.Image, expected: tuple[int, ...], most: int = 3) -> bool:
    """Whether the first pixel is the one expected, but for rounding."""
    pixel = image.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return max(abs(a - b) for a, b in zip(pixel, expected, strict=True)) <= most


def sample_png(*chunks: tuple[bytes, bytes]) -> bytes:
    return png((1, 1), 8, 2, b"\0" + bytes(SAMPLE), *chunks)


def gama(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(100_000 * gamma))


def chrm(*numbers: float) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(100_000 * number) for number in numbers))


SRGB_PLACES = chrm(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
PROPHOTO = chrm(0.3457, 0.3585, 0.7347, 0.2653, 0.11596, 0.82677, 0.0366, 0.0001)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([gama(1)], LINEAR),
        ([gama(1), SRGB_PLACES], LINEAR),
        ([gama(0.55556)], (71, 139, 210)),
        ([gama(0.45455), SRGB_PLACES], (52, 121, 201)),
        ([gama(0.55556), PROPHOTO], (0, 150, 216)),
        # What stands for sRGB, or says nothing.
        ([gama(0.45455)], SAMPLE),
        ([(b"sRGB", b"\0"), gama(1)], SAMPLE),
        ([gama(0)], SAMPLE),
        ([PROPHOTO], SAMPLE),
        ([gama(1), chrm(*[0] * 8)], SAMPLE),
        ([gama(1), (b"cHRM", b"short")], SAMPLE),
        # PNG, third edition, 11.3.2.6: cICP goes before all others, then iCCP.
        ([(b"cICP", b"\1\x0d\0\1"), gama(1), (b"iCCP", b"x\0\0" + zlib.compress(LINEAR_RGB))], SAMPLE),
        ([(b"iCCP", b"x\0\0" + zlib.compress(LINEAR_RGB)), (b"sRGB", b"\0")], LINEAR),
        ([(b"iCCP", b"x\0\0" + zlib.compress(SRGB)), gama(1)], SAMPLE),
    ],
)
def test_the_colors_that_png_chunks_tell(
    chunks: list[tuple[bytes, bytes]], expected: tuple[int, ...]
) -> None:
    """The expected values are those that Chromium 156 shows."""
    assert close(open_image(sample_png(*chunks)), expected)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ((12, 13), (14, 122, 206)),  # Display P3
        ((9, 13), (0, 124, 207)),
        ((4, 4), (0, 130, 206)),
        ((6, 13), (64, 121, 200)),
        ((22, 13), (52, 123, 200)),
        ((11, 17), (0, 111, 207)),
        ((1, 8), LINEAR),
        ((1, 1), (44, 113, 197)),
        ((1, 5), (31, 98, 189)),
        ((1, 13), SAMPLE),
        ((2, 8), SAMPLE),  # left open
        ((12, 2), SAMPLE),
        ((12, 99), SAMPLE),  # unknown
    ],
)
def test_code_points_of_a_png(code: tuple[int, int], expected: tuple[int, ...]) -> None:
    """The expected values are those that Chromium 156 shows."""
    assert close(open_image(sample_png((b"cICP", bytes([*code, 0, 1])))), expected)
    assert close(open_image(sample_png((b"cICP", bytes([*code, 6, 1])))), SAMPLE)  # no such code for RGB


@pytest.mark.parametrize(("transfer", "expected"), [(16, (30, 132, 255)), (18, (43, 99, 189))])
def test_gray_of_high_dynamic_range_is_as_bright_as_in_chromium(
    transfer: int, expected: tuple[int, ...]
) -> None:
    row = b"\0" + bytes(value for level in (64, 128, 192) for value in (level,) * 3)
    opened = open_image(png((3, 1), 8, 2, row, (b"cICP", bytes([9, transfer, 0, 1]))))
    assert np.abs(np.array(greys(opened)) - expected).max() <= 3


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ((12, 13), (5, 124, 204)),
        ((1, 8), (127, 184, 228)),
        ((1, 1), (54, 122, 198)),
        ((2, 2), (54, 122, 198)),
    ],
)
def test_code_points_of_an_avif(code: tuple[int, int], expected: tuple[int, ...]) -> None:
    """The expected values are those that Chromium 156 shows."""
    data = encode(Image.new("RGB", (16, 16), SAMPLE), "AVIF", quality=100, subsampling="4:4:4")
    place = data.index(b"colrnclx") + 8
    assert close(open_image(data[:place] + struct.pack(">HH", *code) + data[place + 4 :]), expected)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_profile_counts_for_what_it_says_not_for_its_name(image_format: str) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {"quality": 100}
    image = Image.new("RGB", (16, 16), SAMPLE)
    opened = open_image(encode(image, image_format, icc_profile=NAMED_SRGB, **options))
    assert close(opened, LINEAR)
    assert opened.info == {}


def test_an_srgb_profile_changes_no_pixel(photo: Image.Image) -> None:
    for profile in (SRGB, cicp_profile(1, 13)):
        assert open_image(encode(photo, "PNG", icc_profile=profile)).tobytes() == photo.tobytes()


@pytest.mark.parametrize("mode", ["L", "LA", "1", "tRNS"])
def test_a_gray_profile_holds_with_transparency(mode: str) -> None:
    gray = Image.new("L", (4, 4), 55)
    options = {"transparency": 7} if mode == "tRNS" else {}
    image = gray if mode == "tRNS" else gray.convert(mode, dither=Image.Dither.NONE)
    opened = open_image(encode(image, "PNG", icc_profile=gray_profile(), **options))
    assert close(opened, (0, 0, 0) if mode == "1" else (128, 128, 128))


def test_a_profile_of_another_kind_of_picture() -> None:
    gray, color = Image.new("L", (16, 16), 128), Image.new("RGB", (16, 16), SAMPLE)
    # Gray with a profile for RGB, as many cameras write it, is RGB; the reverse means nothing.
    for image_format in ("JPEG", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if image_format == "WEBP" else {}
        assert close(
            open_image(encode(gray, image_format, icc_profile=NAMED_SRGB, **options)), (188, 188, 188)
        )
        assert close(open_image(encode(color, image_format, icc_profile=gray_profile(), **options)), SAMPLE)


def test_colors_are_converted_before_transparency_is_laid_on_white() -> None:
    half = Image.new("RGBA", (4, 4), (*SAMPLE, 128))
    # By hand: sRGB of 55 / 255 is 128, and 128 * 128 / 255 + 255 * 127 / 255 = 191.
    assert close(open_image(encode(half, "PNG", icc_profile=LINEAR_RGB)), (191, 219, 242))
    assert half.getpixel((0, 0)) == (*SAMPLE, 128)


def test_colors_are_converted_before_a_picture_is_made_smaller() -> None:
    stripes = np.zeros((2, 4096, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    opened = open_image(encode(Image.fromarray(stripes), "PNG", icc_profile=LINEAR_RGB))
    mean = np.asarray(opened)[:, 100:-100].mean()
    assert abs(mean - 229 / 2) < 3  # halfway between 0 and the sRGB encoding of 200 / 255


def test_a_pillow_image_with_a_profile_is_not_changed() -> None:
    image = Image.new("RGB", (4, 4), SAMPLE)
    image.info["icc_profile"] = LINEAR_RGB
    assert close(open_image(image), LINEAR)
    assert image.getpixel((0, 0)) == SAMPLE


def test_the_profile_in_a_bmp() -> None:
    pixels = bytes(SAMPLE[::-1]) + b"\0"
    header = struct.pack("<IiiHHIIiiII", 124, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0) + bytes(16) + b"DEBM" + bytes(48)
    header += struct.pack("<IIII", 4, 128, len(LINEAR_RGB), 0)
    data = b"BM" + struct.pack("<IHHI", 14 + 128 + len(LINEAR_RGB), 0, 0, 138) + header + pixels + LINEAR_RGB
    assert close(open_image(data), LINEAR)
    assert close(open_image(data.replace(b"DEBM", b"BGRs")), SAMPLE)


def test_the_kept_colours_are_exact(photo: Image.Image) -> None:
    pixels: NDArray[np.uint8] = np.asarray(open_image(encode(photo, "PNG")))
    assert np.array_equal(pixels, np.asarray(photo))
