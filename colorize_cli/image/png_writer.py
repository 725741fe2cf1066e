"""Write PNG of 16 bits per channel, which Pillow cannot. Pillow writes the metadata chunks.

W3C, "Portable Network Graphics (PNG) Specification", third edition. Rows are filtered, compressed and written
in stripes, so that memory beyond the picture itself stays small.
"""

import io
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from colorize_cli.color.lab import Codes
from colorize_cli.image import png_reader
from colorize_cli.image.frame import with_alpha

_BITS = 16
_COLOR_TYPES = {3: 2, 4: 6}  # by channels: truecolor, truecolor with alpha
_SUB = 1  # filter: the difference from the pixel to the left
_LEVEL = 2
_STRIPE_BYTES = 1 << 20
_WRITTEN_HERE = (b"IHDR", b"IDAT", b"IEND")


def write(file: BinaryIO, rgb: npt.NDArray[np.uint16], alpha: Codes | None, saving: dict[str, Any]) -> None:
    """Encode a picture and write it to a file.

    Args:
        file: The file to write to.
        rgb: (H, W, 3).
        alpha: Transparency (H, W), or None.
        saving: Options of Pillow's `save` for the metadata.
    """
    height, width, channels = *rgb.shape[:2], 3 if alpha is None else 4
    file.write(png_reader.SIGNATURE)
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, _BITS, _COLOR_TYPES[channels], 0, 0, 0))
    small = io.BytesIO()
    Image.new("RGB", (1, 1)).save(small, "PNG", **saving)
    for kind, chunk, _ in png_reader.chunks(small):
        if kind not in _WRITTEN_HERE:
            file.write(chunk)
    compressor = zlib.compressobj(_LEVEL, strategy=zlib.Z_FILTERED)
    step = max(1, _STRIPE_BYTES // (width * channels * 2))
    for start in range(0, height, step):
        rows = slice(start, start + step)
        samples = np.asarray(with_alpha(rgb[rows], None if alpha is None else alpha[rows]), np.uint16)
        if data := compressor.compress(_filtered(samples)):
            _chunk(file, b"IDAT", data)
    _chunk(file, b"IDAT", compressor.flush())
    _chunk(file, b"IEND", b"")


def _filtered(samples: npt.NDArray[np.uint16]) -> bytes:
    """Return filtered rows, ready to compress: the filter type, then bytes, most significant first."""
    rows, width, channels = samples.shape
    pixel = 2 * channels
    plain = samples.astype(">u2").view(np.uint8).reshape(rows, width * pixel)
    filtered = np.empty((rows, 1 + width * pixel), np.uint8)
    filtered[:, 0] = _SUB
    filtered[:, 1 : 1 + pixel] = plain[:, :pixel]
    np.subtract(plain[:, pixel:], plain[:, :-pixel], out=filtered[:, 1 + pixel :])
    return filtered.tobytes()


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind)
    file.write(data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))
