"""Reading videos: their properties, and their frames in order.

Frames are passed on as decoded, so luma, time stamps and side data reach the encoder unchanged.
"""

import contextlib
import functools
import io
import itertools
import math
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import cv2
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from colorize_cli.color.ycbcr import BT709, Coding, matrix_of, rgb_of
from colorize_cli.core.errors import ReadError
from colorize_cli.image import grayscale
from colorize_cli.video import files, pixel_format
from colorize_cli.video.pixel_format import REDUCED, Layout, VideoInfo, planar_name

_FULL_RANGE = 2  # AVCOL_RANGE_JPEG in libavutil
_PROGRESSIVE, _TOP_FIRST, _BOTTOM_FIRST = 1, 2, 3  # AVFieldOrder in libavcodec
# Seconds before a target time at which to look for a key frame, in turn. Some formats are indexed by decoding
# time and others only approximately, so the first key frame found may be too late.
_FURTHER_BACK = (0, 2, 20)
# Demuxers that give packets the same time stamps after seeking; others derive some from the packets before.
_EXACT = ("matroska", "mov")
_NEAR = Fraction(1, 100)
_SLACK = 16  # bytes by which some programs overstate the size of an AVI file
_RESTARTED = 1.0  # difference in seconds between the duration by the clock and that of the packets
_FOOTER, _ONES = 8, 0xFFFFFFFF
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_SAMPLES = 12  # frames that decide whether a video is in color


