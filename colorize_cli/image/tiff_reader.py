"""Read TIFF and BigTIFF pages that Pillow reduces to 8 bits, misreads or refuses.

tifffile and imagecodecs decode the samples. Pillow reads only the tags that describe the picture; for files
that it refuses it gets a copy of them (see `open_image`).
"""

import contextlib
import io
import logging
import os
import struct
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from colorize_cli.color.lab import Codes
from colorize_cli.core.errors import ReadError
from colorize_cli.image import exif
from colorize_cli.image.frame import unit_codes

# TIFF 6.0 and its supplements.
_BITS, _COMPRESSION, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 259, 338, 339
_SAMPLES, _ROWS, _TILE_WIDTH, _TILE_HEIGHT = 277, 278, 322, 323
_MOST_KEPT = 5  # samples of a pixel
_SUBDIRECTORIES = 330
# Tags that point to other directories: EXIF, with interoperability below it, and GPS.
_Pointers = dict[int, "_Pointers"]
_POINTERS: _Pointers = {34665: {40965: {}}, 34853: {}}
# Tags of how the samples are stored.
_LAYOUT = frozenset(
    {258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347}
)
_INTEGERS = {3: "H", 4: "I", 16: "Q"}
_SHORT, _LONG, _WIDE = 3, 4, (16, 17, 18)  # types; the last are BigTIFF's of 8 bytes
_ASSOCIATED, _ALPHA = 1, (1, 2)  # extra samples
_WHITE_IS_ZERO, _PALETTE, _YCBCR, _CIELAB = 0, 3, 6, 8
_SPACES = {0: "GRAY", 1: "GRAY", 2: "RGB", 3: "RGB", 5: "CMYK", 6: "RGB", 8: "LAB", 9: "LAB"}
_JPEGS = (6, 7)  # compressions; their decoder converts Y'CbCr
_BY_LIBTIFF = (2, 3, 4, 6)  # compressions: CCITT and the first kind of JPEG
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_SEPARATE = 2  # planar configuration
_STRIPE_BYTES = 1 << 22
_MOST_SAMPLES, _MOST_PAGES, _MOST_VALUES = 32, 65535, 1 << 20
_DESCRIBED = frozenset({254, 256, 257, 274, 282, 283, 296})  # further tags that Pillow reads
_TURNS = {
    # For each orientation (TIFF 6.0, section 8): flip rows, flip columns, transpose. The transposition comes
    # first.
    1: (False, False, False),
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (False, True, True),
    7: (True, True, True),
    8: (True, False, True),
}

_libtiff = threading.Lock()
_LONGEST = 1 << 16  # bytes of messages

_Entries = dict[int, tuple[int, int, bytes]]

# tifffile logs what it finds odd about a file that it reads all the same.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TagsOnly(TiffImagePlugin.TiffImageFile):
    """An image whose pixels Pillow cannot decode, for the tags and sizes of its pages.

    Attributes:
        layouts: Tags of how the samples are stored, by page, as far as they lie in the directories.
    """

    layouts: list[dict[int, int]]


def open_image(file: BinaryIO) -> TiffImagePlugin.TiffImageFile:
    """Open a file with Pillow, or its tags if Pillow refuses any of its pages or the file is a BigTIFF."""
    is_big = 43 in file.read(4)[2:]
    _check_counts(file)
    file.seek(0)
    if not is_big:
        try:
            image = TiffImagePlugin.TiffImageFile(file, "")
            if image.n_frames:  # Pillow looks at each page
                return image
        except (SyntaxError, KeyError, TypeError, ValueError, OSError):
            file.seek(0)
    copied, layouts = _tags(file)
    tags = TagsOnly(io.BytesIO(copied), "")
    tags.layouts = layouts
    return tags


def _check_counts(file: BinaryIO) -> None:
    """Raise ReadError if a tag that Pillow or tifffile reads has so many values that they fill memory."""
    head = exif.stream(file)
    offset, seen = head.first if head else 0, set[int]()
    while head and offset and offset not in seen and len(seen) < _MOST_PAGES:
        seen.add(offset)
        found = exif.entries(file, head, offset)
        for entry in found:
            if entry.values > _MOST_VALUES and entry.tag in _LAYOUT | _DESCRIBED:
                raise ReadError(f"damaged TIFF header: tag {entry.tag} has {entry.values:,} values")
        offset = exif.following(file, head, found)


