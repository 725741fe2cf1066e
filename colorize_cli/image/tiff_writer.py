"""Write TIFF: RGB of 8 or 16 bits, with transparency and EXIF directories.

Pillow writes neither 16-bit color nor an EXIF directory in a compressed file. The format is TIFF 6.0, with
Deflate (TIFF Technical Notes, 2002) and the horizontal predictor.
"""

import io
import itertools
import struct
import zlib
from collections.abc import Iterable
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from colorize_cli.color.lab import Codes
from colorize_cli.core.errors import WriteError
from colorize_cli.image import exif
from colorize_cli.image.frame import with_alpha
from colorize_cli.image.metadata import SRGB_PROFILE, Metadata, one_packet

_STRIP_BYTES = 1 << 20
_LEVEL = 4  # above it files hardly shrink and time doubles
_LARGEST = 2**32 - 1
# TIFF 6.0 and its supplements.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS, _STRIP_SIZES, _ACROSS, _DOWN = 273, 277, 278, 279, 282, 283
_PLANAR, _UNIT, _PREDICTOR, _EXTRA, _ICC = 284, 296, 317, 338, 34675
_DEFLATE, _RGB, _HORIZONTAL, _INCH, _UNASSOCIATED = 8, 2, 2, 2, 2
_RATIONAL, _FINEST = 5, 10_000  # greatest denominator of a resolution


class Writer:
    """Writer of pages to a file, one after another."""

    def __init__(self, file: BinaryIO) -> None:
        """Write to a seekable, empty file."""
        self._file = file
        self._order = "<"
        # Offset of the field that will hold the position of the next page's directory.
        self._link = 4

    def add(self, rgb: Codes, alpha: Codes | None, metadata: Metadata) -> None:
        """Write a page.

        The EXIF block of the first page is the start of the file, so that offsets in its maker notes hold.
        The file has its byte order; all pages come from one file, with one byte order.

        Args:
            rgb: (H, W, 3) sRGB, uint8 or uint16.
            alpha: Transparency (H, W), or None.
            metadata: Metadata of the page.

        Raises:
            WriteError: The file would exceed 4 GiB, the limit of TIFF.
        """
        start = self._file.seek(0, io.SEEK_END)
        if start == 0:
            self._order = ">" if (metadata.exif or b"").startswith(b"MM") else "<"
            self._file.write(metadata.exif or struct.pack("<2sHI", b"II", 42, 0))
        elif metadata.exif:
            start += self._file.write(b"\0" * (start % 2))
            self._file.write(exif.shifted(metadata.exif, start))
        described = exif.rows(exif.shifted(metadata.exif, start)) if metadata.exif else []
        start = self._file.seek(0, io.SEEK_END)
        start += self._file.write(b"\0" * (start % 2))
        strips, rows = _compressed(rgb, alpha, self._order)
        shape = *rgb.shape[:2], 3 if alpha is None else 4
        fields = _fields(shape, rgb.itemsize, metadata, rows, self._order)
        if any(entry[:2] == struct.pack(self._order + "H", _ACROSS) for entry in described):
            fields = [field for field in fields if field.tag not in (_ACROSS, _DOWN, _UNIT)]
        sizes = exif.Field(_STRIP_SIZES, exif.LONG, _longs(self._order, map(len, strips)))
        offsets = exif.Field(_STRIPS, exif.LONG, bytes(4 * len(strips)))
        end = start + len(exif.directory(self._order, start, [*fields, sizes, offsets], described))
        if end + sum(map(len, strips)) > _LARGEST:
            raise WriteError("TIFF cannot hold more than 4 GiB; choose another format")
        positions = itertools.accumulate(map(len, strips[:-1]), initial=end)
        offsets = exif.Field(_STRIPS, exif.LONG, _longs(self._order, positions))
        body = exif.directory(self._order, start, [*fields, sizes, offsets], described)
        self._file.write(body)
        for strip in strips:
            self._file.write(strip)
        self._file.seek(self._link)
        self._file.write(struct.pack(self._order + "I", start))
        (entries,) = struct.unpack_from(self._order + "H", body)
        self._link = start + 2 + 12 * entries


def _longs(order: str, numbers: Iterable[int]) -> bytes:
    return b"".join(struct.pack(order + "I", number) for number in numbers)


def _compressed(rgb: Codes, alpha: Codes | None, order: str) -> tuple[list[bytes], int]:
    """Return the compressed strips, and the number of rows per strip (fewer in the last)."""
    height, width = rgb.shape[:2]
    rows = max(1, _STRIP_BYTES // (width * (3 if alpha is None else 4) * rgb.itemsize))
    strips = []
    for start in range(0, height, rows):
        part = slice(start, start + rows)
        strip = with_alpha(rgb[part], None if alpha is None else alpha[part])
        differences = np.diff(strip, axis=1, prepend=strip.dtype.type(0))
        strips.append(zlib.compress(differences.astype(f"{order}u{strip.itemsize}").tobytes(), _LEVEL))
    return strips, rows


def _fields(
    shape: tuple[int, ...], itemsize: int, metadata: Metadata, rows: int, order: str
) -> list[exif.Field]:
    height, width, channels = shape

    def short(tag: int, *values: int) -> exif.Field:
        return exif.Field(tag, exif.SHORT, struct.pack(f"{order}{len(values)}H", *values))

    fields = [
        exif.Field(_WIDTH, exif.LONG, struct.pack(order + "I", width)),
        exif.Field(_HEIGHT, exif.LONG, struct.pack(order + "I", height)),
        exif.Field(_ROWS, exif.LONG, struct.pack(order + "I", rows)),
        short(_BITS, *(8 * itemsize,) * channels),
        short(_COMPRESSION, _DEFLATE),
        short(_PHOTOMETRIC, _RGB),
        short(_SAMPLES, channels),
        short(_PLANAR, 1),
        short(_PREDICTOR, _HORIZONTAL),
        exif.Field(_ICC, exif.UNDEFINED, SRGB_PROFILE),
    ]
    if channels == 4:
        fields.append(short(_EXTRA, _UNASSOCIATED))
    if metadata.dpi:
        for tag, dpi in zip((_ACROSS, _DOWN), metadata.dpi, strict=True):
            ratio = Fraction(dpi).limit_denominator(_FINEST)
            fields.append(exif.Field(tag, _RATIONAL, struct.pack(order + "II", *ratio.as_integer_ratio())))
        fields.append(short(_UNIT, _INCH))
    for tag, kind, data in (
        (exif.XMP, exif.BYTE, one_packet(metadata, "TIFF")),
        (exif.IPTC, exif.UNDEFINED, metadata.iptc),
        (exif.PHOTOSHOP, exif.BYTE, metadata.resources),
    ):
        if data:
            fields.append(exif.Field(tag, kind, data))
    return fields
