"""Patch XMP packets (ISO 16684-1, 2019), so that they hold for a colorized picture.

A packet is XML. Only properties that no longer hold are changed or removed; all other bytes stay.
"""

import codecs
import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

Name = tuple[str, str]
"""Namespace and local name."""

Change = str | None | Callable[[str], str]
"""New value; None to remove the property; or a function of the whole property in XML."""

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_PHOTOSHOP, _CAMERA_RAW = "http://ns.adobe.com/photoshop/1.0/", "http://ns.adobe.com/camera-raw-settings/1.0/"
_GOOGLE = "http://ns.google.com/photos/1.0/camera/"
_POINTER: Name = ("http://ns.adobe.com/xmp/note/", "HasExtendedXMP")
_FORMAT: Name = ("http://purl.org/dc/elements/1.1/", "format")
_DESCRIPTION, _ROOT = (_RDF, "Description"), (_RDF, "RDF")
_LOOK: Name = (_CAMERA_RAW, "Look")
_ORIENTATION: Name = (_TIFF, "Orientation")
_RESOLUTIONS: tuple[tuple[Name, Name], ...] = (
    ((_TIFF, "XResolution"), (_TIFF, "YResolution")),
    ((_EXIF, "FocalPlaneXResolution"), (_EXIF, "FocalPlaneYResolution")),
)
# Persons and focus at places of the stored picture: of the Metadata Working Group, and of Microsoft.
_REGIONS: tuple[Name, ...] = (
    ("http://www.metadataworkinggroup.com/schemas/regions/", "Regions"),
    ("http://ns.microsoft.com/photo/1.2/", "RegionInfo"),
)
_ALL = "*"
# Claims about the stored samples and the gray picture, and about data that is not in the output: a gain map,
# a video, other pictures. With `_ALL`, each property of the namespace.
_STALE: tuple[Name, ...] = (
    *(
        (_TIFF, name)
        for name in ("BitsPerSample", "Compression", "NativeDigest", "PhotometricInterpretation")
    ),
    *((_TIFF, name) for name in ("PlanarConfiguration", "PrimaryChromaticities", "ReferenceBlackWhite")),
    *((_TIFF, name) for name in ("SamplesPerPixel", "TransferFunction", "WhitePoint", "YCbCrCoefficients")),
    *((_TIFF, name) for name in ("YCbCrPositioning", "YCbCrSubSampling")),
    *((_EXIF, name) for name in ("ComponentsConfiguration", "Gamma", "NativeDigest")),
    (_PHOTOSHOP, "ICCProfile"),
    (_CAMERA_RAW, "ConvertToGrayscale"),
    ("http://ns.adobe.com/xap/1.0/", "Thumbnails"),
    *((_GOOGLE, name) for name in ("MicroVideo", "MicroVideoVersion", "MicroVideoOffset")),
    *((_GOOGLE, name) for name in ("MicroVideoPresentationTimestampUs", "MotionPhoto", "MotionPhotoVersion")),
    (_GOOGLE, "MotionPhotoPresentationTimestampUs"),
    ("http://ns.google.com/photos/1.0/container/", _ALL),
    ("http://ns.google.com/photos/dd/1.0/device/", _ALL),
    ("http://ns.adobe.com/hdr-gain-map/1.0/", _ALL),
    ("http://ns.apple.com/HDRGainMap/1.0/", _ALL),
    ("http://ns.oplus.com/photos/1.0/camera/", _ALL),
)
_RGB, _SRGB = "3", "1"

