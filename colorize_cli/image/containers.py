"""Read the metadata blocks of picture files as they are stored.

Pillow gives some of them decoded, joined or cut. Here they are read byte by byte, from JPEG (ITU-T T.81 and
the segments of EXIF, XMP and Photoshop), PNG (W3C, third edition), TIFF and JPEG 2000 (ISO 15444-1, annex I).
Damaged blocks are left out.
"""

import contextlib
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO, Any

from PIL import ImageFile

from colorize_cli.image import exif, metadata, photoshop, png_reader, xmp
from colorize_cli.image.metadata import JPEG2000_METADATA, PNG_METADATA, Metadata

_SOI, _SOS, _EOI, _COM = 0xD8, 0xDA, 0xD9, 0xFE
_APP1, _APP13 = 0xE1, 0xED
# Other segments that describe the picture, by marker: tags of Kodak, Ricoh and GoPro, PhotoStudio's comment,
# Agfa's and Olympus' text.
_KEPT: dict[int, tuple[bytes, ...]] = {
    0xE3: (b"Meta\0\0", b"META\0\0"),
    0xE5: (b"RMETA\0",),
    0xE6: (b"GoPro\0",),
    0xEA: (b"UNICODE\0",),
    0xEC: (b"[picture info]", b"Type="),
}
_EXIF, _XMP, _PHOTOSHOP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0"
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_RAW_PROFILE = b"Raw profile type "
_DIRECTORIES = "colorize_cli.directories"  # key of the offsets of a TIFF's pages among the `info`
_LARGEST_TEXT = 1 << 26  # bytes of a decompressed text
# Blocks in JPEG 2000 by identifier: of the specifications, and as Photoshop writes them.
_UUIDS = {
    metadata.EXIF_UUID: "exif",
    bytes.fromhex("0537cdab9d0c4431a72afa561f2a113e"): "exif",
    metadata.XMP_UUID: "xmp",
    metadata.IPTC_UUID: "iptc",
    bytes.fromhex("09a14e97c0b442e0bebf36df6f0ce36f"): "iptc",
}


def read(file: IO[bytes], image: ImageFile.ImageFile) -> Metadata:
    """Read the metadata of the current page of a picture, as stored.

    Args:
        file: The file of the picture.
        image: The same, opened by Pillow.
    """
    if image.format == "AVIF":
        return _of_avif(image)
    if image.format in _READERS:
        stored = _READERS[image.format](file, image)
    else:
        stored = Metadata(exif=image.info.get("exif"), xmp=image.info.get("xmp"))
    if stored.xmp:
        stored = replace(stored, xmp=xmp.in_utf8(stored.xmp))
    if not stored.exif:
        return stored
    block = stored.exif.removeprefix(_EXIF)
    within = {} if image.format == "TIFF" else exif.others(block)
    resources = stored.resources or within.get(exif.PHOTOSHOP, b"")
    iptc = stored.iptc or photoshop.from_longs(within.get(exif.IPTC, b"")) or photoshop.iptc_of(resources)
    return replace(stored, exif=block, xmp=stored.xmp or within.get(exif.XMP), resources=resources, iptc=iptc)


def _of_avif(image: Any) -> Metadata:
    """Take the blocks from Pillow's decoder.

    Pillow gives EXIF serialized again, if the orientation in it is not that of the container, which counts.
    """
    *_, block, _, packet = image._decoder.get_info()
    orientation = image.getexif().get(exif.ORIENTATION)
    return Metadata(
        exif=block.removeprefix(_EXIF) if block else None,
        xmp=packet or None,
        orientation=orientation if orientation in range(1, 9) else 1,
    )


def _of_jpeg(file: IO[bytes], _: ImageFile.ImageFile) -> Metadata:
    block, packet, resources = b"", None, b""
    chunks, comments, extras = [], [], []
    for marker, data in _segments(file):
        if marker == _COM:
            comments.append(data)
        elif marker == _APP13 and data.startswith(_PHOTOSHOP):
            resources += data.removeprefix(_PHOTOSHOP)
        elif marker == _APP1 and data.startswith(_EXIF):
            more = data.removeprefix(_EXIF)
            # A block longer than a segment goes on in the next one; a second block has a header of its own.
            if not block or not more.startswith((b"II*\0", b"MM\0*")):
                block += more
        elif marker == _APP1 and data.startswith(_XMP) and packet is None:
            packet = data.removeprefix(_XMP)
        elif marker == _APP1 and data.startswith(xmp.EXTENSION):
            chunks.append(data)
        elif data.startswith(_KEPT.get(marker, ())):
            extras.append((bytes([0xFF, marker]), data))
    name = xmp.extension_of(packet) if packet else None
    return Metadata(
        exif=block or None,
        xmp=packet,
        extended_xmp=xmp.joined(chunks, name) if name else None,
        resources=resources,
        iptc=photoshop.iptc_of(resources),
        comments=tuple(comments),
        extras=tuple(extras),
    )


