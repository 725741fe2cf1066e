"""Write TIFF: RGB of 8 or 16 bits, with transparency and EXIF directories.

Pillow writes neither 16-bit color nor an EXIF directory in a compressed file. Only its tag directories are
used here. The format is TIFF 6.0, with Deflate (TIFF Technical Notes, 2002) and the horizontal predictor.
"""

import io
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from colorize_cli.core.errors import WriteError
from colorize_cli.image.metadata import SRGB_PROFILE, Metadata, exif_tags

_STRIP_BYTES = 1 << 20
_LEVEL = 4  # above it files hardly shrink and time doubles
_LARGEST = 2**32 - 1
# TIFF 6.0 and its supplements.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _SAMPLES, _ROWS = (
    256,
    257,
    258,
    259,
    262,
    273,
    277,
    278,
)
_STRIP_SIZES, _ACROSS, _DOWN, _PLANAR, _UNIT, _PREDICTOR, _EXTRA, _XMP, _IPTC, _ICC = (
    279, 282, 283, 284, 296, 317, 338, 700, 33723, 34675,
)  # fmt: skip
_DEFLATE, _RGB, _HORIZONTAL, _INCH, _UNASSOCIATED = 8, 2, 2, 2, 2
_BYTE, _UNDEFINED = 1, 7

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


class Writer:
    """Writer of pages to a file, one after another."""

    def __init__(self, file: BinaryIO) -> None:
        """Write the header at the start of a seekable file."""
        self._file = file
        self._file.write(struct.pack("<2sHI", b"II", 42, 0))
        # Offset of the field that will hold the position of the next page's directory.
        self._link = 4

    def add(self, samples: Samples, metadata: Metadata) -> None:
        """Write a page.

        Args:
            samples: (H, W, 3) sRGB or (H, W, 4) with transparency, uint8 or uint16.
            metadata: Metadata of the page.

        Raises:
            WriteError: The file would exceed 4 GiB, the limit of TIFF.
        """
        start = self._file.seek(0, io.SEEK_END)
        start += self._file.write(b"\0" * (start % 2))
        strips, rows = _compressed(samples)
        directory = _directory(samples, metadata)
        directory[_ROWS] = rows
        directory[_STRIP_SIZES] = tuple(map(len, strips))
        # Pillow adds the end of the directory to these offsets.
        directory[_STRIPS] = tuple(int(n) for n in np.cumsum([0, *map(len, strips[:-1])]))
        body = directory.tobytes(start)
        if start + len(body) + sum(map(len, strips)) > _LARGEST:
            raise WriteError("TIFF cannot hold more than 4 GiB; choose another format")
        self._file.write(body)
        for strip in strips:
            self._file.write(strip)
        self._file.seek(self._link)
        self._file.write(struct.pack("<I", start))
        (entries,) = struct.unpack_from("<H", body)
        self._link = start + 2 + 12 * entries


def _compressed(samples: Samples) -> tuple[list[bytes], int]:
    """Return the compressed strips, and the number of rows per strip (fewer in the last)."""
    height, width, channels = samples.shape
    rows = max(1, _STRIP_BYTES // (width * channels * samples.itemsize))
    strips = []
    for start in range(0, height, rows):
        strip = samples[start : start + rows]
        differences = np.diff(strip, axis=1, prepend=strip.dtype.type(0))
        strips.append(zlib.compress(differences.astype(f"<u{strip.itemsize}").tobytes(), _LEVEL))
    return strips, rows


def _directory(samples: Samples, metadata: Metadata) -> TiffImagePlugin.ImageFileDirectory_v2:
    height, width, channels = samples.shape
    directory: Any = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\x08\0\0\0")
    for tag, value in exif_tags(metadata).items():
        directory[tag] = value
    bits = 8 * samples.itemsize
    storage = {
        _WIDTH: width,
        _HEIGHT: height,
        _BITS: (bits,) * channels,
        _COMPRESSION: _DEFLATE,
        _PHOTOMETRIC: _RGB,
        _SAMPLES: channels,
        _PLANAR: 1,
        _PREDICTOR: _HORIZONTAL,
    }
    directory.update(storage)
    if channels == 4:
        directory[_EXTRA] = _UNASSOCIATED
    if metadata.dpi:
        directory[_ACROSS], directory[_DOWN] = metadata.dpi
        directory[_UNIT] = _INCH
    for tag, kind, data in (
        (_ICC, _UNDEFINED, SRGB_PROFILE),
        (_XMP, _BYTE, metadata.xmp),
        (_IPTC, _UNDEFINED, metadata.iptc),
    ):
        if data:
            directory.tagtype[tag] = kind
            directory[tag] = data
    return directory  # type: ignore[no-any-return]
