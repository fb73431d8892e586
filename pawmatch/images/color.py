"""Turn decoded pixels of any kind into 8-bit sRGB on white, and the right way up.

Whatever a file says about its colors becomes an ICC profile, and littleCMS applies it: before transparency is
laid on white and before the picture is made smaller, both of which mix colors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]

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
MAX_SRGB_PROFILE = 8192  # bytes; sRGB by a matrix and curves takes 400 to 3,200
# Modes that lose something or fail when they are resized as they are, and what they become first.
_FIRST = {"1": "L", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "HSV": "RGB", "RGBX": "RGB"}


@dataclass(frozen=True)
class Samples:
    """What a TIFF file says of gray samples: their bits, whether they have a sign, and whether 0 is white."""

    bits: int
    signed: bool = False
    white_is_zero: bool = False


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned and mirrored as its EXIF orientation (1 to 8) demands."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def to_rgb(
    image: Image.Image,
    longest: int,
    *,
    keep: bool = True,
    profile: bytes | None = None,
    samples: Samples | None = None,
) -> Image.Image:
    """A new RGB image in sRGB, transparency on white, neither side longer than `longest`, no metadata.

    The image's own profile goes before `profile`. With `keep` off nobody needs the old image: where its
    pixels are right already, they become the new one's.
    """
    source, own = image, image.info.get("icc_profile")
    image = _plain(image, samples)
    image = _srgb(image, own or profile, in_place=not keep or image is not source)
    if (size := fitting_size(*image.size, longest)) != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    if image.mode in ("LA", "RGBA"):
        image = _on_white(image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    elif image is source:
        source.load()
        image = source.copy() if keep else source._new(source.im)  # without the file that they are from
    # A profile or EXIF block left here would be written into every file made from the image.
    image.info = {}
    return image


def fitting_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size with these proportions whose longer side is at most `longest`, and each side at least 1."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _plain(image: Image.Image, samples: Samples | None) -> Image.Image:
    """The image in one of L, LA, RGB, RGBA, CMYK, YCbCr and LAB."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16") or (samples and samples.signed):
        return _gray(image, samples)
    if image.mode in ("1", "L") and "transparency" in image.info:
        return image.convert("LA")
    if image.mode == "P" or "transparency" in image.info:
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.convert(_FIRST[image.mode]) if image.mode in _FIRST else image


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, "white")
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return white


