"""Read color of 16 bits per channel and of 32-bit floats with OpenCV.

Pillow reduces 16-bit color to 8 bits and does not decode color floats. It reads the directory of a float TIFF
once the format is added to its table (see `_let_pillow_open_floats`).
"""

import itertools
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, TiffImagePlugin

from colorize_cli.core.errors import ReadError

# For each orientation (TIFF 6.0, section 8): flip rows, flip columns, transpose. The transposition comes
# first.
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


# Floats outside [0, 1] by at most this are clipped to it.
_FLOAT_SLACK = 0.01
_FLOATS = ";32F"
# Pillow's names of channels, by TIFF's extra samples: "a" is associated alpha (premultiplied colors).
_CHANNELS: dict[tuple[int, ...], str] = {(): "RGB", (0,): "RGBX", (1,): "RGBa", (2,): "RGBA"}


def _let_pillow_open_floats() -> None:
    """Add RGB and RGBA of 32-bit floats to the TIFF layouts that Pillow opens, without decoding them.

    Changes a table of Pillow for the whole process. Its keys are byte order, photometric interpretation,
    sample format, fill order, bits, extra samples (TIFF 6.0).
    """
    float_formats = ((3,), (3, 3, 3), (3, 3, 3, 3))
    for order, formats, extra in itertools.product((b"II", b"MM"), float_formats, _CHANNELS):
        raw = _CHANNELS[extra]
        key: Any = (order, 2, formats, 1, (32,) * len(raw), extra)
        TiffImagePlugin.OPEN_INFO.setdefault(key, ("RGB" if raw[3:] in ("", "X") else "RGBA", raw + _FLOATS))


_let_pillow_open_floats()


def is_deep(image: Image.Image) -> bool:
    """Return True if an opened image has color of 16 bits or of floats per channel."""
    if image.mode not in ("RGB", "RGBA") or image.format not in ("PNG", "TIFF"):
        return False
    return any(";16" in args or _FLOATS in args for args in _storage(image))


def is_float(image: Image.Image) -> bool:
    """Return True if an opened image has color of floats, which Pillow does not decode."""
    return any(_FLOATS in args for args in _storage(image))


def _storage(image: Image.Image) -> list[str]:
    """Return the arguments for Pillow's decoders, which name the layout of the samples."""
    return [str(tile.args) for tile in getattr(image, "tile", ())]


def read(data: bytes, image: Image.Image, orientation: int) -> npt.NDArray[np.uint16]:
    """Decode one page of a file, in the orientation that a viewer shows.

    Args:
        data: Content of the file.
        image: The file opened by Pillow, at the page to decode.
        orientation: EXIF orientation to apply, from 1 to 8.

    Returns:
        (H, W, 3) RGB or (H, W, 4) with transparency.

    Raises:
        ReadError: The file is damaged, or OpenCV does not support its encoding, or floats lie outside [0, 1].
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
        raise ReadError("damaged, or color of more than 8 bits in an unsupported encoding")
    conversion = cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB
    cv2.cvtColor(decoded, conversion, dst=decoded)
    if image.format == "TIFF":
        decoded = decoded[..., : len(image.mode)]  # drop a fourth channel of unspecified meaning
        if any("RGBa" in args for args in _storage(image)):
            _divide_by_alpha(np.asarray(decoded, np.uint16))
        if ExifTags.Base.Orientation in getattr(image, "tag_v2", ()):  # OpenCV has already applied it
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
    """Convert floats (0 is black, 1 is white) to 16-bit codes.

    Raises:
        ReadError: The floats have another scale, or NaN is among them.
    """
    least, greatest = float(values.min()), float(values.max())
    if not (least >= -_FLOAT_SLACK and greatest <= 1 + _FLOAT_SLACK):  # true of NaN too
        raise ReadError(
            f"floats from {least:g} to {greatest:g} are not supported; use 0 for black, 1 for white"
        )
    codes: npt.NDArray[np.uint16] = np.rint(np.clip(values, 0, 1) * np.float32(65535)).astype(np.uint16)
    return codes