class _Counted:
    """A readable stream that remembers its `size` as far as it is known and its beginning, `head`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size, self.head, self._at = file, 0, b"", 0
        self.seekable = file.seekable

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._at += len(data)
        self.head, self.size = self.head or data, max(self.size, self._at)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = self._file.seek(offset, whence)
        self.size = max(self.size, self._at)
        return self._at

    def tell(self) -> int:
        return self._at


class VideoReader:
    """An open video.

    Attributes:
        container: The open container.
        stream: Its first video stream.
        info: Properties of the frames.
        damaged: Number of damaged packets and frames of the video stream so far.
        cut_off: How many frames of how many there are, if the file turned out to end too early; else empty.
        others: Packets of the other streams read so far, if they are kept.
    """

    def __init__(
        self,
        source: Path | BinaryIO,
        format_: str | None = None,
        *,
        keep_others: bool = False,
        upright: bool = False,
    ) -> None:
        """Find the first video stream and decode its first frame.

        Args:
            source: The path or a readable stream.
            format_: libavformat's name of the format; None to detect it.
            keep_others: Keep the packets of the other streams in `others`.
            upright: Turn and mirror the frames as they are displayed. Then their chroma is undefined.

        Raises:
            ReadError: It cannot be opened, has no video stream, or one that cannot be decoded or has an
                unsupported pixel format.
        """
        self._source = source if isinstance(source, Path) else _Counted(source)
        self._format, self._keep_others, self._upright = format_, keep_others, upright
        self.others: deque[Packet[Any]] = deque()
        self._open()

    def _open(self) -> None:
        source: Any = self._source  # PyAV needs no more than `read` of a stream
        self.container = files.open_source(source, self._format)
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            cover = av.stream.Disposition.attached_pic
            streams = [s for s in self.container.streams.video if not s.disposition & cover]
            if not streams:
                raise ReadError("it has no video stream")
            self.stream: VideoStream = streams[0]
            if self.stream.codec_context is None:
                raise ReadError("its video codec is unknown")
            # With frame threading an error in one thread makes PyAV lose the frames of the others, and
            # libavcodec sometimes decodes VP8 frames incorrectly.
            self.stream.thread_type = "SLICE"
            # Without this the decoder conceals damage without reporting it.
            self.stream.codec_context.options = {"err_detect": "explode"}
            self._begin()
            if not self._decode_next():
                raise ReadError("damaged: no frame can be decoded")
            if self.stream.metadata.get("alpha_mode") == "1":  # VP8 and VP9; the decoded frames lack it
                raise ReadError("it has transparency, which is not supported")
            self.info = self._stored = _info(self._queue[0], self.stream)
            if self._upright and (self.info.quarter_turns or self.info.mirrored):
                stored = self._stored
                self.info = replace(stored, quarter_turns=0, mirrored=False, field_order=0)
                if stored.quarter_turns % 2:
                    aspect = 1 / stored.aspect
                    self.info = replace(self.info, width=stored.height, height=stored.width, aspect=aspect)
            stack.pop_all()  # everything is well, so it stays open

    def _begin(self) -> None:
        """Read on from the container's present position, which is its beginning."""
        self.damaged, self.cut_off = 0, ""
        self._count: int | None = 0  # frames decoded since the beginning; None after seeking
        self._last: Packet[Any] | None = None  # of the video stream
        self._read, self._has_checksums = 0, False  # packets of the video stream
        self.others.clear()
        # The Matroska demuxer skips damage silently; other demuxers report it.
        self._counts_keys = isinstance(self._source, Path) and "matroska" in self.container.format.name
        self._seen_times: set[int | None] = set()
        self._first_packet: tuple[int | None, ...] | None = None
        self._queue: list[VideoFrame] = []
        self._frames = self._in_time(self._decoded(self._packets()))

    def close(self) -> None:
        """Close the container."""
        self.container.close()

    def rewind(self) -> None:
        """Return to the first frame of a file, as if it had just been opened.

        Raises:
            ReadError: The file can no longer be opened.
        """
        if any(name in self.container.format.name for name in _EXACT):
            first = self._first_packet
            with contextlib.suppress(av.error.FFmpegError):
                self._seek(self.info.start - round(_FURTHER_BACK[-1] / self.info.time_base))
                self._begin()
                if self._decode_next() and self._first_packet == first:
                    return
        self.close()
        self._open()

    def is_color(self) -> bool:
        """Return True if any of twelve frames at equal intervals is in color. Rewinds, if it had to seek."""
        if self.info.layout.reduced is None:
            return False
        if _is_color(self.planar(self._queue[0]), self._stored):
            return True
        length = self.stream.duration or 0
        begun = self.stream.start_time or 0
        if not length and self.container.duration:
            length = round(self.container.duration / av.time_base / self.info.time_base)
        if not length:
            return False
        for index in range(1, _SAMPLES):
            try:
                self.container.seek(begun + length * index // _SAMPLES, stream=self.stream)
                frame = next(self.container.decode(self.stream), None)
            except av.error.FFmpegError:  # a frame that cannot be found or decoded is no evidence
                continue
            if isinstance(frame, VideoFrame) and _is_color(self.planar(frame), self._stored):
                return True
        self.rewind()
        return False

    @property
    def first(self) -> VideoFrame:
        """The first frame. Valid until `frames` is called."""
        return self._turned(self.planar(self._queue[0]))

    @property
    def is_interlaced(self) -> bool:
        """True if the stored frames consist of two fields."""
        return self._queue[0].interlaced_frame or self._stored.field_order > _PROGRESSIVE

    @property
    def is_rgb(self) -> bool:
        """True if the decoded frames are RGB, which `planar` converts."""
        return self._queue[0].format.is_rgb

    @property
    def seconds(self) -> float:
        """Duration in seconds according to the container; 0 if unknown."""
        return (self.container.duration or 0) / av.time_base

    @functools.cached_property
    def restarted_seconds(self) -> float | None:
        """Duration in seconds of a file whose clock restarts; None for others. Reads the file once."""
        if not isinstance(self._source, Path) or not files.may_restart(self.container):
            return None
        seconds = files.seconds_of(self._source)
        return seconds if abs(seconds - self.seconds) > _RESTARTED else None

    @property
    def expected(self) -> int | None:
        """Expected number of frames according to the container; None if unknown."""
        seconds = self.seconds
        with contextlib.suppress(KeyError, ValueError):  # Matroska states the duration of streams in tags
            hours, minutes, rest = self.stream.metadata["DURATION"].split(":")
            seconds = int(hours) * 3600 + int(minutes) * 60 + float(rest)
        return self.stream.frames or round(seconds * _rate(self.stream)) or None

    def frames(self, start: float = 0.0, duration: float | None = None) -> Iterator[VideoFrame]:
        """Yield the frames in display order, with ascending time stamps. Call only once.

        Frames that cannot be decoded are skipped and counted.

        Args:
            start: Time of the first frame to yield, in seconds after the beginning.
            duration: Duration in seconds; None for all.

        Raises:
            ReadError: The file can no longer be read.
        """
        end = None if duration is None else self.info.time_of(start + duration)
        return self.between(self.info.time_of(start) if start else None, end)

    def between(self, begin: int | None, end: int | None = None) -> Iterator[VideoFrame]:
        """Yield the frames between two time stamps, like `frames`. Seeks if `begin` is given.

        Args:
            begin: Begin, in units of the stream's time base; None for the first frame.
            end: End, in the same units; None for all.

        Raises:
            ReadError: The file can no longer be read.
        """
        if begin is not None:
            self._seek_before(begin)
        last: int | None = None
        step = max(1, round(1 / self.info.rate / self.info.time_base))
        while self._queue or self._decode_next():
            frame = self._queue.pop()
            frame = self._turned(self.planar(frame))
            if frame.pts is None:
                frame.pts = 0 if last is None else last + step
            if last is not None and frame.pts <= last:
                frame.pts = last + 1
            last = frame.pts
            if end is not None and last >= end:
                self.cut_off = ""  # found by decoding ahead
                return
            if begin is None or last >= begin:
                yield frame

    def _seek_before(self, time: int) -> None:
        """Resume at a key frame that is not later than `time`, else at the beginning, if seekable.

        If the clock restarts, times are known only from the beginning on, so it does not seek.
        """
        if self.restarted_seconds is not None:
            return
        searched, damaged = False, self.damaged
        for seconds in _FURTHER_BACK:
            with contextlib.suppress(av.error.FFmpegError):
                self._seek(time - round(seconds / self.info.time_base))
                searched = True
                if self._resume_before(time) and self.damaged == damaged:
                    return
        self.damaged = damaged
        if searched:
            self._seek(self.info.start)

    def _resume_before(self, time: int) -> bool:
        """Resume at the next key frame if it is not later than `time`. Return True if it could be decoded."""
        packets = self._packets()
        key = next((packet for packet in packets if packet.is_keyframe), None)
        if key is None or (shown := _display_time(key)) is None or shown > time:
            return False
        # Frames that follow the key frame in the file but are shown before it may refer to earlier frames,
        # and then cannot be decoded.
        later = (p for p in packets if (time_ := _display_time(p)) is None or time_ >= shown)
        self._frames = self._in_time(self._decoded(itertools.chain((key,), later)))
        return self._decode_next()

    def _seek(self, time: int) -> None:
        self.container.seek(time, stream=self.stream)
        self._queue.clear()
        self.others.clear()
        self._counts_keys = False  # skipped key frames would count as damaged
        self._count = self._last = None
        self._frames = self._in_time(self._decoded(self._packets()))

    def planar(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame in the layout of `info`: the same samples, rearranged if semi-planar (nv12).

        Frames of another size, after a change in mid-stream, are scaled. RGB becomes full-range Y'CbCr of
        BT.709, in which gray keeps its codes.
        """
        info = self._stored
        if (frame.format.name, frame.width, frame.height) == (info.layout.name, info.width, info.height):
            return frame
        size = info.width, info.height
        if not frame.format.is_rgb:
            moved = frame.reformat(*size, info.layout.name, interpolation="BICUBIC")
        else:
            name, bits = info.layout.name, info.layout.bits
            full = {"dst_colorspace": Colorspace.ITU709, "dst_color_range": ColorRange.JPEG}
            moved = frame.reformat(*size, name, interpolation="BICUBIC", **full)
            planes = frame.reformat(*size, f"gbrp{bits}le" if bits > 8 else "gbrp", interpolation="BICUBIC")
            green, blue, red = (pixel_format.plane_of(planes, index) for index in range(3))
            luma = BT709.red * red + (1 - BT709.red - BT709.blue) * green + BT709.blue * blue
            pixel_format.plane_of(moved, 0)[:] = np.rint(luma)  # libswscale is not exact beyond 8 bits
        moved.pts, moved.time_base = frame.pts, frame.time_base
        return moved

    def _turned(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame as `info` describes it: as stored, or as displayed."""
        if (
            self._stored.quarter_turns == self.info.quarter_turns
            and self._stored.mirrored == self.info.mirrored
        ):
            return frame
        turned = VideoFrame(self.info.width, self.info.height, self.info.layout.name)
        pixel_format.luma_of(turned)[:] = pixel_format.upright(pixel_format.luma_of(frame), self._stored)
        turned.pts, turned.time_base = frame.pts, frame.time_base
        turned.key_frame = frame.key_frame  # type: ignore[misc]
        pixel_format.tag(turned, frame)
        return turned

    def _decode_next(self) -> bool:
        frame = next(self._frames, None)
        if frame is not None:
            self._queue.append(frame)
        return frame is not None

    def _packets(self) -> Iterator["Packet[Any]"]:
        """Yield the remaining packets of the video stream. Packets of other streams are queued, if kept."""
        for packet in files.packets(self.container):
            if packet.stream.index == self.stream.index:
                if packet.size:
                    found = packet.pos, packet.pts, packet.dts, packet.size
                    self._first_packet, self._last = self._first_packet or found, packet
                    self._read += 1
                yield packet
            elif packet.size and self._keep_others:  # cover art has no time stamps
                self.others.append(packet)

    def _decoded(self, packets: Iterator["Packet[Any]"]) -> Iterator[VideoFrame]:
        while True:
            try:
                packet = next(packets)
                if packet.is_keyframe and self._counts_keys:
                    self._seen_times.update((packet.pts, packet.dts))
                frames = packet.decode()
                if packet.stream.codec_context.name == "ffv1" and packet.size:
                    right = _checksums_are_right(bytes(packet))
                    self._has_checksums = self._has_checksums or bool(right)
                    self.damaged += right is False or (right is None and self._has_checksums)
            except (StopIteration, EOFError):
                self.cut_off = self._shortfall()
                self.damaged += 0 if self.cut_off else self._skipped()
                return
            except av.error.FFmpegError:
                self.damaged += 1
                continue
            for frame in frames:
                assert isinstance(frame, VideoFrame)  # noqa: S101 - it is a video stream
                self.damaged += frame.is_corrupt
                self._count = None if self._count is None else self._count + 1
                yield frame

    def _in_time(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield the frames with decoding times, if the presentation times are wrong.

        AVI has no presentation times. They go back where B-frames, which AVI packs with other frames, were
        copied to another format.
        """
        wrong, before = self.container.format.name == "avi", next(frames, None)
        while before is not None:
            frame = next(frames, None)
            if frame and None not in (times := (before.pts, frame.pts, before.dts, frame.dts)):
                wrong = wrong or (times[1] <= times[0] and times[3] > times[2])  # type: ignore[operator]
            before.pts = before.dts if wrong and before.dts is not None else before.pts
            yield before
            before = frame

    def _skipped(self) -> int:
        """Return the number of damaged places that the demuxer has skipped in silence. May seek."""
        format_, source = self.container.format.name, self._source
        if format_ == "avi" and self._count is not None:
            return max(0, sum(entry.size > 0 for entry in self.stream.index_entries) - self._read)
        if "matroska" not in format_ or not isinstance(source, Path):
            return 0
        if self._counts_keys and (keys := len(self._key_times() - self._seen_times)):
            return keys
        with source.open("rb") as file:
            return int(not self.damaged and not files.is_whole_matroska(file))

    def _shortfall(self) -> str:
        """Return the value of `cut_off` at the end of the file."""
        format_, last, source = self.container.format.name, self._last, self._source
        if last is None:
            return ""
        size = source.size if isinstance(source, _Counted) else source.stat().st_size
        cut = bool(last.is_corrupt)
        if "mov" in format_ and self.stream.frames:  # its index lists all packets
            entries = self.stream.index_entries
            backward = (entries[number] for number in range(len(entries) - 1, -1, -1))
            end = next((entry.timestamp for entry in backward if not entry.is_discard), None)
            cut |= end is not None and last.dts is not None and end > last.dts
        elif format_ in ("dv", "yuv4mpegpipe"):  # frames of equal size follow each other
            cut |= size != (last.pos or 0) + last.size
        else:
            with io.BytesIO(source.head) if isinstance(source, _Counted) else source.open("rb") as file:
                cut |= files.stated_size(file) > size + _SLACK
        if not cut or self._count is None:
            return "it is cut off" if cut else ""
        total = f" of {self.stream.frames}" if self.stream.frames > self._count else ""
        states_duration = any(name in format_ for name in ("flv", "matroska", "mxf"))
        if not total and states_duration and (self.expected or 0) > self._count:
            total = f" of about {self.expected}"
        return f"it is cut off after {self._count}{total} frames"

    def _key_times(self) -> frozenset[int]:
        """Return the times of all key frames by the container's index; empty if it has none. Seeks."""
        with contextlib.suppress(av.error.FFmpegError):
            self.container.seek(self.stream.start_time or 0, stream=self.stream)  # reads the index
            return frozenset(entry.timestamp for entry in self.stream.index_entries if entry.is_keyframe)
        return frozenset()


@contextlib.contextmanager
def opened(
    source: Path | BinaryIO, format_: str | None = None, *, others: bool = False, upright: bool = False
) -> Iterator[VideoReader]:
    """Open a video as long as the block lasts; see `VideoReader` for the arguments and errors."""
    with contextlib.closing(VideoReader(source, format_, keep_others=others, upright=upright)) as video:
        yield video


def _checksums_are_right(packet: bytes) -> bool | None:
    """Compare the checksums of an FFV1 packet's slices, as its decoder conceals damage (RFC 9043, 4.9).

    A slice ends with its size, a status byte and a checksum. Returns None if the sizes do not lead to the
    packet's beginning: they are damaged, or the encoder wrote no checksums.
    """
    slices, end = [], len(packet)
    while end >= _FOOTER:
        begin = end - _FOOTER - int.from_bytes(packet[end - _FOOTER : end - 5], "big")
        slices.append(packet[max(0, begin) : end])
        end = begin
    # The checksum's bits are in the opposite order of zlib's, and its remainder is not inverted.
    right = all(zlib.crc32(each.translate(_MIRRORED), _ONES) == _ONES for each in slices)
    return right if end == 0 else None


def _display_time(packet: "Packet[Any]") -> int | None:
    """Return a packet's presentation time, or its decoding time if that is unknown."""
    return packet.dts if packet.pts is None else packet.pts


def _is_color(frame: VideoFrame, info: VideoInfo) -> bool:
    size = grayscale.small_size(frame.width, frame.height)
    planes = [
        cv2.resize(pixel_format.plane_of(frame, index), size, interpolation=cv2.INTER_AREA)
        for index in range(3)
    ]
    rgb = rgb_of(*info.coding.values(*(np.asarray(plane, np.float32) for plane in planes)), info.matrix)
    small = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    return grayscale.spread_of(small) > grayscale.COLOR_SPREAD


def _info(frame: VideoFrame, stream: VideoStream) -> VideoInfo:
    layout = _layout(frame)
    matrix = BT709 if frame.format.is_rgb else matrix_of(int(frame.colorspace), frame.height)
    if matrix is None:
        raise ReadError(f"its color matrix (H.273 code {int(frame.colorspace)}) is not supported")
    full = (
        int(frame.color_range) == _FULL_RANGE or frame.format.name.startswith("yuvj") or frame.format.is_rgb
    )
    aspect = stream.sample_aspect_ratio
    time_base = stream.time_base or Fraction(1, 90_000)
    rotation, mirrored = frame.rotation, False
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    if side_data is not None:
        a, b, _, c, d, *_ = (int(value) for value in np.frombuffer(bytes(side_data), np.int32))
        if mirrored := a * d < b * c:
            rotation = -round(math.degrees(math.atan2(b, -a)))
    return VideoInfo(
        width=frame.width,
        height=frame.height,
        layout=layout,
        coding=Coding(layout.bits, full),
        matrix=matrix,
        quarter_turns=round(rotation / 90) % 4,
        aspect=Fraction(aspect) if aspect else Fraction(1),
        time_base=Fraction(time_base),
        rate=_rate(stream),
        index=stream.index,
        start=frame.pts or 0,
        field_order=_field_order(frame, stream),
        mirrored=mirrored,
    )


def _rate(stream: VideoStream) -> Fraction:
    """Return the approximate frame rate."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    if stream.codec_context.name.startswith("mpeg"):  # states its rate; repeated fields disturb the average
        rate = stream.guessed_rate or rate
    elif stream.base_rate and abs(stream.base_rate / rate - 1) < _NEAR:
        rate = stream.base_rate  # a container that stores milliseconds gives a rate near the true one
    return Fraction(rate)


def _field_order(frame: VideoFrame, stream: VideoStream) -> int:
    """Return libavcodec's number of the order of fields. Interlaced DV says nothing of it: bottom first."""
    order = int(stream.codec_context.field_order)
    if frame.interlaced_frame and order <= _PROGRESSIVE:
        return _BOTTOM_FIRST if stream.codec_context.name == "dvvideo" else _TOP_FIRST
    return order


def _layout(frame: VideoFrame) -> Layout:
    """Return the layout to which `VideoReader.planar` converts frames like this one."""
    pixels = frame.format
    layout = Layout.of(pixels.name)
    if layout is not None:
        return layout
    if any(component.is_alpha for component in pixels.components):
        raise ReadError(f"its pixel format {pixels.name} has transparency, which is not supported")
    if pixels.has_palette or len(pixels.components) not in (1, 3):
        raise ReadError(f"its pixel format {pixels.name} does not store luma and chroma")
    bits = pixels.components[0].bits
    reduced = (_factor(pixels.width, pixels.chroma_width()), _factor(pixels.height, pixels.chroma_height()))
    found = Layout.of(planar_name(reduced if reduced in REDUCED.values() else (1, 1), bits))
    if found is None:
        raise ReadError(f"its pixel format {pixels.name} is not supported")
    return found


def _factor(whole: int, part: int) -> int:
    return max(1, round(whole / part))
