"""What is no accepted image is called by its name, with what to do about it."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from pawmatch.errors import UnsupportedFormat
from pawmatch.images import filetypes
from pawmatch.images.filetypes import accepted_format, refusal
from tests.support.pictures import FORMATS, encode, failure, quarters

PADDING = bytes(range(256))


def media(brand: bytes, *others: bytes) -> bytes:
    """The start of an ISO media file with these brands."""
    body = brand + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + PADDING


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"%PDF-1.7" + PADDING, "PDF"),
        (b"%!PS-Adobe-3.0 EPSF", "EPS"),
        (b"\xc5\xd0\xd3\xc6" + PADDING, "EPS"),
        (b"8BPS\0\1" + PADDING, "Photoshop"),
        (b"\0\0\1\0\1\0\x10\x10" + PADDING, "icon"),
        (b"#?RADIANCE\n" + PADDING, "Radiance"),
        (b"v/1\x01" + PADDING, "OpenEXR"),
        (b"PK\x03\x04" + PADDING, "ZIP"),
        (b"\x1f\x8b" + PADDING, "compressed"),
        (b"Rar!\x1a\x07" + PADDING, "archive"),
        (b"\x1a\x45\xdf\xa3" + PADDING, "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"RIFF\0\0\0\0WAVEfmt ", "sound"),
        (b"OggS" + PADDING, "video or sound"),
        (b"\xff\x0a" + PADDING, "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + PADDING, "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + PADDING, "JPEG 2000"),
        (b"II+\0\x08\0\0\0" + PADDING, "BigTIFF"),
        (b"II*\0\x10\0\0\0CR\2\0" + PADDING, "raw camera"),
        (b"FUJIFILMCCD-RAW" + PADDING, "raw camera"),
        (b"\x00\x05\x16\x07" + PADDING, "macOS"),
        (b"P6\n1 1\n255\n\0\0\0", "Netpbm"),
        (media(b"isom", b"isom", b"mp42"), "video"),
        (media(b"qt  "), "video"),
        (media(b"crx ", b"crx ", b"isom"), "raw camera"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<svg>", "SVG"),
        ("<svg/>".encode("utf-16"), "SVG"),
        (b"  <!DOCTYPE html><html><body>404", "web page"),
        (b"<?xml version='1.0'?><html xmlns='x'>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b'{"error": "not found"}', "text file"),
        (b"a" + "ß".encode() * 3000, "text file"),
        (bytes(1000), "zeros"),
        (PADDING, "known kind"),
        (b"\x93NUMPY" + PADDING, "known kind"),
    ],
)
def test_other_files_are_named(data: bytes, expected: str) -> None:
    assert expected in failure(data, UnsupportedFormat)


@pytest.mark.parametrize("image_format", FORMATS)
def test_accepted_formats_are_recognised(image_format: str) -> None:
    data = encode(quarters(), image_format, **FORMATS[image_format])
    assert accepted_format(data) == image_format
    assert refusal(data, "whatever.tga") is None


@pytest.mark.parametrize("brands", [(b"avif", b"mif1"), (b"mif1", b"avif"), (b"avis", b"msf1")])
def test_avif_is_told_from_heic_by_any_of_its_brands(brands: tuple[bytes, ...]) -> None:
    assert accepted_format(media(*brands)) == "AVIF"


@pytest.mark.parametrize("brands", [(b"heic", b"mif1", b"heic"), (b"mif1", b"mif1", b"heix")])
def test_without_its_library_a_heic_photo_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, brands: tuple[bytes, ...]
) -> None:
    assert accepted_format(media(*brands)) == "HEIF"
    monkeypatch.setattr(filetypes, "find_spec", lambda name: None)
    text = failure(media(*brands), UnsupportedFormat)
    assert "pawmatch[heif]" in text
    assert "export it as JPEG" in text


def test_targa_images_are_known_by_name_or_by_their_end(tmp_path: Path) -> None:
    file = BytesIO()
    quarters().save(file, "TGA")
    data = file.getvalue()
    path = tmp_path / "picture.TGA"
    path.write_bytes(data[:500])
    assert "Targa" in failure(path, UnsupportedFormat)
    assert "Targa" in failure(data, UnsupportedFormat)
    # It starts like a mouse pointer file that holds no pointers.
    assert data.startswith(b"\0\0\2\0\0\0")
    assert "icon" not in failure(data[:500], UnsupportedFormat)


def test_raw_photos_that_are_tiff_files_outwardly(tmp_path: Path) -> None:
    path = tmp_path / "photo.NEF"
    path.write_bytes(encode(quarters(), "TIFF"))
    assert "raw camera" in failure(path, UnsupportedFormat)
    path.write_bytes(encode(quarters(), "JPEG"))  # only misnamed
    assert refusal(path.read_bytes(), str(path)) is None


@pytest.mark.parametrize("image_format", ["ICO", "TGA", "PPM", "PCX", "SGI", "EPS", "PDF", "DDS", "ICNS"])
def test_what_pillow_could_open_but_is_not_accepted(image_format: str) -> None:
    image: Image.Image = quarters(64, 64)
    assert refusal(encode(image, image_format)) is not None