def bytes_a_pixel(image: Any) -> int:
    """Return the bytes of memory that a pixel of the current page takes while it is read and written."""
    tags = _layout(image)
    bits = tags.get(_BITS, 64)  # the most, if it is not in the directory
    samples, size = tags.get(_SAMPLES, 1), -(-(max(bits) if isinstance(bits, tuple) else bits) // 8)
    kept = 2 * min(samples, _MOST_KEPT) * min(size, 2) + 1
    # A compressed strip or tile is decoded as a whole.
    width, height = image.size
    part = min(tags.get(_ROWS, height), height) * width
    if _TILE_WIDTH in tags:
        part = tags[_TILE_WIDTH] * tags.get(_TILE_HEIGHT, 1)
    decoded = 2 * samples * size if tags.get(_COMPRESSION, 1) != 1 else 0
    return int(kept + decoded * part / (width * height))


def may_be_transparent(image: Any) -> bool:
    """Return True unless the current page surely has no transparency."""
    return _layout(image).get(_SAMPLES, 1) not in (1, 3)


def _layout(image: Any) -> Any:
    """Return the tags of how the samples of the current page are stored."""
    return image.layouts[image.tell()] if isinstance(image, TagsOnly) else image.tag_v2


def is_plain(image: Image.Image) -> bool:
    """Return True if Pillow decodes the current page of a TIFF without loss."""
    tags = getattr(image, "tag_v2", {})
    return (
        not isinstance(image, TagsOnly)
        and tags.get(_COMPRESSION, 1) in (1, *_BY_LIBTIFF)
        and image.mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK")
        and max(tags.get(_BITS, (1,))) <= 8
        and set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))) == {_UNSIGNED}
    )


def load(image: TiffImagePlugin.TiffImageFile) -> str | None:
    """Decode the current page with Pillow. Returns what libtiff says of damage, or None.

    libtiff writes it to standard error, which all threads share.
    """
    if all(tile[0] != "libtiff" for tile in image.tile):
        image.load()
        return None
    with _libtiff, tempfile.TemporaryFile() as heard:
        before = os.dup(2)
        os.dup2(heard.fileno(), 2)
        try:
            image.load()
        finally:
            os.dup2(before, 2)
            os.close(before)
            heard.seek(0)
            said = heard.read(_LONGEST).decode(errors="replace").splitlines()
    return said[0] if said else None