def _segments(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield marker and data of the segments of a JPEG before its samples."""
    file.seek(2)
    while file.read(1) == b"\xff":
        while (marker := file.read(1)) == b"\xff":
            pass
        if not marker or marker[0] in (_SOI, _SOS, _EOI):
            return
        length = int.from_bytes(file.read(2), "big") - 2
        data = file.read(max(length, 0))
        if len(data) != length:
            return
        yield marker[0], data


def _of_png(file: IO[bytes], _: ImageFile.ImageFile) -> Metadata:
    block, packet, resources, iptc = None, None, b"", b""
    profiles, extras = [], []
    for kind, chunk, whole in png_reader.chunks(file, PNG_METADATA):
        if not whole:
            continue
        data = chunk[8:-4]
        keyword = data.partition(b"\0")[0]
        if kind == b"eXIf":
            block = data
        elif keyword == _XMP_KEYWORD and (text := _text(kind, data)):
            packet = text
        elif keyword.startswith(_RAW_PROFILE) and (profile := _raw_profile(_text(kind, data))):
            profiles.append((kind, data, keyword.removeprefix(_RAW_PROFILE).lower(), profile))
        else:
            extras.append((kind, data))
    for kind, data, name, profile in profiles:
        if profile.startswith(_EXIF) or name == b"exif":
            block = block or profile
        elif profile.startswith(_XMP) or name == b"xmp":
            packet = packet or profile.removeprefix(_XMP)
        elif profile.startswith(b"8BIM"):
            resources = resources or profile
        elif name in (b"iptc", b"8bim"):
            iptc = profile
        elif name not in (b"icc", b"icm"):
            extras.append((kind, data))
    return Metadata(
        exif=block,
        xmp=packet,
        resources=resources,
        iptc=iptc or photoshop.iptc_of(resources),
        extras=tuple(extras),
    )


def _text(kind: bytes, data: bytes) -> bytes:
    """Return the text of a PNG chunk; nothing if it is damaged or too long."""
    _, _, content = data.partition(b"\0")
    compressed = kind == b"zTXt"
    if kind == b"iTXt":
        compressed = content[:1] == b"\1"
        content = content[2:].split(b"\0", 2)[-1]
    elif compressed:
        content = content[1:]
    if not compressed:
        return content
    with contextlib.suppress(zlib.error):
        decompressor = zlib.decompressobj()
        text = decompressor.decompress(content, _LARGEST_TEXT)
        return text if decompressor.eof else b""
    return b""


def _raw_profile(text: bytes) -> bytes:
    """Decode the text in which ImageMagick and ExifTool keep blocks that PNG had no chunk for."""
    found = re.fullmatch(rb"\s*+\S++\s++(\d{1,10})\s++([0-9A-Fa-f\s]*+)", text)
    if found is None:
        return b""
    digits = re.sub(rb"\s", b"", found[2])
    return b"" if len(digits) % 2 else bytes.fromhex(digits.decode())[: int(found[1])]


def _of_tiff(file: IO[bytes], image: ImageFile.ImageFile) -> Metadata:
    # Pages are read in their order. Without the offsets, each would be looked for from the first.
    found = exif.from_tiff(file, image.tell(), image.info.setdefault(_DIRECTORIES, []))
    if found is None:
        return Metadata()
    block, other = found
    resources = other.get(exif.PHOTOSHOP, b"")
    return Metadata(
        exif=block or None,
        xmp=other.get(exif.XMP),
        resources=resources,
        iptc=photoshop.from_longs(other.get(exif.IPTC, b"")) or photoshop.iptc_of(resources),
    )


def _of_jpeg2000(file: IO[bytes], _: ImageFile.ImageFile) -> Metadata:
    found: dict[str, bytes] = {}
    extras = []
    for kind, data in _boxes(file):
        name = _UUIDS.get(data[:16]) if kind == b"uuid" else None
        if name is not None:
            found.setdefault(name, data[16:])
        else:
            extras.append((kind, data))
    return Metadata(
        exif=found.get("exif"), xmp=found.get("xmp"), iptc=found.get("iptc", b""), extras=tuple(extras)
    )


def _boxes(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of the boxes of a JPEG 2000 file that hold metadata."""
    position = 0
    while len(head := exif.read_at(file, position, 16)) >= 8:
        length, kind = struct.unpack_from(">I4s", head)
        start = 8
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack_from(">Q", head, 8)
            start = 16
        if position == 0 and kind != b"jP  ":
            return
        if kind in JPEG2000_METADATA:
            data = exif.read_at(file, position + start, length - start if length else sys.maxsize)
            if not length or len(data) == length - start:
                yield kind, data
        if length < start:  # the last box, or damaged
            return
        position += length


# By Pillow's names. Pillow gives the blocks of other formats as they are stored.
_READERS: dict[str | None, Callable[[IO[bytes], ImageFile.ImageFile], Metadata]] = {
    "JPEG": _of_jpeg,
    "MPO": _of_jpeg,
    "PNG": _of_png,
    "TIFF": _of_tiff,
    "JPEG2000": _of_jpeg2000,
}