_TAG = re.compile(
    r"<(?:!--.*?(?:-->|\Z)|!\[CDATA\[.*?(?:\]\]>|\Z)|\?.*?(?:\?>|\Z)|![^>]*>"
    r"|(?P<end>/?)(?P<name>[^\s/<>!?\"'=]+)(?P<rest>(?:[^\"'<>]++|\"[^\"]*+\"|'[^']*+')*+)>)",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""(?<!\s)\s++(?P<name>[^\s/=<>"']+)\s*=\s*(?P<value>"[^"]*"|'[^']*')""")

# Within regions. Centers, sides and corners are fractions of the picture's sides.
_AREA = re.compile(
    r"<[\w.-]+:(?:Area|AppliedToDimensions)\b.{0,1000}?(?:/>|</[\w.-]+:(?:Area|AppliedToDimensions)>)",
    re.DOTALL,
)
_NUMBER = re.compile(r"""(:(?P<name>[xywh])(?:\s*=\s*["']|>)\s*)(?P<value>[\d.eE+-]+)""")
_RECTANGLE = re.compile(
    r"""(:Rectangle(?:\s*=\s*["']|>)\s*)([\d.eE+-]+)\s*,\s*([\d.eE+-]+)\s*,\s*([\d.eE+-]+)\s*,\s*([\d.eE+-]+)"""
)

# Adobe, "XMP Specification Part 3", 2020, section 1.1.3.1.
EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_SKELETON = (
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description rdf:about="" '
    f'xmlns:xmpNote="{_POINTER[0]}" xmpNote:HasExtendedXMP="{{}}"/></rdf:RDF></x:xmpmeta>'
)
_LONGEST_PACKET = 65502
# Beginnings of packets by encoding, the longer ones first.
_WIDE = {
    "utf-32-le": (codecs.BOM_UTF32_LE, b"<\0\0\0"),
    "utf-32-be": (codecs.BOM_UTF32_BE, b"\0\0\0<"),
    "utf-16-le": (codecs.BOM_UTF16_LE, b"<\0"),
    "utf-16-be": (codecs.BOM_UTF16_BE, b"\0<"),
}
_DEEPEST = 100
_LONGEST_CHUNK = 65000


class _Property(NamedTuple):
    """Property with its place in the text, and the place of its value unless that is structured."""

    name: Name
    start: int
    end: int
    value: tuple[int, int] | None


class _Element(NamedTuple):
    """Element with the offsets of its start tag and of its content, and the namespaces by prefix.

    `outer` is true of a description of the picture, `look` of a look of Camera Raw and all within it.
    """

    name: Name
    start: int
    inner: int
    namespaces: dict[str, str]
    outer: bool
    look: bool


def orientation_of(packet: bytes) -> int | None:
    """Return the orientation in a packet, from 1 (upright) to 8; None if it has no valid one."""
    value = _values(_text(packet)).get(_ORIENTATION, "")
    return int(value) if value in tuple("12345678") else None


def extension_of(packet: bytes) -> str | None:
    """Return the name of the extended packet that belongs to a packet, or None."""
    return _values(_text(packet)).get(_POINTER) if _POINTER[1].encode() in packet else None


def in_utf8(packet: bytes) -> bytes:
    """Convert a packet in UTF-16 or UTF-32, which XMP allows, to UTF-8. A damaged one stays."""
    plain = packet.removeprefix(codecs.BOM_UTF8)
    for encoding, marks in _WIDE.items():
        if plain.startswith(marks):
            with contextlib.suppress(UnicodeDecodeError):
                return plain.decode(encoding).removeprefix("\ufeff").encode()
    return packet


def patched(
    packet: bytes, extended: bytes | None, orientation: int, size: tuple[int, int]
) -> tuple[bytes, bytes | None]:
    """Patch a packet and its extended packet for a picture in color that was turned upright.

    Args:
        packet: The packet.
        extended: The extended packet, or None if there is none or a part is missing.
        orientation: Orientation that was applied, from 1 to 8.
        size: Width and height of the upright picture, in pixels.
    """
    width, height = map(str, size)
    changes: dict[Name, Change] = dict.fromkeys(_STALE)
    changes |= {_ORIENTATION: "1", (_EXIF, "ColorSpace"): _SRGB, (_PHOTOSHOP, "ColorMode"): _RGB}
    changes |= {(_TIFF, "ImageWidth"): width, (_TIFF, "ImageLength"): height}
    changes |= {(_EXIF, "PixelXDimension"): width, (_EXIF, "PixelYDimension"): height}
    if orientation > 1:
        changes |= dict.fromkeys(_REGIONS, lambda regions: _turned(regions, orientation))
        changes |= {(_EXIF, "SubjectArea"): None, (_EXIF, "SubjectLocation"): None}
    if orientation >= 5:
        values = _values(_text(packet))
        for across, down in _RESOLUTIONS:
            changes |= {across: values.get(down), down: values.get(across)}
    if extended is None:
        changes[_POINTER] = None
    else:
        extended = _changed(extended, changes)
        changes[_POINTER] = _digest(extended)
    return _changed(packet, changes), extended


def with_format(packet: bytes, mime: str) -> bytes:
    """Correct the format of the file, where a packet names one."""
    return _changed(packet, {_FORMAT: mime}) if b"format" in packet else packet


def merged(packet: bytes, extended: bytes) -> bytes:
    """Return one packet with the properties of a packet and its extended packet."""
    text, more = _text(packet), _text(extended)
    target, source = _root(text), _root(more)
    if target is None or source is None:
        return _changed(packet, {_POINTER: None})
    (root, end), (other, other_end) = target, source
    # The inner descriptions may use prefixes that their surroundings declare.
    needed = {
        prefix: uri
        for prefix, uri in other.namespaces.items()
        if prefix and root.namespaces.get(prefix) != uri
    }
    pieces, position, depth = [text[:end]], other.inner, 0
    for tag in _TAG.finditer(more, other.inner, other_end):
        if tag["name"] is None:
            continue
        if depth == 0 and not tag["end"]:
            declared = {found["name"] for found in _ATTRIBUTE.finditer(tag["rest"])}
            pieces.append(more[position : tag.end("name")])
            pieces += [f' xmlns:{p}="{uri}"' for p, uri in needed.items() if f"xmlns:{p}" not in declared]
            position = tag.end("name")
        depth += -1 if tag["end"] else 0 if tag["rest"].endswith("/") else 1
    pieces += [more[position:other_end], text[end:]]
    return _changed(_bytes("".join(pieces)), {_POINTER: None})


def segments(packet: bytes, extended: bytes | None) -> list[bytes]:
    """Return the data of the JPEG segments APP1 that hold a packet and its extended packet."""
    if len(packet) > _LONGEST_PACKET:
        extended = packet if extended is None else merged(packet, extended)
        packet = _SKELETON.format(_digest(extended)).encode()
    found = [b"http://ns.adobe.com/xap/1.0/\0" + packet]
    if extended is not None:
        name, length = _digest(extended).encode(), len(extended).to_bytes(4, "big")
        for start in range(0, len(extended), _LONGEST_CHUNK):
            chunk = extended[start : start + _LONGEST_CHUNK]
            found.append(EXTENSION + name + length + start.to_bytes(4, "big") + chunk)
    return found


def joined(chunks: list[bytes], name: str) -> bytes | None:
    """Join an extended packet, given its name, from JPEG segments. Returns None if a part is missing."""
    parts: dict[int, bytes] = {}
    length = -1
    for chunk in chunks:
        head = chunk[len(EXTENSION) :][:40]
        if len(head) == 40 and head[:32].decode("latin-1").upper() == name.upper():
            length = int.from_bytes(head[32:36], "big")
            parts[int.from_bytes(head[36:], "big")] = chunk[len(EXTENSION) + 40 :]
    whole = b""
    for start, part in sorted(parts.items()):
        if start != len(whole):
            return None
        whole += part
    return whole if len(whole) == length else None


def _digest(packet: bytes) -> str:
    return hashlib.md5(packet, usedforsecurity=False).hexdigest().upper()


def _text(packet: bytes) -> str:
    return packet.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _values(text: str) -> dict[Name, str]:
    """Return the properties of a packet whose values are simple."""
    return {found.name: text[slice(*found.value)].strip() for found in _properties(text) if found.value}


def _changed(packet: bytes, changes: Mapping[Name, Change]) -> bytes:
    """Change the properties that are present."""
    text = _text(packet)
    pieces, position = [], 0
    for found in sorted(_properties(text), key=lambda found: found.start):
        rule = found.name if found.name in changes else (found.name[0], _ALL)
        if rule not in changes or found.start < position:
            continue
        wanted = changes[rule]
        if callable(wanted):
            pieces += [text[position : found.start], wanted(text[found.start : found.end])]
            position = found.end
        elif wanted is not None and found.value is not None:
            pieces += [text[position : found.value[0]], wanted]
            position = found.value[1]
        else:
            pieces.append(text[position : found.start].rstrip())
            position = found.end
    return _bytes("".join([*pieces, text[position:]])) if pieces else packet


def _turned(regions: str, orientation: int) -> str:
    """Turn regions of the stored picture with it. Numbers that cannot be read stay."""

    def point(x: float, y: float) -> tuple[float, float]:
        if orientation >= 5:
            x, y = y, x
        return 1 - x if orientation in (2, 3, 6, 7) else x, 1 - y if orientation in (3, 4, 7, 8) else y

    def area(found: re.Match[str]) -> str:
        numbers = {number["name"]: number["value"] for number in _NUMBER.finditer(found[0])}
        if orientation >= 5 and numbers.keys() >= {"w", "h"}:
            numbers |= {"w": numbers["h"], "h": numbers["w"]}
        if numbers.keys() >= {"x", "y"}:
            x, y = point(float(numbers["x"]), float(numbers["y"]))
            numbers |= {"x": f"{x:.9g}", "y": f"{y:.9g}"}
        return _NUMBER.sub(lambda number: number[1] + numbers[number["name"]], found[0])

    def rectangle(found: re.Match[str]) -> str:
        x, y, width, height = map(float, found.groups()[1:])
        (left, top), (right, bottom) = point(x, y), point(x + width, y + height)
        sides = (min(left, right), min(top, bottom), abs(right - left), abs(bottom - top))
        return found[1] + ", ".join(f"{side:.9g}" for side in sides)

    try:
        return _RECTANGLE.sub(rectangle, _AREA.sub(area, regions))
    except ValueError:
        return regions


def _properties(text: str) -> Iterator[_Property]:
    """Yield the properties of the picture: attributes and elements of the outer descriptions.

    Properties of the looks in Camera Raw's settings are among them, those of nested resources are not.
    """
    for tag, stack, element in _walk(text):
        parent = stack[-1] if stack else None
        if element is not None:
            if element.outer or (element.look and element.name == _DESCRIPTION):
                for found in _ATTRIBUTE.finditer(text, tag.start("rest"), tag.end("rest")):
                    value = (found.start("value") + 1, found.end() - 1)
                    yield _Property(
                        _expanded(found["name"], element.namespaces), found.start(), found.end(), value
                    )
            if not tag["rest"].endswith("/"):
                continue
            inner = None
        else:
            element, parent = stack[-1], stack[-2] if len(stack) > 1 else None
            simple = text.find("<", element.inner, tag.start()) < 0
            inner = (element.inner, tag.start()) if simple else None
        if parent is not None and (parent.outer or parent.look):
            yield _Property(element.name, element.start, tag.end(), inner)


def _root(text: str) -> tuple[_Element, int] | None:
    """Return the element `rdf:RDF` and the offset of its end tag; None if there is none."""
    for tag, stack, element in _walk(text):
        if element is None and stack[-1].name == _ROOT:
            return stack[-1], tag.start()
    return None


def _walk(text: str) -> Iterator[tuple[re.Match[str], list[_Element], _Element | None]]:
    """Yield each start tag with the open elements and the new one; each end tag with the open ones and None.

    Stops where the text is not well-formed, or nested deeper than XMP is.
    """
    stack: list[_Element] = []
    position = 0
    while (position := text.find("<", position)) >= 0:
        tag = _TAG.match(text, position)
        if tag is None:
            return
        position = tag.end()
        if tag["name"] is None:
            continue
        if tag["end"]:
            if not stack:
                return
            yield tag, stack, None
            stack.pop()
            continue
        namespaces = stack[-1].namespaces if stack else {}
        if "xmlns" in tag["rest"]:
            namespaces = dict(namespaces)
            for found in _ATTRIBUTE.finditer(tag["rest"]):
                prefix, _, local = found["name"].partition(":")
                if prefix == "xmlns":
                    namespaces[local] = found["value"][1:-1]
        name, parent = _expanded(tag["name"], namespaces), stack[-1] if stack else None
        outer = name == _DESCRIPTION and parent is not None and parent.name == _ROOT
        look = name == _LOOK or (parent is not None and parent.look)
        element = _Element(name, tag.start(), tag.end(), namespaces, outer, look)
        yield tag, stack, element
        if not tag["rest"].endswith("/"):
            if len(stack) == _DEEPEST:
                return
            stack.append(element)


def _expanded(name: str, namespaces: Mapping[str, str]) -> Name:
    """Return a name with its namespace in place of its prefix."""
    prefix, colon, local = name.partition(":")
    return (namespaces.get(prefix, ""), local) if colon else (namespaces.get("", ""), name)
