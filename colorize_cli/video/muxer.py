"""Muxing encoded segments and the source's other streams into one file.

A new container has its row elsewhere, in `encoder.CONTAINERS`, and its suffix in `core.formats`.
"""

import heapq
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from colorize_cli.core.errors import WriteError, one_line
from colorize_cli.video import aspect, files
from colorize_cli.video.encoder import CONTAINERS
from colorize_cli.video.pixel_format import TimeRange, VideoInfo, tag

# Path of a segment, and the presentation time of its first frame in units of the video stream's time base.
TimedSegment = tuple[Path, int]
# Containers to recommend for streams that the output's cannot hold.
_OTHER_KINDS = (".mkv", ".mov", ".mp4", ".avi", ".m2ts", ".ts")
# Tags that are true of the source only: statistics by mkvmerge, and properties of an MP4 file.
_STALE = re.compile(
    r"(BPS|DURATION|NUMBER_OF_(BYTES|FRAMES)|_STATISTICS_\w+)(-\w+)?|major_brand|minor_version|compatible_brands",
    re.IGNORECASE,
)
# Prefix of the tags of phones, which MP4 and MOV hold only as QuickTime metadata keys.
_QUICKTIME_KEY = "com."
# Color matrix (H.273) and range of Y'CbCr made from RGB, see `VideoReader.planar`.
RGB_TAGS = 1, 2
_TIME_CODE = re.compile(r"(\d+):(\d\d):(\d\d)([:;.])(\d\d)")
_ROUNDED = Fraction(1, 20)  # of a frame
COVER = av.stream.Disposition.attached_pic


def join(
    segments: Sequence[TimedSegment],
    source: Path,
    info: VideoInfo,
    output: Path,
    kind: str,
    time_range: TimeRange | None = None,
    *,
    audio: bool = True,
) -> None:
    """Write the output video.

    Args:
        segments: Segments of the colorized video stream, in order.
        source: The source video.
        info: Properties of the source's frames.
        output: The file to write.
        kind: Extension of the output's container format, with the dot.
        time_range: The colorized time range of the source. The output begins with it. None for all.
        audio: False to leave the sound out.

    Raises:
        WriteError: The container format does not support a stream.
        OSError: A file cannot be read or written.
    """
    container = CONTAINERS[kind]
    # Times in AVI are numbers of frames: libavformat writes any other unit as the frame rate.
    unit = 1 / info.rate if container.format == "avi" else info.time_base
    target_info, scale = replace(info, time_base=unit), info.time_base / unit
    begun = segments[0][1]
    segments = [(path, round(begun * scale) + round((first - begun) * scale)) for path, first in segments]
    begin = 0 if time_range is None else round(time_range[0] * scale)
    with (
        files.open_source(source) as original,
        files.open_source(segments[0][0]) as first,
        files.open_output(output, container.format, muxing(original, kind)) as out,
    ):
        add_video = template_adder(first, target_info, out, kind)
        streams = Streams(original, out, info, kind, add_video, dict(_covers(original)), audio=audio)
        streams.describe(time_range)
        colorized = _colorized_packets(segments, streams.video, target_info, begin)
        others = (
            packet
            for packet in (files.packets(original) if streams.kept else ())  # all: the clock is that of all
            if packet.size
            and packet.stream.index in streams.kept
            and (time_range is None or take(packet, time_range, info.time_base))
        )
        try:
            for packet in heapq.merge(colorized, others, key=lambda p: Fraction((p.dts or 0) * p.time_base)):
                streams.write(packet)
        except av.error.FFmpegError as error:
            if isinstance(error, av.error.InvalidDataError | av.error.ArgumentError):
                raise WriteError(f"{kind} cannot hold one of its packets: {one_line(error)}") from error
            raise
    if aspect.is_outside(kind, info):
        aspect.patch(output, kind, info)


