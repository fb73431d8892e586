"""Turn decoded pixels of any kind into 8-bit sRGB on white, and the right way up."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The kind of a profile's tag that chains any number of steps. No camera or editor is known to write it, and
# 160 kB of it, with all steps in one place, took 32 s whatever the picture's size.
_CHAIN = b"mpet"
# Modes that lose something or fail when they are resized as they are, and what they become first.
_FIRST = {"1": "L", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "HSV": "RGB", "RGBX": "RGB"}


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned and mirrored as its EXIF orientation (1 to 8) demands."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def to_rgb(image: Image.Image, longest: int, *, keep: bool = True) -> Image.Image:
    """A new RGB image in sRGB, transparency on white, neither side longer than `longest`, no metadata.

    With `keep` off nobody needs the old image: where its pixels are right already, they become the new one's.
    """
    source, profile = image, image.info.get("icc_profile")
    image = _shrink(_plain(image), longest)
    if image.mode in ("LA", "RGBA"):
        image = _on_white(image)
    rgb = _srgb(image, profile)
    if rgb.mode != "RGB":
        rgb = rgb.convert("RGB")
    elif rgb is source:
        rgb = source.copy() if keep else _taken_over(source)
    # A profile or EXIF block left here would be written into every file made from the image.
    rgb.info = {}
    return rgb


def fitting_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size with these proportions whose longer side is at most `longest`, and each side at least 1."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _taken_over(image: Image.Image) -> Image.Image:
    """The pixels without the file that they are from, not copied."""
    image.load()
    return image._new(image.im)


def _shrink(image: Image.Image, longest: int) -> Image.Image:
    size = fitting_size(*image.size, longest)
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _plain(image: Image.Image) -> Image.Image:
    """The image in one of L, LA, RGB, RGBA, CMYK, YCbCr and LAB."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey(image)
    if image.mode == "P" or "transparency" in image.info:
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.convert(_FIRST[image.mode]) if image.mode in _FIRST else image


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, "white")
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return white


def _grey(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, 32 bits or floating point as 8 bits.

    16 bits are taken to span their whole range, which is what the formats say. For the others nothing
    says what white is: the values decide between 1, 255 and 65535, or else their extremes are stretched.
    """
    if image.mode.startswith("I;16"):
        wide = np.asarray(image)
        grey = (wide >> 8).astype(np.uint8)
        if isinstance(key := image.info.get("transparency"), int):
            grey[wide == key] = 255
        return Image.fromarray(grey)
    # A copy, worked on in place: at 40 megapixels each further one would take 160 MB.
    values = np.array(image, dtype=np.float32)
    finite = np.isfinite(values)
    # Within 1e30 differences stay within float32. Where nothing is finite, low comes out above high.
    low = max(float(values.min(where=finite, initial=1e30)), -1e30)
    high = min(float(values.max(where=finite, initial=-1e30)), 1e30)
    if low >= 0 and high <= 1 and image.mode == "F":
        low, high = 0, 1
    elif low >= 0 and high <= 255:
        low, high = 0, 255
    elif low >= 0 and high <= 65535:
        low, high = 0, 65535
    np.nan_to_num(values, copy=False, nan=low)
    np.clip(values, low, high, out=values)  # infinities too
    values -= low
    values *= 255 / (high - low or 1)
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))


def _srgb(image: Image.Image, profile: object) -> Image.Image:
    """The image with its colours brought from its profile to sRGB; unchanged where that cannot be done."""
    try:
        if image.mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        elif isinstance(profile, bytes) and profile and _CHAIN not in profile:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            if "srgb" in ImageCms.getProfileDescription(source).lower():
                return image
        else:
            return image
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError):
        return image  # a profile that is damaged or of another colour space must not cost the photo
    return image if converted is None else converted
