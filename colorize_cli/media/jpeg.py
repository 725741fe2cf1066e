"""JPEG by libjpeg-turbo, told planes of luma and chroma; Pillow writes what describes the picture.

ITU-T T.81 (1992), annex B. Pillow's own encoder takes pixels of four bytes in RGB, and twice the time.
"""

import functools
import io
from typing import Any, BinaryIO

import simplejpeg
from PIL import Image, JpegImagePlugin

from colorize_cli.color import Bytes
from colorize_cli.ycbcr import BytePlanes

_SOI, _MARKER = b"\xff\xd8", 0xFF
_COMMENT = 0xFE
_APPLICATION = range(0xE0, 0xF0)
_CHROMA_QUALITY = 95
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


def write(file: BinaryIO, colours: Bytes | BytePlanes, quality: int | Table, saving: dict[str, Any]) -> None:
    """Writes a file.

    Args:
        file: To write to.
        colours: RGB (H, W, 3), whose chroma is stored at full resolution; or planes, stored as they are.
        quality: From 1 to 100, of which 93 to 95 become 96; or the quantisation table of luminance, that of
            chrominance being then the one of quality 95.
        saving: What Pillow would be told to save with it.

    Raises:
        ValueError: It cannot be encoded.
    """
    if not isinstance(quality, int):
        qtables = [list(quality), list(tables(_CHROMA_QUALITY)[1])]
        image, sampling = _image(colours)
        image.save(file, "JPEG", **saving | {"qtables": qtables, "subsampling": sampling})
        return
    if _MOST_QUICK < quality < _LEAST_EXACT:
        quality = _LEAST_EXACT
    if isinstance(colours, BytePlanes):
        encoded = simplejpeg.encode_jpeg_yuv_planes(colours.luma, colours.blue, colours.red, quality)
    else:
        encoded = simplejpeg.encode_jpeg(colours, quality, "RGB", "444")
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "JPEG", **saving)
    head = small.getvalue()
    file.write(head[: _described(head)])
    file.write(memoryview(encoded)[_described(encoded) :])


def _image(colours: Bytes | BytePlanes) -> tuple[Image.Image, str]:
    """A Pillow image, and how it is to sample chroma so that planes are stored as they are."""
    if not isinstance(colours, BytePlanes):
        return Image.fromarray(colours), "4:4:4"
    height, width = colours.luma.shape
    if colours.blue.shape == colours.luma.shape:
        chroma, sampling = [colours.blue, colours.red], "4:4:4"
    else:
        chroma = [plane.repeat(2, 0).repeat(2, 1)[:height, :width] for plane in (colours.blue, colours.red)]
        sampling = "4:2:0"
    return Image.merge("YCbCr", [Image.fromarray(plane) for plane in (colours.luma, *chroma)]), sampling


def _described(content: bytes) -> int:
    """Where the segments end that describe a picture, which come first."""
    place = len(_SOI)
    while content[place] == _MARKER and (
        content[place + 1] in _APPLICATION or content[place + 1] == _COMMENT
    ):
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return place