def muxing(original: InputContainer, kind: str) -> dict[str, str]:
    """Return the options for the muxer of a copy of `original`."""
    options = dict(CONTAINERS[kind].muxing)
    if "movflags" in options and any(key.startswith(_QUICKTIME_KEY) for key in original.metadata):
        options["movflags"] += "+use_metadata_tags"
    return options


def template_adder(
    encoded: InputContainer, info: VideoInfo, out: OutputContainer, kind: str
) -> Callable[[Stream], Stream]:
    """Return the function that adds the video stream of an encoded segment to the output."""
    template = encoded.streams.video[0]

    def add(stream: Stream) -> Stream:
        target: Any = _copied(template, out, kind)
        if target is None:
            raise WriteError(
                f"{kind} cannot hold video of {_codec(template)}; choose another codec or container"
            )
        target.time_base = info.time_base
        target.codec_context.framerate = info.rate
        target.codec_context.field_order = info.field_order
        # The source's container may know color properties that the encoder was not given.
        tag(target.codec_context, stream.codec_context)
        if stream.codec_context.format.is_rgb:  # type: ignore[attr-defined]
            target.codec_context.colorspace, target.codec_context.color_range = RGB_TAGS
        return target  # type: ignore[no-any-return]

    return add


class Streams:
    """The streams of an output: the colorized video, and the source's other streams, in the source's order.

    Text subtitles are converted where the container needs another codec. Streams without meaning outside the
    source's container are left out.

    Attributes:
        video: The video stream.
        kept: Indices of the source's other streams whose packets `write` takes.
        notes: Lines for the user about what is converted or left out.
    """

    def __init__(
        self,
        original: InputContainer,
        out: OutputContainer,
        info: VideoInfo,
        kind: str,
        add_video: Callable[[Stream], Stream],
        covers: Mapping[int, "Packet[Any]"],
        *,
        audio: bool = True,
    ) -> None:
        """Add all streams to the output.

        Args:
            original: The open source.
            out: The open output.
            info: Properties of the source's frames.
            kind: Extension of the output's container format, with the dot.
            add_video: Adds the colorized video stream. Takes the source's video stream.
            covers: Packets with cover art, by the index of the source's stream.
            audio: False to leave the sound out.

        Raises:
            WriteError: The container format does not support a stream.
        """
        self._original, self._out, self._info, self._kind = original, out, info, kind
        self.notes: list[str] = []
        self._targets: dict[int, Stream] = {}
        self._converted: dict[int, Stream] = {}
        self._ends: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._timecode: str | None = None
        nonstrict: Any = av.format.Flags.ts_nonstrict  # repeated time stamps are allowed
        self._least_step = int(not out.format.flags & nonstrict.value)
        for stream in original.streams:
            if stream.index == info.index:
                self.video = add_video(stream)
                if info.quarter_turns or info.mirrored:
                    turned: Any = self.video
                    turned.set_display_rotation(90 * info.quarter_turns, hflip=info.mirrored)
                _copy_labels(self.video, stream)
                if aspect.is_outside(kind, info) and CONTAINERS[kind].format in ("matroska", "webm"):
                    self.video.metadata["title"] = self.video.metadata.get("title", "") + aspect.ROOM
                for key in [key for key in self.video.metadata if key.lower() == "encoder"]:
                    del self.video.metadata[key]
            elif stream.disposition & COVER or stream.type == "attachment":
                self._add_attached(stream, covers)
            elif stream.type == "audio" and not audio:
                continue
            elif stream.type == "audio" and not getattr(stream.codec_context, "sample_rate", 1):
                self.notes.append(f"its audio stream {stream.index} is left out, because it has no packets")
            elif stream.type == "subtitle" and stream.codec_context is None:  # PyAV can copy it nowhere
                self.notes.append(
                    f"its subtitle stream {stream.index} is left out, because its codec is unknown"
                )
            elif stream.type in ("audio", "subtitle", "video"):
                self._add_copy(stream)
            else:
                self._add_data(stream)
        self.kept = frozenset(self._targets)
        self._covers = [cover for index, cover in covers.items() if index in self._targets]

    def _add_attached(self, stream: Any, covers: Mapping[int, "Packet[Any]"]) -> None:
        """Add cover art or another attached file. Only Matroska holds files."""
        container = CONTAINERS[self._kind]
        if container.format == "matroska":
            if stream.type == "attachment":
                self._out.add_attachment(stream.name or "attachment", stream.mimetype or "", stream.data)
            elif stream.index in covers:
                codec = _codec(stream)
                name = stream.metadata.get("filename", f"cover.{_PICTURES.get(codec, codec)}")
                mimetype = stream.metadata.get("mimetype", f"image/{'jpeg' if codec == 'mjpeg' else codec}")
                self._out.add_attachment(name, mimetype, bytes(covers[stream.index]))
        elif stream.type != "attachment" and container.pictures:
            target = self._out.add_stream_from_template(stream, opaque=True)
            _copy_labels(target, stream)
            self._targets[stream.index] = target
        else:
            what = "attached file" if stream.type == "attachment" else "cover art"
            self.notes.append(f"its {what} is left out, because {self._kind} cannot hold it")

    def _add_copy(self, stream: Stream) -> None:
        text = CONTAINERS[self._kind].text
        name = f"its {stream.type} stream {stream.index} ({_codec(stream)})"
        target: Any = _copied(stream, self._out, self._kind)
        if target is None and text is not None and _is_text(stream):
            target = self._out.add_stream(text)
            decoder: Any = stream.codec_context
            decoder.open(strict=False)
            target.codec_context.subtitle_header = decoder.subtitle_header
            self._converted[stream.index] = target
            self.notes.append(f"{name} is converted to {text}")
        if target is None:
            raise WriteError(f"{self._kind} cannot hold {name}{_advice(self._original, self._kind)}")
        target.time_base = stream.time_base
        _copy_labels(target, stream)
        self._targets[stream.index] = target

    def _add_data(self, stream: Stream) -> None:
        """Add a data stream if the container holds it. Chapters and time codes are written from the tags."""
        holds = CONTAINERS[self._kind].holds
        if holds is not None and getattr(stream, "name", None) in holds:
            target = self._out.add_stream_from_template(stream)
            target.time_base = stream.time_base
            self._targets[stream.index] = target
        elif "timecode" in stream.metadata:
            self._timecode = stream.metadata["timecode"]
        elif not (self._original.chapters() and getattr(stream, "name", None) == "bin_data"):
            self.notes.append(f"its {stream.type} stream {stream.index} is left out")

    def describe(self, time_range: TimeRange | None) -> None:
        """Copy the container's metadata and chapters, and write the header.

        Of a time range there are no chapters, and the time code is that of its begin.

        Raises:
            WriteError: The container format does not accept a stream.
        """
        lacking = []
        if self._timecode is not None:
            self.video.metadata.setdefault("timecode", self._timecode)
        if any(key.lower() == "timecode" for key in self.video.metadata):
            lacking.append("time code")
        self._out.metadata.update(_true_of_copies(self._original.metadata))
        if time_range is not None:
            seconds = (time_range[0] - self._info.start) * self._info.time_base
            for metadata in (self.video.metadata, self._out.metadata):
                for key in [key for key in metadata if key.lower() == "timecode"]:
                    metadata[key] = later(metadata[key], seconds, self._info.rate)
        elif self._original.chapters():
            self._out.set_chapters(self._original.chapters())
            lacking.append("list of chapters")
        for what in lacking:
            if what in CONTAINERS[self._kind].lacks:
                self.notes.append(f"its {what} is left out, because {self._kind} cannot hold it")
        try:
            self._out.start_encoding()
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            raise WriteError(f"{self._kind} cannot hold its streams: {one_line(error)}") from error
        for cover in self._covers:
            cover.pts = cover.dts = 0
            self.write(cover)

    def write(self, packet: "Packet[Any]") -> None:
        """Write a packet of the colorized video, or of one of the source's other streams.

        Time stamps that are missing, or not after those of the packet before, are replaced as `ffmpeg` does.
        """
        index = packet.stream.index
        if packet.stream is not self.video:
            if index not in self._targets:
                return
            if index in self._converted:
                if (converted := self._convert(packet)) is None:
                    return
                packet = converted
            packet.stream = self._targets[index]
        target: Any = packet.stream
        if packet.dts is None:
            packet.dts = packet.pts if packet.pts is not None else self._ends.get(target.index, 0)
            packet.pts = packet.dts if packet.pts is None else packet.pts
        self._ends[target.index] = packet.dts + (packet.duration or 1)
        dts = round(packet.dts * packet.time_base / target.time_base)
        least = self._last.get(target.index, dts - 1) + self._least_step
        if dts < least:
            shown = dts if packet.pts is None else round(packet.pts * packet.time_base / target.time_base)
            packet.duration = round((packet.duration or 0) * packet.time_base / target.time_base)
            packet.time_base, packet.pts, packet.dts = target.time_base, max(shown, least), least
        self._last[target.index] = max(dts, least)
        self._out.mux_one(packet)

    def _convert(self, packet: "Packet[Any]") -> "Packet[Any] | None":
        """Return a packet of text subtitles in the output's codec; None if it has no text."""
        decoder: Any = packet.stream.codec_context
        target: Any = self._converted[packet.stream.index]
        found = decoder.decode2(packet)
        if found is None or not len(found.rects):
            return None
        converted: Packet[Any] = target.codec_context.encode_subtitle(found)
        converted.time_base, converted.pts, converted.dts = packet.time_base, packet.pts, packet.dts
        converted.duration = packet.duration
        return converted


