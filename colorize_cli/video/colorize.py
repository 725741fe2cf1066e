"""Films: one job with many frames.

What is encoded lies in stretches beside the output until the film is whole; then they are joined, with all
that lies beside the picture in the source, and get the output's name.
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import OutputContainer
from av.stream import Stream

from colorize_cli.core.errors import ReadError
from colorize_cli.core.jobs import Position, Progress
from colorize_cli.core.settings import Settings, VideoSettings
from colorize_cli.inference.model import Model
from colorize_cli.video import muxer, reader
from colorize_cli.video.encoder import CONTAINERS, Encoder, choose
from colorize_cli.video.muxer import TimeRange
from colorize_cli.video.reader import VideoReader
from colorize_cli.video.stages import VideoStages, VideoStats
from colorize_cli.video.work_dir import WorkDir


def colorize_video(
    path: Path,
    output: Path,
    kind: str,
    folder: WorkDir,
    network: Model,
    settings: Settings,
    stats: VideoStats,
    progress: Progress = lambda _: None,
) -> None:
    """Colours a film into a file.

    Args:
        path: The film.
        output: The file that is written.
        kind: The ending of its final name, in lower case.
        folder: Where stretches lie until then.
        network: What colours.
        settings: How.
        stats: Filled in as it goes on.
        progress: Is told how far it is, whenever a frame is done.

    Raises:
        ReadError: It is no film known here, or damaged beyond use.
        WriteError: The encoder or the file's kind cannot take it.
        UsageError: It is asked for what cannot be.
        OSError: A file cannot be read or written.
    """
    with reader.opened(path) as video:
        asked = settings.video
        stages = VideoStages(video, choose(kind, video.info, asked), network, settings, stats)
        stages.run(path, folder, video.frames(asked.start, asked.duration), video.expected, progress)
        stats.damaged = video.damaged
        if not folder.done:
            raise ReadError(f"it ends before {asked.start:g} seconds")
    join(path, output, kind, [folder], settings, stats)


def join(
    path: Path, output: Path, kind: str, folders: Sequence[WorkDir], settings: Settings, stats: VideoStats
) -> None:
    """Writes a film of the stretches that are whole, and of all that lies beside the picture in its source.

    Args:
        path: The film.
        output: The file that is written.
        kind: The ending of its final name, in lower case.
        folders: Where the stretches lie, in their order.
        settings: How it was coloured.
        stats: Gets the seconds that it took.

    Raises:
        ReadError: As `colorize_video`, and the others.
    """
    begun = time.perf_counter()
    with reader.opened(path) as video:
        info, index, time_range = video.info, video.stream.index, _time_range(video, settings.video)
    segments = [(folder.path / segment.file, segment.first) for folder in folders for segment in folder.done]
    muxer.join(segments, path, index, info, output, kind, time_range)
    stats.seconds["join"] = time.perf_counter() - begun


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
    """Colours a film that is read, or written, once and from its beginning to its end.

    Args:
        readable: The film.
        format_: libavformat's name of its kind; None to find out.
        writable: Where to.
        kind: The ending of the name of such a file, with the dot.
        network: What colours.
        settings: How.
        stats: Filled in as it goes on.
        progress: Is told how far it is, whenever a frame is done.

    Raises:
        ReadError: As `colorize_video`, and the others.
    """
    container = CONTAINERS[kind]
    with reader.opened(readable, format_, others=True) as video:
        chosen = choose(kind, video.info, settings.video)
        time_range = _time_range(video, settings.video)
        opened: Any = str(writable) if isinstance(writable, Path) else writable
        with av.open(opened, "w", format=container.format, options=dict(container.muxing)) as out:
            muxer.describe(video.container, out, chapters=time_range is None)
            encoder = Encoder(out, video.info, chosen, video.first.interlaced_frame)
            muxer.label_video_stream(encoder.stream, video.stream, video.info)
            streams = [s for s in video.container.streams if s.index != video.stream.index]
            targets = {s.index: muxer.add_beside(s, out, kind) for s in streams}
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
        stats.damaged = video.damaged


def _time_range(video: VideoReader, asked: VideoSettings) -> TimeRange | None:
    """The part of a film that is asked for; None for all of it."""
    if not asked.start and asked.duration is None:
        return None
    end = None if asked.duration is None else video.time_of(asked.start + asked.duration)
    return video.time_of(asked.start), end


def _pass_on(
    video: VideoReader, out: OutputContainer, targets: dict[int, Stream | None], time_range: TimeRange | None
) -> None:
    while video.others:
        packet = video.others.popleft()
        target = targets[packet.stream.index]
        if target is not None and (
            time_range is None or muxer.take(packet, time_range, video.info.time_base)
        ):
            packet.stream = target
            out.mux_one(packet)
