"""JPEG by OpenCV, whose encoder other threads need not wait for; Pillow writes what describes the picture.

ITU-T T.81 (1992), annex B. Pillow encodes while it holds Python's lock, so that with it only one of all
threads encodes, and all others wait.
"""

import functools
import io
from typing import Any, BinaryIO

import cv2
from PIL import Image, JpegImagePlugin

from colorize_cli.color import Bytes

_SOI, _MARKER = b"\xff\xd8", 0xFF
_COMMENT = 0xFE
_APPLICATION = range(0xE0, 0xF0)
Table = tuple[int, ...]


def quality_of(luma_table: Table) -> int | None:
    """The quality of libjpeg's (1 to 100) at which lightness has that table; None where there is none."""
    return next((q for q in range(100, 0, -1) if tables(q)[0] == luma_table), None)


@functools.cache
def tables(quality: int) -> tuple[Table, Table]:
    """The quantisation tables of luminance and chrominance that libjpeg uses at a quality, in its order."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    file.seek(0)
    with JpegImagePlugin.JpegImageFile(file) as image:
        luma, chroma = image.quantization[0], image.quantization[1]
    return tuple(luma), tuple(chroma)


def write(file: BinaryIO, rgb: Bytes, luma_quality: int, chroma_quality: int, saving: dict[str, Any]) -> None:
    """Writes a file with chroma at full resolution.

    Args:
        file: To write to.
        rgb: (H, W, 3).
        luma_quality: From 1 to 100.
        chroma_quality: The same.
        saving: What Pillow would be told to save with it.

    Raises:
        ValueError: It cannot be encoded.
    """
    done, content = cv2.imencode(
        ".jpg",
        cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR),
        (
            *(cv2.IMWRITE_JPEG_LUMA_QUALITY, luma_quality),
            *(cv2.IMWRITE_JPEG_CHROMA_QUALITY, chroma_quality),
            *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
        ),
    )
    if not done:
        raise ValueError(f"a picture of {rgb.shape[1]} x {rgb.shape[0]} cannot be encoded")
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "JPEG", **saving)
    head = small.getvalue()
    file.write(head[: _described(head)])
    encoded = content.data
    file.write(encoded[_described(bytes(encoded[:_HEAD])) :])


_HEAD = 1 << 10  # OpenCV's own description is shorter


def _described(content: bytes) -> int:
    """Where the segments end that describe a picture, which come first."""
    place = len(_SOI)
    while content[place] == _MARKER and (
        content[place + 1] in _APPLICATION or content[place + 1] == _COMMENT
    ):
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return place
