"""Files of every accepted format: turned, animated, rare, cut short, altered, under wrong names."""

from __future__ import annotations

import struct
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pawmatch.errors import BrokenImage, ImageError, ImageTooLarge, UnsupportedFormat
from pawmatch.images import ANIMATED, INCOMPLETE, PAGED, ROTATED, open_image, read_image, reading
from tests.fuzz.seeds import seeds
from tests.support.pictures import (
    FORMATS,
    LOSSLESS,
    QUARTERS,
    RED,
    WHITE,
    assert_sentence,
    encode,
    exif,
    failure,
    png,
    png_chunk,
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


def gif(canvas: tuple[int, int], place: tuple[int, int], frame: tuple[int, int]) -> bytes:
    """A GIF whose only frame, red without transparency, lies somewhere on its canvas."""
    image = Image.new("P", frame, 1)
    image.putpalette([0, 0, 255, 255, 0, 0])
    data = bytearray(encode(image, "GIF"))
    start = data.index(b",", 13 + 3 * 2 ** (data[10] % 8 + 1))
    data[6:10] = struct.pack("<HH", *canvas)
    data[start + 1 : start + 5] = struct.pack("<HH", *place)
    return bytes(data)


def test_what_no_frame_of_a_gif_paints_is_white() -> None:
    opened = open_image(gif((64, 16), (16, 4), (32, 8)))
    assert opened.size == (64, 16)
    assert {seen(opened, place) for place in ((16, 4), (47, 11))} == {RED}
    assert {seen(opened, place) for place in ((15, 8), (48, 8), (30, 3), (30, 12))} == {WHITE}
    large = open_image(gif((4096, 16), (2048, 0), (2048, 16)))
    assert (large.size, seen(large, (1000, 4)), seen(large, (1050, 4))) == ((2048, 8), WHITE, RED)
    # A first frame that reaches beyond the canvas makes it larger, as in browsers.
    beyond = open_image(gif((20, 8), (0, 0), (64, 16)))
    assert (beyond.size, seen(beyond, (63, 15))) == ((64, 16), RED)


# --- damage


@pytest.mark.parametrize("image_format", [*FORMATS, "MPO"])
def test_files_cut_short_are_named_so(image_format: str, photo: Image.Image) -> None:
    data = encode(photo, image_format)
    for share in (0.01, 0.1, 0.5, 0.9):
        text = failure(data[: max(12, int(share * len(data)))], BrokenImage)
        assert ("cut short" in text) == (image_format in ("JPEG", "PNG", "GIF", "WEBP", "MPO"))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_that_lacks_its_lower_half_says_so(mode: str, options: dict[str, object]) -> None:
    """The decoder fills what is missing with gray, without a word where there is an end mark."""
    data = encode(Image.effect_noise((256, 256), 80).convert(mode), "JPEG", **options)
    assert read_image(data).warnings == ()
    scan = data.index(b"\xff\xda") + 20
    # A later pass of a progressive JPEG only adds detail.
    end = data.index(b"\xff\xc4", scan) if "progressive" in options else len(data)
    for share in (0.1, 0.5, 0.9):
        cut = data[: scan + int(share * (end - scan))].rstrip(b"\xff") + b"\xff\xd9"
        assert read_image(cut).warnings == (INCOMPLETE,), share


@pytest.mark.parametrize(("depth", "color", "size"), [(8, 2, 3), (16, 6, 8), (1, 0, 1 / 8), (8, 0, 1)])
def test_a_png_whose_code_ends_before_its_last_row_says_so(depth: int, color: int, size: float) -> None:
    """What does not come is black, or transparent and so white."""
    row = b"\0" + b"\xc8" * round(40 * size)
    assert read_image(png((40, 40), depth, color, 40 * row)).warnings == ()
    for rows in (1, 20, 39):
        assert read_image(png((40, 40), depth, color, rows * row)).warnings == (INCOMPLETE,)
    black = b"\0" * len(row)  # a last row of zeros may be meant
    assert read_image(png((40, 40), depth, color, 39 * row + black)).warnings == ()


def test_a_jpeg_that_lacks_its_middle_says_so() -> None:
    data = encode(Image.effect_noise((256, 256), 80), "JPEG", restart_marker_blocks=8)
    first, later = data.index(b"\xff\xd1"), data.index(b"\xff\xd4")
    assert read_image(data[:first] + data[later:]).warnings == (INCOMPLETE,)


def test_a_jpeg_of_which_a_part_became_zeros_says_so() -> None:
    data = encode(Image.effect_noise((256, 256), 80), "JPEG", quality=90)
    half = len(data) // 2
    for damaged in (data[:half] + bytes(len(data) - half), data[:half] + bytes(4000) + data[half + 4000 :]):
        assert read_image(damaged).warnings == (INCOMPLETE,)


def test_gray_at_the_end_of_a_whole_jpeg_is_no_gap() -> None:
    for mode in ("RGB", "L"):
        for options in ({}, {"progressive": True}, {"restart_marker_blocks": 1}):
            image = Image.new(mode, (100, 60), "gray")
            assert read_image(encode(image, "JPEG", **options)).warnings == ()
    odd = encode(Image.new("RGB", (4033, 3025), "gray"), "JPEG")  # decoded at half its size, rounded up
    assert read_image(odd).warnings == read_image(odd, min_side=300).warnings == ()
    flat = encode(Image.new("L", (4000, 4000), 90), "JPEG", optimize=True)
    assert bytes(256) in flat
    assert read_image(flat).warnings == ()


# --- kinds that are whole and not accepted


def rare_files() -> dict[str, bytes]:
    jpeg, bmp = encode(quarters(), "JPEG"), encode(quarters().convert("P"), "BMP")
    start = jpeg.index(b"\xff\xc0")
    return {
        "12 bits": jpeg[: start + 4] + b"\x0c" + jpeg[start + 5 :],
        "height told at its end": jpeg[: start + 5] + b"\0\0" + jpeg[start + 7 :],
        "odd fractions": jpeg[: start + 11]
        + b"\x31"
        + jpeg[start + 12 : start + 14]
        + b"\x21"
        + jpeg[start + 15 :],
        "lossless": jpeg[: start + 1] + b"\xc3" + jpeg[start + 2 :],
        "hierarchical": jpeg[: start + 1] + b"\xc5" + jpeg[start + 2 :],
        "arithmetic": jpeg[: start + 1] + b"\xc9" + jpeg[start + 2 :],
        "Xcode": png((1, 1), 8, 2, bytes(4))[:8]
        + png_chunk(b"CgBI", bytes(4))
        + png((1, 1), 8, 2, bytes(4))[8:],
        "4 bits": bmp[:30] + b"\2" + bmp[31:],
        "a PNG inside": bmp[:30] + b"\5" + bmp[31:],
    }


@pytest.mark.parametrize("name", rare_files())
def test_a_whole_file_of_a_rare_kind_is_not_called_damaged(name: str) -> None:
    text = failure(rare_files()[name], UnsupportedFormat)
    assert name in text
    assert "save it as JPEG or PNG" in text


# --- photos of phones


def test_heic_photos_are_read_where_the_extra_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "photo.heic"
    stored = quarters(96, 64).transpose(Image.Transpose.ROTATE_90)
    heif.from_pillow(stored).save(path, quality=90, exif=exif(6)[6:])
    loaded = read_image(path)
    assert (loaded.format, loaded.width, loaded.height) == ("HEIF", 96, 64)
    assert seen_quarters(loaded.image) == QUARTERS
    assert loaded.image.info == {}
    assert "HEIF" in failure(path.read_bytes()[:-200], BrokenImage)
    monkeypatch.setattr(reading, "MAX_PHOTO_PIXELS", 6000)
    failure(path, ImageTooLarge)


@pytest.mark.parametrize("size", [(8064, 6048), (8192, 6144)])  # 48 and 50 megapixels
def test_large_photos_are_decoded_small(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.new("RGB", size, "red"), "JPEG", quality=30)
    loaded = read_image(data)
    assert (loaded.width, loaded.height) == size
    assert max(loaded.image.size) <= 2048
    assert seen(loaded.image) == RED
    monkeypatch.setattr(reading, "MAX_PHOTO_PIXELS", 40_000_000)
    assert "at most 40 are accepted" in failure(data, ImageTooLarge)


# --- damage, anywhere


def opens_or_says_why(source: bytes | Path) -> Image.Image | None:
    try:
        image = open_image(source)
    except ImageError as exc:
        assert_sentence(exc)
        return None
    assert image.mode == "RGB"
    assert max(image.size) <= 2048
    return image


def test_damage_is_named_whatever_pillow_stumbles_over(photo: Image.Image) -> None:
    data = encode(photo, "PNG")
    middle = len(data) // 2
    assert "PNG" in failure(data[:middle] + bytes(50) + data[middle + 50 :], BrokenImage)
    assert "PNG" in failure(data[:8] + data[33:], BrokenImage)
    assert "JPEG" in failure(b"\xff\xd8\xff", BrokenImage)
    assert "GIF" in failure(b"GIF89a", BrokenImage)
    assert "TIFF" in failure(b"II*\0\xff\xff\xff\xff", BrokenImage)
    assert "BMP" in failure(b"BM", BrokenImage)


@pytest.mark.shared_data
@pytest.mark.timeout(120)
def test_odd_files_give_an_image_or_one_sentence(shared_data: Path) -> None:
    opened = [opens_or_says_why(path) for path in sorted((shared_data / "odd_files").iterdir())]
    assert (len(opened), len(opened) - opened.count(None)) == (57, 43)


SEEDS = seeds()


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_files_cut_at_every_tenth_are_refused_or_lack_only_what_is_not_needed(name: str) -> None:
    data = SEEDS[name]
    whole = open_image(data)
    for tenth in range(10):
        opened = opens_or_says_why(data[: tenth * len(data) // 10])
        # A later frame, or what follows the picture, may be missing; the picture itself may not.
        assert opened is None or opened.tobytes() == whole.tobytes()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(SEEDS)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=40),
)
def test_flipped_bits_give_an_image_or_one_sentence(name: str, flips: list[tuple[float, int]]) -> None:
    data = bytearray(SEEDS[name])
    for place, bit in flips:
        data[int(place * len(data))] ^= 1 << bit
    opens_or_says_why(bytes(data))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    start=st.sampled_from([data[:16] for data in SEEDS.values()] + [b"", b"RIFF", b"\0\0\0 ftypavif"]),
    rest=st.binary(max_size=400),
)
def test_any_bytes_behind_a_known_start_give_an_image_or_one_sentence(start: bytes, rest: bytes) -> None:
    opens_or_says_why(start + rest)


