"""Read the metadata of pictures (EXIF, XMP, IPTC, resolution, texts) and prepare it for each format."""

import contextlib
import math
import re
import struct
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

# Tags of a TIFF directory that describe how the pixels are stored (TIFF 6.0), or hold data kept elsewhere:
# XMP, IPTC, Photoshop's resources, the ICC profile. All other tags describe the picture; they are EXIF in any
# format.
_STORAGE_TAGS = frozenset(
    {*range(254, 260), 262, 263, 264, 265, 266, *range(273, 281), 284, 288, 289, 290, 291, 292, 293}
    | {297, 301, 317, 318, 319, 320, 321, *range(322, 326), 330, 332, 333, 334, 336, 337, 338, 339, 340, 341}
    | {342, 347, *range(512, 522), 529, 530, 531, 532, 700, 33723, 34377, 34675}
)
# EXIF 2.32: width and height, and the color space.
_SIZE_TAGS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
_SRGB_TAGS: dict[int, int] = {ExifTags.Base.ColorSpace: 1}
_XMP_KEYWORD = "XML:com.adobe.xmp"
_COMMENT_KEYWORD = "Comment"
_IPTC_RESOURCE = 0x0404  # Photoshop's number for IPTC-IIM records
# Orientations from 5 to 8 exchange width and height.
_FIRST_TURNED, _LAST_TURNED = 5, 8
_LONGEST_SEGMENT = 65_000  # bytes of data in a JPEG segment, with room for its header


def _srgb_profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # a constant date, for reproducible files
    return bytes(profile)


SRGB_PROFILE = _srgb_profile()


@dataclass(frozen=True)
class Metadata:
    """Metadata that is copied from an input to its output.

    Attributes:
        exif: The EXIF block, beginning with `Exif`, valid for the upright picture: without orientation and
            thumbnail.
        xmp: The XMP packet, with its orientation reset.
        iptc: IPTC-IIM records.
        dpi: Horizontal and vertical resolution in dots per inch.
        comment: A comment.
        texts: Keywords and texts of a PNG.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    comment: bytes | None = None
    texts: tuple[tuple[str, str], ...] = ()


def upright(image: Image.Image) -> tuple[Image.Image, Metadata]:
    """Rotate an image by its EXIF or XMP orientation. Returns it with metadata valid for the result.

    Damaged metadata is left out, since the pixels can still be used.

    Raises:
        Exception: Any exception of Pillow for damaged pixels.
    """
    orientation = orientation_of(image)  # read first: Pillow rotates a TIFF on loading and drops the tag
    image.load()
    turned = image
    if orientation != 1:  # avoids a copy
        with contextlib.suppress(Exception):  # Pillow raises nearly everything on a damaged block
            turned = ImageOps.exif_transpose(image)
    return turned, described(image, orientation, turned.size)


def described(image: Image.Image, orientation: int, size: tuple[int, int]) -> Metadata:
    """Return the metadata of an image, valid for the upright picture.

    Args:
        image: The image as stored.
        orientation: EXIF orientation that is applied to it, from 1 to 8.
        size: Width and height after the rotation, in pixels.
    """
    comment = image.info.get("comment")
    return Metadata(
        _exif(image, size),
        _xmp(image),
        _iptc(image),
        _resolution(image.info.get("dpi"), turned=orientation >= _FIRST_TURNED),
        comment.encode("latin-1", "replace") if isinstance(comment, str) else comment,
        tuple((key, str(text)) for key, text in getattr(image, "text", {}).items() if key != _XMP_KEYWORD),
    )


def orientation_of(image: Image.Image) -> int:
    """Return the orientation of an image, from 1 (upright) to 8 (TIFF 6.0, section 8)."""
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises nearly everything on a damaged block
        return 1
    return orientation if 1 <= orientation <= _LAST_TURNED else 1


def options(metadata: Metadata, format_: str) -> dict[str, Any]:
    """Return Pillow's `save` options for the metadata of an sRGB picture, as far as the format holds it."""
    chosen: dict[str, Any] = {}
    if format_ in ("JPEG", "PNG", "WEBP", "AVIF"):
        chosen["icc_profile"] = SRGB_PROFILE
        if metadata.exif and (format_ != "JPEG" or len(metadata.exif) < _LONGEST_SEGMENT):
            chosen["exif"] = metadata.exif
    if metadata.dpi and format_ in ("BMP", "JPEG", "PNG"):
        chosen["dpi"] = metadata.dpi
    if metadata.xmp and (
        format_ in ("WEBP", "AVIF") or (format_ == "JPEG" and len(metadata.xmp) < _LONGEST_SEGMENT)
    ):
        chosen["xmp"] = metadata.xmp
    if format_ == "JPEG":
        if metadata.comment and len(metadata.comment) < _LONGEST_SEGMENT:
            chosen["comment"] = metadata.comment
        if metadata.iptc and len(metadata.iptc) < _LONGEST_SEGMENT:
            chosen["extra"] = _photoshop_segment(metadata.iptc)
    if format_ == "PNG":
        chosen["pnginfo"] = _png_texts(metadata)
    return chosen