_PICTURES = {"mjpeg": "jpg"}  # file name suffixes that differ from the codec's name


def _covers(original: InputContainer) -> Iterator[tuple[int, "Packet[Any]"]]:
    """Yield the cover art of a newly opened source: its first packets."""
    streams = [stream for stream in original.streams if stream.disposition & COVER]
    for packet in itertools.islice(original.demux(streams), len(streams)) if streams else ():
        yield packet.stream.index, packet


def _codec(stream: Stream) -> str:
    """Return libavcodec's name of the codec of a stream."""
    context = stream.codec_context
    return "unknown" if context is None else context.codec.canonical_name


def _is_text(stream: Stream) -> bool:
    return (
        stream.type == "subtitle" and stream.codec_context is not None and stream.codec_context.codec.text_sub
    )


def _copied(stream: Stream, out: OutputContainer, kind: str) -> Stream | None:
    """Add a copy of a stream; None if the container format does not support it."""
    holds = CONTAINERS[kind].holds
    if holds is not None and _codec(stream) not in holds:
        return None
    try:
        return out.add_stream_from_template(stream, opaque=True)
    except (av.error.FFmpegError, ValueError):
        return None


def _advice(original: InputContainer, kind: str) -> str:
    """Return the end of a message: the container format that holds all streams of the source, if any does."""
    streams = [s for s in original.streams if s.type in ("audio", "subtitle") and not s.disposition & COVER]
    for other in _OTHER_KINDS:
        container = CONTAINERS[other]
        with files.open_output(io.BytesIO(), container.format, {}) as scratch:
            if other != kind and all(
                (container.text and _is_text(s)) or _copied(s, scratch, other) is not None for s in streams
            ):
                return f"; give the output the suffix {other}"
    return ""


