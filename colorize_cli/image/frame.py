"""A picture between its file and its colours, and the ways to and from a Pillow image."""

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
# Pictures are taken over from Pillow in stripes of about this many pixels.
_STRIPE_PIXELS = 1 << 20
NO_METADATA = Metadata()


@dataclass(frozen=True)
class Showing:
    """How a frame of an animation is shown.

    Attributes:
        milliseconds: For how long; None of a picture that is shown only where animations are not.
        loops: How often the animation is shown; 0 for ever.
    """

    milliseconds: float | None
    loops: int


@dataclass(frozen=True)
class Frame:
    """A picture, all that is needed to colour it and write it again.

    Attributes:
        lightness: (H, W), as a viewer shows the picture.
        alpha: (H, W) transparency, uint8, or uint16 where `deep`; or None.
        deep: Whether it was read from more than 8 bits a channel.
        metadata: What it says of itself.
        format: Pillow's name of the format that it was read from, or None.
        luma_table: How finely a JPEG's luma was quantised, 64 numbers, or None.
        pages: How many pages or frames there are in its file.
        showing: Of a frame of an animation.
        spread: By how much its colours differ at equal lightness (see `grayscale`); 0 of a grey picture.
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
        """Whether it is in colour; a toned print is not."""
        return self.spread > grayscale.COLOR_SPREAD

    @property
    def pixels(self) -> int:
        """How many there are."""
        return self.lightness.codes.size


Colors = Codes | BytePlanes
"""Those of a picture: RGB (H, W, 3), uint8 or, where it is `deep`, uint16; or planes, for a JPEG."""

Page = tuple[Frame, Colors]
"""A picture with the colours that it is given."""


def from_image(image: Image.Image) -> Frame:
    """The frame of a Pillow image of any mode but 32-bit integer.

    Raises:
        ReadError: The mode cannot be read as grey or colour, a side is zero, or floats are not from 0 to 1.
    """
    if not (image.width and image.height):
        raise ReadError(f"it has no pixels ({image.width} x {image.height})")
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
    """The frame of a colour picture of 16 bits.

    Args:
        samples: (H, W, 3) RGB or (H, W, 4) with transparency, as a viewer shows the picture.
        icc: Its profile. Colours in another space than sRGB's are converted at 8 bits, greys at 16.
        metadata: What it says of itself.
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
    """The coloured picture (H, W, 3), RGB or with the frame's transparency RGBA; of greys (H, W) L or LA."""
    return Image.fromarray(with_alpha(frame, rgb))


def with_alpha(frame: Frame, rgb: Codes) -> Codes:
    """The colours of a frame, (H, W, 3), with its transparency where it has that, (H, W, 4)."""
    if frame.alpha is None:
        return rgb
    samples: Any = np.dstack([rgb, alpha_as(rgb.dtype, frame.alpha)])
    return cast(Codes, samples)


def alpha_as(dtype: npt.DTypeLike, alpha: Codes) -> Codes:
    """Transparency in 8 or 16 bits, from either."""
    if alpha.dtype == dtype:
        return alpha
    return (alpha >> 8).astype(np.uint8) if dtype == np.uint8 else alpha.astype(np.uint16) * np.uint16(257)


def lightness_of(image: Image.Image, icc: bytes | None) -> Lightness:
    """The lightness of an image of mode L, LA, RGB, RGBA or CMYK with its ICC profile, if it has one.

    Grey pictures keep their own codes, those saved as colour too.
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
    """(H, W, 3) sRGB of a Pillow image as a viewer shows it."""
    icc = image.info.get("icc_profile")
    plain = _plain(upright(image)[0])
    if plain.mode in ("L", "LA"):
        plain = plain.convert("RGB")
    if plain.mode not in ("RGB", "RGBA", "CMYK"):
        raise ReadError(f"its colours, of mode {plain.mode}, cannot be put into another format as they are")
    rgb = np.empty((plain.height, plain.width, 3), np.uint8)
    for start, stripe in _stripes(plain, to_srgb(icc, _space(plain))):
        rgb[start : start + len(stripe)] = stripe
    return rgb


def _space(image: Image.Image) -> str:
    return "CMYK" if image.mode == "CMYK" else "RGB"


def _spread(image: Image.Image, icc: bytes | None) -> float:
    """How far a picture of mode RGB, RGBA or CMYK is from grey and from one tone."""
    small = image.resize(grayscale.small_size(image.width, image.height), Image.Resampling.BOX)
    alpha = np.asarray(small.getchannel("A")) if small.mode == "RGBA" else None
    rgb = small if small.mode == "CMYK" else small.convert("RGB")
    return grayscale.spread_of(np.asarray(to_srgb(icc, _space(rgb))(rgb)), alpha)


def _uniform_codes(samples: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """L* of (H, W, 3) sRGB, as codes of UNIFORM16."""
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
    """16-bit codes from black to white; Pillow does not look at depth and polarity in a TIFF (TIFF 6.0)."""
    samples = np.asarray(image)
    codes = high_depth.unit_codes(samples) if image.mode == "F" else samples.astype(np.uint16)
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    if bits < 16:
        codes = (codes.astype(np.uint32) * 65535 // (2**bits - 1)).astype(np.uint16)
    return 65535 - codes if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else codes


def _alpha16(image: Image.Image, codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16] | None:
    """Where a PNG of 16-bit grey names one code as transparent."""
    clear = image.info.get("transparency")
    return np.where(codes == clear, 0, 65535).astype(np.uint16) if isinstance(clear, int) else None


def _gray_codes(image: Image.Image, convert: Convert) -> Bytes | None:
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
    """The image as L, LA, RGB, RGBA, CMYK or 16-bit grey, whatever it was; not copied if it is that."""
    if image.mode == "I" and image.format == "PNG":  # 16-bit grey in older versions of Pillow
        return image.convert("I;16")
    if image.mode == "I":
        raise ReadError("integers of 32 bits have no known white")
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
