"""Colour of 16 bits a channel, which Pillow reads as 8 and does not write, and of 32-bit floats: by OpenCV.

Of a PNG, OpenCV writes the pixels and Pillow the chunks around them. Of a TIFF of floats Pillow reads the
directory, once it is told that there is such a thing.
"""

import io
import itertools
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from colorize_cli.errors import ReadError, WriteError

_PNG_COMPRESSION = 2
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


def _let_pillow_open_floats() -> None:
    """Adds RGB and RGBA of 32-bit floats to what Pillow opens; it does not decode them.

    The keys are Pillow's: byte order, photometric interpretation, sample format, fill order, bits, extra
    samples (TIFF 6.0).
    """
    float_formats, extras = ((3,), (3, 3, 3), (3, 3, 3, 3)), ((), (0,), (1,), (2,))
    for order, formats, extra in itertools.product((b"II", b"MM"), float_formats, extras):
        channels = 3 + len(extra)
        mode = "RGBA" if extra else "RGB"
        key: Any = (order, 2, formats, 1, (32,) * channels, extra)
        TiffImagePlugin.OPEN_INFO.setdefault(key, (mode, mode + _FLOATS))


_let_pillow_open_floats()


def is_deep(image: Image.Image) -> bool:
    """Whether an opened picture is colour of 16 bits or of floats a channel."""
    if image.mode not in ("RGB", "RGBA") or image.format not in ("PNG", "TIFF"):
        return False
    raw = [str(tile.args) for tile in getattr(image, "tile", ())]
    return any(";16" in args or _FLOATS in args for args in raw)


def read(data: bytes, orientation: int, page: int = 0) -> npt.NDArray[np.uint16]:
    """The samples of a page of a file's content, as a viewer shows them.

    Args:
        data: The content.
        orientation: How it is to be turned, from 1 to 8.
        page: Its number, from 0.

    Returns:
        (H, W, 3) RGB or (H, W, 4) with transparency.

    Raises:
        ReadError: It is damaged, or stored in a way that OpenCV does not know.
    """
    buffer = np.frombuffer(data, np.uint8)
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
    flip_rows, flip_columns, transpose = _TURNS[orientation]
    samples = decoded.transpose(1, 0, 2) if transpose else decoded
    turned = samples[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return np.asarray(turned, np.uint16)


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


def write_png(file: BinaryIO, samples: npt.NDArray[np.uint16], saving: dict[str, Any]) -> None:
    """Writes a PNG of 16 bits.

    Args:
        file: To write to.
        samples: (H, W, 3) RGB or (H, W, 4) with transparency.
        saving: What Pillow would be told to save with it.
    """
    conversion = cv2.COLOR_RGBA2BGRA if samples.shape[2] == 4 else cv2.COLOR_RGB2BGR
    swapped = cv2.cvtColor(samples, conversion)
    done, encoded = cv2.imencode(".png", swapped, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION])
    if not done:
        raise WriteError("PNG cannot hold it")
    small = io.BytesIO()
    Image.new("RGB", (1, 1)).save(small, "PNG", **saving)
    described = [
        chunk for kind, chunk in _chunks(small.getbuffer()) if kind not in (b"IHDR", b"IDAT", b"IEND")
    ]
    for kind, chunk in _chunks(memoryview(encoded.tobytes())):
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            file.write(chunk)
        if kind == b"IHDR":
            for each in described:
                file.write(each)


_SIGNATURE = 8


def _chunks(png: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The chunks of a PNG (W3C, "Portable Network Graphics", section 5), the first with the signature."""
    start, position = 0, _SIGNATURE
    while position < len(png):
        (length,) = struct.unpack_from(">I", png, position)
        end = position + 12 + length
        yield bytes(png[position + 4 : position + 8]), png[start:end]
        start = position = end
