"""A film as it is read: what its pictures are like, and its frames, one after the other.

Frames stay what the decoder made them, so that the luma, the time stamps and whatever hangs on a frame go to
the encoder as they came.
"""

import contextlib
import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from colorize_cli.color.ycbcr import Coding, matrix_of
from colorize_cli.core.errors import ReadError, one_line
from colorize_cli.video.pixel_format import REDUCED, Layout, VideoInfo, planar_name

_FULL_RANGE = 2  # H.273 by way of libavutil: AVCOL_RANGE_JPEG
# Seconds before a time from which on a key frame is looked for, in turn: some kinds of file are searched by
# when packets are decoded, others just anywhere near, and the first key frame there may be too late.
_FURTHER_BACK = (0, 2, 20)


class VideoReader:
    """An open film.

    Attributes:
        info: What its frames are like.
        damaged: How many packets and frames of the picture were damaged, of what has been read so far.
        others: Packets of the other streams, if they are kept.
    """

    def __init__(
        self,
        container: InputContainer,
        key_times: Callable[[], frozenset[int]] | None = None,
        *,
        keep_others: bool = False,
    ) -> None:
        """Looks at the first video stream.

        Args:
            container: What is open.
            key_times: Tells when there are key frames in it, by its index, if it has one; those that do not
                come count as damaged. Asked only when it has been read whole.
            keep_others: Put what is read of the other streams into `others`.

        Raises:
            ReadError: There is none, or its frames are of a kind not known here.
        """
        self._container = container
        streams = [s for s in container.streams.video if not _is_cover(s)]
        if not streams:
            raise ReadError("there is no film in it")
        self.stream: VideoStream = streams[0]
        # Of VP8 libavcodec decodes a frame wrongly now and then where a thread for each frame is used.
        self.stream.thread_type = "SLICE" if self.stream.codec_context.name == "vp8" else "AUTO"
        # Else damage would be painted over, and nobody told.
        self.stream.codec_context.options = {"err_detect": "explode"}
        self.damaged = 0
        self.others: deque[Packet[Any]] = deque()
        self._keep_others = keep_others
        self._key_times = key_times
        self._met: set[int | None] = set()
        self._ahead: list[VideoFrame] = []
        self._frames = self._decoded(self._packets())
        first = next(self._frames, None)
        if first is None:
            raise ReadError("damaged: not one frame can be decoded")
        self._ahead.append(first)
        self.info = _info(first, self.stream)
        self._begun = first.pts or 0

    @property
    def first(self) -> VideoFrame:
        """The first frame, before `frames` is called."""
        return self.planar(self._ahead[0])

    @property
    def container(self) -> InputContainer:
        """What it was opened from."""
        return self._container

    @property
    def seconds(self) -> float:
        """How long it lasts, as far as the file says; 0 where it does not."""
        return (self._container.duration or 0) / av.time_base

    @property
    def expected(self) -> int | None:
        """How many frames there are, as far as the file says."""
        return self.stream.frames or round(self.seconds * self.info.rate) or None

    def frames(self, start: float = 0.0, duration: float | None = None) -> Iterator[VideoFrame]:
        """The frames in the order in which they are shown, their time stamps rising; once.

        What cannot be decoded is left out and counted.

        Args:
            start: Seconds after the first frame from which on they are given.
            duration: For how many seconds; None for all.

        Raises:
            ReadError: The picture changes its size or its kind.
        """
        end = None if duration is None else self.time_of(start + duration)
        return self.between(self.time_of(start) if start else None, end)

    def between(self, begin: int | None, end: int | None = None) -> Iterator[VideoFrame]:
        """As `frames`, but those that are shown from one time on and before another.

        Args:
            begin: By the picture's time base; None for the first frame.
            end: The same; None for all.

        Raises:
            ReadError: As `frames`.
        """
        if begin is not None:
            self._search(begin)
        last: int | None = None
        step = max(1, round(1 / self.info.rate / self.info.time_base))
        while self._ahead or self._fill():
            frame = self._ahead.pop()
            shape = (frame.width, frame.height)
            if shape != (self.info.width, self.info.height):
                raise ReadError(f"its size changes to {shape[0]} x {shape[1]}")
            frame = self.planar(frame)
            if frame.pts is None:
                frame.pts = 0 if last is None else last + step
            if last is not None and frame.pts <= last:
                frame.pts = last + 1
            last = frame.pts
            if end is not None and last >= end:
                return
            if begin is None or last >= begin:
                yield frame

    def time_of(self, seconds: float) -> int:
        """The time stamp so many seconds after the first frame, by the picture's time base."""
        return self._begun + round(Fraction(seconds) / self.info.time_base)

    def _search(self, time: int) -> None:
        """Goes on from a key frame that is not after a time, where the film can be searched."""
        searched, damaged = False, self.damaged
        for seconds in _FURTHER_BACK:
            with contextlib.suppress(av.error.FFmpegError):
                self._seek(time - round(seconds / self.info.time_base))
                searched = True
                if self._begins_before(time) and self.damaged == damaged:
                    return
        self.damaged = damaged
        if searched:
            self._seek(self._begun)

    def _begins_before(self, time: int) -> bool:
        """Goes on from the next key frame, if that is not after a time; whether there is a frame then."""
        packets = self._packets()
        key = next((packet for packet in packets if packet.is_keyframe), None)
        if key is None or (shown := _shown(key)) is None or shown > time:
            return False
        # What is shown before a key frame and follows it in the file may refer to what is before it in the
        # file too, and cannot be decoded.
        later = itertools.filterfalse(lambda packet: _is_before(packet, shown), packets)
        self._frames = self._decoded(itertools.chain((key,), later))
        return self._fill()

    def _seek(self, time: int) -> None:
        self._container.seek(time, stream=self.stream)
        self._ahead.clear()
        self.others.clear()
        self._key_times = None  # of the key frames that are passed over none will come
        self._frames = self._decoded(self._packets())

    def planar(self, frame: VideoFrame) -> VideoFrame:
        """A frame in the picture's layout: the same samples, in other places (of nv12, say)."""
        if frame.format.name == self.info.layout.name:
            return frame
        moved = frame.reformat(format=self.info.layout.name)
        moved.pts, moved.time_base = frame.pts, frame.time_base
        return moved

    def _fill(self) -> bool:
        frame = next(self._frames, None)
        if frame is not None:
            self._ahead.append(frame)
        return frame is not None

    def _packets(self) -> Iterator["Packet[Any]"]:
        """Packets of the picture from here on; those of other streams are put aside, if they are kept."""
        streams = () if self._keep_others else (self.stream,)
        for packet in self._container.demux(*streams):
            if packet.stream.index == self.stream.index:
                yield packet
            elif packet.dts is not None:
                self.others.append(packet)

    def _decoded(self, packets: Iterator["Packet[Any]"]) -> Iterator[VideoFrame]:
        context = self.stream.codec_context
        failed = 0  # packets in a row
        while True:
            try:
                packet = next(packets)
                # One that failed in one thread can have all fail that follow, in all threads, for good.
                if packet.is_keyframe and failed > context.thread_count:
                    context.flush_buffers()
                if packet.is_keyframe and self._key_times is not None:
                    self._met.update((packet.pts, packet.dts))
                frames = packet.decode()
            except (StopIteration, EOFError):
                if self._key_times is not None:
                    self.damaged += len(self._key_times() - self._met)
                return
            except av.error.FFmpegError:
                self.damaged += 1
                failed += 1
                continue
            failed = 0 if frames else failed
            for frame in frames:
                assert isinstance(frame, VideoFrame)  # noqa: S101 - of a video stream
                self.damaged += frame.is_corrupt
                yield frame


