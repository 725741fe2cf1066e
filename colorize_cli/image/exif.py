"""Patch EXIF blocks, so that they hold for a colorized picture.

A block is a TIFF stream (TIFF 6.0) with the directories of EXIF 2.32 (JEITA CP-3451). Maker notes may hold
offsets from the start of the block. Therefore no value is moved: entries that no longer hold are changed or
removed where they are, and all other bytes stay. Libraries serialize blocks again (Pillow, piexif), or have a
license that this program cannot take on (Exiv2).
"""

import io
import os
import struct
from collections.abc import Collection, Iterable
from typing import IO, NamedTuple

from PIL import ExifTags

# Tags of a TIFF directory that describe how the pixels are stored (TIFF 6.0), or hold data kept elsewhere:
# XMP, IPTC, Photoshop's resources, the ICC profile; and Photoshop's layers, which are not in color.
STORAGE_TAGS = frozenset(
    {*range(254, 260), 262, 263, 264, 265, 266, *range(273, 282), 284, 288, 289, 290, 291, 292, 293}
    | {301, 317, 318, 319, 320, 321, *range(322, 326), 330, 332, 333, 334, 336, 337, 338, 339, 340, 341}
    | {342, 347, *range(512, 522), 529, 530, 531, 532, 700, 33723, 34377, 34675, 37724}
)
XMP, IPTC, PHOTOSHOP = 700, 33723, 34377
ORIENTATION = ExifTags.Base.Orientation
_DETAILS, _GPS, _INTEROP = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop
_THUMBNAIL_START, _THUMBNAIL_LENGTH, _CHROMA_POSITION = 513, 514, 531
_WIDTH_AND_HEIGHT = {256: 0, 257: 1, ExifTags.Base.ExifImageWidth: 0, ExifTags.Base.ExifImageHeight: 1}
# Xiaomi's mark of a photograph with a video behind it.
_MICRO_VIDEO = 0x8897
# Pairs of tags along the width and along the height.
_ACROSS_AND_DOWN = (
    (ExifTags.Base.XResolution, ExifTags.Base.YResolution),
    (ExifTags.Base.FocalPlaneXResolution, ExifTags.Base.FocalPlaneYResolution),
    (ExifTags.Base.RelatedImageWidth, ExifTags.Base.RelatedImageLength),
)
_SUBJECT = (ExifTags.Base.SubjectLocation, 0x9214)
_SRGB, _CENTERED = 1, 1
_JPEG_COMPRESSION, _INCH = 6, 2
_GRAY_COMPONENTS, _COLOR_COMPONENTS = b"\1\0\0\0", b"\1\2\3\0"
_ADOBE_RGB, _SRGB_RULES = b"R03", b"R98"

