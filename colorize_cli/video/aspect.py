"""The pixel aspect of a finished file, for formats that hold it outside of the encoded stream.

PyAV cannot give an output stream its pixel aspect, so libavformat writes none into Matroska, WebM, AVI and
Y4M. It is added to the beginning of the file, whose length stays the same: the name of Matroska's track is
longer than needed (`ROOM`), and AVI has an unused chunk in front of the frames.

Sources: RFC 9559 (Matroska), RFC 8794 (EBML), OpenDML AVI File Format Extensions 1.02 (1996), section 5.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from colorize_cli.core.errors import WriteError
from colorize_cli.video import files
from colorize_cli.video.encoder import CONTAINERS
from colorize_cli.video.pixel_format import VideoInfo

# Appended to the title of the video stream; it takes the bytes of the new elements.
ROOM = " " * 32
_BEGINNING = 1 << 20  # bytes that hold the header of any file
_SEGMENT, _TRACKS, _TRACK = 0x18538067, 0x1654AE6B, 0xAE
_NAME, _VIDEO, _VOID, _CRC = 0x536E, 0xE0, 0xEC, 0xBF
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
_DISPLAY = (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT)
_ASPECT_RATIO = 3  # a display unit: width and height are the picture's aspect ratio


def is_outside(kind: str, info: VideoInfo) -> bool:
    """Return True if a file of this kind needs `patch`, or a pipe `PatchedOutput`."""
    return info.aspect != 1 and CONTAINERS[kind].format in _PATCHES


def patch(path: Path, kind: str, info: VideoInfo) -> None:
    """Write the pixel aspect into a finished file.

    Raises:
        WriteError: The file's header is too long.
        OSError: The file cannot be read or written.
    """
    with path.open("r+b") as file:
        changed = _PATCHES[CONTAINERS[kind].format](file.read(_BEGINNING), info)
        if changed is None:
            raise WriteError("its pixel aspect cannot be written, because the header is too long")
        file.seek(0)
        file.write(changed)


class PatchedOutput:
    """A stream that cannot seek, for a file that gets the pixel aspect.

    Holds the header back until it is whole.
    """

    def __init__(self, file: BinaryIO, kind: str, info: VideoInfo) -> None:
        """Write to `file`."""
        self._file, self._format, self._info = file, CONTAINERS[kind].format, info
        self._held: bytes | None = b""

    def write(self, data: bytes) -> int:
        """Write bytes, and return their number."""
        if self._held is None:
            self._file.write(data)
            return len(data)
        self._held += data
        if (changed := _PATCHES[self._format](self._held, self._info)) is not None:
            self._file.write(changed)
            self._held = None
        return len(data)


def _y4m(beginning: bytes, info: VideoInfo) -> bytes | None:
    line, end, rest = beginning.partition(b"\n")
    ratio = f" A{info.aspect.numerator}:{info.aspect.denominator}".encode()
    return re.sub(rb" A\d+:\d+", ratio, line) + end + rest if end else None


def _avi(beginning: bytes, info: VideoInfo) -> bytes | None:
    """Add a chunk with video properties to the first video stream, at the expense of the unused chunk."""
    outer = {
        beginning[at + 8 : at + 12] if name == b"LIST" else name: at for name, at in _riff(beginning, 12)
    }
    header, unused = outer[b"hdrl"], outer[b"JUNK"]
    stream = next(at for _, at in _riff(beginning, header + 12) if beginning[at + 20 : at + 24] == b"vids")
    end = stream + 8 + _size(beginning, stream)
    width, height = info.width, info.height
    shape = (info.aspect * width / height).limit_denominator(0xFFFF)
    frame = width, height, shape.denominator, shape.numerator, width, height, 1
    field = height, width, height, width, 0, 0, 0, 0
    chunk = struct.pack("<4s6I2H11I", b"vprp", 68, 0, 0, round(info.rate), *frame, *field)
    changed = bytearray(beginning)
    for at, more in ((header, len(chunk)), (stream, len(chunk)), (unused, -len(chunk))):
        struct.pack_into("<I", changed, at + 4, _size(beginning, at) + more)
    return (
        bytes(changed[:end]) + chunk + bytes(changed[end : unused + 8]) + beginning[unused + 8 + len(chunk) :]
    )


def _riff(data: bytes, at: int) -> Iterator[tuple[bytes, int]]:
    """Yield the names and positions of RIFF chunks, up to the frames of an AVI file."""
    while at + 8 <= len(data) and data[at + 8 : at + 12] != b"movi":
        yield data[at : at + 4], at
        at += 8 + _size(data, at) + _size(data, at) % 2


def _size(data: bytes, at: int) -> int:
    return int.from_bytes(data[at + 4 : at + 8], "little")


def _matroska(beginning: bytes, info: VideoInfo) -> bytes | None:
    """Add the display size to the video track, at the expense of the room in its name."""
    outer = {name: body for name, body, _ in _ebml(beginning, 0, len(beginning))}
    segment = outer.get(_SEGMENT, len(beginning))
    found = {name: (body, end) for name, body, end in _ebml(beginning, segment, len(beginning))}
    tracks, tracks_end = found.get(_TRACKS, (0, len(beginning) + 1))
    if tracks_end > len(beginning):
        return None
    for name, body, end in _ebml(beginning, tracks, tracks_end):
        parts = _elements(beginning[body:end]) if name == _TRACK else []
        title = dict(parts).get(_NAME, b"")
        if title.endswith(ROOM.encode()):
            break
    size = info.aspect * info.width
    display = [(_DISPLAY_WIDTH, round(size)), (_DISPLAY_HEIGHT, info.height)]
    if size.denominator > 1 and b"webm" not in beginning[:segment]:
        ratio = size / info.height
        display = [(_DISPLAY_WIDTH, ratio.numerator), (_DISPLAY_HEIGHT, ratio.denominator)]
        display.append((_DISPLAY_UNIT, _ASPECT_RATIO))  # WebM has none
    shape = b"".join(_element(part, value.to_bytes(4, "big")) for part, value in display)
    track = b""
    for part, content in parts:
        if part == _VIDEO:
            kept = [each for each in _elements(content) if each[0] not in _DISPLAY]
            track += _element(part, b"".join(_element(*each) for each in kept) + shape)
        elif part == _NAME:
            track += _element(part, title.removesuffix(ROOM.encode())) if title != ROOM.encode() else b""
        elif part != _VOID:
            track += _element(part, content)
    track += _element(_VOID, bytes(end - body - len(track) - 2))
    changed = beginning[:body] + track + beginning[end:]
    if beginning[tracks] == _CRC:
        checksum = zlib.crc32(changed[tracks + 6 : tracks_end]).to_bytes(4, "little")
        changed = changed[: tracks + 2] + checksum + changed[tracks + 6 :]
    return changed


def _ebml(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield identifier, and begin and end of the content, of the elements in a stretch of EBML."""
    while at < end:
        length = 9 - data[at].bit_length()
        name, at = int.from_bytes(data[at : at + length], "big"), at + length
        if at >= end:  # cut off
            return
        length, size = files.ebml_size(data, at)
        begin = at + length
        at = end + 1 if size is None else begin + size  # an unknown size leads beyond the end
        yield name, begin, at


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Return identifiers and contents of the elements in a stretch of EBML."""
    return [(name, data[first:last]) for name, first, last in _ebml(data, 0, len(data))]


def _element(name: int, content: bytes) -> bytes:
    head = name.to_bytes((name.bit_length() + 7) // 8, "big")
    length = next(length for length in range(1, 9) if len(content) < (1 << 7 * length) - 1)
    return head + ((1 << 7 * length) | len(content)).to_bytes(length, "big") + content


_PATCHES = {"avi": _avi, "matroska": _matroska, "webm": _matroska, "yuv4mpegpipe": _y4m}
