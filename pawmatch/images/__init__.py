"""Images: bytes -> upright RGB -> what a model sees."""

from pawmatch.images.reading import (
    ANIMATED,
    INCOMPLETE,
    PAGED,
    ROTATED,
    ImageFile,
    ImageSource,
    LoadedImage,
    hold_file,
    is_address,
    open_image,
    read_image,
)
from pawmatch.images.spec import Box, InputSpec, Prepared, prepare

__all__ = [
    "ANIMATED",
    "INCOMPLETE",
    "PAGED",
    "ROTATED",
    "Box",
    "ImageFile",
    "ImageSource",
    "InputSpec",
    "LoadedImage",
    "Prepared",
    "hold_file",
    "is_address",
    "open_image",
    "prepare",
    "read_image",
]
