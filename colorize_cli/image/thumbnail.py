"""Make thumbnails: for HTML pages, and for the EXIF of outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image, TiffImagePlugin

from colorize_cli.color.lab import Bytes, Codes
from colorize_cli.color.ycbcr import BytePlanes
from colorize_cli.image import reader, tiff_reader
from colorize_cli.image.frame import Colors, alpha_as, from_image
from colorize_cli.image.icc import to_srgb
from colorize_cli.image.metadata import upright

Render = Callable[[Image.Image, int], Image.Image]

_EXIF_SIDE, _EXIF_QUALITY = 160, 80

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


def embedded(colors: Colors) -> bytes:
    """Return a JPEG of the colors of a picture, with sides as EXIF recommends them."""
    height, width = colors.luma.shape if isinstance(colors, BytePlanes) else colors.shape[:2]
    scale = min(1.0, _EXIF_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))

    def shrunk(plane: Codes) -> Bytes:
        step = max(1, int(plane.shape[0] // (4 * size[1])))  # leaves enough pixels to average
        small: Any = cv2.resize(plane[::step, ::step], size, interpolation=cv2.INTER_AREA)
        return np.asarray(small >> 8 if small.dtype == np.uint16 else small, np.uint8)

    if isinstance(colors, BytePlanes):
        planes = (shrunk(plane) for plane in (colors.luma, colors.blue, colors.red))
        return bytes(simplejpeg.encode_jpeg_yuv_planes(*planes, _EXIF_QUALITY))
    return bytes(simplejpeg.encode_jpeg(shrunk(colors), _EXIF_QUALITY, "RGB", "444"))


def _thumbnail(path: Path, max_pixels: int, side: int, render: Render) -> Image.Image:
    with reader.open_page(path, max_pixels) as image:
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            tiff_reader.load(image)
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