def later(code: str, seconds: Fraction, rate: Fraction) -> str:
    """Return the time code of the first frame that is shown `seconds` or more after that of time code `code`.

    A drop-frame code (SMPTE ST 12-1), with a semicolon, leaves out the first two of 30 numbers in a minute,
    but in every tenth minute.
    """
    if (parts := _TIME_CODE.fullmatch(code)) is None:
        return code
    hours, minutes, second, frame = (int(parts[index]) for index in (1, 2, 3, 5))
    whole = round(rate)
    dropped = whole // 15 if parts[4] != ":" else 0
    minutes += 60 * hours
    number = (minutes * 60 + second) * whole + frame - dropped * (minutes - minutes // 10)
    number += math.ceil(seconds * rate - _ROUNDED)  # containers round times
    tens, rest = divmod(number, 600 * whole - 9 * dropped)
    number += dropped * (9 * tens + max(0, (rest - dropped) // (60 * whole - dropped)))
    second, frame = divmod(number, whole)
    return f"{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}{parts[4]}{frame:02}"


def _true_of_copies(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if not _STALE.fullmatch(key)}


def _copy_labels(target: Stream, stream: Stream) -> None:
    """Copy metadata and disposition from one stream to another."""
    target.metadata.update(_true_of_copies(stream.metadata))
    target.disposition = stream.disposition


def _colorized_packets(
    segments: Sequence[TimedSegment], target: Stream, info: VideoInfo, begin: int
) -> Iterator["Packet[Any]"]:
    """Yield the packets of the colorized video, with times relative to `begin` in the stream's time base.

    Segment files hold presentation times relative to their first frame. Decoding times are computed here.
    """
    shown = [_display_times(path, first - begin, info.time_base) for path, first in segments]
    step = max(1, round(1 / info.rate / info.time_base))
    decoded = iter(decoding_times(shown, step))
    ordered = sorted(time for times in shown for time in times)
    durations = dict(zip(ordered, (b - a for a, b in itertools.pairwise(ordered)), strict=False))
    for (path, _), times in zip(segments, shown, strict=True):
        with files.open_source(path) as container:
            packets = (packet for packet in container.demux(video=0) if packet.pts is not None)
            for packet, pts in zip(packets, times, strict=True):
                packet.time_base, packet.pts, packet.dts = info.time_base, pts, next(decoded)
                packet.duration = durations.get(pts, step)  # the duration of the last frame is unknown
                packet.stream = target  # type: ignore[assignment]
                yield packet


def _display_times(segment: Path, first: int, time_base: Fraction) -> list[int]:
    """Return the presentation times of a segment's packets, in decoding order."""
    with files.open_source(segment) as container:
        packets = container.demux(video=0)
        times = [packet.pts * packet.time_base for packet in packets if packet.pts is not None]
    begun = min(times)
    return [first + round((time - begun) / time_base) for time in times]


def decoding_times(shown: Sequence[Sequence[int]], step: int) -> list[int]:
    """Return the decoding times of all packets: ascending, and not after their presentation times.

    Args:
        shown: For each segment, the presentation times of its packets in decoding order.
        step: Interval between the decoding times that precede the first presentation time.
    """
    ordered = [time for segment in shown for time in sorted(segment)]
    rank = {time: number for number, time in enumerate(ordered)}
    packets = [time for segment in shown for time in segment]
    # The greatest reordering delay: a packet decoded as number n but shown as an earlier number.
    ahead = max((number - rank[time] for number, time in enumerate(packets)), default=0)
    before = [ordered[0] - step * number for number in range(ahead, 0, -1)] if ordered else []
    return (before + ordered)[: len(packets)]


def take(packet: "Packet[Any]", time_range: TimeRange, time_base: Fraction) -> bool:
    """Return True if a packet lies in a time range, and shift its times to begin with the range.

    Args:
        packet: A packet of an audio, subtitle or other stream, with a time stamp.
        time_range: The time range.
        time_base: Time base of the range.
    """
    begin, end = time_range
    when = ((packet.dts or 0) if packet.pts is None else packet.pts) * packet.time_base / time_base
    if when < begin or (end is not None and when >= end):
        return False
    earlier = round(begin * time_base / packet.time_base)
    if packet.pts is not None:
        packet.pts -= earlier
    if packet.dts is not None:
        packet.dts -= earlier
    return True