def _gray(image: Image.Image, samples: Samples | None) -> Image.Image:
    """Gray of 12, 16 or 32 bits or of floating point as 8 bits.

    Up to 16 bits without a sign span their whole range, which is what the formats say. For the others,
    writers differ in what white is: the values decide between 1 (floating point), 255, 65535 and the most
    that the samples can hold, or else their extremes are stretched.
    """
    inverted = samples is not None and samples.white_is_zero
    if image.mode.startswith("I;16"):
        wide = np.asarray(image)
        if samples is None or samples.bits == 16:
            gray = (wide >> 8).astype(np.uint8)
        else:
            gray = (wide.astype(np.uint32) * 255 // (2**samples.bits - 1)).astype(np.uint8)
        if inverted:
            gray = 255 - gray
        if isinstance(key := image.info.get("transparency"), int):
            gray[wide == key] = 255
        return Image.fromarray(gray)
    whole = np.asarray(image)
    if image.mode == "I" and samples and not samples.signed:
        whole = whole.view(np.uint32)
    elif image.mode == "L":
        whole = whole.view(np.int8)
    # A copy, worked on in place: at 40 megapixels each further one would take 160 MB.
    values = np.array(whole, dtype=np.float32)
    del whole
    finite = np.isfinite(values)
    # Within 1e30 differences stay within float32. Where nothing is finite, low comes out above high.
    low = max(float(values.min(where=finite, initial=1e30)), -1e30)
    high = min(float(values.max(where=finite, initial=-1e30)), 1e30)
    if low >= 0:
        most = [2 ** (samples.bits - samples.signed) - 1] if samples and image.mode != "F" else []
        tops = [1] * (image.mode == "F") + ([255, 65535] if most != [32767] else [255]) + most
        low, high = next(((0, top) for top in tops if high <= top * 1.000001), (low, high))
    np.nan_to_num(values, copy=False, nan=low)
    np.clip(values, low, high, out=values)  # infinities too
    values -= low
    values *= 255 / (high - low or 1)
    gray = np.rint(values, out=values).astype(np.uint8)
    return Image.fromarray(255 - gray if inverted else gray)


# --- from what a file says about its colors to sRGB


def _srgb(image: Image.Image, profile: object, *, in_place: bool) -> Image.Image:
    """The image with its colors brought from its profile to sRGB; unchanged where that cannot be done.

    Gray with a profile for RGB is RGB, as in browsers. In a mode with transparency, this stays as it is.
    """
    try:
        if image.mode == "LAB":
            source, profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), None
        elif isinstance(profile, bytes) and profile and _CHAIN not in profile:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
        else:
            return image
        space = source.profile.xcolor_space.strip()
        alpha = image.getchannel("A") if image.mode == "LA" else None
        if space == "RGB" and image.mode in ("L", "LA", "YCbCr"):
            image, in_place = image.convert("RGBA" if alpha else "RGB"), True
        elif space == "GRAY" and alpha:
            image = image.getchannel("L")
        # A profile of another kind of picture than this one says nothing about it.
        if space != {"L": "GRAY", "RGBA": "RGB", "LAB": "Lab"}.get(image.mode, image.mode):
            return image
        if not (isinstance(profile, bytes) and len(profile) <= MAX_SRGB_PROFILE and _is_srgb(profile)):
            mode = "RGBA" if image.mode == "RGBA" else "RGB"
            change = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, mode)
            done = ImageCms.applyTransform(image, change, inPlace=in_place and image.mode == mode)
            image = image if done is None else done
        if alpha and image.mode != "RGBA":
            image.putalpha(alpha)
    except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError):
        pass  # a profile that is damaged must not cost the photo
    return image


@lru_cache(maxsize=64)
def _is_srgb(profile: bytes) -> bool:
    """Whether a profile changes nothing, so that sRGB photos keep their pixels: its name is no proof.

    One level is how far two ways of writing down sRGB are apart, after rounding.
    """
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    mode = {"GRAY": "L", "RGB": "RGB"}.get(source.profile.xcolor_space.strip())
    if mode is None:
        return False
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    probe = Image.fromarray(cube if mode == "RGB" else np.arange(256, dtype=np.uint8)[None])
    change = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    seen = np.asarray(ImageCms.applyTransform(probe, change), dtype=np.int16)
    return int(np.abs(seen - np.asarray(probe.convert("RGB"))).max()) <= 1


_D65 = (0.3127, 0.329)
# ITU-T H.273, table 2: x and y of red, green and blue, and of white.
_PRIMARIES: dict[int, Sequence[float]] = {
    1: (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, *_D65),
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.31, 0.316),
    5: (0.64, 0.33, 0.29, 0.6, 0.15, 0.06, *_D65),
    **dict.fromkeys((6, 7), (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, *_D65)),
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.31, 0.316),
    9: (0.708, 0.292, 0.17, 0.797, 0.131, 0.046, *_D65),
    10: (1, 0, 0, 1, 0, 0, 1 / 3, 1 / 3),
    11: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.314, 0.351),
    12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, *_D65),
    22: (0.63, 0.34, 0.295, 0.605, 0.155, 0.077, *_D65),
}


def _broken_power(slope: float, knee: float, offset: float, power: float) -> Curve:
    return lambda v: np.where(v < knee, v / slope, ((v + offset) / (1 + offset)) ** power)


