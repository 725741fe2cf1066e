"""Decoded pictures (`Frame`), and the conversions from and to Pillow images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

from colorize_cli.color import lab
from colorize_cli.color.lab import Bytes, Codes, Floats
from colorize_cli.color.lightness import UNIFORM16, Lightness, uniform_codes
from colorize_cli.color.ycbcr import BytePlanes
from colorize_cli.core.errors import ReadError
from colorize_cli.image import grayscale
from colorize_cli.image.icc import ToLinear, gray_table, to_linear, to_srgb
from colorize_cli.image.metadata import Metadata, upright

# Floats outside [0, 1] by at most this are clipped to it.
_FLOAT_SLACK = 0.01
# L* of 8-bit codes of CIE L*a*b*.
_LAB8 = (np.arange(256) * (100 / 255)).astype(np.float32)
# Pixels are copied from Pillow in stripes of about this size, to bound the memory of intermediate arrays.
_STRIPE_PIXELS = 1 << 20
NO_METADATA = Metadata()


@dataclass(frozen=True)
class Showing:
    """Timing of an animation frame.

    Attributes:
        milliseconds: Display time; None for a picture shown only by viewers without animation support.
        loops: Number of times the animation plays; 0 for endless.
    """

    milliseconds: float | None
    loops: int


@dataclass(frozen=True)
class Frame:
    """Decoded picture, with everything needed to colorize it and to write the result.

    Attributes:
        lightness: (H, W), in the orientation that a viewer shows.
        alpha: (H, W) transparency, uint8, or uint16 where `deep`; or None.
        deep: True if the file has more than 8 bits per channel.
        metadata: Metadata of the file.
        format: Pillow's name of the file's format, or None.
        luma_table: Luma quantization table of a JPEG, 64 numbers, or None.
        lossless: True if the file is a WebP without loss.
        damage: What is wrong with a file whose pixels could be decoded only in part, on one line, or None.
        pages: Number of pages or frames in the file.
        showing: Timing, for a frame of an animation.
        spread: Spread of the colors at equal lightness (see `grayscale`); 0 for a gray picture.
    """

    lightness: Lightness
    alpha: Codes | None = None
    deep: bool = False
    metadata: Metadata = NO_METADATA
    format: str | None = None
    luma_table: tuple[int, ...] | None = None
    lossless: bool = False
    damage: str | None = None
    pages: int = 1
    showing: Showing | None = None
    spread: float = 0.0

    @property
    def is_color(self) -> bool:
        """True if the picture is in color. A toned print is not."""
        return self.spread > grayscale.COLOR_SPREAD

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.lightness.codes.size


Colors = Codes | BytePlanes
"""Colors of a picture: RGB (H, W, 3), uint8, or uint16 where it is `deep`; or planes, for a JPEG."""

Page = tuple[Frame, Colors]
"""A picture and the colors to write for it."""


def from_image(image: Image.Image) -> Frame:
    """Convert a Pillow image of any mode but 32-bit integer to a frame.

    Raises:
        ReadError: The mode cannot be read as gray or color, a side is zero, or floats lie outside [0, 1].
    """
    if not (image.width and image.height):
        raise ReadError(f"the picture has no pixels ({image.width} x {image.height})")
    icc = image.info.get("icc_profile")
    turned, metadata = upright(image)
    plain = _plain(turned)
    format_ = "JPEG" if image.format == "MPO" else image.format
    alpha: Codes | None
    if plain.mode == "F" or plain.mode.startswith("I;16"):
        samples = np.asarray(plain)
        codes = unit_codes(samples) if plain.mode == "F" else samples.astype(np.uint16)
        return Frame(Lightness(codes, gray_table(icc, 65536)), None, True, metadata, format_)
    alpha = np.asarray(plain.getchannel("A")) if plain.mode in ("LA", "RGBA") else None
    lightness = lightness_of(plain, icc)
    is_gray = lightness.table is not UNIFORM16  # `lightness_of` keeps the codes of gray pictures
    spread = 0.0 if is_gray else _spread(plain, icc)
    return Frame(lightness, alpha, False, metadata, format_, _luma_table(image), spread=spread)


def with_space(samples: npt.NDArray[np.uint16]) -> tuple[npt.NDArray[np.uint16], str]:
    """Return decoded samples as (H, W, channels) and their color space, both for `from_samples`.

    One or two channels are gray, three or four RGB; the second or fourth is the transparency.
    """
    samples = np.atleast_3d(samples)
    return samples, "GRAY" if samples.shape[2] < 3 else "RGB"


def from_samples(
    samples: npt.NDArray[Any], space: str, icc: bytes | None, metadata: Metadata, format_: str
) -> Frame:
    """Make a frame from samples of any depth.

    Args:
        samples: (H, W, channels) uint8 or uint16, in the orientation that a viewer shows. A channel after
            those of the color space is the transparency.
        space: "GRAY", "RGB", "CMYK" or "LAB". Codes of L* are proportional to L*. Those of a* and b* are in
            CIE units (at 16 bits in units of 1/256), with zero in the middle of the range.
        icc: ICC profile, or None.
        metadata: Metadata of the file.
        format_: Pillow's name of the format.
    """
    channels = {"GRAY": 1, "RGB": 3, "CMYK": 4, "LAB": 3}[space]
    alpha = np.ascontiguousarray(samples[..., channels]) if samples.shape[2] > channels else None
    colors = samples[..., :channels]
    deep, spread = samples.dtype == np.uint16, 0.0
    if space == "GRAY" or (space == "RGB" and _is_gray(colors)):
        codes = np.ascontiguousarray(colors[..., 0])
        lightness = Lightness(codes, gray_table(icc, 65536 if deep else 256))
    else:
        size = grayscale.small_size(samples.shape[1], samples.shape[0])
        resized = cv2.resize(np.ascontiguousarray(colors), size, interpolation=cv2.INTER_AREA)
        small: npt.NDArray[Any] = np.asarray(resized, samples.dtype)
        if space == "LAB":
            lightness = Lightness(np.ascontiguousarray(colors[..., 0]), UNIFORM16 if deep else _LAB8)
            small_lab = _lab(small)
        else:
            convert = to_linear(icc, space)
            lightness = Lightness(_uniform(colors.shape[:2], colors.__getitem__, convert), UNIFORM16)
            small_lab = lab.linear_to_lab(convert(small))
        if alpha is not None:
            small_lab = small_lab[cv2.resize(alpha, size, interpolation=cv2.INTER_AREA) > 0]
        spread = grayscale.spread(small_lab.reshape(-1, 3))
    return Frame(lightness, alpha, deep, metadata, format_, spread=spread)


def srgb_of(samples: Codes, space: str, icc: bytes | None) -> Bytes:
    """Convert samples, as in `from_samples`, to 8-bit sRGB, (H, W, 3)."""
    if space == "GRAY":
        table = lab.srgb_of_lightness(gray_table(icc, 65536 if samples.dtype == np.uint16 else 256))
        return np.asarray(np.rint(255 * table).astype(np.uint8)[samples[..., [0, 0, 0]]])
    convert = _lab_to_linear if space == "LAB" else to_linear(icc, space)
    channels = 4 if space == "CMYK" else 3
    rgb = np.empty((*samples.shape[:2], 3), np.uint8)
    step = max(1, _STRIPE_PIXELS // samples.shape[1])
    for start in range(0, len(samples), step):
        linear = convert(samples[start : start + step, :, :channels])
        rgb[start : start + step] = np.rint(255 * lab.linear_to_srgb(np.clip(linear, 0, 1)))
    return rgb


def _lab_to_linear(codes: Codes) -> Floats:
    return lab.lab_to_linear(_lab(codes))


def _lab(codes: npt.NDArray[Any]) -> Floats:
    """Convert codes of CIE L*a*b*, as in `from_samples`, to L*a*b*."""
    deep = codes.dtype == np.uint16
    table = UNIFORM16 if deep else _LAB8
    ab = codes[..., 1:] / np.float32(256 if deep else 1) - np.float32(128)
    return np.dstack([table.take(codes[..., 0]), ab])


def unit_codes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Convert floats (0 is black, 1 is white) to 16-bit codes.

    Raises:
        ReadError: The floats have another scale, or NaN is among them.
    """
    least, greatest = float(values.min()), float(values.max())
    if not (least >= -_FLOAT_SLACK and greatest <= 1 + _FLOAT_SLACK):  # true of NaN too
        raise ReadError(
            f"floats from {least:g} to {greatest:g} are not supported; use 0 for black, 1 for white"
        )
    codes: npt.NDArray[np.float32] = np.clip(values, 0, 1).astype(np.float32, copy=False) * np.float32(65535)
    return np.rint(codes, out=codes).astype(np.uint16)


