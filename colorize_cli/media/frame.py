"""A picture between its file and its colours, and the ways to and from a Pillow image."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from colorize_cli import color
from colorize_cli.color import Bytes, Lightness
from colorize_cli.errors import ReadError
from colorize_cli.media import profile

Convert = Callable[[Image.Image], Image.Image]

# Tags that describe a TIFF picture rather than its storage (TIFF 6.0, sections 8 and 15, and XMP's
# neighbours).
_TIFF_TAGS = (269, 270, 271, 272, 305, 306, 315, 316, 33432)
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
# EXIF 2.32: width and height, and what the colours are.
_SIZE_TAGS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
_FACTS_OF_SRGB: dict[int, int] = {ExifTags.Base.ColorSpace: 1}
# Pictures are taken over from Pillow in stripes of about this many pixels.
_STRIPE_PIXELS = 1 << 20


@dataclass(frozen=True)
class Frame:
    """A picture, all that is needed to colour it and write it again.

    Attributes:
        lightness: (H, W), as a viewer shows the picture.
        alpha: (H, W) uint8 transparency, or None.
        exif: The EXIF block without orientation, or None.
        dpi: Resolution in dots per inch, across and down, or None.
        tiff_tags: Descriptive tags of a TIFF file, by number.
        format: Pillow's name of the format that it was read from, or None.
    """

    lightness: Lightness
    alpha: Bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    tiff_tags: tuple[tuple[int, str], ...] = ()
    format: str | None = None


def from_image(image: Image.Image) -> Frame:
    """The frame of a Pillow image of any mode but floating point and 32-bit integer.

    Raises:
        ReadError: The mode cannot be read as grey or colour, or a side is zero.
    """
    if not (image.width and image.height):
        raise ReadError(f"it has no pixels ({image.width} x {image.height})")
    icc = image.info.get("icc_profile")
    dpi = image.info.get("dpi")
    tags = getattr(image, "tag_v2", {})
    tiff_tags = tuple((tag, str(tags[tag])) for tag in _TIFF_TAGS if tag in tags)
    upright, exif = _upright(image)
    plain = _plain(upright)
    if plain.mode.startswith("I;16"):
        codes = _codes16(plain, tags)
        lightness, alpha = Lightness(codes, profile.grey_table(icc, 65536)), _alpha16(plain, codes)
    else:
        lightness = lightness_of(plain, icc)
        alpha = np.asarray(plain.getchannel("A")) if plain.mode in ("LA", "RGBA") else None
    resolution = _resolution(dpi, turned=upright.size != image.size)
    return Frame(lightness, alpha, exif, resolution, tiff_tags, image.format)


def to_image(frame: Frame, rgb: Bytes) -> Image.Image:
    """The coloured picture (H, W, 3), RGB or with the frame's transparency RGBA."""
    if frame.alpha is None:
        return Image.fromarray(rgb)
    return Image.fromarray(np.dstack([rgb, frame.alpha]))


def lightness_of(image: Image.Image, icc: bytes | None) -> Lightness:
    """The lightness of an image of mode L, LA, RGB, RGBA or CMYK with its ICC profile, if it has one.

    Grey pictures keep their own codes, those saved as colour too.
    """
    if image.mode in ("L", "LA"):
        return Lightness(np.asarray(image.getchannel("L")), profile.grey_table(icc, 256))
    convert = profile.to_srgb(icc, "CMYK" if image.mode == "CMYK" else "RGB")
    grey = _grey_codes(image, convert)
    if grey is not None:
        return Lightness(grey, color.GREY8)
    codes = np.empty((image.height, image.width), np.uint16)
    for start, rgb in _stripes(image, convert):
        lab = color.srgb_to_lab(rgb / np.float32(255))
        codes[start : start + len(rgb)] = color.uniform_codes(lab[..., 0])
    return Lightness(codes, color.UNIFORM16)


def _upright(image: Image.Image) -> tuple[Image.Image, bytes | None]:
    """The image turned as its EXIF says, and that EXIF, made true of it; none where it is damaged."""
    try:
        upright = ImageOps.exif_transpose(image)
        exif = upright.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
        details.pop(ExifTags.IFD.Interop, None)
        for tag, value in (_FACTS_OF_SRGB | dict(zip(_SIZE_TAGS, upright.size, strict=True))).items():
            if tag in details:
                details[tag] = value
        return upright, exif.tobytes() if len(exif) else None
    except Exception:  # whatever Pillow raises: this is about the picture, not of it
        return image, None


def _resolution(dpi: tuple[float, float] | None, *, turned: bool) -> tuple[float, float] | None:
    """Dots per inch across and down; None where they are unknown or not to be believed."""
    if not dpi or not all(math.isfinite(value) and value > 1 for value in dpi):
        return None
    across, down = map(float, dpi)
    return (down, across) if turned else (across, down)


def _codes16(image: Image.Image, tags: Mapping[int, Any]) -> npt.NDArray[np.uint16]:
    """16-bit codes from black to white; Pillow does not look at depth and polarity in a TIFF (TIFF 6.0)."""
    codes = np.asarray(image).astype(np.uint16)
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    if bits < 16:
        codes = (codes.astype(np.uint32) * 65535 // (2**bits - 1)).astype(np.uint16)
    return 65535 - codes if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else codes


def _alpha16(image: Image.Image, codes: npt.NDArray[np.uint16]) -> Bytes | None:
    """Where a PNG of 16-bit grey names one code as transparent."""
    clear = image.info.get("transparency")
    return np.where(codes == clear, 0, 255).astype(np.uint8) if isinstance(clear, int) else None


def _grey_codes(image: Image.Image, convert: Convert) -> Bytes | None:
    """The codes of a grey picture that is stored as colour; None where there is a colour."""
    codes = np.empty((image.height, image.width), np.uint8)
    for start, rgb in _stripes(image, convert):
        red, green, blue = np.moveaxis(rgb, -1, 0)
        if not (np.array_equal(red, green) and np.array_equal(green, blue)):
            return None
        codes[start : start + len(rgb)] = green
    return codes


def _stripes(image: Image.Image, convert: Convert) -> Iterator[tuple[int, Bytes]]:
    """The first row and the sRGB values (rows, W, 3) of stripes of the image, from the top."""
    step = max(1, _STRIPE_PIXELS // image.width)
    for start in range(0, image.height, step):
        stripe = image.crop((0, start, image.width, min(start + step, image.height)))
        yield start, np.asarray(convert(stripe.convert("RGB") if stripe.mode == "RGBA" else stripe))


def _plain(image: Image.Image) -> Image.Image:
    """The image as L, LA, RGB, RGBA, CMYK or 16-bit grey, whatever it was."""
    if image.mode == "I" and image.format == "PNG":  # 16-bit grey in older versions of Pillow
        return image.convert("I;16")
    if image.mode in ("I", "F"):
        raise ReadError(f"pixels of 32 bits (mode {image.mode}) have no known white")
    if image.mode in ("1", "L") and not image.has_transparency_data:
        return image.convert("L")
    if image.mode.startswith("I;16") or image.mode == "CMYK":
        return image
    if image.mode in ("1", "L", "LA", "La"):
        return image.convert("LA")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
