"""Muxing encoded segments and the source's other streams into one file."""

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from colorize_cli.core.errors import WriteError, one_line
from colorize_cli.video import files
from colorize_cli.video.encoder import CONTAINERS
from colorize_cli.video.pixel_format import TimeRange, VideoInfo, tag

# Path of a segment, and the presentation time of its first frame in units of the video stream's time base.
TimedSegment = tuple[Path, int]
_OTHERS = ("audio", "subtitle", "data", "video")


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
        files.open_output(output, container.format, container.muxing) as out,
    ):
        describe(original, out, chapters=time_range is None)
        targets = _streams(original, first, target_info, out, kind, audio=audio)
        colorized = _colorized_packets(segments, targets[info.index], target_info, begin)
        others = _other_packets(original, targets, info, time_range)
        try:
            for packet in heapq.merge(colorized, others, key=lambda p: Fraction((p.dts or 0) * p.time_base)):
                out.mux_one(packet)
        except av.error.FFmpegError as error:
            if isinstance(error, av.error.InvalidDataError | av.error.ArgumentError):
                raise WriteError(f"{kind} cannot hold one of its packets: {one_line(error)}") from error
            raise


def describe(original: InputContainer, out: OutputContainer, *, chapters: bool) -> None:
    """Copy the container's metadata, and its chapters if `chapters` is true."""
    out.metadata.update(original.metadata)
    if chapters and original.chapters():
        out.set_chapters(original.chapters())


def _streams(
    original: InputContainer,
    first: InputContainer,
    info: VideoInfo,
    out: OutputContainer,
    kind: str,
    *,
    audio: bool,
) -> dict[int, Stream]:
    """Add all streams and return them by the index of the source's stream, in the source's order."""
    targets: dict[int, Stream] = {}
    for stream in original.streams:
        target: Any
        if stream.index == info.index:
            target = _add_video_stream(stream, first.streams.video[0], info, out, kind)
        elif audio or stream.type != "audio":
            target = add_beside(stream, out, kind)
        else:
            target = None
        if target is not None:
            targets[stream.index] = target
    return targets


def _add_video_stream(
    stream: Stream, template: Stream, info: VideoInfo, out: OutputContainer, kind: str
) -> Stream:
    try:
        target: Any = out.add_stream_from_template(template)
    except (av.error.FFmpegError, ValueError) as error:
        raise WriteError(f"{kind} cannot hold its video stream: {one_line(error)}") from error
    target.time_base = info.time_base
    target.codec_context.framerate = info.rate
    # The source's container may know color properties that the encoder was not given.
    tag(target.codec_context, stream.codec_context)
    label_video_stream(target, stream, info)
    return target  # type: ignore[no-any-return]


def add_beside(stream: Stream, out: OutputContainer, kind: str) -> Stream | None:
    """Add a copy of an audio, subtitle, data or other stream; None if it has no packets to copy.

    Raises:
        WriteError: The container format does not support it.
    """
    try:
        if stream.type == "attachment":
            attachment: Any = stream
            out.add_attachment(attachment.name, attachment.mimetype, attachment.data)
            return None
        if stream.type not in _OTHERS:
            return None
        target = out.add_stream_from_template(stream, opaque=True)
    except (av.error.FFmpegError, ValueError, TypeError) as error:
        what = f"its {stream.type} stream {stream.index}"
        raise WriteError(f"{kind} cannot hold {what}: {one_line(error)}") from error
    target.time_base = stream.time_base
    _copy_labels(target, stream)
    return target


def label_video_stream(target: Any, stream: Stream, info: VideoInfo) -> None:
    """Copy metadata, disposition and rotation from one video stream to another."""
    if info.quarter_turns or info.mirrored:
        target.set_display_rotation(90 * info.quarter_turns, hflip=info.mirrored)
    _copy_labels(target, stream)


def _copy_labels(target: Stream, stream: Stream) -> None:
    """Copy metadata and disposition from one stream to another."""
    target.metadata.update(stream.metadata)
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


def _other_packets(
    original: InputContainer,
    targets: dict[int, Stream],
    info: VideoInfo,
    time_range: TimeRange | None,
) -> Iterator["Packet[Any]"]:
    streams = [s for s in original.streams if s.index in targets and s.index != info.index]
    if not streams:
        return
    wanted = {stream.index for stream in streams}
    for packet in files.packets(original):  # those of the video too: its clock is that of all
        if packet.dts is None or packet.stream.index not in wanted:
            continue
        if time_range is None or take(packet, time_range, info.time_base):
            packet.stream = targets[packet.stream.index]
            yield packet


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