# --- names and kinds


@pytest.mark.parametrize(
    "name", ["dog", "dog.heic", "dog.svg", "dog.jpg.exe", ".jpg", "-rf", "a\nb", "<b>.png"]
)
@pytest.mark.parametrize(
    "seed", ["plain.jpg", "plain.png", "plain.gif", "exact.webp", "plain.bmp", "plain.avif"]
)
def test_the_content_counts_not_the_name(tmp_path: Path, seed: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(SEEDS[seed])
    assert read_image(path).image.size in {(64, 48), (48, 64)}


def test_a_file_of_two_kinds_is_the_picture_that_it_starts_as() -> None:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("run.sh", "echo")
    script = b"<script>alert(1)</script><?php system('id'); ?>"
    jpeg, png, gif = (encode(quarters(), kind) for kind in ("JPEG", "PNG", "GIF"))
    for data in (
        jpeg + archive.getvalue(),
        png + archive.getvalue(),
        gif + b"<html>" + script,
        png[:33] + png_chunk(b"tEXt", b"a\0" + script) + png[33:],
        jpeg[:2] + b"\xff\xfe" + (2 + len(script)).to_bytes(2) + script + jpeg[2:],
        encode(quarters(), "BMP") + script,
        encode(quarters(), "WEBP", lossless=True, exif=script),
    ):
        opened = open_image(data)
        assert seen_quarters(opened) == QUARTERS
        # What goes on from here is made of pixels: nothing of the other kind survives.
        assert b"script" not in encode(opened, "PNG")
    for data in (archive.getvalue() + jpeg, script + png, b"%PDF-1.7\n" + jpeg, b"GIF" + gif):
        failure(data, UnsupportedFormat)
    # A GIF whose header doubles as the start of a script.
    failure(b"GIF89a/*" + script + b"*/=1;", BrokenImage)
