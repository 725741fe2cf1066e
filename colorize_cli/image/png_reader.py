"""Read what Pillow does not read of PNG files (W3C, PNG specification, third edition)."""

import io
import struct
import zlib
from collections.abc import Collection, Iterator
from typing import IO, Any, BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import PngImagePlugin

from colorize_cli.core.errors import ReadError
from colorize_cli.image import exif, icc
from colorize_cli.image.frame import with_space

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ANCILLARY = 0x20  # bit of the first byte of a chunk's type
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
# What a decoder needs for the samples.
_SAMPLES = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_BITS_OFFSET = 24  # of the bit depth in the file
_DEEP = 16
# Bytes that a compressed text or profile may have; Pillow's limit is 1 MiB.
_MAX_TEXT = 1 << 26
PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = _MAX_TEXT, 2 * _MAX_TEXT


def open_image(file: BinaryIO) -> PngImagePlugin.PngImageFile:
    """Open a file with Pillow.

    Ancillary chunks with a wrong checksum are left out, as viewers do. Gamma and chromaticities become an ICC
    profile where no other chunk says what the colors are. A transparent gray code is scaled to 8 bits.
    """
    try:
        image = PngImagePlugin.PngImageFile(file, "")
    except SyntaxError:
        file.seek(0)
        image = PngImagePlugin.PngImageFile(io.BytesIO(_joined(file, keep_text=True)), "")
        file.seek(0)
    info: dict[Any, Any] = image.info
    if ("gamma" in info or "chromaticity" in info) and not (info.get("icc_profile") or "srgb" in info):
        before = file.tell()
        if not any(whole for _, _, whole in chunks(file, {b"cICP"})):
            info["icc_profile"] = icc.of_png(info, gray=image.mode in ("1", "L", "LA", "I;16", "I"))
        file.seek(before)
    white = 2 ** bits(file) - 1
    if image.mode == "L" and white < 255 and isinstance(clear := info.get("transparency"), int):
        info["transparency"] = (clear & white) * (255 // white)
    return image


def bits(file: BinaryIO) -> int:
    """Return the bits per sample. Keeps the file position."""
    before = file.tell()
    file.seek(_BITS_OFFSET)
    depth = file.read(1)
    file.seek(before)
    return depth[0] if depth else 0


def is_deep(file: BinaryIO) -> bool:
    """Return True if the samples have 16 bits."""
    return bits(file) == _DEEP


def read(file: BinaryIO) -> tuple[npt.NDArray[np.uint16], str]:
    """Decode a file of 16-bit samples.

    Returns:
        Samples and color space, as `frame.with_space`.

    Raises:
        ReadError: The file is damaged.
    """
    try:
        samples = imagecodecs.png_decode(_joined(file, keep_text=False))
    except imagecodecs.PngError as error:
        raise ReadError(f"damaged: {error}") from error
    return with_space(samples)


def damage(file: IO[bytes]) -> str | None:
    """Return what is wrong with the chunks of the samples, which Pillow does not check; None if nothing."""
    if all(whole for _, _, whole in chunks(file, {b"IDAT", b"fdAT"})):
        return None
    return "the checksum of the pixels is wrong"


def _joined(file: BinaryIO, *, keep_text: bool) -> bytearray:
    """Return the file with the chunks that are needed for the samples.

    Args:
        file: The file, at its start.
        keep_text: Also return all other chunks.
    """
    content = bytearray(SIGNATURE)
    for kind, data, whole in chunks(file):
        skipped = kind[0] & _ANCILLARY and kind not in _ANIMATION and not whole
        if not skipped and (keep_text or kind in _SAMPLES):
            content += data
    return content


def chunks(file: IO[bytes], kinds: Collection[bytes] | None = None) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield type, bytes from length to checksum, and whether the checksum is right, of each chunk.

    Args:
        file: The file. Its position changes.
        kinds: Types to yield; chunks of other types are skipped unread. None for all.
    """
    position = len(SIGNATURE)
    while len(head := exif.read_at(file, position, 8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kinds is None or kind in kinds:
            body = exif.read_at(file, position + 8, length + 4)
            data, checksum = body[:length], body[length:]
            yield kind, head + body, checksum == zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big")
        position += 12 + length
