"""Files that are small and would cost a decoder gigabytes or minutes, and metadata that must not reach it."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO

import pytest
from PIL import Image

from pawmatch.errors import BrokenImage, ImageTooLarge
from pawmatch.images import ROTATED, containers, open_image, read_image
from pawmatch.images.containers import (
    MAX_PIECES,
    MAX_SCANS,
    TooManyPieces,
    TooManyPixels,
    exif_orientation,
    frames_and_pixels,
)
from pawmatch.images.reading import strip
from tests.support.pictures import (
    QUARTERS,
    RED,
    encode,
    exif,
    failure,
    png_chunk,
    quarters,
    seen,
    seen_quarters,
    tiff,
    with_png_chunk,
)

# A file that says "put together in a way that is not accepted" has been seen through; without the check
# each of these takes from seconds to hours, or gigabytes.
pytestmark = pytest.mark.timeout(30)


def progressive(scans: int) -> bytes:
    data = encode(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]


def test_scans_of_a_progressive_jpeg_are_counted() -> None:
    assert open_image(progressive(MAX_SCANS)).size == (64, 64)
    assert "put together" in failure(progressive(MAX_SCANS + 1), BrokenImage)


def test_passes_over_a_large_jpeg_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_SCANNED_PIXELS", 64 * 64 * 20)
    assert open_image(progressive(20)).size == (64, 64)
    assert "put together" in failure(progressive(21), BrokenImage)


def test_what_follows_the_end_of_a_jpeg_is_not_counted() -> None:
    data = encode(quarters(), "JPEG", subsampling=0)
    behind = b"\xff\xda\x00\x02" * 1000  # a film behind the photo, as some phones write, holds such bytes
    assert seen_quarters(open_image(data + behind)) == QUARTERS


def test_segments_chunks_and_blocks_are_counted() -> None:
    flood = MAX_PIECES + 1
    jpeg, png = encode(quarters(), "JPEG"), encode(quarters(), "PNG")
    gif = encode(quarters(), "GIF")
    head = 13 + 3 * 2 ** (gif[10] % 8 + 1)
    for data in (
        jpeg[:2] + b"\xff\xe1\0\2" * flood + jpeg[2:],
        png[:33] + png_chunk(b"tEXt", b"a\0b") * flood + png[33:],
        gif[:head] + b"!\xfe\1a\0" * flood + gif[head:],
        gif[:head] + b"!\xfe" + b"\1a" * 2 * flood + b"\0" + gif[head:],
    ):
        assert "put together" in failure(data, BrokenImage)


def test_comments_do_not_cost_a_gif() -> None:
    gif = encode(quarters(), "GIF")
    head = 13 + 3 * 2 ** (gif[10] % 8 + 1)
    commented = gif[:head] + b"!\xfe" + b"\xff" * 256 * 1000 + b"\0" + b"\0\0" + gif[head:]
    assert seen_quarters(open_image(commented)) == QUARTERS
    assert len(strip(commented, "GIF").data) <= len(gif)


def test_text_that_unpacks_to_much_does_not_cost_a_png() -> None:
    png = encode(quarters(), "PNG")
    packed = zlib.compress(bytes(3 * 2**20))
    for kind, body in (
        (b"zTXt", b"a\0\0" + packed),
        (b"iTXt", b"a\0\1\0\0\0" + packed),
        (b"iCCP", b"a\0\0" + packed),
        (b"iCCP", b"a\0\7nonsense"),
        (b"zTXt", b"Raw profile type exif\0\0" + packed),
        (b"tEXt", b"Raw profile type exif\0\n\n\n\nno digits"),
        (b"eXIf", b"nonsense"),
        (b"acTL", b""),
        (b"gAMA", b"x"),
    ):
        assert seen_quarters(open_image(with_png_chunk(png, kind, body))) == QUARTERS
    for kind, body in ((b"tEXt", b"a\0b"), (b"iCCP", b"a\0\0" + zlib.compress(b"profile"))):
        wrong_sum = struct.pack(">I", len(body)) + kind + body + b"none"
        assert seen_quarters(open_image(png[:33] + wrong_sum + png[33:])) == QUARTERS


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_exif_entries_that_share_their_data_are_not_read(image_format: str) -> None:
    entries = [(0x9000 + number, 7, 40_000, 20_000) for number in range(1500)]
    block = exif(6, *entries, tail=bytes(40_000))
    stored = quarters().transpose(Image.Transpose.ROTATE_90)
    open_image(encode(stored, image_format))  # what is loaded on first use does not count below
    data = encode(stored, image_format, exif=block)
    tracemalloc.start()
    loaded = read_image(data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert loaded.warnings == (ROTATED,)
    assert most < 2**20  # read as it stands, the block makes 60 MB


def test_exif_of_an_avif_does_not_reach_the_decoder() -> None:
    data = encode(quarters(), "AVIF", exif=exif(6, (0x0131, 2, 4, 0x20676F64)))
    with Image.open(BytesIO(data)) as whole, Image.open(BytesIO(strip(data, "AVIF").data)) as stripped:
        assert 0x0131 in whole.getexif()
        assert dict(stripped.getexif()) == {0x0112: 6}  # which the format stores apart from EXIF


def grey_tiff(*more: tuple[int, int, int, int], strips: int = 1) -> bytes:
    """A grey TIFF file, 8 pixels wide, each strip one row high, all showing the first bytes of the file."""
    entries = [
        (256, 4, 1, 8),
        (257, 4, 1, strips),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, strips, 0),
        (277, 3, 1, 1),
        (278, 4, 1, 1),
        (279, 4, strips, 8),
        *more,
    ]
    after = 8 + 2 + 12 * len(entries) + 4
    if strips > 1:  # then the entry holds the place of the values
        entries[5], entries[8] = (273, 4, strips, after), (279, 4, strips, after + 4 * strips)
    return tiff(*entries, tail=struct.pack("<I", 0) * strips + struct.pack("<I", 8) * strips)


def test_tiff_tags_that_share_their_data_are_not_read() -> None:
    tail = bytes(2**20)
    needless = [(40_000 + number, 7, len(tail), 8) for number in range(200)]
    data = grey_tiff(*needless) + tail
    open_image(grey_tiff())
    tracemalloc.start()
    assert open_image(data).size == (8, 1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 * 2**20
    needed = [(34675, 7, len(tail), 8), (347, 7, len(tail), 8)]
    assert "put together" in failure(grey_tiff(*needed) + tail, BrokenImage)


def test_tiff_strips_are_counted() -> None:
    assert open_image(grey_tiff(strips=200)).size == (8, 200)
    assert "put together" in failure(grey_tiff(strips=MAX_PIECES + 1), BrokenImage)


def test_a_stripped_tiff_keeps_every_position() -> None:
    data = encode(quarters(), "TIFF", exif=exif(3), description="a note", compression="tiff_lzw")
    picture = strip(data, "TIFF")
    assert (len(picture.data), picture.orientation) == (len(data), 3)
    with Image.open(BytesIO(picture.data)) as image:
        assert 0x010E not in image.getexif()
        assert seen_quarters(image) == QUARTERS


def test_orientation_is_read_in_both_byte_orders_and_in_every_integer_type() -> None:
    for value in range(1, 9):
        assert exif_orientation(exif(value)) == value
        assert exif_orientation(b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0%c\0\0" % value) == value
        assert exif_orientation(b"II*\0\x08\0\0\0\1\0\x12\x01\4\0\1\0\0\0%c\0\0\0" % value) == value
        assert exif_orientation(b"II*\0\x08\0\0\0\1\0\x12\x01\1\0\1\0\0\0%c\0\0\0" % value) == value
    assert exif_orientation(b"") == 1


# --- run-length code of BMP, which Pillow decodes in Python


def run_length_bmp(width: int, height: int, code: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + header + b"\0\0\xff\0" * 256 + code


@pytest.mark.parametrize(
    ("width", "height", "code"),
    [
        (6_000_000, 6, b"\0\2\0\xff"),  # a jump over 255 rows: 2.9 GB in 10 s
        (20_000_000, 2, b"\1\1\0\0"),  # the rest of a row, pixel by pixel: 10 s
        (6324, 6324, b"\1\1\0\0" * 6324),  # 16 s
    ],
)
def test_run_length_code_is_bounded_in_pixels(width: int, height: int, code: bytes) -> None:
    assert "put together" in failure(run_length_bmp(width, height, code), BrokenImage)


def test_ordinary_run_length_code_is_read() -> None:
    rows = (b"\x64\xff" + b"\0\0") * 100 + b"\0\1"
    assert seen(open_image(run_length_bmp(100, 100, rows)), (50, 50)) == RED
    assert "put together" in failure(run_length_bmp(100, 100, b"\1\7" * 2**20), BrokenImage)
    row = b"\xff\1" * 7 + b"\xd7\1"  # 7 runs of 255 and one of 215
    assert open_image(run_length_bmp(2000, 1000, (row + b"\0\0") * 1000)).size == (2000, 1000)


# --- tiles and JPEG of TIFF


def tiled_tiff(
    size: tuple[int, int], tile: tuple[int, int], data: bytes, *, compression: int = 8, count: int = 1
) -> bytes:
    entries = [
        *((256, 4, 1, size[0]), (257, 4, 1, size[1]), (258, 3, 1, 8), (259, 3, 1, compression)),
        *((262, 3, 1, 1), (277, 3, 1, 1), (322, 4, count, tile[0]), (323, 4, 1, tile[1])),
        (325, 4, 1, len(data)),
    ]
    place = 8 + 2 + 12 * (len(entries) + 1) + 4
    return tiff(*entries[:-1], (324, 4, 1, place), entries[-1], tail=data)


def test_a_tile_may_not_be_far_larger_than_its_picture() -> None:
    packed = zlib.compress(bytes(256 * 256))
    assert open_image(tiled_tiff((8, 8), (256, 256), packed)).size == (8, 8)
    for size, tile in (
        ((8, 8), (40_000, 40_000)),  # 1.5 GB in 8 s, with 1.6 MB of zeros behind it
        ((8, 8), (2**31, 16)),
        ((30_000_000, 1), (4096, 4096)),  # thousands of tiles, of which one row each is used
    ):
        assert "put together" in failure(tiled_tiff(size, tile, packed), BrokenImage)
    assert "put together" in failure(tiled_tiff((8, 8), (16, 16), packed, count=2), BrokenImage)


def test_a_jpeg_in_a_tiff_may_take_one_pass_only() -> None:
    assert seen_quarters(open_image(encode(quarters(), "TIFF", compression="jpeg"))) == QUARTERS
    passes = encode(quarters().convert("L"), "JPEG", progressive=True)
    assert "put together" in failure(tiled_tiff((48, 32), (48, 32), passes, compression=7), BrokenImage)


# --- AVIF, whose code may hold other sizes than the file announces


def sequence_header(width: int, height: int, *, full: bool = False) -> bytes:
    """A unit of AV1 that announces frames of this size; a full one with timing and two operating points."""
    if full:
        bits = "00000" + "1" + "0" * 64  # profile, kind; timing
        bits += "1" + "001" + "01"  # a count in Exp-Golomb code
        bits += "1" + "00011" + "0" * 42  # a decoder model with delays of 4 bits
        bits += "1" + "00001"  # display delays, two operating points
        bits += "0" * 12 + "01000" + "1" + "1" + "0" * 9 + "1" + "0000"
        bits += "0" * 12 + "00111" + "0" + "0"
    else:
        bits = "00011" + "00000"
    bits += f"{15:04b}{15:04b}{width - 1:016b}{height - 1:016b}"
    bits += "0" * (-len(bits) % 8)
    content = int(bits, 2).to_bytes(len(bits) // 8)
    return bytes([0x0A, len(content)]) + content


def test_the_frame_size_is_read_from_short_and_full_headers() -> None:
    frame = b"\x32\1\0"  # a unit of the kind frame, with one byte
    for header in (sequence_header(16_384, 300), sequence_header(16_384, 300, full=True)):
        assert frames_and_pixels(b"\x12\0" + header + 3 * frame) == (3, 16_384 * 300)
        with pytest.raises(IndexError):
            frames_and_pixels(header[:-8])
    assert frames_and_pixels(b"") == (0, 0)
    with pytest.raises(TooManyPieces):
        frames_and_pixels(b"\x12\0" * 50_001)


def test_the_code_of_an_avif_is_asked_for_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(quarters(200, 100), "AVIF")
    lie = data.replace(struct.pack(">II", 200, 100), struct.pack(">II", 20, 10))
    assert open_image(lie).size == (20, 10)  # the decoder scales what it finds
    monkeypatch.setattr(containers, "MAX_FRAME", 200 * 100 - 1)
    for honest_or_not in (data, lie):
        assert "megapixels" in failure(honest_or_not, ImageTooLarge)


def test_frames_of_an_avif_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    see_through = quarters(64, 48).convert("RGBA")
    see_through.putalpha(90)
    monkeypatch.setattr(containers, "MAX_CODED_PIXELS", 64 * 48)
    strip(encode(quarters(64, 48), "AVIF"), "AVIF")
    with pytest.raises(TooManyPixels):
        strip(encode(see_through, "AVIF"), "AVIF")  # colour and transparency are a frame each


def avif_with_places(places: bytes) -> bytes:
    """An AVIF file of one picture in code, located by the content of an iloc box."""

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", 8 + len(content)) + kind + content

    entry = box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", 1, 0, b"av01") + b"\0")
    listing = box(b"iinf", b"\0\0\0\0\0\1" + entry)
    return box(b"ftyp", b"avif\0\0\0\0avif") + box(b"meta", bytes(4) + listing + box(b"iloc", places))


def test_pictures_of_an_avif_may_not_share_their_code() -> None:
    everything = struct.pack(">HHH", 1, 0, 4000) + struct.pack(">II", 0, 0) * 4000
    shared = bytes(4) + b"\x44\0" + struct.pack(">H", 1) + everything
    nothing = bytes(4) + b"\0\0" + struct.pack(">H", 60_000) + struct.pack(">HHH", 1, 0, 60_000) * 60_000
    for places in (shared, nothing):
        with pytest.raises(TooManyPieces):
            strip(avif_with_places(places), "AVIF")


# --- metadata


def chained_profile(steps: int) -> bytes:
    """A colour profile of version 4.3 whose conversion is a chain of steps, all of them in one place."""
    step = (
        b"matf"
        + bytes(4)
        + struct.pack(">HH", 3, 3)
        + struct.pack(">12f", 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    )
    place = struct.pack(">II", 16 + 8 * steps, len(step))
    chain = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, steps) + place * steps + step
    name = "x".encode("utf-16-be")
    title = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(name), 28) + name
    tags, table, body = {b"desc": title, b"D2B0": chain, b"D2B1": chain}, b"", b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = b"lcms" + struct.pack(">I", 0x04300000) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    head = (head + bytes.fromhex("0000f6d6000100000000d32d")).ljust(124, b"\0")
    count = struct.pack(">I", len(tags))
    return struct.pack(">I", 132 + len(table) + len(body)) + head + count + table + body


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_profiles_with_chains_of_steps_are_left_out(image_format: str) -> None:
    data = encode(quarters(), image_format, icc_profile=chained_profile(10_000))  # 32 s
    assert seen_quarters(open_image(data)) == QUARTERS


def test_huge_profiles_exif_and_text_do_not_cost_the_photo() -> None:
    huge = bytes(4 * 2**20)
    png = encode(quarters(), "PNG")
    for data in (
        encode(quarters(), "JPEG", icc_profile=huge),
        encode(quarters(), "WEBP", icc_profile=huge, lossless=True),
        encode(quarters(), "WEBP", exif=huge, lossless=True),
        encode(quarters(), "AVIF", exif=exif(1, tail=huge)),
        encode(quarters(), "TIFF", icc_profile=huge),
        with_png_chunk(png, b"tEXt", b"a\0" + huge),
        with_png_chunk(png, b"eXIf", huge),
        png[:-12] + png_chunk(b"tEXt", b"a\0" + huge) + png[-12:],
    ):
        assert seen_quarters(open_image(data)) == QUARTERS


# --- frames


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_many_frames_cost_one(image_format: str) -> None:
    frames = [Image.new("L", (8, 8), index % 256) for index in range(300)]
    data = encode(frames[-1], image_format, save_all=True, append_images=frames)
    opened = open_image(data)
    assert opened.size == (8, 8)
    with Image.open(BytesIO(strip(data, image_format).data)) as stripped:
        # A film in WebP stays whole, but only its first frame is decoded.
        assert image_format == "WEBP" or getattr(stripped, "n_frames", 1) == 1
