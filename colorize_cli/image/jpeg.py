"""JPEG by libjpeg-turbo, told planes of luma and chroma; Pillow writes what describes the picture.

ITU-T T.81 (1992), annex B. Pillow's own encoder takes pixels of four bytes in RGB, and twice the time.
"""

import functools
import io
from typing import Any, BinaryIO

import cv2
import numpy as np
import simplejpeg
from PIL import Image, JpegImagePlugin

from colorize_cli.color.lab import Bytes
from colorize_cli.color.ycbcr import BytePlanes

_SOI, _MARKER = b"\xff\xd8", 0xFF
_COMMENT = 0xFE
_APPLICATION = range(0xE0, 0xF0)
# Coarser chroma would be in steps that can be seen. What quality some other program's table is, is not known.
_LEAST_CHROMA, _CHROMA_BESIDE_TABLE = 75, 95
# Below a quality of 96 libjpeg-turbo transforms quickly. What that rounds away is little beside what tables
# do, but for the finest of them.
_MOST_QUICK, _LEAST_EXACT = 92, 96
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


def write(file: BinaryIO, colors: Bytes | BytePlanes, quality: int | Table, saving: dict[str, Any]) -> None:
    """Writes a file.

    Args:
        file: To write to.
        colors: RGB (H, W, 3), whose chroma is stored at full resolution; or planes, stored as they are.
        quality: From 1 to 100, of which 93 to 95 become 96, with chrominance no coarser than at 75; or a
            quantisation table of luminance, with that of chrominance at 95.
        saving: What Pillow would be told to save with it.

    Raises:
        ValueError: It cannot be encoded.
    """
    if not isinstance(quality, int):
        _write_by_pillow(file, colors, (quality, tables(_CHROMA_BESIDE_TABLE)[1]), saving)
        return
    if quality < _LEAST_CHROMA:
        _write_by_pillow(file, colors, (tables(quality)[0], tables(_LEAST_CHROMA)[1]), saving)
        return
    if _MOST_QUICK < quality < _LEAST_EXACT:
        quality = _LEAST_EXACT
    if isinstance(colors, BytePlanes):
        luma = colors.luma
        if colors.blue.shape != luma.shape:
            luma = _even(luma)
        encoded = simplejpeg.encode_jpeg_yuv_planes(luma, colors.blue, colors.red, quality)
    else:
        encoded = simplejpeg.encode_jpeg(colors, quality, "RGB", "444")
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "JPEG", **saving)
    head = small.getvalue()
    file.write(head[: _described(head)])
    file.write(memoryview(encoded)[_described(encoded) :])


def _even(plane: Bytes) -> Bytes:
    """The plane (H, W) with the same again in memory beyond its odd edges, where the encoder reads."""
    height, width = plane.shape
    if not (height % 2 or width % 2):
        return plane
    larger = cv2.copyMakeBorder(plane, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return np.asarray(larger, np.uint8)[:height, :width]


def _write_by_pillow(
    file: BinaryIO, colors: Bytes | BytePlanes, qtables: tuple[Table, Table], saving: dict[str, Any]
) -> None:
    image, sampling = _image(colors)
    image.save(
        file, "JPEG", **saving | {"qtables": [list(table) for table in qtables], "subsampling": sampling}
    )


def _image(colors: Bytes | BytePlanes) -> tuple[Image.Image, str]:
    """A Pillow image, and how it is to sample chroma so that planes are stored as they are."""
    if not isinstance(colors, BytePlanes):
        return Image.fromarray(colors), "4:4:4"
    height, width = colors.luma.shape
    if colors.blue.shape == colors.luma.shape:
        chroma, sampling = [colors.blue, colors.red], "4:4:4"
    else:
        chroma = [plane.repeat(2, 0).repeat(2, 1)[:height, :width] for plane in (colors.blue, colors.red)]
        sampling = "4:2:0"
    return Image.merge("YCbCr", [Image.fromarray(plane) for plane in (colors.luma, *chroma)]), sampling


def _described(content: bytes) -> int:
    """Where the segments end that describe a picture, which come first."""
    place = len(_SOI)
    while content[place] == _MARKER and (
        content[place + 1] in _APPLICATION or content[place + 1] == _COMMENT
    ):
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return place
