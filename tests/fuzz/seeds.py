"""Small files of every accepted kind, to start mutations from."""

from __future__ import annotations

from PIL import Image, ImageCms

from tests.support.pictures import encode, exif, png, quarters


def film(image_format: str, **options: object) -> bytes:
    """Three frames or pages in one file."""
    # New ones each time: saving as JPEG leaves settings on an image that other formats trip over.
    first, *others = (Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue"))
    return encode(first, image_format, save_all=True, append_images=others, **options)


def seeds() -> dict[str, bytes]:
    """Name -> content of a file that opens; together they reach every branch of the loader."""
    picture = quarters(64, 48)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    see_through = picture.convert("RGBA")
    see_through.putalpha(90)
    palette = picture.quantize(8)
    files = {
        "plain.jpg": encode(picture, "JPEG", exif=exif(6), icc_profile=profile),
        "passes.jpg": encode(picture, "JPEG", progressive=True, subsampling=2),
        "restarts.jpg": encode(picture, "JPEG", restart_marker_blocks=2),
        "four.jpg": encode(picture.convert("CMYK"), "JPEG"),
        "grey.jpg": encode(picture.convert("L"), "JPEG"),
        "two.mpo": film("MPO"),
        "plain.png": encode(picture, "PNG", exif=exif(3), icc_profile=profile),
        "alpha.png": encode(see_through, "PNG"),
        "palette.png": encode(palette, "PNG", transparency=bytes([0, 90, 200])),
        "bit.png": encode(picture.convert("1"), "PNG"),
        "grey16.png": png((40, 8), 16, 0, (b"\0" + bytes(range(80))) * 8),
        "rgb16.png": png((8, 8), 16, 2, (b"\4" + bytes(48)) * 8),
        "film.png": film("PNG"),
        "plain.gif": encode(picture, "GIF"),
        "film.gif": film("GIF", transparency=0),
        "lossy.webp": encode(picture, "WEBP", exif=exif(8), icc_profile=profile),
        "exact.webp": encode(see_through, "WEBP", lossless=True),
        "film.webp": film("WEBP"),
        "plain.bmp": encode(picture, "BMP"),
        "palette.bmp": encode(palette, "BMP"),
        "plain.tif": encode(picture, "TIFF", exif=exif(5)),
        "float.tif": encode(picture.convert("F"), "TIFF", compression="tiff_adobe_deflate"),
        "wide.tif": encode(picture.convert("I;16"), "TIFF", compression="packbits"),
        "bit.tif": encode(picture.convert("1"), "TIFF", compression="group4"),
        "jpeg.tif": encode(picture, "TIFF", compression="jpeg"),
        "pages.tif": film("TIFF"),
        "four.tif": encode(picture.convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "lab.tif": encode(Image.new("LAB", (9, 9)), "TIFF"),
        "plain.avif": encode(picture, "AVIF", exif=exif(6), icc_profile=profile),
        "alpha.avif": encode(see_through, "AVIF", quality=20),
        "film.avif": film("AVIF"),
    }
    # Pillow writes no run-length code: runs, single pixels, and a jump over a row.
    start = encode(palette.crop((0, 0, 8, 4)), "BMP")
    at = int.from_bytes(start[10:14], "little")
    code = b"\x08\1\0\0" + b"\0\4\1\2\3\4" + b"\4\2\0\0" + b"\0\2\3\1" + b"\5\1" + b"\0\1"
    files["runs.bmp"] = start[:30] + b"\1\0\0\0" + start[34:at] + code
    return files
