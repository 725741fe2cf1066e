"""Make the metadata of pictures (EXIF, XMP, IPTC, resolution, texts) hold for outputs, laid out by format.

`containers` reads it. What no longer holds of a picture in color, in sRGB and upright is corrected or
removed; all else is kept byte by byte.
"""

import contextlib
import math
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image, ImageCms, PngImagePlugin

from colorize_cli.image import exif, photoshop, xmp

STORED = "colorize_cli.metadata"
"""Key of the `Metadata` as stored among the `info` of a Pillow image."""
PNG_METADATA = frozenset({b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"oFFs", b"sCAL", b"sTER"})
# Identifiers of blocks in JPEG 2000.
EXIF_UUID = b"JpgTiffExif->JP2"
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
IPTC_UUID = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
JPEG2000_METADATA = frozenset({b"uuid", b"xml "})
# Pillow's turns for each orientation (TIFF 6.0, section 8).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Orientations from 5 to 8 exchange width and height.
_FIRST_TURNED = 5
_PLACED = (b"oFFs", b"sCAL", b"sTER")  # chunks of PNG that hold for one orientation only
_GEO_JP2 = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03")  # so does this box of JPEG 2000
_LONGEST_SEGMENT = 65533  # bytes of data in a JPEG segment
_EXIF, _PHOTOSHOP = b"Exif\0\0", b"Photoshop 3.0\0"
_COMMENT_KEYWORD, _XMP_KEYWORD = b"Comment", b"XML:com.adobe.xmp"
_HEX_DIGITS = 72  # in a line of a raw profile


def _srgb_profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # a constant date, for reproducible files
    return bytes(profile)


SRGB_PROFILE = _srgb_profile()


