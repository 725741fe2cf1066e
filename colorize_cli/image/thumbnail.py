"""Small pictures of pictures, for a page."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from colorize_cli.image import reader
from colorize_cli.image.frame import alpha_as, from_image
from colorize_cli.image.icc import to_srgb

Render = Callable[[Image.Image, int], Image.Image]

# Modes that can be resized before anything else is done, which spares most of the work.
_RESIZABLE = frozenset({"CMYK", "L", "LA", "RGB", "RGBA"})


def gray_thumbnail(path: Path, max_pixels: int, side: int) -> Image.Image:
    """The lightness of the picture in a file, of mode L, on white where it is transparent.

    Args:
        path: The file.
        max_pixels: Pictures of more are refused.
        side: Longest side of the result, in pixels.

    Raises:
        ReadError: It cannot be read.
    """
    return _thumbnail(path, max_pixels, side, _gray)


def color_thumbnail(path: Path, max_pixels: int, side: int) -> Image.Image:
    """The picture in a file as a viewer shows it, in sRGB, of mode L or RGB; else as `gray_thumbnail`."""
    return _thumbnail(path, max_pixels, side, _color)


def reduced(image: Image.Image, side: int) -> Image.Image:
    """An image of mode L, LA, RGB or RGBA, made small in place; on white where it is transparent.

    Args:
        image: The image.
        side: Longest side of the result, in pixels; no picture is enlarged.
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
    """The lightness of a picture, as the run reads it, small if that is cheap; of mode L or LA."""
    if image.mode in _RESIZABLE:
        _shrink(image, side)
    frame = from_image(image)
    gray = Image.fromarray(frame.lightness.levels())
    if frame.alpha is not None:
        gray.putalpha(Image.fromarray(alpha_as(np.uint8, frame.alpha)))
    return gray


def _color(image: Image.Image, side: int) -> Image.Image:
    """A picture in sRGB as a viewer shows it, small if that is cheap."""
    if image.mode == "P":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode not in ("CMYK", "RGB", "RGBA"):
        return _gray(image, side)
    icc = image.info.get("icc_profile")
    _shrink(image, side)
    upright = ImageOps.exif_transpose(image)
    opaque = upright.convert("RGB") if upright.mode == "RGBA" else upright
    rgb = to_srgb(icc, opaque.mode)(opaque)
    if upright.mode == "RGBA":
        rgb.putalpha(upright.getchannel("A"))
    return rgb


def _shrink(image: Image.Image, side: int) -> None:
    """Brings an image to the size of a thumbnail in place, so that its EXIF, profile and tags stay."""
    image.draft(None, (2 * side, 2 * side))
    image.load()  # a TIFF is turned now, and Pillow's `thumbnail` is not prepared for that
    image.thumbnail((side, side))
