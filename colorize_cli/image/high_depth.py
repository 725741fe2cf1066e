"""Colour of 16 bits a channel, which Pillow reads as 8, and of 32-bit floats: by OpenCV.

Of a TIFF of floats Pillow reads the directory, once it is told that there is such a thing.
"""

import itertools
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, TiffImagePlugin

from colorize_cli.core.errors import ReadError

# What to do to rows and columns for each orientation (TIFF 6.0, section 8): flip rows, flip columns, and
# transpose before that.
_TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (False, True, True),
    7: (True, True, True),
    8: (True, False, True),
}


# How far floats may lie outside of [0, 1] to be taken for its ends.
_FLOAT_SLACK = 0.01
_FLOATS = ";32F"
# Pillow's names of channels, by TIFF's extra samples: a is transparency that colours are multiplied with.
_CHANNELS: dict[tuple[int, ...], str] = {(): "RGB", (0,): "RGBX", (1,): "RGBa", (2,): "RGBA"}


def _let_pillow_open_floats() -> None:
    """Adds RGB and RGBA of 32-bit floats to what Pillow opens; it does not decode them.

    The keys are Pillow's: byte order, photometric interpretation, sample format, fill order, bits, extra
    samples (TIFF 6.0).
    """
    float_formats = ((3,), (3, 3, 3), (3, 3, 3, 3))
    for order, formats, extra in itertools.product((b"II", b"MM"), float_formats, _CHANNELS):
        raw = _CHANNELS[extra]
        key: Any = (order, 2, formats, 1, (32,) * len(raw), extra)
        TiffImagePlugin.OPEN_INFO.setdefault(key, ("RGB" if raw[3:] in ("", "X") else "RGBA", raw + _FLOATS))


_let_pillow_open_floats()


def is_deep(image: Image.Image) -> bool:
    """Whether an opened picture is colour of 16 bits or of floats a channel."""
    if image.mode not in ("RGB", "RGBA") or image.format not in ("PNG", "TIFF"):
        return False
    return any(";16" in args or _FLOATS in args for args in _storage(image))


def is_float(image: Image.Image) -> bool:
    """Whether an opened picture is colour of floats, which Pillow does not decode."""
    return any(_FLOATS in args for args in _storage(image))


def _storage(image: Image.Image) -> list[str]:
    """What Pillow's decoders are to be told."""
    return [str(tile.args) for tile in getattr(image, "tile", ())]


def read(data: bytes, image: Image.Image, orientation: int) -> npt.NDArray[np.uint16]:
    """The samples of a page of a file's content, as a viewer shows them.

    Args:
        data: The content.
        image: It, opened by Pillow, at the page.
        orientation: How it is to be turned, from 1 to 8.

    Returns:
        (H, W, 3) RGB or (H, W, 4) with transparency.

    Raises:
        ReadError: It is damaged, or stored in a way that OpenCV does not know.
    """
    buffer, page = np.frombuffer(data, np.uint8), image.tell()
    if page:
        _, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED, range=(page, page + 1))
        decoded = pages[0] if pages else None
    else:
        decoded = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    if decoded is not None and decoded.dtype == np.float32:
        decoded = unit_codes(np.asarray(decoded, np.float32))
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3:
        raise ReadError("damaged, or colour of more than 8 bits in a form that is not known here")
    conversion = cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB
    cv2.cvtColor(decoded, conversion, dst=decoded)
    if image.format == "TIFF":
        decoded = decoded[..., : len(image.mode)]  # without a fourth channel that is nothing known
        if any("RGBa" in args for args in _storage(image)):
            _divide_by_alpha(np.asarray(decoded, np.uint16))
        if ExifTags.Base.Orientation in getattr(image, "tag_v2", ()):  # OpenCV has turned it
            orientation = 1
    flip_rows, flip_columns, transpose = _TURNS[orientation]
    samples = decoded.transpose(1, 0, 2) if transpose else decoded
    turned = samples[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return np.asarray(turned, np.uint16)


def _divide_by_alpha(samples: npt.NDArray[np.uint16]) -> None:
    alpha = np.maximum(samples[..., 3], 1).astype(np.float32) / np.float32(65535)
    for channel in range(3):
        samples[..., channel] = np.minimum(np.rint(samples[..., channel] / alpha), 65535)


def unit_codes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The 16-bit codes of floats, of which 0 is black and 1 is white.

    Raises:
        ReadError: They are on some other scale, or not numbers.
    """
    least, greatest = float(values.min()), float(values.max())
    if not (least >= -_FLOAT_SLACK and greatest <= 1 + _FLOAT_SLACK):  # true of NaN too
        raise ReadError(f"floats from {least:g} to {greatest:g}; known are those from 0, black, to 1, white")
    codes: npt.NDArray[np.uint16] = np.rint(np.clip(values, 0, 1) * np.float32(65535)).astype(np.uint16)
    return codes
