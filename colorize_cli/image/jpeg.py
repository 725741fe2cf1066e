"""Decode and encode JPEG (ITU-T T.81, 1992, annex B) with libjpeg-turbo.

Decoding reports what libjpeg warns of, which Pillow does not. Encoding is from planes of luma and chroma.
Pillow writes the metadata segments. Its encoder is not used for the pixels where libjpeg-turbo can be: it
needs RGB of four bytes per pixel and takes twice the time.
"""

import functools
import io
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, JpegImagePlugin

from colorize_cli.color.lab import Bytes
from colorize_cli.color.ycbcr import BytePlanes
from colorize_cli.core.errors import ReadError, one_line

_SOI, _MARKER = b"\xff\xd8", 0xFF
_COMMENT = 0xFE
_APPLICATION = range(0xE0, 0xF0)
_EOI, _SCAN = b"\xff\xd9", 0xDA
# Frame headers: SOF0 to SOF15 without DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_COLORS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}  # simplejpeg's names of Pillow's modes
_ENDS_TOO_EARLY = "Premature end of JPEG file"  # libjpeg's warning
_TWELVE = 12
# Coarser chroma would show visible steps. The quality of another program's table is unknown, hence the second
# number.
_LEAST_CHROMA, _CHROMA_BESIDE_TABLE = 75, 95
# Below a quality of 96 libjpeg-turbo uses its fast transform. Its rounding error is small compared with the
# quantization, except with the finest tables.
_MAX_FAST, _MIN_EXACT = 92, 96
Table = tuple[int, ...]


class TwelveBits(JpegImagePlugin.JpegImageFile):
    """A JPEG of 12 bits, whose header Pillow reads and whose pixels it cannot decode."""


def open_image(file: BinaryIO) -> JpegImagePlugin.JpegImageFile:
    """Open a file with Pillow."""
    try:
        return JpegImagePlugin.JpegImageFile(file, "")
    except SyntaxError:
        file.seek(0)
        content = bytearray(file.read())
        precision = next((at + 4 for marker, at in _segments(content) if marker in _FRAMES), None)
        if precision is None or content[precision] != _TWELVE:
            raise
        content[precision] = 8  # so that Pillow accepts the header
        return TwelveBits(io.BytesIO(content), "")


def read_12_bits(content: bytes) -> tuple[npt.NDArray[np.uint16], str]:
    """Decode a file of 12-bit samples.

    Returns:
        (H, W, channels) of 16 bits, and the color space for `frame.from_samples`.

    Raises:
        ReadError: The file is damaged.
    """
    try:
        samples = imagecodecs.jpeg8_decode(content)
    except imagecodecs.Jpeg8Error as error:
        raise ReadError(f"damaged: {one_line(error)}") from error
    samples = np.atleast_3d(np.rint(samples * np.float32(65535 / 4095)).astype(np.uint16))
    return samples, {1: "GRAY", 3: "RGB", 4: "CMYK"}[samples.shape[2]]


def read(content: bytes, mode: str) -> tuple[Image.Image, str | None]:
    """Decode a file of 8-bit samples.

    Args:
        content: Content of the file. Its end marker may be missing.
        mode: Pillow's mode of the image: L, RGB or CMYK.

    Returns:
        The image, and libjpeg's warning if the file is damaged; parts of the picture are then wrong.

    Raises:
        ReadError: The file is truncated, or nothing can be decoded.
    """
    damage = None
    try:
        pixels = simplejpeg.decode_jpeg(content, _COLORS[mode])
    except ValueError as warning:
        if _ENDS_TOO_EARLY in str(warning):
            pixels = _without_end(content, mode)
        else:
            damage = one_line(warning)
            try:
                pixels = simplejpeg.decode_jpeg(content, _COLORS[mode], strict=False)
            except ValueError as error:
                raise ReadError(f"damaged: {one_line(error)}") from error
    if mode == "CMYK":  # stored inverted
        np.subtract(255, pixels, out=pixels)
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode), damage


