"""Open an image safely, for the page, the command line and Python alike: RGB, upright, bounded.

A file goes through these gates in order: its size in bytes, its first bytes (filetypes.py), the cut that
leaves only the picture (containers.py), the pixel count that its header announces, decoding, and the
change to 8-bit sRGB (color.py). Each gate has its own sentence for what it turns away. Sentences name
neither the file nor its folder, so that they can be shown to anyone; who knows the file can put its name
in front.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pawmatch.errors import (
    BrokenImage,
    ImageError,
    ImageNotFound,
    ImageTooLarge,
    ImageUnreadable,
    UnsupportedFormat,
)
from pawmatch.images import containers
from pawmatch.images.color import fitting_size, nclx_profile, to_rgb, upright
from pawmatch.images.containers import Picture, RareKind, TooManyPieces, TooManyPixels, exif_orientation
from pawmatch.images.filetypes import EXPORT, accepted_format, refusal

MAX_MB = 20
MAX_PIXELS = 40_000_000
MAX_PHOTO_PIXELS = (
    65_000_000  # of what phones store, JPEG and HEIC: a JPEG is decoded at a fraction of its size
)
LONGEST_SIDE = 2048  # of the result

ROTATED = "Image was rotated according to its EXIF tag"
ANIMATED = "The file is animated: only its first frame was used"
PAGED = "The file has several pages: only its first was used"
INCOMPLETE = "Part of the picture is missing from the file: copy or download it again"

_STRIP: dict[str, Callable[[bytes], Picture]] = {
    "JPEG": containers.strip_jpeg,
    "PNG": containers.strip_png,
    "GIF": containers.strip_gif,
    "TIFF": containers.strip_tiff,
    "AVIF": containers.strip_avif,
    "BMP": containers.check_bmp,
}
_COMMON = {"JPEG", "PNG", "GIF", "WEBP"}  # their rare kinds are told apart before they are decoded


@dataclass(frozen=True)
class ImageFile:
    """The content of an image file, not decoded yet; `format` is Pillow's name of its kind."""

    data: bytes
    format: str


_Bytes = bytes | bytearray | memoryview
ImageSource = str | os.PathLike[str] | _Bytes | IO[bytes] | ImageFile | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class LoadedImage:
    """An RGB image, the right way up, and what should be known about how it came to be.

    `format` is Pillow's name of the file's format, or None for an image that came from no file. `width`
    and `height` are those of the whole upright picture; `image` is smaller where it was reduced.
    """

    image: Image.Image
    warnings: tuple[str, ...]
    format: str | None
    width: int
    height: int


def is_address(source: object) -> TypeGuard[str]:
    """Whether a source is a web address, which is no name of a file; fetch.py gives what is there."""
    return isinstance(source, str) and re.match("https?://", source, re.IGNORECASE) is not None


def open_image(source: ImageSource) -> Image.Image:
    """The image in `source`: RGB, upright, neither side longer than 2048 pixels.

    A source is a path, bytes, an open binary file, a Pillow image or a uint8 array (H, W, 3) of RGB. Raises a
    leaf of ImageError. The source is not changed, and the result shares nothing with it.
    """
    return read_image(source).image


def read_image(source: ImageSource, *, min_side: int | None = None) -> LoadedImage:
    """As open_image, with what is known about the image.

    `min_side` is the length of the shorter side that the caller needs: large JPEG photos may then be
    decoded at a half, a quarter or an eighth of their size, several times faster.
    """
    return _decode(hold_file(source), min_side)


def hold_file(source: ImageSource) -> ImageFile | Image.Image:
    """What `source` gives, read but not decoded, for who decodes it twice; a Pillow image stays as it is.

    Raises a leaf of ImageError where there is nothing to read, or it is no image of an accepted kind.
    """
    if isinstance(source, (ImageFile, Image.Image)):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise UnsupportedFormat(
                "An image is given as a uint8 array of shape (height, width, 3) in RGB, not as one of "
                f"{source.dtype.name} and shape {source.shape}."
            )
        return Image.fromarray(source)
    data, name = _read(source)
    if reason := refusal(data, name):
        raise UnsupportedFormat(reason)
    return ImageFile(data, accepted_format(data) or "")


# --- from the source to bytes