@contextlib.contextmanager
def opened(
    source: Path | BinaryIO, format_: str | None = None, *, others: bool = False
) -> Iterator[VideoReader]:
    """A film of a file, or of a readable stream.

    Args:
        source: Where it is.
        format_: libavformat's name of its kind; None to find out.
        others: Whether to keep the packets of other streams.

    Raises:
        ReadError: It cannot be opened, or holds no film known here.
    """
    try:
        container = av.open(str(source) if isinstance(source, Path) else source, "r", format=format_)
    except av.error.FFmpegError as error:
        raise ReadError(_why(error)) from error
    with container:
        key_times = functools.partial(_key_times, source) if isinstance(source, Path) else None
        yield VideoReader(container, key_times, keep_others=others)


def _key_times(path: Path) -> frozenset[int]:
    """When there are key frames in the first video stream, by a Matroska file's index, if it has one.

    What is damaged in such a file is passed over in silence; other kinds tell.
    """
    with contextlib.suppress(av.error.FFmpegError, IndexError), av.open(str(path)) as container:
        if "matroska" not in container.format.name:
            return frozenset()
        stream = container.streams.video[0]
        container.seek(stream.start_time or 0, stream=stream)  # reads the index
        return frozenset(entry.timestamp for entry in stream.index_entries if entry.is_keyframe)
    return frozenset()


def _shown(packet: "Packet[Any]") -> int | None:
    """When what is in a packet is shown, as far as the file says."""
    return packet.dts if packet.pts is None else packet.pts


def _is_before(packet: "Packet[Any]", time: int) -> bool:
    shown = _shown(packet)
    return shown is not None and shown < time


def _info(frame: VideoFrame, stream: VideoStream) -> VideoInfo:
    layout = _layout(frame)
    matrix = matrix_of(int(frame.colorspace), frame.height)
    if matrix is None:
        raise ReadError(f"its colour matrix, H.273's number {int(frame.colorspace)}, is not known here")
    full = int(frame.color_range) == _FULL_RANGE or frame.format.name.startswith("yuvj")
    aspect = stream.sample_aspect_ratio
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    time_base = stream.time_base or Fraction(1, 90_000)
    return VideoInfo(
        width=frame.width,
        height=frame.height,
        layout=layout,
        coding=Coding(layout.bits, full),
        matrix=matrix,
        quarter_turns=round(frame.rotation / 90) % 4,
        aspect=Fraction(aspect) if aspect else Fraction(1),
        time_base=Fraction(time_base),
        rate=Fraction(rate),
    )


def _layout(frame: VideoFrame) -> Layout:
    """How the frames that `frames` gives lie, if this is the first that is decoded."""
    own = frame.format
    layout = Layout.of(own.name)
    if layout is not None:
        return layout
    if any(component.is_alpha for component in own.components):
        raise ReadError(f"its frames, of {own.name}, are transparent, which coloured films cannot be")
    if own.is_rgb or own.has_palette or len(own.components) not in (1, 3):
        raise ReadError(f"its frames are stored as {own.name}, not as luma and chroma")
    bits = own.components[0].bits
    reduced = (_factor(own.width, own.chroma_width()), _factor(own.height, own.chroma_height()))
    found = Layout.of(planar_name(reduced if reduced in REDUCED.values() else (1, 1), bits))
    if found is None:
        raise ReadError(f"its frames are stored as {own.name}, which is not known here")
    return found


def _factor(whole: int, part: int) -> int:
    return max(1, round(whole / part))


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _why(error: av.error.FFmpegError) -> str:
    if isinstance(error, av.error.InvalidDataError):
        return "damaged, or no film: its index or its beginning cannot be read"
    return one_line(error.strerror or error)
