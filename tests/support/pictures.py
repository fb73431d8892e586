"""Pictures whose content can be recognised after coding, turning and shrinking, and the files they make."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image

from pawmatch.errors import ImageError
from pawmatch.images import open_image

RED, GREEN, BLUE, YELLOW = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)
BLACK, WHITE = (0, 0, 0), (1, 1, 1)
QUARTERS = (RED, GREEN, BLUE, YELLOW)

LOSSLESS: dict[str, dict[str, object]] = {
    "PNG": {},
    "BMP": {},
    "TIFF": {},
    "GIF": {},
    "WEBP": {"lossless": True},
}
LOSSY: dict[str, dict[str, object]] = {"JPEG": {"subsampling": 0}, "AVIF": {}}
FORMATS = LOSSLESS | LOSSY


def quarters(width: int = 48, height: int = 32) -> Image.Image:
    """Red and green above blue and yellow."""
    image = Image.new("RGB", (2, 2))
    image.putdata([tuple(255 * part for part in colour) for colour in QUARTERS])
    return image.resize((width, height), Image.Resampling.NEAREST)


def seen_quarters(image: Image.Image) -> tuple[tuple[int, ...], ...]:
    """The colours of the four quarters, each channel as 0 or 1; equals QUARTERS for an upright picture."""
    places = ((x, y) for y in (1, 3) for x in (1, 3))
    return tuple(seen(image, (x * image.width // 4, y * image.height // 4)) for x, y in places)


def seen(image: Image.Image, place: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    """The colour at a place, each channel as 0 or 1."""
    pixel = image.getpixel(place)
    assert isinstance(pixel, tuple)
    return tuple(round(part / 255) for part in pixel)


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    """The bytes of the image's file."""
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def png(size: tuple[int, int], depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG file from its header's values and uncompressed rows, with extra chunks before the picture."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, body) for kind, body in chunks)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_png_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    """The PNG file with one more chunk after its header."""
    return data[:33] + png_chunk(kind, body) + data[33:]


def exif(orientation: int, *more: tuple[int, int, int, int], tail: bytes = b"") -> bytes:
    """An EXIF block with an orientation and further entries (tag, type, count, value)."""
    entries = [(0x0112, 3, 1, orientation), *more]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + packed + b"\0\0\0\0" + tail


def tiff(*entries: tuple[int, int, int, int], tail: bytes = b"", following: int = 0) -> bytes:
    """A TIFF file from its entries (tag, type, count, value) and what comes after them."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", following) + tail


def sentence_faults(text: str) -> list[str]:
    """What keeps a text from being one sentence for people, with a remedy and nothing of this computer."""
    wanted = {
        "no capital": text[:1].isupper(),
        "no full stop": text.endswith("."),
        "several sentences": ". " not in text,
        "too long": len(text) < 200,
        "unprintable": text.isprintable(),
        "a path or markup": not any(sign in text for sign in "/\\<>{}"),
        "no remedy": "; " in text or text.startswith("An image is given as"),
        "a name of code": not any(name in text for name in ("Error", "Exception", "Traceback", "0x")),
    }
    return [fault for fault, fine in wanted.items() if not fine]


def assert_sentence(error: ImageError) -> str:
    """One sentence that says what to do, on one line, with nothing of this computer in it; returned."""
    text = str(error)
    assert sentence_faults(text) == []
    return text


def failure(source: object, expected: type[ImageError]) -> str:
    """The sentence with which a source is refused."""
    with pytest.raises(expected) as caught:
        open_image(source)  # type: ignore[arg-type]
    assert type(caught.value) is expected
    return assert_sentence(caught.value)
