"""Check GIF files for truncation (CompuServe, "Graphics Interchange Format", version 89a)."""

import os
from typing import BinaryIO

_FLAGS, _HEAD, _DESCRIPTOR = 10, 13, 9  # bytes
_IMAGE, _EXTENSION, _TRAILER, _STRAY = b",", b"!", b";", b"\0"


def is_whole(file: BinaryIO) -> bool:
    """Return True if the blocks form an unbroken chain from header to trailer. Keeps the file position."""
    before = file.tell()
    try:
        file.seek(_FLAGS)
        file.seek(_HEAD + _palette_size(file.read(1)))
        while (kind := file.read(1)) in (_IMAGE, _EXTENSION, _STRAY):
            if kind == _IMAGE:
                descriptor = file.read(_DESCRIPTOR)
                file.seek(_palette_size(descriptor[-1:]) + 1, os.SEEK_CUR)
            elif kind == _EXTENSION:
                file.seek(1, os.SEEK_CUR)
            else:
                continue
            while length := file.read(1):
                if length == _STRAY:
                    break
                file.seek(length[0], os.SEEK_CUR)
        return kind == _TRAILER
    finally:
        file.seek(before)


def _palette_size(flags: bytes) -> int:
    """Return the size in bytes of a color table from its flags byte; 0 if there is none."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0
