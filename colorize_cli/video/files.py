"""Opening video files. No other module hands a path to libavformat.

libavformat takes a path as a URL (`http:...`, `concat:...`), and some of its formats are scripts that name
other files or hosts. So paths are made absolute, and protocols and formats are limited: only the file itself
is read.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from colorize_cli.core.errors import ReadError, one_line

_TAGS = "surrogateescape"  # keeps the bytes of tags that are not UTF-8, as in old AVI files
SEGMENT_FORMAT = "nut"  # supports every time base and codec
_DEMUXERS = (
    "asf",
    "avi",
    "dv",
    "flv",
    "matroska",
    "mov",
    "mpeg",
    "mpegts",
    "mpegvideo",
    "mxf",
    "ogg",
    "yuv4mpegpipe",
    SEGMENT_FORMAT,
)
# Formats whose clock may restart or jump, where recordings were joined: AVFMT_TS_DISCONT in libavformat.
_CLOCK_RESTARTS = 0x0200
_JUMP, _STEP_BACK = 10, Fraction(1, 10)  # seconds; the thresholds of ffmpeg
# How parts of files begin: of Matroska (header, everything else), of ASF (header, data), MXF, MPEG, MP4.
_MATROSKA = (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67")
_EBML_HEAD, _LONGEST_NAME, _LONGEST_SIZE = 12, 4, 8
_PARENTS = (b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75")  # a segment, a cluster
# Elements in a segment and a cluster: Void, CRC-32; Timestamp, SimpleBlock, BlockGroup, Position, PrevSize,
# EncryptedBlock, SilentTracks. All others have names of four bytes.
_SHORT_NAMES = frozenset(
    {b"\xec", b"\xbf", b"\xe7", b"\xa3", b"\xa0", b"\xa7", b"\xab", b"\xaf", b"\x58\x54"}
)
_ASF = (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\x36\x26\xb2\x75\x8e\x66\xcf\x11")
_MXF = b"\x06\x0e\x2b\x34"
_MPEG, _MPEG_END = b"\0\0\1", 0xB9
_BOXES = (b"ftyp", b"styp", b"free", b"skip", b"moov", b"sidx", b"moof", b"mdat", b"mfra")
_SHORTEST_HEADER, _LONGEST_HEADER, _LARGEST = 24, 512, 1 << 40
_LIMITS = {"format_whitelist": ",".join(_DEMUXERS), "protocol_whitelist": "file,pipe"}


def open_source(source: Path | BinaryIO, format_: str | None = None) -> InputContainer:
    """Open a video for reading.

    Args:
        source: The path or a readable stream.
        format_: libavformat's name of the format; None to detect it.

    Raises:
        ReadError: It cannot be opened, or is not in one of the supported formats.
    """
    try:
        return av.open(
            _address(source), "r", format=format_, container_options=_LIMITS, metadata_errors=_TAGS
        )
    except av.error.InvalidDataError as error:
        raise ReadError("damaged, or not a video: its header or index cannot be read") from error
    except av.error.ArgumentError as error:
        raise ReadError("not a video in one of the supported formats") from error
    except av.error.FFmpegError as error:
        raise ReadError(one_line(error.strerror or error)) from error


def open_output(output: Path | BinaryIO, format_: str, options: Mapping[str, str]) -> OutputContainer:
    """Open a video for writing.

    Args:
        output: The path or a writable stream.
        format_: libavformat's name of the format.
        options: Options for the muxer.

    Raises:
        OSError: It cannot be opened.
    """
    return av.open(_address(output), "w", format=format_, options=dict(options), metadata_errors=_TAGS)


def packets(container: InputContainer) -> Iterator["Packet[Any]"]:
    """Yield the packets of all streams in file order, from the container's present position.

    In formats whose clock may restart, times go on after a restart, as in ffmpeg: all streams are shifted
    equally. Every stream ends with an empty packet, which flushes its decoder.
    """
    restarts = may_restart(container)
    shift = Fraction(0)
    # By stream: its latest decoding time, with the length of that packet; and the end of what it has shown.
    clocks: dict[int, tuple[Fraction, Fraction]] = {}
    ends: dict[int, Fraction] = {}
    soonest: dict[int, int] = {}  # by stream: decoding time that the next packet may have
    for packet in container.demux():
        stream, unit = packet.stream, packet.time_base
        if restarts and packet.dts is not None and stream.type in ("audio", "video"):
            now = packet.dts * unit + shift
            last, length = clocks.get(stream.index, (now, Fraction(0)))
            if abs(now - last - length) > _JUMP or now + _STEP_BACK < last:
                lag = max(ends.values()) - ends[stream.index]  # of a stream that ended before the others
                shift += last + length - now + (lag if lag > _STEP_BACK else 0)
                now = packet.dts * unit + shift
            rate = getattr(stream, "average_rate", None)
            length = packet.duration * unit if packet.duration else (1 / rate if rate else Fraction(0))
            clocks[stream.index] = now, length
            shown = now if packet.pts is None else packet.pts * unit + shift
            ends[stream.index] = max(ends.get(stream.index, shown), shown + length)
        if shift:
            ticks = round(shift / unit)
            # A stream that overlaps itself catches up in packets of half the length.
            if packet.dts is not None:
                ticks += max(0, soonest.get(stream.index, 0) - packet.dts - ticks)
                packet.dts += ticks
            packet.pts = None if packet.pts is None else packet.pts + ticks
        if restarts and packet.dts is not None:
            soonest[stream.index] = packet.dts + max(1, (packet.duration or 0) // 2)
        yield packet


def may_restart(container: InputContainer) -> bool:
    """Return True if the clock of a container of this format may restart."""
    return bool(container.format.flags & _CLOCK_RESTARTS)


def seconds_of(source: Path) -> float:
    """Return the duration of a file in seconds by its packets.

    Raises:
        ReadError: It cannot be opened.
    """
    with open_source(source) as container:
        found = [
            (p.pts * p.time_base, (p.duration or 0) * p.time_base)
            for p in packets(container)
            if p.pts is not None
        ]
    return float(max(map(sum, found)) - min(begin for begin, _ in found)) if found else 0.0


def stated_size(file: BinaryIO) -> int:
    """Return the size in bytes that a file has by the sizes of its parts; less if these cannot be followed.

    A file that is shorter was cut off. The parts are those of Matroska, AVI, MP4, MPEG, ASF, MXF and Ogg.

    Args:
        file: The file, or only its beginning, at its beginning.
    """
    end = 0
    while end < _LARGEST and (size := _part_size(file.read(_LONGEST_HEADER))):
        end += size
        file.seek(min(end, _LARGEST))
    return end


def is_whole_matroska(file: BinaryIO) -> bool:
    """Return False if the elements of a Matroska file do not follow each other, because some are damaged.

    The demuxer skips such places in silence. A segment of unknown size ends the search.

    Args:
        file: The file, at its beginning.
    """
    at, ends = 0, [file.seek(0, 2)]
    while at < ends[-1]:
        file.seek(at)
        head = file.read(_EBML_HEAD)
        length = 9 - head[0].bit_length()
        size_length, size = ebml_size(head, length)
        if length > _LONGEST_NAME or size_length > _LONGEST_SIZE or len(head) < length + size_length:
            return False
        name, at = head[:length], at + length + size_length
        if size is None:
            return len(ends) == 1  # a segment
        if at + size > ends[-1] or (length < _LONGEST_NAME and name not in _SHORT_NAMES):
            return False
        if name in _PARENTS:
            ends.append(at + size)
        else:
            at += size
        while at == ends[-1] and len(ends) > 1:
            ends.pop()
            if len(ends) == 1:  # whatever follows the segment
                return True
    return at == ends[-1]


def ebml_size(data: bytes, at: int) -> tuple[int, int | None]:
    """Return the bytes that the size of an EBML element takes, and the size; None if it is unknown.

    It begins with one zero bit less than it has bytes, and a one (RFC 8794, section 4). All ones: unknown.
    """
    length = 9 - int.from_bytes(data[at : at + 1], "big").bit_length()
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(data[at : at + length], "big") & unknown
    return length, None if size == unknown else size


def _part_size(head: bytes) -> int:
    """Return the size of the part of a file that begins with `head`; 0 if it is unknown."""
    if len(head) < _SHORTEST_HEADER:
        return 0
    if head.startswith(b"RIFF"):  # AVI files of more than a gigabyte consist of several
        return 8 + int.from_bytes(head[4:8], "little")
    if head.startswith(_ASF):
        return int.from_bytes(head[16:24], "little")
    if head.startswith(b"OggS"):  # a page, with a list of the sizes of its segments
        return 27 + head[26] + sum(head[27 : 27 + head[26]])
    if head.startswith(_MATROSKA):
        length, size = ebml_size(head, 4)
        return 0 if size is None else 4 + length + size
    if head.startswith(_MXF):  # a key of 16 bytes, and a size in one byte, or in as many as it counts
        more = max(0, head[16] - 128)
        return 17 + more + (int.from_bytes(head[17 : 17 + more], "big") if more else head[16])
    if head[4:8] in _BOXES:
        size = int.from_bytes(head[:4], "big")
        return int.from_bytes(head[8:16], "big") if size == 1 else size
    if head.startswith(_MPEG) and head[3] >= _MPEG_END:  # a pack of MPEG-2 or MPEG-1, or a packet
        pack = 14 + head[13] % 8 if head[4] >> 6 == 1 else 12
        return pack if head[3] == _MPEG_END + 1 else 6 + int.from_bytes(head[4:6], "big")
    return 0


def _address(file: Path | BinaryIO) -> str | BinaryIO:
    return str(file.absolute()) if isinstance(file, Path) else file
