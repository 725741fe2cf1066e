"""Read and write JPEG 2000 (ISO 15444-1) of more than 8 bits, which Pillow reduces to 8, with imagecodecs."""

from typing import BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt

from colorize_cli.core.errors import ReadError
from colorize_cli.image.frame import with_space

# Markers SOC and SIZ of the code stream, which begins near the start of the file; and the offset of
# the precision of the first component from there (annex A.5.1).
_START, _PRECISION = b"\xff\x4f\xff\x51", 42
_HEAD = 1 << 16
_SIGNED = 0x80


def bits(file: BinaryIO) -> int:
    """Return the bits per sample of the first component; 0 if they are signed or cannot be found."""
    head = file.read(_HEAD)
    at = head.find(_START)
    precision = head[at + _PRECISION] if 0 <= at < len(head) - _PRECISION else _SIGNED
    return 0 if precision & _SIGNED else precision + 1


def read(file: BinaryIO, depth: int) -> tuple[npt.NDArray[np.uint16], str]:
    """Decode a file of `depth` bits, from 9 to 16.

    Returns:
        Samples and color space, as `frame.with_space`.

    Raises:
        ReadError: The file is damaged.
    """
    try:
        samples = imagecodecs.jpeg2k_decode(file.read())
    except imagecodecs.Jpeg2kError as error:
        raise ReadError(f"damaged: {error}") from error
    if depth < 16:
        samples = np.rint(samples * np.float32(65535 / (2**depth - 1)))
    return with_space(samples.astype(np.uint16, copy=False))


def encode(samples: npt.NDArray[np.uint16]) -> bytes:
    """Encode RGB (H, W, 3), or (H, W, 4) with transparency, without loss."""
    return bytes(imagecodecs.jpeg2k_encode(samples, codecformat="jp2", reversible=True))
