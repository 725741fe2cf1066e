"""Decoded pictures (`Frame`), and the conversions from and to Pillow images."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

from colorize_cli.color.lab import Bytes, Codes, srgb_to_lab
from colorize_cli.color.lightness import GRAY8, UNIFORM16, Lightness, uniform_codes
from colorize_cli.color.ycbcr import BytePlanes
from colorize_cli.core.errors import ReadError
from colorize_cli.image import grayscale, high_depth
from colorize_cli.image.icc import gray_table, is_srgb, to_srgb
from colorize_cli.image.metadata import Metadata, upright

Convert = Callable[[Image.Image], Image.Image]

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0
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
    tags = getattr(image, "tag_v2", {})
    turned, metadata = upright(image)
    plain = _plain(turned)
    format_ = "JPEG" if image.format == "MPO" else image.format
    alpha: Codes | None
    if plain.mode == "F" or plain.mode.startswith("I;16"):
        codes = _codes16(plain, tags)
        lightness, alpha = Lightness(codes, gray_table(icc, 65536)), _alpha16(plain, codes)
        return Frame(lightness, alpha, True, metadata, format_)
    alpha = np.asarray(plain.getchannel("A")) if plain.mode in ("LA", "RGBA") else None
    lightness = lightness_of(plain, icc)
    spread = 0.0 if lightness.table is not UNIFORM16 else _spread(plain, icc)
    return Frame(lightness, alpha, False, metadata, format_, _luma_table(image), spread=spread)


def from_samples(
    samples: npt.NDArray[np.uint16], icc: bytes | None, metadata: Metadata, format_: str
) -> Frame:
    """Make a frame from 16-bit color samples.

    Args:
        samples: (H, W, 3) RGB or (H, W, 4) with transparency, in the orientation that a viewer shows.
        icc: ICC profile, or None. If it is not sRGB, colors are converted at 8 bits and grays at 16.
        metadata: Metadata of the file.
        format_: Pillow's name of the format.
    """
    alpha = np.ascontiguousarray(samples[..., 3]) if samples.shape[2] == 4 else None
    red, green, blue = (samples[..., i] for i in range(3))
    spread = 0.0
    if np.array_equal(red, green) and np.array_equal(green, blue):
        lightness = Lightness(np.ascontiguousarray(green), gray_table(icc, 65536))
    elif is_srgb(icc):
        lightness = Lightness(_uniform_codes(samples[..., :3]), UNIFORM16)
        size = grayscale.small_size(samples.shape[1], samples.shape[0])
        small = np.asarray(cv2.resize(samples, size, interpolation=cv2.INTER_AREA), np.uint16)
        spread = grayscale.spread_of(small[..., :3], None if alpha is None else small[..., 3])
    else:
        image = Image.fromarray((samples[..., :3] >> 8).astype(np.uint8))
        lightness, spread = lightness_of(image, icc), _spread(image, icc)
    return Frame(lightness, alpha, True, metadata, format_, spread=spread)


def to_image(frame: Frame, rgb: Bytes) -> Image.Image:
    """Convert colors (H, W, 3) to an RGB image, grays (H, W) to L; with transparency, RGBA or LA."""
    return Image.fromarray(with_alpha(frame, rgb))


def with_alpha(frame: Frame, rgb: Codes) -> Codes:
    """Append the frame's transparency, if it has one: (H, W, 4) from colors (H, W, 3)."""
    if frame.alpha is None:
        return rgb
    samples: Any = np.dstack([rgb, alpha_as(rgb.dtype, frame.alpha)])
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
    convert = to_srgb(icc, _space(image))
    gray = _gray_codes(image, convert)
    if gray is not None:
        return Lightness(gray, GRAY8)
    steps = np.empty((image.height, image.width), np.uint16)
    for start, rgb in _stripes(image, convert):
        lab = srgb_to_lab(rgb / np.float32(255))
        steps[start : start + len(rgb)] = uniform_codes(lab[..., 0])
    return Lightness(steps, UNIFORM16)


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


def _uniform_codes(samples: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Convert (H, W, 3) sRGB to L*, as codes of UNIFORM16."""
    codes = np.empty(samples.shape[:2], np.uint16)
    step = max(1, _STRIPE_PIXELS // samples.shape[1])
    for start in range(0, len(samples), step):
        lab = srgb_to_lab(samples[start : start + step] / np.float32(65535))
        codes[start : start + step] = uniform_codes(lab[..., 0])
    return codes


def _luma_table(image: Image.Image) -> tuple[int, ...] | None:
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or not image.quantization:
        return None
    return tuple(image.quantization[min(image.quantization)])


def _codes16(image: Image.Image, tags: Mapping[int, Any]) -> npt.NDArray[np.uint16]:
    """Return 16-bit codes, 0 for black. Applies a TIFF's bit depth and polarity, which Pillow ignores."""
    samples = np.asarray(image)
    codes = high_depth.unit_codes(samples) if image.mode == "F" else samples.astype(np.uint16)
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    if bits < 16:
        codes = (codes.astype(np.uint32) * 65535 // (2**bits - 1)).astype(np.uint16)
    return 65535 - codes if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else codes


def _alpha16(image: Image.Image, codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16] | None:
    """Return the transparency (H, W) of a 16-bit gray PNG that declares one code transparent, else None."""
    clear = image.info.get("transparency")
    return np.where(codes == clear, 0, 65535).astype(np.uint16) if isinstance(clear, int) else None


def _gray_codes(image: Image.Image, convert: Convert) -> Bytes | None:
    """Return the gray codes (H, W) of a color image with equal channels, or None if the channels differ."""
    codes = np.empty((image.height, image.width), np.uint8)
    for start, rgb in _stripes(image, convert):
        red, green, blue = np.moveaxis(rgb, -1, 0)
        if not (np.array_equal(red, green) and np.array_equal(green, blue)):
            return None
        codes[start : start + len(rgb)] = green
    return codes


def _stripes(image: Image.Image, convert: Convert) -> Iterator[tuple[int, Bytes]]:
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