def _without_end(content: bytes, mode: str) -> Bytes:
    """Decode a file without an end marker that lacks nothing else."""
    scans: dict[int, npt.NDArray[np.bool_]] = {}
    for marker, at in _segments(content):
        if marker in _FRAMES:
            scans = {content[at + 10 + 3 * n]: np.zeros(64, np.bool_) for n in range(content[at + 9])}
        elif marker == _SCAN:
            count = content[at + 4]
            first, last, precision = content[at + 5 + 2 * count : at + 8 + 2 * count]
            for n in range(count):  # a coefficient is complete when its lowest bit has been sent
                scans[content[at + 5 + 2 * n]][first : last + 1] = precision & 15 == 0
    try:
        if all(complete.all() for complete in scans.values()):
            return np.asarray(simplejpeg.decode_jpeg(content + _EOI, _COLORS[mode]))
    except ValueError:
        pass
    raise ReadError("damaged: the file is truncated")


def _segments(content: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield the marker and the offset of each segment up to the end of the image or of the data."""
    at = len(_SOI)
    while at + 4 <= len(content) and content[at] == _MARKER:
        marker = content[at + 1]
        if marker == _MARKER:  # a fill byte
            at += 1
            continue
        if marker == _EOI[1]:
            return
        yield marker, at
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == _SCAN:
            following = _MARKER_IN_SCAN.search(content, at)
            at = following.start() if following else len(content)


def quality_of(luma_table: Table) -> int | None:
    """Return the libjpeg quality (1 to 100) with this luminance table, or None if there is none."""
    return next((q for q in range(100, 0, -1) if tables(q)[0] == luma_table), None)


@functools.cache
def tables(quality: int) -> tuple[Table, Table]:
    """Return libjpeg's quantization tables of luminance and chrominance at a quality, in Pillow's order."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    file.seek(0)
    with JpegImagePlugin.JpegImageFile(file) as image:
        luma, chroma = image.quantization[0], image.quantization[1]
    return tuple(luma), tuple(chroma)


def write(file: BinaryIO, colors: Bytes | BytePlanes, quality: int | Table, saving: dict[str, Any]) -> None:
    """Encode a picture and write it to a file.

    Args:
        file: The file to write to.
        colors: RGB (H, W, 3), whose chroma is stored at full resolution; or planes, stored as they are.
        quality: From 1 to 100; 93 to 95 become 96, and chrominance is never coarser than at 75. Or a
            quantization table of luminance; chrominance then has the table of quality 95.
        saving: Options of Pillow's `save` for the metadata.

    Raises:
        ValueError: The encoder rejects the picture.
    """
    if not isinstance(quality, int):
        _write_by_pillow(file, colors, (quality, tables(_CHROMA_BESIDE_TABLE)[1]), saving)
        return
    if quality < _LEAST_CHROMA:
        _write_by_pillow(file, colors, (tables(quality)[0], tables(_LEAST_CHROMA)[1]), saving)
        return
    if _MAX_FAST < quality < _MIN_EXACT:
        quality = _MIN_EXACT
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
    file.write(head[: _metadata_end(head)])
    file.write(memoryview(encoded)[_metadata_end(encoded) :])


def _even(plane: Bytes) -> Bytes:
    """Return the plane (H, W) with odd edges repeated in memory beyond them, where the encoder reads."""
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
    """Return a Pillow image, and the chroma subsampling that stores planes as they are."""
    if not isinstance(colors, BytePlanes):
        return Image.fromarray(colors), "4:4:4"
    height, width = colors.luma.shape
    if colors.blue.shape == colors.luma.shape:
        chroma, sampling = [colors.blue, colors.red], "4:4:4"
    else:
        chroma = [plane.repeat(2, 0).repeat(2, 1)[:height, :width] for plane in (colors.blue, colors.red)]
        sampling = "4:2:0"
    return Image.merge("YCbCr", [Image.fromarray(plane) for plane in (colors.luma, *chroma)]), sampling


def _metadata_end(content: bytes) -> int:
    """Return the offset at which the leading metadata segments of a JPEG end."""
    offset = len(_SOI)
    while content[offset] == _MARKER and (
        content[offset + 1] in _APPLICATION or content[offset + 1] == _COMMENT
    ):
        offset += 2 + int.from_bytes(content[offset + 2 : offset + 4], "big")
    return offset
