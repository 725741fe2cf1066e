"""Read what Pillow does not say of WebP files (RFC 9649)."""

import os
import struct
from typing import BinaryIO

_HEAD, _FRAME_HEAD = 12, 16  # bytes
_LOSSY, _FRAME = b"VP8 ", b"ANMF"


def is_lossless(file: BinaryIO) -> bool:
    """Return True if no picture or frame of a file is compressed with loss."""
    file.seek(_HEAD)
    while len(head := file.read(8)) == 8:
        kind, size = struct.unpack("<4sI", head)
        if kind == _LOSSY:
            return False
        file.seek(_FRAME_HEAD if kind == _FRAME else size + size % 2, os.SEEK_CUR)
    return True
