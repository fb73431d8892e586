"""Files that are small and would keep a decoder busy, and metadata that must not reach it."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO

import pytest
from PIL import Image

from pawmatch.errors import BrokenImage
from pawmatch.images import ROTATED, open_image, read_image
from pawmatch.images.containers import MAX_PIECES, MAX_SCANS, TooManyPieces, exif_orientation
from pawmatch.images.reading import strip
from tests.support.pictures import (
    QUARTERS,
    encode,
    exif,
    failure,
    png_chunk,
    quarters,
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


def test_run_length_code_of_a_bmp_is_bounded() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 100, 100, 1, 8, 1, 0, 0, 0, 256, 0)
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + header + bytes(1024) + b"\1\7" * 2**20
    with pytest.raises(TooManyPieces):
        strip(data, "BMP")
    rows = (b"\x64\xff" + b"\0\0") * 100 + b"\0\1"
    assert open_image(data[:54] + b"\0\0\xff\0" * 256 + rows).getpixel((50, 50)) == (255, 0, 0)


def test_orientation_is_read_in_both_byte_orders_and_in_every_integer_type() -> None:
    for value in range(1, 9):
        assert exif_orientation(exif(value)) == value
        assert exif_orientation(b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0%c\0\0" % value) == value
        assert exif_orientation(b"II*\0\x08\0\0\0\1\0\x12\x01\4\0\1\0\0\0%c\0\0\0" % value) == value
        assert exif_orientation(b"II*\0\x08\0\0\0\1\0\x12\x01\1\0\1\0\0\0%c\0\0\0" % value) == value
    assert exif_orientation(b"") == 1
