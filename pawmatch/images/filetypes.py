"""Tell by its first bytes what a file is: an accepted kind of image, or what else and what to do then."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import PurePath

ACCEPTED = "JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF"

# Endings of the files that a folder is searched for. HEIC is listed even where nothing reads it: a phone's
# photo that is passed over in silence would be missed.
SUFFIXES = frozenset(
    {
        *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png"),
        *(".tif", ".tiff", ".webp"),
    }
)

EXPORT = "save it as JPEG or PNG and try again"
_COPY = "copy or download it again"

_NOT_ACCEPTED = f"which is not accepted; {EXPORT}"
_STILL = "a video, not an image; take a still picture from it and try again"
_UNPACK = "not an image; unpack it and give the images in it"
# (position, first bytes, what the file is and what to do). A row may be reached only if none above fits.
_OTHER_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF-", f"a PDF document, not an image; {EXPORT}"),
    (0, b"%!PS", f"an EPS or PostScript drawing, {_NOT_ACCEPTED}"),
    (0, b"\xc5\xd0\xd3\xc6", f"an EPS drawing, {_NOT_ACCEPTED}"),
    (0, b"8BPS", f"a Photoshop document, {_NOT_ACCEPTED}"),
    (0, b"gimp xcf", f"a GIMP document, {_NOT_ACCEPTED}"),
    (0, b"#?RADIANCE", f"a Radiance HDR image, {_NOT_ACCEPTED}"),
    (0, b"#?RGBE", f"a Radiance HDR image, {_NOT_ACCEPTED}"),
    (0, b"v/1\x01", f"an OpenEXR image, {_NOT_ACCEPTED}"),
    (0, b"\xff\x0a", f"a JPEG XL image, {_NOT_ACCEPTED}"),
    (4, b"JXL \r\n\x87\n", f"a JPEG XL image, {_NOT_ACCEPTED}"),
    (4, b"jP  \r\n\x87\n", f"a JPEG 2000 image, {_NOT_ACCEPTED}"),
    (0, b"\xff\x4f\xff\x51", f"a JPEG 2000 image, {_NOT_ACCEPTED}"),
    (0, b"II+\0", f"a BigTIFF image, {_NOT_ACCEPTED}"),
    (0, b"MM\0+", f"a BigTIFF image, {_NOT_ACCEPTED}"),
    (0, b"DDS ", f"a DDS texture, {_NOT_ACCEPTED}"),
    (0, b"qoif", f"a QOI image, {_NOT_ACCEPTED}"),
    (0, b"icns", f"an icon, {_NOT_ACCEPTED}"),
    (0, b"SIMPLE  =", f"a FITS image, {_NOT_ACCEPTED}"),
    (0, b"FUJIFILM", f"a raw camera photo, {_NOT_ACCEPTED}"),
    (0, b"\x00\x05\x16\x07", "a file that macOS keeps beside an image; give the image itself"),
    (0, b"PK\x03\x04", f"a ZIP archive or office document, {_UNPACK}"),
    (0, b"Rar!", f"an archive, {_UNPACK}"),
    (0, b"7z\xbc\xaf", f"an archive, {_UNPACK}"),
    (0, b"\x1f\x8b", f"a compressed file, {_UNPACK}"),
    (0, b"\x1a\x45\xdf\xa3", _STILL),
    (0, b"OggS", "a video or sound, not an image; take a still picture from it and try again"),
    (8, b"AVI ", _STILL),
    (8, b"WAVE", "a sound, not an image; give a picture"),
    (0, b"ID3", "a sound, not an image; give a picture"),
    (4, b"moov", _STILL),
    (4, b"mdat", _STILL),
)
_HEIC = (
    "a HEIC photo, the kind that iPhones store, which is not accepted without the extra pawmatch[heif]; "
    "export it as JPEG and try again"
)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
# Raw photos are TIFF files outwardly; what a TIFF reader finds in them is at best a small preview.
_RAW_ENDINGS = {".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".rw2", ".srw"}


def accepted_format(data: bytes) -> str | None:
    """The name that Pillow gives to the accepted format that `data` starts like, or None."""
    if data.startswith(b"\xff\xd8"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM"):
        return "BMP"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if (brands := _brands(data)) & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & _HEIC_BRANDS else None


def refusal(data: bytes, name: str = "") -> str | None:
    """Why a file is no image that is accepted, in a sentence; None where it starts like one.

    `name` is asked only where the bytes leave it open, and never appears in the sentence.
    """
    if not data:
        return f"The file is empty; {_COPY}."
    ending = PurePath(name).suffix.lower()
    found = accepted_format(data)
    if found == "TIFF" and (ending in _RAW_ENDINGS or data[8:10] == b"CR"):
        return f"This is a raw camera photo, {_NOT_ACCEPTED}."
    if found == "HEIF" and not find_spec("pillow_heif"):
        return f"This is {_HEIC}."
    if found:
        return None
    return f"{_describe(data, ending)}."


def _describe(data: bytes, ending: str) -> str:
    for position, magic, what in _OTHER_KINDS:
        if data.startswith(magic, position):
            return f"This is {what}"
    if brands := _brands(data):
        if b"crx " in brands:
            return f"This is a raw camera photo, {_NOT_ACCEPTED}"
        return f"This is {_STILL}"
    # A Targa image can start like a cursor, except that a cursor file holds at least one cursor.
    if data.startswith((b"\0\0\1\0", b"\0\0\2\0")) and data[4:6] != b"\0\0":
        return f"This is an icon or a mouse pointer, {_NOT_ACCEPTED}"
    if ending in {".tga", ".icb", ".vda"} or data[-18:].startswith(b"TRUEVISION-XFILE"):
        return f"This is a Targa image, {_NOT_ACCEPTED}"
    if data[:1] == b"P" and data[1:2] in b"1234567" and data[2:3].isspace():
        return f"This is a Netpbm image, {_NOT_ACCEPTED}"
    if text := _text(data[:4096]):
        return _describe_text(text)
    if data.count(0) == len(data):
        return f"The file holds nothing but zeros, as after a copy that failed; {_COPY}"
    return f"This is not an image of a known kind; {ACCEPTED} are accepted"


def _describe_text(text: str) -> str:
    text = text.lstrip().lower()
    if "<svg" in text:
        return "This is an SVG drawing, which has no pixels to look at; export it as PNG and try again"
    if text.startswith(("<!doctype html", "<html", "<head", "<body")) or "<html" in text:
        return "This is a web page, not an image; save the picture itself and try again"
    if text.startswith("version https://git-lfs"):
        return "This is a Git LFS pointer that stands for the image; run 'git lfs pull' and try again"
    return "This is a text file, not an image; give a picture"


def _brands(data: bytes) -> set[bytes]:
    """The kinds that an ISO media file (HEIC, AVIF, MP4) says that it belongs to."""
    if data[4:8] != b"ftyp":
        return set()
    size = min(int.from_bytes(data[:4]), 512, len(data))
    others = {data[start : start + 4] for start in range(16, size - 3, 4)}
    return {data[8:12]} | others


def _text(data: bytes) -> str:
    """The bytes as text, or nothing where they do not look like any."""
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    for cut in range(4):  # the end may lie within a character
        try:
            text = data[: len(data) - cut].decode(encoding)
        except UnicodeDecodeError:
            continue
        return text if all(char.isprintable() or char in "\t\n\r\f" for char in text) else ""
    return ""
