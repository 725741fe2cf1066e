"""Make thumbnails for HTML pages."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from colorize_cli.image import reader
from colorize_cli.image.frame import alpha_as, from_image
from colorize_cli.image.icc import to_srgb
from colorize_cli.image.metadata import upright

Render = Callable[[Image.Image, int], Image.Image]

# Modes that can be resized before any conversion, which saves most of the work.
_RESIZABLE = frozenset({"CMYK", "L", "LA", "RGB", "RGBA"})


def gray_thumbnail(path: Path, max_pixels: int, side: int) -> Image.Image:
    """Return the lightness of a picture file as an image of mode L, on white where transparent.

    Args:
        path: The file.
        max_pixels: Limit on the pixels of the picture.
        side: Longest side of the result, in pixels.

    Raises:
        ReadError: The file cannot be read.
    """
    return _thumbnail(path, max_pixels, side, _gray)


def color_thumbnail(path: Path, max_pixels: int, side: int) -> Image.Image:
    """Like `gray_thumbnail`, but in sRGB as a viewer shows the picture, of mode L or RGB."""
    return _thumbnail(path, max_pixels, side, _color)


def reduced(image: Image.Image, side: int) -> Image.Image:
    """Shrink an image of mode L, LA, RGB or RGBA in place, and put it on white where transparent.

    Args:
        image: The image.
        side: Longest side of the result, in pixels. Smaller images are not enlarged.
    """
    image.thumbnail((side, side))
    if image.mode not in ("LA", "RGBA"):
        return image
    opaque = Image.new(image.mode.removesuffix("A"), image.size, "white")
    opaque.paste(image.convert(opaque.mode), mask=image.getchannel("A"))
    return opaque


def _thumbnail(path: Path, max_pixels: int, side: int, render: Render) -> Image.Image:
    with reader.opened(path, max_pixels) as image:
        return reduced(render(image, side), side)


def _gray(image: Image.Image, side: int) -> Image.Image:
    """Return the lightness as a run reads it, of mode L or LA; shrunk where the mode allows it."""
    if image.mode in _RESIZABLE:
        _shrink(image, side)
    frame = from_image(image)
    gray = Image.fromarray(frame.lightness.levels())
    if frame.alpha is not None:
        gray.putalpha(Image.fromarray(alpha_as(np.uint8, frame.alpha)))
    return gray


def _color(image: Image.Image, side: int) -> Image.Image:
    """Return the picture in sRGB as a viewer shows it, shrunk where the mode allows it."""
    if image.mode == "P":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode not in ("CMYK", "RGB", "RGBA"):
        return _gray(image, side)
    icc = image.info.get("icc_profile")
    _shrink(image, side)
    turned, _ = upright(image)
    opaque = turned.convert("RGB") if turned.mode == "RGBA" else turned
    rgb = to_srgb(icc, opaque.mode)(opaque)
    if turned.mode == "RGBA":
        rgb.putalpha(turned.getchannel("A"))
    return rgb


def _shrink(image: Image.Image, side: int) -> None:
    """Shrink an image to thumbnail size in place, which keeps its EXIF, profile and tags."""
    image.draft(None, (2 * side, 2 * side))
    image.load()  # rotates a TIFF now; Pillow's `thumbnail` does not expect the size to change
    image.thumbnail((side, side))