def _shown(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light of high dynamic range in sRGB's: diffuse white (203 cd/m2, ITU-R BT.2408) at half, 1000 at white.

    The curve between them is the one that Chromium draws gray with.
    """
    return np.interp(nits, [0, 203, 317, 569, 1000], [0, 0.5, 0.665, 0.847, 1])


def _pq(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """SMPTE ST 2084."""
    root = v ** (32 / 2523)
    return _shown(10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (8192 / 1305))


def _hlg(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """ITU-R BT.2100, on a screen of 1000 cd/m2."""
    scene = np.where(v <= 0.5, v**2 / 3, (np.exp((v - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return _shown(1000 * scene**1.2)


_SRGB = _broken_power(12.92, 0.04045, 0.055, 2.4)
# ITU-T H.273, table 3: from samples to light. The logarithmic ones, for film scanners, are left out.
_TRANSFERS: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 11, 12, 14, 15), lambda v: v**2.4),  # video, as screens show it: ITU-R BT.1886
    4: lambda v: v**2.2,
    5: lambda v: v**2.8,
    7: _broken_power(4.0, 0.0913, 0.1115, 1 / 0.45),
    8: lambda v: v,
    13: _SRGB,
    16: _pq,
    17: lambda v: np.minimum(1, v**2.6 * 52.37 / 48),
    18: _hlg,
}


def cicp_profile(primaries: int, transfer: int) -> bytes | None:
    """The profile of code points of ITU-T H.273; None where one of them is unknown or left open."""
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        return None
    return matrix_profile(_PRIMARIES[primaries], _TRANSFERS[transfer])


def nclx_profile(primaries: int, transfer: int) -> bytes | None:
    """As cicp_profile, for AVIF and HEIC, where browsers take the curves of SDR video for sRGB's."""
    return cicp_profile(1 if primaries == 2 else primaries, 13 if transfer in (1, 2, 6, 14, 15) else transfer)


def gamma_profile(gamma: float, chromaticities: Sequence[float] | None) -> bytes | None:
    """The profile of a PNG's gAMA, and of its cHRM as white, red, green and blue; None where that is sRGB.

    Alone, a gamma within 5 % of 1 / 2.2 stands for sRGB, as in browsers.
    """
    if gamma <= 0 or (chromaticities is None and abs(2.2 * gamma - 1) < 0.05):
        return None
    primaries = (*chromaticities[2:], *chromaticities[:2]) if chromaticities else _PRIMARIES[1]
    return matrix_profile(primaries, lambda v: v ** (1 / gamma))


def matrix_profile(primaries: Sequence[float], curve: Curve) -> bytes | None:
    """An ICC profile (version 2.4) from x and y of red, green, blue and white, and from samples to light.

    None for primaries that span no colors. White is adapted to D50 by the Bradford method (ICC.1, annex E).
    """
    x, y = np.array(primaries[::2]), np.array(primaries[1::2])
    if min(y[3], abs(np.linalg.det(np.stack([x[:3], y[:3], np.ones(3)])))) < 1e-6:
        return None
    xyz = np.stack([x, y, 1 - x - y])
    white = xyz[:, 3] / y[3]
    colors = xyz[:, :3] * np.linalg.solve(xyz[:, :3], white)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d50 = np.array([0.9642, 1, 0.8249])
    adapted = np.linalg.solve(bradford, (bradford @ d50 / (bradford @ white))[:, None] * bradford) @ colors
    table = np.rint(65535 * np.clip(curve(np.linspace(0, 1, 4096)), 0, 1)).astype(">u2").tobytes()
    tags = {
        name: b"XYZ \0\0\0\0" + np.rint(65536 * value).astype(">i4").tobytes()
        for name, value in zip((b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"), (*adapted.T, d50), strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv\0\0\0\0" + (4096).to_bytes(4) + table)
    places = dict.fromkeys(tags.values(), 0)
    end = 132 + 12 * len(tags)
    for content in places:
        places[content], end = end, end + len(content)
    head = (
        b"\2\x40\0\0mntrRGB XYZ "
        + bytes(12)
        + b"acsp"
        + bytes(28)
        + np.rint(65536 * d50).astype(">i4").tobytes()
    )
    listed = [tag + places[body].to_bytes(4) + len(body).to_bytes(4) for tag, body in tags.items()]
    start = end.to_bytes(4) + bytes(4) + head.ljust(120, b"\0") + len(tags).to_bytes(4)
    return b"".join([start, *listed, *places])
