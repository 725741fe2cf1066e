"""ICC profiles."""

import struct

from PIL import ImageCms


def built_in_profile(space: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()


def gray_profile(gamma: float) -> bytes:
    """Make a minimal ICC v2 profile for gray with a power curve (ICC.1:2001-04, 6.3.1)."""

    def tag(kind: bytes, data: bytes) -> bytes:
        return kind + b"\0\0\0\0" + data

    curve = tag(b"curv", struct.pack(">IH", 1, round(gamma * 256)))
    white = tag(b"XYZ ", struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D))
    text = b"power\0"
    name = tag(b"desc", struct.pack(">I", len(text)) + text + b"\0" * 78)
    tags, body, offset = b"", b"", 128 + 4 + 3 * 12
    for signature, data in ((b"desc", name), (b"wtpt", white), (b"kTRC", curve)):
        data += b"\0" * (-len(data) % 4)
        tags += signature + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    header += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    return header + b"\0" * (128 - len(header)) + struct.pack(">I", 3) + tags + body


def linear_profile(name: str) -> bytes:
    """Make an ICC profile with sRGB's primaries and a gamma of 1 (ICC.1:2001-04)."""

    def fixed(x: float) -> bytes:
        return struct.pack(">i", round(x * 65536))

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    text = name.encode() + b"\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 256) + b"\0\0"
    tags = [
        (b"desc", description + b"\0" * (-len(description) % 4)),
        (b"cprt", b"text\0\0\0\0none\0\0\0\0"),
        (b"wtpt", xyz(0.9642, 1, 0.8249)),
        (b"rXYZ", xyz(0.43607, 0.22249, 0.01392)),
        (b"gXYZ", xyz(0.38515, 0.71687, 0.09708)),
        (b"bXYZ", xyz(0.14307, 0.06061, 0.7141)),
        *((key, curve) for key in (b"rTRC", b"gTRC", b"bTRC")),
    ]
    table, body = struct.pack(">I", len(tags)), b""
    for key, data in tags:
        table += key + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    size = 128 + len(table) + len(body)
    header = struct.pack(">I", size) + b"lcms\x02\x40\0\0mntrRGB XYZ " + b"\0" * 12 + b"acsp" + b"\0" * 28
    header += fixed(0.9642) + fixed(1) + fixed(0.8249)
    return header.ljust(128, b"\0") + table + body
