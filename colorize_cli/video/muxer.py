"""Stretches of coloured film, and what lies beside the picture in its source, in one file."""

import heapq
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from colorize_cli.core.errors import WriteError, one_line
from colorize_cli.video.encoder import CONTAINERS
from colorize_cli.video.pixel_format import VideoInfo, tag

# A stretch of film, and when its first frame is shown, by the time base of the picture.
TimedSegment = tuple[Path, int]
# When a part of a film begins and ends, by the time base of the picture; None for its end.
TimeRange = tuple[int, int | None]
_OTHERS = ("audio", "subtitle", "data", "video")


def join(
    segments: Sequence[TimedSegment],
    source: Path,
    video_index: int,
    info: VideoInfo,
    output: Path,
    kind: str,
    time_range: TimeRange | None = None,
) -> None:
    """Writes a film.

    Args:
        segments: Of the coloured picture, in their order.
        source: The film that was coloured.
        video_index: Index of the stream of its picture.
        info: What its frames are like.
        output: The file that is written.
        kind: Ending of the name of such a file, with the dot.
        time_range: The part of the source that is taken, and begins the output; None for all of it.

    Raises:
        WriteError: A stream cannot be put into such a file.
        OSError: A file cannot be read or written.
    """
    container = CONTAINERS[kind]
    with (
        av.open(str(source)) as original,
        av.open(str(segments[0][0])) as first,
        av.open(str(output), "w", format=container.format, options=dict(container.muxing)) as out,
    ):
        describe(original, out, chapters=time_range is None)
        targets = _streams(original, first, video_index, info, out, kind)
        colorized = _colorized_packets(
            segments, targets[video_index], info, 0 if time_range is None else time_range[0]
        )
        others = _others(original, targets, video_index, time_range, info.time_base)
        try:
            for packet in heapq.merge(colorized, others, key=_when):
                out.mux_one(packet)
        except av.error.FFmpegError as error:
            if isinstance(error, av.error.InvalidDataError | av.error.ArgumentError):
                raise WriteError(f"{kind} cannot hold a packet of it: {one_line(error)}") from error
            raise


def describe(original: InputContainer, out: OutputContainer, *, chapters: bool) -> None:
    """Has a film say of itself what another says, of its chapters too if they are wanted."""
    out.metadata.update(original.metadata)
    if chapters and original.chapters():
        out.set_chapters(original.chapters())


def _streams(
    original: InputContainer,
    first: InputContainer,
    video_index: int,
    info: VideoInfo,
    out: OutputContainer,
    kind: str,
) -> dict[int, Stream]:
    """The output's streams by the index of the source's, in the same order."""
    targets: dict[int, Stream] = {}
    for stream in original.streams:
        target: Any
        if stream.index == video_index:
            target = _add_video_stream(stream, first.streams.video[0], info, out, kind)
        else:
            target = add_beside(stream, out, kind)
        if target is not None:
            targets[stream.index] = target
    return targets


def _add_video_stream(
    stream: Stream, template: Stream, info: VideoInfo, out: OutputContainer, kind: str
) -> Stream:
    try:
        target: Any = out.add_stream_from_template(template)
    except (av.error.FFmpegError, ValueError) as error:
        raise WriteError(f"{kind} cannot hold its picture: {one_line(error)}") from error
    target.time_base = info.time_base
    target.codec_context.framerate = info.rate
    tag(target.codec_context, stream.codec_context)  # the container may know more than the encoder
    label_video_stream(target, stream, info)
    return target  # type: ignore[no-any-return]


def add_beside(stream: Stream, out: OutputContainer, kind: str) -> Stream | None:
    """A stream like one that lies beside the picture; None where it has no packets of its own.

    Raises:
        WriteError: A file of that kind cannot hold it.
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
    _label(target, stream)
    return target


def label_video_stream(target: Any, stream: Stream, info: VideoInfo) -> None:
    """Has the stream of a picture say of itself what that of another says, its turns among it."""
    if info.quarter_turns:
        target.set_display_rotation(90 * info.quarter_turns)
    _label(target, stream)


def _label(target: Stream, stream: Stream) -> None:
    """Has a stream say of itself what another says."""
    target.metadata.update(stream.metadata)
    target.disposition = stream.disposition


def _colorized_packets(
    segments: Sequence[TimedSegment], target: Stream, info: VideoInfo, begin: int
) -> Iterator["Packet[Any]"]:
    """Packets of the picture, by its time base, from `begin` on.

    The stretches' files say how long after the first a packet is shown, not when it is decoded.
    """
    shown = [_shown(path, first - begin, info.time_base) for path, first in segments]
    step = max(1, round(1 / info.rate / info.time_base))
    decoded = iter(decoding_times(shown, step))
    ordered = sorted(time for times in shown for time in times)
    lasts = dict(zip(ordered, (b - a for a, b in itertools.pairwise(ordered)), strict=False))
    for (path, _), times in zip(segments, shown, strict=True):
        with av.open(str(path)) as container:
            packets = (packet for packet in container.demux(video=0) if packet.pts is not None)
            for packet, pts in zip(packets, times, strict=True):
                packet.time_base, packet.pts, packet.dts = info.time_base, pts, next(decoded)
                packet.duration = lasts.get(pts, step)  # the last frame's is not known
                packet.stream = target  # type: ignore[assignment]
                yield packet


def _shown(segment: Path, first: int, time_base: Fraction) -> list[int]:
    """When the packets of a stretch are shown, in the order in which they are decoded."""
    with av.open(str(segment)) as container:
        packets = container.demux(video=0)
        times = [packet.pts * packet.time_base for packet in packets if packet.pts is not None]
    begun = min(times)
    return [first + round((time - begun) / time_base) for time in times]


def decoding_times(shown: Sequence[Sequence[int]], step: int) -> list[int]:
    """When packets are to be decoded: in order, and none after it is shown.

    Args:
        shown: Of each stretch, when its packets are shown, in the order in which they are decoded.
        step: How long before the first frame each of those that it waits for is decoded.
    """
    ordered = [time for segment in shown for time in sorted(segment)]
    place = {time: number for number, time in enumerate(ordered)}
    packets = [time for segment in shown for time in segment]
    ahead = max((number - place[time] for number, time in enumerate(packets)), default=0)
    before = [ordered[0] - step * number for number in range(ahead, 0, -1)] if ordered else []
    return (before + ordered)[: len(packets)]


def _others(
    original: InputContainer,
    targets: dict[int, Stream],
    video_index: int,
    time_range: TimeRange | None,
    time_base: Fraction,
) -> Iterator["Packet[Any]"]:
    streams = [s for s in original.streams if s.index in targets and s.index != video_index]
    if not streams:
        return
    for packet in original.demux(streams):
        if packet.dts is None:
            continue
        if time_range is None or take(packet, time_range, time_base):
            packet.stream = targets[packet.stream.index]
            yield packet


def take(packet: "Packet[Any]", time_range: TimeRange, time_base: Fraction) -> bool:
    """Whether a packet belongs to a part of a film; if so, it is moved to when it is shown there.

    Args:
        packet: Of a stream beside the picture; has a time stamp.
        time_range: The part.
        time_base: Of the span.
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


def _when(packet: "Packet[Any]") -> Fraction:
    return Fraction((packet.dts or 0) * packet.time_base)