def to_image(frame: Frame, rgb: Bytes) -> Image.Image:
    """Convert colors (H, W, 3) to an RGB image, grays (H, W) to L; with transparency, RGBA or LA."""
    return Image.fromarray(with_alpha(rgb, frame.alpha))


def with_alpha(rgb: Codes, alpha: Codes | None) -> Codes:
    """Append transparency (H, W), if there is any: (H, W, 4) from colors (H, W, 3)."""
    if alpha is None:
        return rgb
    samples: Any = np.dstack([rgb, alpha_as(rgb.dtype, alpha)])
    return cast(Codes, samples)


def alpha_as(dtype: npt.DTypeLike, alpha: Codes) -> Codes:
    """Convert transparency to uint8 or uint16, from either."""
    if alpha.dtype == dtype:
        return alpha
    return (alpha >> 8).astype(np.uint8) if dtype == np.uint8 else alpha.astype(np.uint16) * np.uint16(257)


def lightness_of(image: Image.Image, icc: bytes | None) -> Lightness:
    """Return the lightness of an image of mode L, LA, RGB, RGBA or CMYK.

    Gray pictures keep their stored codes, including those saved as RGB with equal channels.

    Args:
        image: The image, decoded.
        icc: Its ICC profile, or None.
    """
    if image.mode in ("L", "LA"):
        codes = np.asarray(image if image.mode == "L" else image.getchannel("L"))
        return Lightness(codes, gray_table(icc, 256))
    gray = _gray_codes(image) if image.mode != "CMYK" else None
    if gray is not None:
        return Lightness(gray, gray_table(icc, 256))

    def rows(part: slice) -> Codes:
        stripe = image.crop((0, part.start, image.width, part.stop))
        return np.asarray(stripe.convert("RGB") if stripe.mode == "RGBA" else stripe)

    convert = to_linear(icc, _space(image))
    return Lightness(_uniform((image.height, image.width), rows, convert), UNIFORM16)