UNDEFINED, BYTE, SHORT, LONG = 7, 1, 3, 4
# Bytes per value, by type. 129 is the UTF-8 of EXIF 3.0; 16 to 18 are the 8-byte integers of BigTIFF.
_SIZES_CLASSIC = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
SIZES = _SIZES_CLASSIC | {16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_NARROW = {16: LONG, 17: 9, 18: 13}
_MOST_ENTRIES = 0xFFFF
# A maker note that lies so near the start of a TIFF keeps its offset.
_NEAR = 1 << 14


class Stream(NamedTuple):
    """Header of a TIFF stream: byte order as in `struct`, layout, and offset of the first directory."""

    order: str
    big: bool
    first: int


class Entry(NamedTuple):
    """Entry of a directory: its offset, tag, type and number of values, and offset and length of these."""

    at: int
    tag: int
    kind: int
    values: int
    start: int
    length: int


class Field(NamedTuple):
    """Tag with its type and the bytes of its value, in the byte order of its stream."""

    tag: int
    kind: int
    data: bytes


def read_at(file: IO[bytes], start: int, length: int) -> bytes:
    """Read bytes at an offset; fewer where the file ends before, however large the numbers are."""
    end = file.seek(0, os.SEEK_END)
    if not 0 <= start < end:
        return b""
    file.seek(start)
    return file.read(min(length, end - start))


def stream(file: IO[bytes]) -> Stream | None:
    """Read the header of a TIFF stream. Returns None if it is not one."""
    head = read_at(file, 0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return None
    magic, first = struct.unpack_from(order + "HI", head, 2)
    if magic == 42:
        return Stream(order, False, first)
    if magic == 43 and len(head) == 16:
        return Stream(order, True, struct.unpack_from(order + "Q", head, 8)[0])
    return None


def entries(file: IO[bytes], head: Stream, offset: int) -> list[Entry]:
    """Read the entries of a directory, as far as they lie within the stream."""
    number, row, inline, layout = ("Q", 20, 8, "HHQQ") if head.big else ("H", 12, 4, "HHII")
    sizes = SIZES if head.big else _SIZES_CLASSIC
    first = offset + struct.calcsize(number)
    count = read_at(file, offset, first - offset) if offset else b""
    if len(count) < first - offset:
        return []
    wanted = min(struct.unpack(head.order + number, count)[0], _MOST_ENTRIES)
    table = read_at(file, first, wanted * row)
    found = []
    for at in range(0, len(table) // row * row, row):
        tag, kind, values, pointer = struct.unpack_from(head.order + layout, table, at)
        length = sizes.get(kind, 0) * values
        start = first + at + row - inline if length <= inline else pointer
        found.append(Entry(first + at, tag, kind, values, start, length))
    return found


def orientation_of(block: bytes) -> int | None:
    """Return the orientation in a block, from 1 (upright) to 8; None if it has no valid one."""
    file = io.BytesIO(block)
    head = stream(file)
    if head is None:
        return None
    value = next((_number(file, head, e) for e in entries(file, head, head.first) if e.tag == ORIENTATION), 0)
    return value if 1 <= value <= 8 else None


def patched(block: bytes, orientation: int, size: tuple[int, int]) -> bytes | None:
    """Patch a block for a picture in color that was turned upright. Thumbnails, in gray, are removed.

    Args:
        block: The block, without the prefix `Exif`.
        orientation: Orientation that was applied, from 1 to 8.
        size: Width and height of the upright picture, in pixels.

    Returns:
        The block; None if it has no TIFF header, and thus no tag that can be read.
    """
    file = io.BytesIO(block)
    head = stream(file)
    if head is None or head.big:
        return None
    stale = STORAGE_TAGS - {ORIENTATION, _CHROMA_POSITION, *_WIDTH_AND_HEIGHT}
    _unlink_thumbnail(file, head)
    directories = [_without(file, head, head.first, stale)]
    for root in directories[0]:
        if root.tag in (_DETAILS, _GPS):
            details = _without(file, head, _number(file, head, root), {_MICRO_VIDEO})
            directories.append(details)
            if root.tag == _DETAILS:
                directories += [
                    entries(file, head, _number(file, head, e)) for e in details if e.tag == _INTEROP
                ]
    for directory in directories:
        for entry in directory:
            if directory is directories[0] or entry.tag not in (256, 257):
                _correct(file, head, entry, orientation, size)
        if orientation >= 5:
            _exchange(file, directory)
    return file.getvalue()


def has_thumbnail(block: bytes) -> bool:
    """Return True if a block holds a thumbnail."""
    file = io.BytesIO(block)
    head = stream(file)
    second = following(file, head, entries(file, head, head.first)) if head and not head.big else 0
    return bool(head and any(e.tag == _THUMBNAIL_START for e in entries(file, head, second)))


def with_thumbnail(block: bytes, jpeg: bytes) -> bytes:
    """Append a thumbnail to a block that has none."""
    file = io.BytesIO(block)
    head = stream(file)
    found = entries(file, head, head.first) if head else []
    if head is None or not found:
        return block
    at = file.seek(0, os.SEEK_END)
    at += file.write(bytes(at % 2))
    start = 0
    for _ in range(2):  # the second time with the offset of the end of the directory
        numbers = [(282, 5, (72, 1)), (283, 5, (72, 1)), (_THUMBNAIL_START, LONG, (start,))]
        numbers.append((_THUMBNAIL_LENGTH, LONG, (len(jpeg),)))
        fields = [Field(tag, kind, struct.pack(f"{head.order}{len(n)}I", *n)) for tag, kind, n in numbers]
        shorts = ((259, _JPEG_COMPRESSION), (296, _INCH))
        fields += [Field(tag, SHORT, struct.pack(head.order + "H", number)) for tag, number in shorts]
        second = directory(head.order, at, fields)
        start = at + len(second)
    file.write(second + jpeg)
    file.seek(found[-1].at + 12)
    file.write(struct.pack(head.order + "I", at))
    return file.getvalue()


def without(block: bytes, tags: Collection[int]) -> bytes:
    """Remove tags from the main directory of a block."""
    file = io.BytesIO(block)
    head = stream(file)
    if head is not None:
        _without(file, head, head.first, tags)
    return file.getvalue()


def shifted(block: bytes, by: int) -> bytes:
    """Add a number to all offsets in a block, so that it can lie at that offset of a larger stream.

    The offsets in maker notes are unknown, and stay.
    """
    file = io.BytesIO(block)
    head = stream(file)
    if head is None:
        raise ValueError("not a TIFF stream")
    offsets = [head.first]  # of directories; the loop adds those to which a directory points
    for offset in offsets:
        for entry in entries(file, head, offset):
            pointer = entry.tag in (_DETAILS, _GPS, _INTEROP)
            if pointer and len(offsets) < 4:
                offsets.append(_number(file, head, entry))
            if pointer or entry.length > 4:
                file.seek(entry.at + 8)
                (old,) = struct.unpack(head.order + "I", file.read(4))
                file.seek(entry.at + 8)
                file.write(struct.pack(head.order + "I", min(old + by, 0xFFFFFFFF)))
    return file.getvalue()


def rows(block: bytes) -> list[bytes]:
    """Return the entries of a block's main directory, 12 bytes each, without tags of storage."""
    file = io.BytesIO(block)
    head = stream(file)
    kept = STORAGE_TAGS - {ORIENTATION}
    found = [] if head is None else [e for e in entries(file, head, head.first) if e.tag not in kept]
    return [block[entry.at : entry.at + 12] for entry in found]


def directory(order: str, offset: int, fields: Iterable[Field], ready: Iterable[bytes] = ()) -> bytes:
    """Serialize a directory, followed by its values. No directory follows it.

    Args:
        order: Byte order, as in `struct`.
        offset: Offset at which it will lie, even.
        fields: Fields with values.
        ready: Entries of 12 bytes, whose values lie elsewhere. Fields take precedence.
    """
    table = {struct.unpack_from(order + "H", entry)[0]: entry for entry in ready}
    chosen = {field.tag: field for field in fields}
    tags = sorted(table.keys() | chosen.keys())
    values = bytearray()
    end = offset + 2 + 12 * len(tags) + 4
    for tag, kind, data in chosen.values():
        inline = len(data) <= 4
        value = data.ljust(4, b"\0") if inline else struct.pack(order + "I", end + len(values))
        table[tag] = struct.pack(order + "HHI", tag, kind, len(data) // SIZES[kind]) + value
        if not inline:
            values += data + b"\0" * (len(data) % 2)
    head = struct.pack(order + "H", len(tags)) + b"".join(table[tag] for tag in tags)
    return head + bytes(4) + bytes(values)


def from_tiff(file: IO[bytes], page: int, offsets: list[int]) -> tuple[bytes, dict[int, bytes]] | None:
    """Collect the EXIF of a page of a TIFF or BigTIFF.

    Args:
        file: The file.
        page: Number of the page, from 0.
        offsets: Offsets of the first directories, as far as they are known. Those up to the page are added.

    Returns:
        A block in the file's byte order with the tags that describe the picture; and XMP, IPTC and
        Photoshop's resources by tag. None if the file has no such page.
    """
    head = stream(file)
    if head is None:
        return None
    offsets[:] = offsets or [head.first]
    while len(offsets) <= page and offsets[-1]:
        offsets.append(following(file, head, entries(file, head, offsets[-1])))
    if len(offsets) <= page or not (offset := offsets[page]):
        return None
    found = entries(file, head, offset)
    block = bytearray(struct.pack(head.order + "2sHI", b"II" if head.order == "<" else b"MM", 42, 0))

    def add(fields: list[Field], ready: Iterable[bytes] = ()) -> bytes:
        """Append a directory. Returns its offset, as a value."""
        block.extend(bytes(len(block) % 2))
        at = struct.pack(head.order + "I", len(block))
        block.extend(directory(head.order, len(block), fields, ready))
        return at

    pointers = []
    for root in found:
        if root.tag not in (_DETAILS, _GPS):
            continue
        inner = entries(file, head, _number(file, head, root))
        ready = []
        for note in (e for e in inner if e.tag == ExifTags.Base.MakerNote):
            data = _data(file, note)
            if data and len(block) <= note.start <= _NEAR and note.length > 4:
                block.extend(bytes(note.start - len(block)) + data)
                ready.append(struct.pack(head.order + "HHII", note.tag, note.kind, note.values, note.start))
        fields = _fields(file, head, inner, {ExifTags.Base.MakerNote} if ready else ())
        for interop in (e for e in inner if e.tag == _INTEROP):
            rules = _fields(file, head, entries(file, head, _number(file, head, interop)), ())
            fields.append(Field(_INTEROP, LONG, add(rules)))
        pointers.append(Field(root.tag, LONG, add(fields, ready)))
    described = _fields(file, head, found, STORAGE_TAGS - {ORIENTATION})
    other = _others(file, found)
    if not described and not pointers:
        return b"", other
    block[4:8] = add(described + pointers)
    return bytes(block), other


def others(block: bytes) -> dict[int, bytes]:
    """Return XMP, IPTC and Photoshop's resources that lie within a block, by tag."""
    file = io.BytesIO(block)
    head = stream(file)
    return _others(file, entries(file, head, head.first)) if head else {}


def _others(file: IO[bytes], found: list[Entry]) -> dict[int, bytes]:
    return {e.tag: data for e in found if e.tag in (XMP, IPTC, PHOTOSHOP) and (data := _data(file, e))}


def _fields(file: IO[bytes], head: Stream, found: list[Entry], left_out: Collection[int]) -> list[Field]:
    """Read fields but pointers. Damaged ones are left out; 8-byte integers become narrow where they fit."""
    fields = []
    for entry in found:
        pointer = entry.tag in (_DETAILS, _GPS, _INTEROP)
        if pointer or entry.tag in left_out or not (data := _data(file, entry)):
            continue
        kind = entry.kind
        if kind in _NARROW:
            values = struct.unpack(f"{head.order}{entry.values}{_INTEGERS[kind]}", data)
            try:
                data = struct.pack(f"{head.order}{entry.values}{_INTEGERS[_NARROW[kind]]}", *values)
            except struct.error:
                continue
            kind = _NARROW[kind]
        fields.append(Field(entry.tag, kind, data))
    return fields


def _data(file: IO[bytes], entry: Entry) -> bytes | None:
    """Read the value of an entry. Returns None if it has an unknown type, or lies beyond the stream."""
    if entry.kind not in SIZES:
        return None
    data = read_at(file, entry.start, entry.length)
    return data if len(data) == entry.length else None


def _number(file: IO[bytes], head: Stream, entry: Entry) -> int:
    """Return the first integer of an entry, or 0."""
    kind, data = _INTEGERS.get(entry.kind), _data(file, entry)
    return int(struct.unpack_from(head.order + kind, data)[0]) if kind and data else 0


def following(file: IO[bytes], head: Stream, found: list[Entry]) -> int:
    """Return the offset of the directory after the one with these entries, or 0."""
    if not found:
        return 0
    row, number = (20, "Q") if head.big else (12, "I")
    link = read_at(file, found[-1].at + row, struct.calcsize(number))
    return int(struct.unpack(head.order + number, link)[0]) if len(link) == struct.calcsize(number) else 0


def _unlink_thumbnail(file: io.BytesIO, head: Stream) -> None:
    """Unlink the directories after the main one. Cuts off the thumbnail if the block ends with it."""
    found = entries(file, head, head.first)
    thumbnail = following(file, head, found)
    if not thumbnail:
        return
    file.seek(found[-1].at + 12)
    file.write(bytes(4))
    numbers = {e.tag: _number(file, head, e) for e in entries(file, head, thumbnail)}
    start, length = numbers.get(_THUMBNAIL_START, 0), numbers.get(_THUMBNAIL_LENGTH, 0)
    for root in list(found):
        if root.tag in (_DETAILS, _GPS):
            found += entries(file, head, _number(file, head, root))
    end = len(file.getbuffer())
    used = max(max(entry.at + 16, entry.start + entry.length) for entry in found)
    if used <= start and end - 1 <= start + length <= end:
        file.truncate(start)


def _without(file: io.BytesIO, head: Stream, offset: int, tags: Collection[int]) -> list[Entry]:
    """Remove tags from a directory. Returns the remaining entries. A damaged directory stays."""
    found = entries(file, head, offset)
    if not found or all(entry.tag not in tags for entry in found):
        return found
    file.seek(offset)
    (count,) = struct.unpack(head.order + "H", file.read(2))
    table = file.read(12 * count + 4)
    if len(table) < 12 * count + 4:
        return found
    kept = [table[12 * i : 12 * i + 12] for i, entry in enumerate(found) if entry.tag not in tags]
    file.seek(offset)
    file.write(struct.pack(head.order + "H", len(kept)))
    file.write((b"".join(kept) + table[-4:]).ljust(len(table), b"\0"))
    return entries(file, head, offset)


def _correct(file: io.BytesIO, head: Stream, entry: Entry, orientation: int, size: tuple[int, int]) -> None:
    """Correct an entry that no longer holds."""
    if entry.tag == ORIENTATION:
        _set(file, head, entry, 1)
    elif entry.tag in _WIDTH_AND_HEIGHT:
        _set(file, head, entry, size[_WIDTH_AND_HEIGHT[entry.tag]])
    elif entry.tag == ExifTags.Base.ColorSpace:
        _set(file, head, entry, _SRGB)
    elif entry.tag == _CHROMA_POSITION:
        _set(file, head, entry, _CENTERED)
    elif entry.tag == ExifTags.Base.ComponentsConfiguration and _data(file, entry) == _GRAY_COMPONENTS:
        file.seek(entry.start)
        file.write(_COLOR_COMPONENTS)
    elif entry.tag == ExifTags.Interop.InteropIndex and (_data(file, entry) or b"").startswith(_ADOBE_RGB):
        file.seek(entry.start)
        file.write(_SRGB_RULES)
    elif entry.tag in _SUBJECT and entry.kind == SHORT and 2 <= entry.values <= 4:
        layout, data = f"{head.order}{entry.values}H", _data(file, entry)
        if data is not None:
            x, y, *sides = struct.unpack(layout, data)
            x, y = _turned(x, y, orientation, size)
            file.seek(entry.start)
            file.write(struct.pack(layout, x, y, *(sides[::-1] if orientation >= 5 else sides)))


def _set(file: io.BytesIO, head: Stream, entry: Entry, value: int) -> None:
    """Make the value of an entry one number. It keeps the type LONG, and gets it where needed."""
    long = entry.kind == LONG or value > 0xFFFF
    file.seek(entry.at + 2)
    layout, fields = ("HII", (LONG, 1, value)) if long else ("HIHH", (SHORT, 1, value, 0))
    file.write(struct.pack(head.order + layout, *fields))


def _exchange(file: io.BytesIO, directory: list[Entry]) -> None:
    """Exchange the values along the width with those along the height."""
    by_tag = {entry.tag: entry for entry in directory}
    for across, down in _ACROSS_AND_DOWN:
        if across in by_tag and down in by_tag:
            pair = [by_tag[across].at + 2, by_tag[down].at + 2]
            contents = [file.getvalue()[at : at + 10] for at in pair]
            for at, content in zip(pair, reversed(contents), strict=True):
                file.seek(at)
                file.write(content)


def _turned(x: int, y: int, orientation: int, size: tuple[int, int]) -> tuple[int, int]:
    """Turn a point upright. `size` is that of the upright picture."""
    if orientation >= 5:
        x, y = y, x
    if orientation in (2, 3, 6, 7):
        x = max(size[0] - 1 - x, 0)
    if orientation in (3, 4, 7, 8):
        y = max(size[1] - 1 - y, 0)
    return x, y