def _read(source: Any) -> tuple[bytes, str]:
    """The content of a source and the name that it goes by, if any."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, name = bytes(source), ""
    elif source is None or (isinstance(source, str) and not source):
        raise ImageNotFound("No image was given; choose one and try again.")
    elif isinstance(source, (str, os.PathLike)):
        data, name = _read_path(source), os.fspath(source)
    elif hasattr(source, "read"):
        data, name = _read_stream(source), getattr(source, "name", "")
    else:
        kind = type(source).__name__
        raise UnsupportedFormat(
            "An image is given as a path, bytes, an open file, a Pillow image or a uint8 array of shape "
            f"(height, width, 3), not as {kind}."
        )
    _check_bytes(len(data))
    return data, name if isinstance(name, str) else ""


def _read_path(source: str | os.PathLike[str]) -> bytes:
    if is_address(source):
        raise ImageNotFound("This is a web address, not a file; download the picture and give that file.")
    path = Path(source)
    try:
        # Asked before opening: to open a pipe waits for a writer, and to open a device may move it.
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ImageUnreadable("This is a folder, not an image file; give the files in it.")
        if not stat.S_ISREG(found.st_mode):
            raise ImageUnreadable("This is a device, pipe or socket, not an image file; give a file.")
        _check_bytes(found.st_size)
        with path.open("rb") as file:
            return _read_stream(file)
    except (FileNotFoundError, NotADirectoryError, ValueError) as exc:  # ValueError: no possible path
        raise ImageNotFound("There is no such file; check its name and folder.") from exc
    except PermissionError as exc:
        raise ImageUnreadable("The file may not be read; ask for permission or copy it.") from exc
    except OSError as exc:
        raise ImageUnreadable(f"The file cannot be read ({exc.strerror}); check its name and disk.") from exc


def _read_stream(stream: IO[bytes]) -> bytes:
    parts: list[bytes] = []
    missing = MAX_MB * 2**20 + 1  # one more than allowed, so that too much is noticed without reading it all
    try:
        if hasattr(stream, "seekable") and stream.seekable():
            stream.seek(0)
        while missing > 0 and (part := stream.read(missing)):
            parts.append(bytes(part))
            missing -= len(part)
    except TypeError as exc:
        raise ImageUnreadable("The file is open as text; open it in binary mode.") from exc
    # The stream is the caller's and may be anything: an upload, a member of an archive, a connection.
    except Exception as exc:
        raise ImageUnreadable("The file cannot be read to its end; copy it and try again.") from exc
    return b"".join(parts)


def _check_bytes(size: int) -> None:
    if size > MAX_MB * 2**20:
        raise ImageTooLarge(
            f"The file is larger than the {MAX_MB} MB accepted; save it smaller and try again."
        )


# --- from bytes to pixels


def strip(data: bytes, image_format: str) -> Picture:
    """The picture in `data`, of the format that Pillow calls so.

    Raises TooManyPieces for a file that would cost too much; struct.error and IndexError mean damage.
    """
    return _STRIP.get(image_format, Picture)(data)


def _decode(source: ImageFile | Image.Image, min_side: int | None) -> LoadedImage:
    image_format = source.format
    kind = f"{image_format} image" if image_format else "image"
    try:
        if isinstance(source, Image.Image):
            _check_pixels(source.size, MAX_PIXELS)
            picture = Picture(b"", _orientation_of(source))
            return _finish(source, picture, source.size, image_format, keep=True)
        return _decode_heif(source) if image_format == "HEIF" else _decode_file(source, min_side)
    except ImageError:
        raise
    except RareKind as exc:
        raise UnsupportedFormat(f"This {kind} has {exc}, which is not accepted; {EXPORT}.") from exc
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, TooManyPixels) as exc:
        most = f"{MAX_PIXELS / 1e6:g} megapixels"
        raise ImageTooLarge(f"The image claims more than {most}; make it smaller and try again.") from exc
    except TooManyPieces as exc:
        raise BrokenImage(f"This {kind} is put together in a way that is not accepted; {EXPORT}.") from exc
    except MemoryError as exc:
        raise ImageTooLarge(f"There is not enough memory to open this {kind}; make it smaller.") from exc
    # Decoders meet arbitrary bytes here, and Pillow lets through whatever they stumble over: OSError,
    # SyntaxError, ValueError, struct.error, IndexError, KeyError, TypeError, EOFError, zlib.error,
    # OverflowError and more. All of them mean the same to the owner of the file.
    except Exception as exc:
        if image_format in _COMMON:
            raise BrokenImage(f"This {kind} is damaged or cut short; copy or download it again.") from exc
        raise BrokenImage(f"This {kind} is damaged or of a rare kind; {EXPORT}.") from exc


def _decode_file(file: ImageFile, min_side: int | None) -> LoadedImage:
    picture = strip(file.data, file.format)
    with Image.open(BytesIO(picture.data), formats=(file.format,)) as image:
        size = image.size
        _check_pixels(size, MAX_PHOTO_PIXELS if file.format == "JPEG" else MAX_PIXELS)
        least = _least_size(size, min_side)
        image.draft(None, least)
        if file.format == "JPEG" and not picture.gap:
            picture = replace(picture, gap=_has_gap(image, picture.data, least))
        if file.format == "PNG" and not any(image.crop((0, size[1] - 1, *size)).tobytes()):
            # Rows that do not come are zeros, and zlib, whose code ended, finds nothing wrong.
            picture = replace(picture, gap=containers.png_lacks_rows(picture.data))
        if picture.orientation == 1:  # WebP and AVIF keep it where Pillow finds it
            picture = replace(picture, orientation=exif_orientation(image.info.get("exif", b"")))
        if getattr(image, "is_animated", False):
            picture = replace(picture, animated=True)
        return _finish(_with_key(image, picture), picture, size, file.format, keep=False)


def _decode_heif(file: ImageFile) -> LoadedImage:
    """A HEIC photo, by an optional library that bounds what it decodes, and turns the picture upright."""
    import pillow_heif

    found = pillow_heif.open_heif(BytesIO(file.data), convert_hdr_to_8bit=True)
    _check_pixels(found.size, MAX_PHOTO_PIXELS)
    image: Image.Image = found.to_pillow()
    colors = image.info.get("nclx_profile") or {}
    profile = nclx_profile(colors.get("color_primaries", 1), colors.get("transfer_characteristics", 13))
    return _finish(image, Picture(b"", profile=profile), image.size, file.format, keep=False)


def _finish(
    image: Image.Image, picture: Picture, size: tuple[int, int], kind: str | None, *, keep: bool
) -> LoadedImage:
    if kind == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        image = image.convert("RGB")  # no transparency is meant, as in browsers
    rgb = to_rgb(image, LONGEST_SIDE, keep=keep, profile=picture.profile, samples=picture.samples)
    if picture.frame and picture.frame != (0, 0, *size):
        scale = rgb.width / size[0]
        left, top, right, bottom = (round(scale * edge) for edge in picture.frame)
        whole = Image.new("RGB", rgb.size, "white")  # what no frame paints is transparent
        whole.paste(rgb.crop((left, top, right, bottom)), (left, top))
        rgb = whole
    rgb = upright(rgb, picture.orientation)
    width, height = reversed(size) if picture.orientation > 4 else size  # above 4 are the quarter turns
    notes = [ROTATED] * (picture.orientation > 1) + [ANIMATED] * picture.animated
    notes += [PAGED] * picture.paged + [INCOMPLETE] * picture.gap
    return LoadedImage(rgb, tuple(notes), kind, width, height)


def _has_gap(image: Image.Image, data: bytes, least: tuple[int, int]) -> bool:
    """Whether part of the code of a JPEG is missing or lost, of which libjpeg says no word.

    Where code ends before the picture does, the rest is gray: if the last pixel is, more code before the end
    mark must change nothing. Where a part of a file got lost, there are zeros: if there are many, less code
    must change something.
    """
    code, mark = data[:-2], data[-2:]
    gray = image.getpixel((image.width - 1, image.height - 1)) in (128, (128, 128, 128))
    if mark != b"\xff\xd9" or not (gray or data.find(bytes(256), data.find(b"\xff\xda")) > 0):
        return False
    changed = code + bytes(range(255)) if gray else code[:-64]
    with Image.open(BytesIO(changed + mark), formats=("JPEG",)) as other:
        other.draft(None, least)
        return (other.tobytes() == image.tobytes()) is not gray


def _with_key(image: Image.Image, picture: Picture) -> Image.Image:
    """The image with the places transparent that have the transparent color of a PNG of 16 bits a channel.

    Pillow keeps the upper half of each sample; read as if the bytes were swapped, it is the lower one.
    """
    if picture.key is None:
        return image
    with Image.open(BytesIO(picture.data), formats=("PNG",)) as other:
        other.tile = [tile._replace(args="RGB;16L") for tile in other.tile]
        key = np.array(picture.key)
        same = (np.asarray(image) == key >> 8) & (np.asarray(other) == key & 255)
    image.putalpha(Image.fromarray(np.where(same.all(axis=-1), 0, 255).astype(np.uint8)))
    return image


def _orientation_of(image: Image.Image) -> int:
    """The orientation that a Pillow image still carries; those turned upright before carry none."""
    image.load()
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # as in _decode; a damaged EXIF block must not cost the photo
        return 1
    return orientation if orientation in range(1, 9) else 1


def _least_size(size: tuple[int, int], min_side: int | None) -> tuple[int, int]:
    """The smallest size that a JPEG may be decoded at.

    Three quarters of the bound will do: a photo of 4032 x 3024 then comes at exactly half its size, for a
    third of the time that decoding it whole and shrinking it to 2048 takes.
    """
    width, height = fitting_size(*size, LONGEST_SIDE * 3 // 4)
    scale = min(1.0, min_side / min(width, height)) if min_side else 1.0
    return max(1, round(width * scale)), max(1, round(height * scale))


def _check_pixels(size: tuple[int, int], most: int) -> None:
    width, height = size
    if min(size) < 1:
        raise BrokenImage("The image has no pixels; give another one.")
    if width * height > most:
        raise ImageTooLarge(
            f"The image has {width * height / 1e6:.0f} megapixels, and at most "
            f"{most / 1e6:g} are accepted; make it smaller and try again."
        )
