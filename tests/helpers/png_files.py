"""PNG files, made chunk by chunk."""

import struct
import zlib

import numpy as np

GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """Make an 8-bit gray file of any size that has no pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, GRAY, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def png(samples: np.ndarray, kind: int, bits: int, *chunks: bytes) -> bytes:
    """Make a file of samples (H, W) or (H, W, channels), without filters."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if bits == 16:
        packed = rows.astype(">u2").view(np.uint8)
    else:
        unpacked = np.unpackbits(rows.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
        packed = np.packbits(unpacked.reshape(height, -1), axis=1)
    data = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def gamma(value: int) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", value))


def chromaticities(values: tuple[int, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *values))