def turned(samples: Codes, orientation: int) -> Codes:
    """Return a view of samples (H, W, channels) in the orientation that a viewer shows.

    Args:
        samples: The samples as stored.
        orientation: Orientation, from 1 to 8.
    """
    flip_rows, flip_columns, transpose = _TURNS[orientation]
    upright = samples.transpose(1, 0, 2) if transpose else samples
    return upright[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def read(file: BinaryIO, number: int) -> tuple[Codes, str]:
    """Decode a page.

    Args:
        file: The file.
        number: Number of the page, from 0.

    Returns:
        (H, W, channels) uint8 or uint16 as stored, 0 for black, with a channel for transparency if there is
        one; and the color space for `frame.from_samples`.

    Raises:
        ReadError: The file is damaged, or the kind of samples is not supported.
    """
    import tifffile  # takes as long to import as Pillow, and few files need it

    with tifffile.TiffFile(file, name="picture") as tiff:
        page: Any = tiff.pages[number]
        space = _SPACES.get(page.photometric)
        if space is None:
            raise ReadError(f"TIFF of photometric interpretation {page.photometric} is not supported")
        if page.photometric == _YCBCR and page.compression not in _JPEGS:
            raise ReadError("TIFF of Y'CbCr is supported only with JPEG compression")
        stored = 1 if page.photometric == _PALETTE else {"GRAY": 1, "CMYK": 4}.get(space, 3)
        bits, kind, dtype = page.bitspersample, page.sampleformat, page.dtype
        if page.samplesperpixel not in range(stored, _MOST_SAMPLES + 1):
            raise ReadError(f"TIFF of {page.samplesperpixel} samples per pixel is not supported")
        if kind == _SIGNED:
            raise ReadError(
                f"signed {bits}-bit integer samples are not supported: their white level is unknown"
            )
        if kind not in (_UNSIGNED, _FLOAT) or not isinstance(bits, int) or dtype is None:
            raise ReadError(f"TIFF samples of {bits} bits and format {kind} are not supported")
        if kind == _UNSIGNED and bits > 16:
            raise ReadError(f"{bits}-bit integer samples are not supported: their white level is unknown")
        extras = page.extrasamples
        if space == "RGB" and _EXTRA_SAMPLES not in page.tags:  # as Pillow reads such files
            extras = _ALPHA[1:] * (page.samplesperpixel - stored)
        alpha = next((n for n, extra in enumerate(extras) if extra in _ALPHA), None)
        wanted = [*range(stored), *([] if alpha is None else [stored + alpha])]
        codes: npt.NDArray[Any] = np.empty(
            (page.imagelength, page.imagewidth, len(wanted)), np.uint8 if bits in (1, 2, 4, 8) else np.uint16
        )
        for plane, y, x, part in _parts(tiff, page):
            into = codes[y : y + part.shape[0], x : x + part.shape[1]]
            part = part[: into.shape[0], : into.shape[1]]
            channels = (
                [(plane, 0)] if page.planarconfig == _SEPARATE else [(n, n) for n in range(part.shape[2])]
            )
            for channel, source in channels:
                if channel in wanted:
                    into[..., wanted.index(channel)] = _scaled(part[..., source], bits, page.photometric)
        if page.photometric == _PALETTE:
            colors = np.moveaxis(np.asarray(page.colormap), 0, -1) >> 8
            codes = np.dstack([colors.astype(np.uint8)[codes[..., 0]], codes[..., 1:]])
        if page.photometric == _WHITE_IS_ZERO:
            np.subtract(np.iinfo(codes.dtype).max, codes[..., 0], out=codes[..., 0])
        if page.photometric == _CIELAB:  # a* and b* are signed
            codes[..., 1:3] ^= codes.dtype.type(1 << 8 * codes.itemsize - 1)
        if alpha is not None and extras[alpha] == _ASSOCIATED:
            _divide_by_alpha(codes)
    return codes, space


def _parts(tiff: Any, page: Any) -> Iterator[tuple[int, int, int, npt.NDArray[Any]]]:
    """Yield the plane, first row, first column and samples (h, w, channels) of parts of tifffile's page."""
    file = tiff.filehandle
    ends = [start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if len(page.dataoffsets) != len(page.databytecounts) or max(ends, default=0) > file.size:
        raise ReadError("damaged: the file is truncated")
    if not page.is_contiguous or page.bitspersample != 8 * page.dtype.itemsize or page.fillorder != 1:
        for samples, (plane, _, y, x, _), shape in page.segments(maxworkers=1):
            if samples is None or (not page.is_tiled and samples.shape != shape):
                raise ReadError("damaged: part of the picture is missing")
            yield plane, y, x, samples[0]
        return
    # Samples as they are, perhaps in one strip of the whole picture.
    height, width = page.imagelength, page.imagewidth
    planes, channels = (
        (page.samplesperpixel, 1) if page.planarconfig == _SEPARATE else (1, page.samplesperpixel)
    )
    dtype = page.dtype.newbyteorder(tiff.byteorder)
    row = width * channels * dtype.itemsize
    step = max(1, _STRIPE_BYTES // row)
    for plane in range(planes):
        for y in range(0, height, step):
            rows = min(step, height - y)
            file.seek(page.dataoffsets[0] + (plane * height + y) * row)
            yield plane, y, 0, np.frombuffer(file.read(rows * row), dtype).reshape(rows, width, channels)


def _scaled(samples: npt.NDArray[Any], bits: int, photometric: int) -> npt.NDArray[Any]:
    """Return samples as 8-bit or 16-bit codes; indices of a palette are returned as they are."""
    if samples.dtype.kind == "f":
        return unit_codes(samples)
    if bits in (8, 16) or photometric == _PALETTE:
        return samples
    white = 255 if bits < 8 and 8 % bits == 0 else 65535
    return np.rint(samples * np.float32(white / (2**bits - 1)))


def _divide_by_alpha(samples: npt.NDArray[Any]) -> None:
    white = np.iinfo(samples.dtype).max
    alpha = np.maximum(samples[..., -1], 1).astype(np.float32) / np.float32(white)
    for channel in range(samples.shape[2] - 1):
        samples[..., channel] = np.minimum(np.rint(samples[..., channel] / alpha), white)


def _tags(file: BinaryIO) -> tuple[bytes, list[dict[int, int]]]:
    """Copy the tags of all pages of a TIFF or BigTIFF.

    Returns:
        A TIFF of gray pages without pixels; and the first value of each tag of how the samples are stored.
    """
    head = file.read(16)
    if len(head) < 8:
        raise ReadError("damaged: the file is truncated")
    order = "<" if head[:2] == b"II" else ">"
    is_big = 43 in head[2:4]
    (offset,) = struct.unpack_from(order + ("Q" if is_big else "I"), head, 8 if is_big else 4)
    copied = bytearray(head[:2] + struct.pack(order + "HI", 42, 0))
    link = 4
    seen: set[int] = set()
    layouts: list[dict[int, int]] = []
    while offset and offset not in seen and len(seen) < _MOST_PAGES:
        seen.add(offset)
        try:
            entries, offset = _copied(file, offset, order, is_big, copied, _POINTERS)
        except (struct.error, OverflowError, ValueError, OSError) as error:
            raise ReadError("damaged TIFF header") from error
        layouts.append({})
        for tag in _LAYOUT | {_SUBDIRECTORIES}:
            kind, _, data = entries.pop(tag, (0, 0, b""))
            if kind in _INTEGERS:
                (layouts[-1][tag],) = struct.unpack_from(order + _INTEGERS[kind], data)
        for tag, value in ((258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, 1), (279, 0)):
            entries[tag] = (_SHORT, 1, struct.pack(order + "H", value))
        start = _append(copied, entries, order)
        struct.pack_into(order + "I", copied, link, start)
        link = start + 2 + 12 * len(entries)
    return bytes(copied), layouts


def _copied(
    file: BinaryIO, offset: int, order: str, is_big: bool, copied: bytearray, pointers: _Pointers
) -> tuple[_Entries, int]:
    """Like `_directory`, but appends the directories below to the copy, and points to them there."""
    entries, following = _directory(file, offset, order, is_big)
    for tag in pointers.keys() & entries:
        kind, _, data = entries.pop(tag)
        with contextlib.suppress(struct.error, OverflowError, ValueError, OSError):  # damaged metadata
            (at,) = struct.unpack(order + ("Q" if exif.SIZES[kind] == 8 else "I"), data)
            below, _ = _copied(file, at, order, is_big, copied, pointers[tag])
            entries[tag] = (_LONG, 1, struct.pack(order + "I", _append(copied, below, order)))
    return entries, following


def _directory(file: BinaryIO, offset: int, order: str, is_big: bool) -> tuple[_Entries, int]:
    """Read a directory: type, number and bytes of the values by tag, and the offset of the next directory."""
    file.seek(offset)
    (count,) = struct.unpack(order + ("Q" if is_big else "H"), file.read(8 if is_big else 2))
    entry, inline, pointer = ("HHQ8s", 8, "Q") if is_big else ("HHI4s", 4, "I")
    size = struct.calcsize(order + entry)
    raw = file.read(min(count, _MOST_PAGES) * size + inline)
    (following,) = struct.unpack_from(order + pointer, raw, count * size)
    entries: _Entries = {}
    end = file.seek(0, io.SEEK_END)
    for tag, kind, number, data in struct.iter_unpack(order + entry, raw[: count * size]):
        length = exif.SIZES.get(kind, 0) * number
        if length > inline:
            (at,) = struct.unpack(order + pointer, data)
            if at + length > end or tag in _LAYOUT:
                continue
            file.seek(at)
            data = file.read(length)
        if length:
            entries[tag] = (kind, number, data[:length])
    return entries, following


def _append(copied: bytearray, entries: _Entries, order: str) -> int:
    """Append a directory of a TIFF, without a next one, and its values. Returns its offset."""
    copied += b"\0" * (len(copied) % 2)
    start = len(copied)
    directory, values = bytearray(struct.pack(order + "H", len(entries))), bytearray()
    after = start + 2 + 12 * len(entries) + 4
    for tag, (kind, number, data) in sorted(entries.items()):
        if kind in _WIDE:
            wide = struct.unpack(f"{order}{number}Q", data)
            kind, data = _LONG, struct.pack(f"{order}{number}I", *(value & 0xFFFFFFFF for value in wide))
        if len(data) > 4:
            pointer = struct.pack(order + "I", after + len(values))
            values += data + b"\0" * (len(data) % 2)
            data = pointer
        directory += struct.pack(order + "HHI", tag, kind, number) + data.ljust(4, b"\0")
    copied += directory + b"\0\0\0\0" + values
    return start
