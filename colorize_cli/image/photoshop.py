"""Read and patch Photoshop image resources, which hold IPTC-IIM records among others.

Adobe, "Photoshop File Formats Specification", 2019: a resource is a signature, a number, a name and data, the
last two padded to even length. A JPEG stores resources in APP13 segments, one after another; a resource may
go on in the next segment.
"""

import struct
from collections.abc import Iterator

_SIGNATURES = (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR")
_IPTC, _RESOLUTION = 0x0404, 0x03ED
# What is kept elsewhere or holds of the gray picture only: mode, layers, halftones and transfer functions of
# grays, duotone, quality of the JPEG, thumbnails, ICC profile, EXIF, XMP, layers.
_STALE = frozenset(
    {
        0x03E8,
        0x03EB,
        0x03F4,
        0x03F7,
        0x03FA,
        0x0400,
        0x0402,
        0x0406,
        0x0409,
        0x040C,
        0x040F,
        0x0422,
        0x0423,
        0x0424,
    }
)
# What lies at places of the picture: guides, slices, paths, clipping path.
_PLACED = frozenset({0x0408, 0x041A, 0x0BB7, *range(0x07D0, 0x0BB7)})
_IPTC_MARK = b"\x1c"


def iptc_of(resources: bytes) -> bytes:
    """Return the IPTC-IIM records in resources."""
    return b"".join(data for number, _, data in _resources(resources) if number == _IPTC)


def with_iptc(resources: bytes, iptc: bytes) -> bytes:
    """Return resources with IPTC-IIM records, added if there are none."""
    if not iptc or iptc_of(resources):
        return resources
    return _resource(b"8BIM" + struct.pack(">HH", _IPTC, 0), iptc) + resources


def patched(resources: bytes, orientation: int) -> bytes:
    """Remove the resources that do not hold of a colorized picture, turned upright by an orientation."""
    kept = []
    for number, head, data in _resources(resources):
        if number in _STALE or (orientation > 1 and number in _PLACED):
            continue
        turned = number == _RESOLUTION and orientation >= 5
        kept.append(_resource(head, data[8:16] + data[:8] + data[16:] if turned else data))
    return b"".join(kept)


def from_longs(records: bytes) -> bytes:
    """Return IPTC-IIM records whose bytes may be exchanged in groups of four, as some TIFF writers do."""
    if records[:1] == _IPTC_MARK or records[3:4] != _IPTC_MARK or len(records) % 4:
        return records
    return struct.pack(f">{len(records) // 4}I", *struct.unpack(f"<{len(records) // 4}I", records))


def _resources(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield number, head (up to the length of the data) and data of each resource."""
    position = 0
    while content[position : position + 4] in _SIGNATURES and len(content) >= position + 12:
        (number,) = struct.unpack_from(">H", content, position + 4)
        name = content[position + 6] + 1
        start = position + 6 + name + name % 2 + 4
        length = int.from_bytes(content[start - 4 : start], "big")
        yield number, content[position : start - 4], content[start : start + length]
        position = start + length + length % 2


def _resource(head: bytes, data: bytes) -> bytes:
    return head + struct.pack(">I", len(data)) + data + b"\0" * (len(data) % 2)
