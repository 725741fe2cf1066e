"""Colour of 16 bits a channel, which Pillow reads as 8 and does not write: by OpenCV.

Of a PNG, OpenCV writes the pixels and Pillow the chunks around them.
"""

import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

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


def is_deep(image: Image.Image) -> bool:
    """Whether an opened picture is colour of 16 bits a channel."""
    if image.mode not in ("RGB", "RGBA") or image.format not in ("PNG", "TIFF"):
        return False
    return any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))


def read(data: bytes, orientation: int) -> npt.NDArray[np.uint16]:
    """The samples of a file's content, as a viewer shows them.

    Args:
        data: The content.
        orientation: How it is to be turned, from 1 to 8.

    Returns:
        (H, W, 3) RGB or (H, W, 4) with transparency.

    Raises:
        ReadError: It is damaged, or stored in a way that OpenCV does not know.
    """
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3:
        raise ReadError("damaged, or colour of 16 bits in a form that is not known here")
    conversion = cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB
    cv2.cvtColor(decoded, conversion, dst=decoded)
    flip_rows, flip_columns, transpose = _TURNS[orientation]
    samples = decoded.transpose(1, 0, 2) if transpose else decoded
    turned = samples[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return np.asarray(turned, np.uint16)


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