@dataclass(frozen=True)
class Metadata:
    """Metadata of a picture: as stored, or as it holds for an output.

    Attributes:
        exif: The EXIF block, a TIFF stream, without the prefix `Exif`.
        xmp: The XMP packet.
        extended_xmp: The extended packet that belongs to it.
        resources: Photoshop resources, one after another.
        iptc: IPTC-IIM records.
        dpi: Horizontal and vertical resolution in dots per inch.
        comments: Comments.
        orientation: Orientation that counts instead of the one in EXIF or XMP; None where these count.
        thumbnail: True if the block of EXIF had a thumbnail, in gray.
        extras: Type and data of further segments of JPEG, chunks of PNG, and boxes of JPEG 2000, which are
            written to the same format only.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    extended_xmp: bytes | None = None
    resources: bytes = b""
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None
    comments: tuple[bytes, ...] = ()
    orientation: int | None = None
    thumbnail: bool = False
    extras: tuple[tuple[bytes, bytes], ...] = ()


def upright(image: Image.Image) -> tuple[Image.Image, Metadata]:
    """Rotate an image by its EXIF or XMP orientation. Returns it with metadata valid for the result.

    Raises:
        Exception: Any exception of Pillow for damaged pixels.
    """
    orientation = orientation_of(image)  # read first: Pillow rotates a TIFF on loading and drops the tag
    image.load()
    turned = image
    if orientation != 1 and image.format != "TIFF":
        turned = image.transpose(_TURNS[orientation])
    return turned, described(image, orientation, turned.size)


def described(image: Image.Image, orientation: int, size: tuple[int, int]) -> Metadata:
    """Return the metadata of an image, valid for the upright picture in color.

    Args:
        image: The image as stored.
        orientation: EXIF orientation that is applied to it, from 1 to 8.
        size: Width and height after the rotation, in pixels.
    """
    stored: Metadata = image.info.get(STORED, Metadata())
    # Of a HEIF, whose decoder has turned the picture already, pillow-heif says how.
    orientation = image.info.get("original_orientation") or orientation
    comment = image.info.get("comment")
    if comment and not stored.comments:
        stored = replace(stored, comments=(comment.encode() if isinstance(comment, str) else comment,))
    dpi = _resolution(image.info.get("dpi"), turned=orientation >= _FIRST_TURNED)
    return replace(valid(stored, orientation, size), dpi=dpi)


def valid(stored: Metadata, orientation: int, size: tuple[int, int]) -> Metadata:
    """Return metadata as it holds for the colorized picture, but for the resolution. See `described`."""
    packet, extended = stored.xmp, stored.extended_xmp
    if packet:
        packet, extended = xmp.patched(packet, extended, orientation, size)
    extras = stored.extras
    if orientation > 1:
        extras = tuple(
            (kind, data) for kind, data in extras if kind not in _PLACED and not data.startswith(_GEO_JP2)
        )
    return replace(
        stored,
        exif=exif.patched(stored.exif, orientation, size) if stored.exif else None,
        thumbnail=exif.has_thumbnail(stored.exif) if stored.exif else False,
        xmp=packet or None,
        extended_xmp=extended,
        resources=photoshop.patched(stored.resources, orientation),
        extras=extras,
    )


def orientation_of(image: Image.Image) -> int:
    """Return the orientation of an image, from 1 (upright) to 8 (TIFF 6.0, section 8)."""
    stored: Metadata | None = image.info.get(STORED)
    if stored is not None:
        found = stored.orientation or (exif.orientation_of(stored.exif) if stored.exif else None)
        return found or (xmp.orientation_of(stored.xmp) if stored.xmp else None) or 1
    with contextlib.suppress(Exception):  # Pillow raises nearly everything on a damaged block
        found = int(image.getexif().get(exif.ORIENTATION, 1))
        return found if 1 <= found <= 8 else 1
    return 1


def options(metadata: Metadata, format_: str, thumbnail: Callable[[], bytes]) -> dict[str, Any]:
    """Return Pillow's `save` options for the metadata of an sRGB picture, as far as the format holds it.

    TIFF and JPEG 2000 get it from `tiff_writer` and `jpeg2000_boxes`.

    Args:
        metadata: The metadata.
        format_: Pillow's name of the format.
        thumbnail: Returns a thumbnail as a JPEG. It is called for JPEG, if the EXIF had a thumbnail before.
    """
    chosen: dict[str, Any] = {}
    if metadata.dpi and format_ in ("BMP", "JPEG", "PNG"):
        chosen["dpi"] = metadata.dpi
    if format_ not in ("JPEG", "PNG", "WEBP", "AVIF"):
        return chosen
    chosen["icc_profile"] = SRGB_PROFILE
    if format_ == "JPEG":
        chosen["extra"] = _segments(metadata, thumbnail)
        return chosen
    if format_ == "AVIF" and metadata.exif:  # else Pillow would serialize the block again
        chosen["exif"] = exif.without(metadata.exif, {exif.ORIENTATION})
    elif metadata.exif:
        chosen["exif"] = metadata.exif
    if format_ == "PNG":
        chosen["pnginfo"] = _png_chunks(metadata)
    elif packet := one_packet(metadata, format_):
        chosen["xmp"] = packet
    return chosen


def one_packet(metadata: Metadata, format_: str) -> bytes | None:
    """Return the XMP as one packet, for a format that has no extended packets."""
    if not metadata.xmp:
        return None
    packet = metadata.xmp
    if metadata.extended_xmp is not None:
        packet = xmp.merged(packet, metadata.extended_xmp)
    return xmp.with_format(packet, Image.MIME[format_])


def jpeg2000_boxes(metadata: Metadata) -> bytes:
    """Return the boxes for the end of a JPEG 2000 file."""
    boxes = [(b"uuid", EXIF_UUID + metadata.exif)] if metadata.exif else []
    if packet := one_packet(metadata, "JPEG2000"):
        boxes.append((b"uuid", XMP_UUID + packet))
    if metadata.iptc:
        boxes.append((b"uuid", IPTC_UUID + metadata.iptc))
    boxes += [(kind, data) for kind, data in metadata.extras if kind in JPEG2000_METADATA]
    return b"".join(struct.pack(">I4s", 8 + len(data), kind) + data for kind, data in boxes)


def _segments(metadata: Metadata, thumbnail: Callable[[], bytes]) -> bytes:
    """Return the segments for the head of a JPEG."""
    segments = []
    if block := metadata.exif:
        if metadata.thumbnail:
            larger = exif.with_thumbnail(block, thumbnail())
            block = larger if len(larger) <= _LONGEST_SEGMENT - len(_EXIF) else block
        # As ExifTool does: a block longer than a segment goes on in the next one.
        segments += [(b"\xff\xe1", _EXIF + part) for part in _parts(block, len(_EXIF))]
    if metadata.xmp:
        packet = xmp.with_format(metadata.xmp, Image.MIME["JPEG"])
        segments += [(b"\xff\xe1", data) for data in xmp.segments(packet, metadata.extended_xmp)]
    resources = photoshop.with_iptc(metadata.resources, metadata.iptc)
    segments += [(b"\xff\xed", _PHOTOSHOP + part) for part in _parts(resources, len(_PHOTOSHOP))]
    segments += [(kind, data) for kind, data in metadata.extras if kind[:1] == b"\xff"]
    for comment in metadata.comments:
        segments += [(b"\xff\xfe", part) for part in _parts(comment, 0)]
    return b"".join(kind + struct.pack(">H", 2 + len(data)) + data for kind, data in segments)


def _parts(data: bytes, prefix: int) -> list[bytes]:
    """Split data into parts that fit into JPEG segments, each after a prefix of some bytes."""
    length = _LONGEST_SEGMENT - prefix
    return [data[start : start + length] for start in range(0, len(data), length)]


def _png_chunks(metadata: Metadata) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for kind, data in metadata.extras:
        if kind in PNG_METADATA:
            chunks.add(kind, data)
    if all(data.partition(b"\0")[0] != _COMMENT_KEYWORD for _, data in metadata.extras):
        for comment in metadata.comments:
            chunks.add_itxt(_COMMENT_KEYWORD, comment.decode("utf-8", "replace"))
    if packet := one_packet(metadata, "PNG"):
        chunks.add(b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + packet)
    if resources := photoshop.with_iptc(metadata.resources, metadata.iptc):
        # PNG has no chunk for it; ImageMagick and ExifTool read this text.
        lines = re.sub(f".{{1,{_HEX_DIGITS}}}", r"\g<0>\n", resources.hex())
        text = f"\niptc\n{len(resources):8}\n{lines}".encode()
        chunks.add(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text))
    return chunks


def _resolution(dpi: Any, *, turned: bool) -> tuple[float, float] | None:
    """Return horizontal and vertical resolution in dots per inch, or None if unknown or implausible."""
    if not dpi or not all(math.isfinite(value) and value > 1 for value in dpi):
        return None
    horizontal, vertical = map(float, dpi)
    return (vertical, horizontal) if turned else (horizontal, vertical)