def own_colors(image: Image.Image) -> Bytes:
    """Return the original colors of a Pillow image, as a viewer shows it.

    Returns:
        (H, W, 3) uint8 sRGB.

    Raises:
        ReadError: The mode cannot be converted to sRGB.
    """
    icc = image.info.get("icc_profile")
    plain = _plain(upright(image)[0])
    if plain.mode in ("L", "LA"):
        plain = plain.convert("RGB")
    if plain.mode not in ("RGB", "RGBA", "CMYK"):
        raise ReadError(f"colors of mode {plain.mode} cannot be copied to another format; keep the format")
    rgb = np.empty((plain.height, plain.width, 3), np.uint8)
    for start, stripe in _stripes(plain, to_srgb(icc, _space(plain))):
        rgb[start : start + len(stripe)] = stripe
    return rgb


def _space(image: Image.Image) -> str:
    return "CMYK" if image.mode == "CMYK" else "RGB"


def _spread(image: Image.Image, icc: bytes | None) -> float:
    """Measure the color spread (see `grayscale`) of an image of mode RGB, RGBA or CMYK."""
    small = image.resize(grayscale.small_size(image.width, image.height), Image.Resampling.BOX)
    alpha = np.asarray(small.getchannel("A")) if small.mode == "RGBA" else None
    rgb = small if small.mode == "CMYK" else small.convert("RGB")
    return grayscale.spread_of(np.asarray(to_srgb(icc, _space(rgb))(rgb)), alpha)


def _uniform(
    shape: tuple[int, int], rows: Callable[[slice], Codes], convert: ToLinear
) -> npt.NDArray[np.uint16]:
    """Return the lightness (H, W) of colors as codes of UNIFORM16.

    Args:
        shape: H and W.
        rows: Function that returns a range of rows of the stored codes.
        convert: Function from stored codes to linear light.
    """
    codes = np.empty(shape, np.uint16)
    step = max(1, _STRIPE_PIXELS // shape[1])
    for start in range(0, shape[0], step):
        part = slice(start, min(start + step, shape[0]))
        codes[part] = uniform_codes(lab.lightness_of_linear(convert(rows(part))))
    return codes


def _is_gray(colors: Codes) -> bool:
    red, green, blue = np.moveaxis(colors, -1, 0)
    return np.array_equal(red, green) and np.array_equal(green, blue)


def _luma_table(image: Image.Image) -> tuple[int, ...] | None:
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or not image.quantization:
        return None
    return tuple(image.quantization[min(image.quantization)])


def _gray_codes(image: Image.Image) -> Bytes | None:
    """Return the codes (H, W) of a color image with equal channels, or None if the channels differ."""
    codes = np.empty((image.height, image.width), np.uint8)
    for start, rgb in _stripes(image, lambda stripe: stripe):
        if not _is_gray(rgb):
            return None
        codes[start : start + len(rgb)] = rgb[..., 1]
    return codes


def _stripes(
    image: Image.Image, convert: Callable[[Image.Image], Image.Image]
) -> Iterator[tuple[int, Bytes]]:
    """Yield the first row and the sRGB values (rows, W, 3) of each stripe, from the top."""
    step = max(1, _STRIPE_PIXELS // image.width)
    for start in range(0, image.height, step):
        stripe = image.crop((0, start, image.width, min(start + step, image.height)))
        yield start, np.asarray(convert(stripe.convert("RGB") if stripe.mode == "RGBA" else stripe))


def _plain(image: Image.Image) -> Image.Image:
    """Convert to L, LA, RGB, RGBA, CMYK, F or 16-bit gray. Returns `image` itself if it has such a mode."""
    if image.mode == "I" and image.format == "PNG":  # 16-bit gray in older versions of Pillow
        return image.convert("I;16")
    if image.mode == "I":
        raise ReadError("32-bit integer samples are not supported: their white level is unknown")
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        image.load()
        return image
    if image.mode == "1" and not image.has_transparency_data:
        return image.convert("L")
    if image.mode.startswith("I;16") or image.mode in ("CMYK", "F"):
        return image
    if image.mode in ("1", "L", "LA", "La"):
        return image.convert("LA")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
