"""Colorizing one video from or to a pipe, in one pass from beginning to end."""

import contextlib
from pathlib import Path
from typing import BinaryIO

from av.container import OutputContainer
from av.stream import Stream

from colorize_cli.core.errors import ReadError
from colorize_cli.core.jobs import Position, Progress
from colorize_cli.core.settings import Settings
from colorize_cli.inference.model import Model
from colorize_cli.video import files, muxer, reader
from colorize_cli.video.encoder import CONTAINERS, Encoder, choose
from colorize_cli.video.pixel_format import TimeRange
from colorize_cli.video.reader import VideoReader
from colorize_cli.video.stages import VideoStages, VideoStats


def pipe(
    readable: Path | BinaryIO,
    format_: str | None,
    writable: Path | BinaryIO,
    kind: str,
    network: Model,
    settings: Settings,
    stats: VideoStats,
    progress: Progress = lambda _: None,
) -> None:
    """Colorize a video from or to a pipe, in one pass from beginning to end.

    Args:
        readable: The source: a path or a readable stream.
        format_: libavformat's name of the source's format; None to detect it.
        writable: The destination: a path or a writable stream.
        kind: Extension of the output's container format, with the dot.
        network: The model.
        settings: The settings of the run.
        stats: Updated while the video is processed.
        progress: Called after every frame.

    Raises:
        ReadError: The source is not a supported video, or is damaged beyond use.
        WriteError: The encoder or the container does not accept the video.
        UsageError: The requested encoding is not possible.
        OSError: A file cannot be read or written.
    """
    container = CONTAINERS[kind]
    with reader.opened(readable, format_, others=True, upright=container.upright) as video:
        chosen = choose(kind, video.info, settings.video)
        time_range = video.info.time_range(settings.video.start, settings.video.duration)
        with files.open_output(writable, container.format, container.muxing) as out:
            muxer.describe(video.container, out, chapters=time_range is None)
            encoder = Encoder(out, video.info, chosen, video.first.interlaced_frame)
            muxer.label_video_stream(encoder.stream, video.stream, video.info)
            streams = [s for s in video.container.streams if s.index != video.stream.index]
            kept = [s for s in streams if settings.video.audio or s.type != "audio"]
            targets = {s.index: muxer.add_beside(s, out, kind) for s in kept}
            stages = VideoStages(video, chosen, network, settings, stats)
            frames = video.frames(settings.video.start, settings.video.duration)
            with contextlib.closing(stages.ordered(frames)) as items:
                for item in items:
                    if time_range is not None and item.frame.pts is not None:
                        item.frame.pts -= time_range[0]
                    encoder.add(item.frame)
                    stats.frames, stats.cuts = stats.frames + 1, item.cuts
                    progress(Position(Path("-"), stats.frames, None, float(video.info.rate)))
                    _pass_on(video, out, targets, time_range)
            if not stats.frames:
                raise ReadError(f"it ends before {settings.video.start:g} seconds")
            encoder.finish()
            _pass_on(video, out, targets, time_range)
        stats.damaged, stats.cut_off = video.damaged, video.cut_off


def _pass_on(
    video: VideoReader, out: OutputContainer, targets: dict[int, Stream | None], time_range: TimeRange | None
) -> None:
    """Write the packets of the other streams that have been read so far."""
    while video.others:
        packet = video.others.popleft()
        target = targets.get(packet.stream.index)
        if target is not None and (
            time_range is None or muxer.take(packet, time_range, video.info.time_base)
        ):
            packet.stream = target
            out.mux_one(packet)