def exif_tags(metadata: Metadata) -> dict[int, Any]:
    """Return the EXIF block as tags of a TIFF directory; subdirectories (EXIF, GPS) are dictionaries."""
    if metadata.exif is None:
        return {}
    exif = Image.Exif()
    exif.load(metadata.exif)
    tags: dict[int, Any] = dict(exif)
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if subdirectory := exif.get_ifd(directory):
            tags[directory] = dict(subdirectory)
        else:
            tags.pop(directory, None)
    return tags


def _exif(image: Image.Image, size: tuple[int, int]) -> bytes | None:
    orientation = None
    try:
        exif = image.getexif()
        orientation = exif.pop(ExifTags.Base.Orientation, None)
        for tag in _STORAGE_TAGS.intersection(exif):
            del exif[tag]
        details = exif.get_ifd(ExifTags.IFD.Exif)
        details.pop(ExifTags.IFD.Interop, None)
        for tag, value in (_SRGB_TAGS | dict(zip(_SIZE_TAGS, size, strict=True))).items():
            if tag in details:
                details[tag] = value
        exif.get_ifd(ExifTags.IFD.GPSInfo)  # Pillow writes it only after it has been read
        return exif.tobytes() if len(exif) else None
    except Exception:  # Pillow raises nearly everything on a damaged block
        return None
    finally:
        if orientation is not None:  # Pillow needs it to rotate the next frame
            exif[ExifTags.Base.Orientation] = orientation


def _xmp(image: Image.Image) -> bytes | None:
    packet = image.info.get("xmp") or image.info.get(_XMP_KEYWORD)
    if isinstance(packet, str):
        packet = packet.encode()
    if not isinstance(packet, bytes):
        return None
    packet = re.sub(rb'(tiff:Orientation\s*=\s*["\'])[0-9]', rb"\g<1>1", packet)
    return re.sub(rb"(<tiff:Orientation>)[0-9]", rb"\g<1>1", packet)


def _iptc(image: Image.Image) -> bytes | None:
    resources = image.info.get("photoshop")
    found = resources.get(_IPTC_RESOURCE) if isinstance(resources, dict) else None
    if found is None:
        found = getattr(image, "tag_v2", {}).get(33723)
    return found if isinstance(found, bytes) and found else None


def _resolution(dpi: Any, *, turned: bool) -> tuple[float, float] | None:
    """Return horizontal and vertical resolution in dots per inch, or None if unknown or implausible."""
    if not dpi or not all(math.isfinite(value) and value > 1 for value in dpi):
        return None
    horizontal, vertical = map(float, dpi)
    return (vertical, horizontal) if turned else (horizontal, vertical)


def _photoshop_segment(iptc: bytes) -> bytes:
    """Return a JPEG APP13 segment with one Photoshop resource, with an empty name, padded to even length."""
    resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    data = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", len(data) + 2) + data


def _png_texts(metadata: Metadata) -> PngImagePlugin.PngInfo:
    texts = PngImagePlugin.PngInfo()
    for keyword, text in metadata.texts:
        texts.add_itxt(keyword, text) if not text.isascii() else texts.add_text(keyword, text)
    if metadata.comment and all(keyword != _COMMENT_KEYWORD for keyword, _ in metadata.texts):
        texts.add_itxt(_COMMENT_KEYWORD, metadata.comment.decode("utf-8", "replace"))
    if metadata.xmp:
        texts.add_itxt(_XMP_KEYWORD, metadata.xmp.decode("utf-8", "replace"))
    return texts
