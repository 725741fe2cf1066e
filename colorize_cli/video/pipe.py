"""Colorizing one video from or to a pipe, in one pass from beginning to end."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from av.stream import Stream

from colorize_cli.core.errors import ReadError
from colorize_cli.core.jobs import Position, Progress
from colorize_cli.core.settings import Settings
from colorize_cli.inference.model import Model
from colorize_cli.video import aspect, files, muxer, preflight, reader
from colorize_cli.video.encoder import CONTAINERS, Encoder, choose
from colorize_cli.video.pixel_format import TimeRange, VideoInfo
from colorize_cli.video.reader import VideoReader
from colorize_cli.video.stages import VideoStages, VideoStats

_RAW = ".y4m"


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
        stats.notes = preflight.check(video, kind, chosen, settings.video)
        time_range = video.info.time_range(settings.video.start, settings.video.duration)
        options = muxer.muxing(video.container, kind)
        with (
            _opened(writable, kind, video.info) as file,
            files.open_output(file, container.format, options) as out,
        ):
            encoders: list[Encoder] = []

            def add_video(_: Stream) -> Stream:
                encoders.append(Encoder(out, video.info, chosen, video.first))
                return encoders[0].stream

            covers = {p.stream.index: p for p in video.others if p.stream.disposition & muxer.COVER}
            streams = muxer.Streams(
                video.container, out, video.info, kind, add_video, covers, audio=settings.video.audio
            )
            streams.describe(time_range)
            stages = VideoStages(video, chosen, network, settings, stats)
            frames = video.frames(settings.video.start, settings.video.duration)
            with contextlib.closing(stages.ordered(frames)) as items:
                for item in items:
                    if time_range is not None and item.frame.pts is not None:
                        item.frame.pts -= time_range[0]
                    encoders[0].add(item.frame)
                    stats.frames, stats.cuts = stats.frames + 1, item.cuts
                    progress(Position(Path("-"), stats.frames, None, float(video.info.rate)))
                    _pass_on(video, streams, time_range)
            if not stats.frames:
                raise ReadError(f"it ends before {settings.video.start:g} seconds")
            encoders[0].finish()
            _pass_on(video, streams, time_range)
        if isinstance(writable, Path) and kind != _RAW and aspect.is_outside(kind, video.info):
            aspect.patch(writable, kind, video.info)
        stats.damaged, stats.cut_off = video.damaged, video.cut_off


@contextlib.contextmanager
def _opened(writable: Path | BinaryIO, kind: str, info: VideoInfo) -> Iterator[Any]:
    """Open the output for PyAV. Y4M and pipes get the pixel aspect on the way, other files at the end."""
    with contextlib.ExitStack() as stack:
        file: Any = writable
        if isinstance(writable, Path):
            file = stack.enter_context(writable.open("wb")) if kind == _RAW else writable
        patched = aspect.is_outside(kind, info) and not isinstance(file, Path)
        yield aspect.PatchedOutput(file, kind, info) if patched else file


def _pass_on(video: VideoReader, streams: muxer.Streams, time_range: TimeRange | None) -> None:
    """Write the packets of the other streams that have been read so far."""
    while video.others:
        packet = video.others.popleft()
        if not packet.stream.disposition & muxer.COVER and (
            time_range is None or muxer.take(packet, time_range, video.info.time_base)
        ):
            streams.write(packet)
