"""A film that is coloured in parts, each by itself, by whatever process or machine, in any order.

    split -> colorize_chunk, for each -> concat_chunks

A part begins at a place that is taken (see `segments`) and ends where the next one begins. So its stretches
are those that the film would have if it were coloured in one go, and so is the film.

A worker reads a part from the key frame at its beginning, if the film can be searched. What it reads then is
held against what was read when the film was divided; where it differs the part is read from the film's
beginning, which is slow, but what is done in one go.
"""

import contextlib
import functools
import itertools
import json
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from av.video.frame import VideoFrame

from colorize_cli.core.errors import ReadError, WriteError
from colorize_cli.core.jobs import Progress
from colorize_cli.core.settings import Settings
from colorize_cli.inference.adapters import ModelInfo
from colorize_cli.inference.model import Model
from colorize_cli.storage import atomic
from colorize_cli.video import colorize, encoder, pixel_format, reader
from colorize_cli.video.reader import VideoReader
from colorize_cli.video.segments import Segmenter
from colorize_cli.video.stages import SmallCopy, VideoStages, VideoStats
from colorize_cli.video.temporal import FlowTracker
from colorize_cli.video.work_dir import WorkDir

_CHUNKS_FILE = "parts.json"
# Of luma every so many-th row is looked at, to tell frames apart: what lacks a frame that it refers to is
# wrong all over.
_ROWS = 8


@dataclass(frozen=True)
class Chunk:
    """A part of a film, or of what is asked for of it.

    Attributes:
        number: From 0 on.
        first: Number of its first frame.
        begins: When that is shown, by the time base of the picture.
        frames: How many it has.
        damaged: How many packets and frames could not be decoded when it was read with all that is before it.
        mark: Of its first frame (see `_checksum`).
        marks: Of all its frames.
    """

    number: int
    first: int
    begins: int
    frames: int
    damaged: int
    mark: int
    marks: int


def split(
    path: Path, folder: WorkDir, model_info: ModelInfo, settings: Settings, count: int
) -> tuple[Chunk, ...]:
    """Divides a film, for which it is decoded once; or tells how it was divided, if it was.

    Args:
        path: The film.
        folder: Its work folder, where the parts are noted: what was begun with them is gone on with, whatever
            `count` is then.
        model_info: Of the network that is to colour it.
        settings: How that is to be done.
        count: About how many parts there are to be: as many, or fewer if there are no places for them, and
            about as long as each other.

    Raises:
        ReadError: It is no film known here, or damaged beyond use.
        OSError: A file cannot be read or written.
    """
    noted = folder.path / _CHUNKS_FILE
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        return tuple(Chunk(**values) for values in json.loads(noted.read_bytes()))
    with reader.opened(path) as video:
        survey = _surveyed(video, model_info, settings)
    if not survey.marks:
        raise ReadError(f"it ends before {settings.video.start:g} seconds")
    found = tuple(_chunks(survey, count))
    with atomic.writing(noted) as file:
        file.write(json.dumps([asdict(chunk) for chunk in found]).encode())
    return found


def colorize_chunk(
    path: Path,
    kind: str,
    folder: WorkDir,
    chunk: Chunk,
    network: Model,
    settings: Settings,
    stats: VideoStats,
    progress: Progress = lambda _: None,
) -> None:
    """Colours what has not been coloured yet of a part.

    Args:
        path: The film.
        kind: The ending of the final name of the file that it becomes, in lower case.
        folder: The film's work folder; the part's lies below it.
        chunk: Which.
        network: What colours.
        settings: How.
        stats: Filled in as it goes on, of this part.
        progress: Is told how far the part is, whenever a frame is done.

    Raises:
        ReadError: The film cannot be read as it could be when it was divided.
        WriteError: The encoder or the file's kind cannot take it.
        UsageError: It is asked for what cannot be.
        OSError: A file cannot be read or written.
    """
    own = folder.chunk(chunk.number)
    if own.done and (own.done[0].first != chunk.begins or _frames_in(own) > chunk.frames):
        own.clear()  # of a film that was divided in another way
    stats.damaged = chunk.damaged
    if _frames_in(own) == chunk.frames:
        stats.frames, stats.cuts = chunk.frames, own.done[-1].cuts
        return

    def run(video: VideoReader, frames: Iterator[VideoFrame]) -> None:
        chosen = encoder.choose(kind, video.info, settings.video)
        stages = VideoStages(video, chosen, network, settings, stats, chunk.first)
        stages.run(path, own, frames, chunk.frames, progress)

    # What is made of damage depends on what is before it.
    if chunk.first and not chunk.damaged:
        with reader.opened(path) as video:
            frames = _searched(video, chunk)
            if frames is not None:
                try:
                    run(video, frames)
                except _AstrayError:
                    own.clear()
                else:
                    return
    with reader.opened(path) as video:
        run(video, _from_the_beginning(video, chunk, settings))


def concat_chunks(
    path: Path,
    output: Path,
    kind: str,
    folder: WorkDir,
    chunks: Sequence[Chunk],
    settings: Settings,
    stats: VideoStats,
) -> None:
    """Writes a film of all its parts, and of all that lies beside the picture in its source.

    Args:
        path: The film.
        output: The file that is written.
        kind: The ending of its final name, in lower case.
        folder: The film's work folder; the parts' lie below it.
        chunks: All of them, in their order.
        settings: How they were coloured.
        stats: Filled in, of the whole film.

    Raises:
        WriteError: A part is not whole, or the file's kind cannot take what is beside the picture.
        ReadError: The film cannot be read any more.
        OSError: A file cannot be read or written.
    """
    folders = [folder.chunk(chunk.number) for chunk in chunks]
    for chunk, own in zip(chunks, folders, strict=True):
        if _frames_in(own) != chunk.frames:
            raise WriteError(
                f"of its part {chunk.number} {_frames_in(own)} of {chunk.frames} frames are there"
            )
    stats.frames = sum(chunk.frames for chunk in chunks)
    stats.cuts = sum(own.done[-1].cuts for own in folders)
    stats.damaged = sum(chunk.damaged for chunk in chunks)
    colorize.join(path, output, kind, folders, settings, stats)


@dataclass(frozen=True)
class _SplitPoint:
    """Where a part can begin.

    Attributes:
        number: Of its frame.
        shown: When that is shown.
        damaged: How many packets and frames could not be decoded until then.
    """

    number: int
    shown: int
    damaged: int


@dataclass(frozen=True)
class _Survey:
    """What is known of a film that was read once: places, marks of all frames, and damage in all."""

    points: list[_SplitPoint]
    marks: "array[int]"
    damaged: int


def _surveyed(video: VideoReader, model_info: ModelInfo, settings: Settings) -> _Survey:
    cuts, segmenter = _Cuts(SmallCopy(video.info, model_info, settings)), Segmenter(video.info.rate)
    points: list[_SplitPoint] = []
    marks = array("I")
    before: VideoFrame | None = None
    for number, frame in enumerate(video.frames(settings.video.start, settings.video.duration)):
        assert frame.pts is not None  # noqa: S101 - source gives every frame one
        if before is None:
            points.append(_SplitPoint(0, frame.pts, 0))
        elif frame.key_frame and segmenter.wants(number) and cuts.between(before, frame):
            segmenter.split_point = number
            points.append(_SplitPoint(number, frame.pts, video.damaged))
        marks.append(_checksum(frame))
        before = frame
    return _Survey(points, marks, video.damaged)


class _Cuts:
    """Looks for cuts, between some of a film's frames only."""

    def __init__(self, small: SmallCopy) -> None:
        self._small = small
        self._tracker = FlowTracker()
        self._seen: VideoFrame | None = None

    def between(self, before: VideoFrame, frame: VideoFrame) -> bool:
        """Whether the film cuts between two frames, one of which follows the other."""
        if before is not self._seen:
            self._tracker = FlowTracker()
            self._tracker.next(self._small(before))
        motion = self._tracker.next(self._small(frame))
        self._seen = frame
        return motion is not None and motion.cut


def _chunks(survey: _Survey, count: int) -> Iterator[Chunk]:
    frames = len(survey.marks)
    begins = _chosen(survey.points, frames, count)
    ends = [*begins[1:], _SplitPoint(frames, 0, survey.damaged)]
    for number, (point, end) in enumerate(zip(begins, ends, strict=True)):
        marks = survey.marks[point.number : end.number]
        yield Chunk(
            number=number,
            first=point.number,
            begins=point.shown,
            frames=len(marks),
            damaged=end.damaged - point.damaged,
            mark=marks[0],
            marks=functools.reduce(_combined_checksum, marks, 0),
        )


def _chosen(points: Sequence[_SplitPoint], frames: int, count: int) -> list[_SplitPoint]:
    """Where about so many parts begin: each takes its share of what is left, to the nearest place."""
    chosen = [points[0]]
    for left in range(count, 1, -1):
        begun = chosen[-1].number
        wanted = begun + (frames - begun) / left
        later = [point for point in points if point.number > begun]
        if not later:
            break
        chosen.append(min(later, key=lambda point: abs(point.number - wanted)))
    return chosen


class _AstrayError(Exception):
    """What is read is not what was read when the film was divided."""


def _searched(video: VideoReader, chunk: Chunk) -> Iterator[VideoFrame] | None:
    """The frames of a part, read from its beginning; None if that is not found."""
    frames = itertools.islice(video.between(chunk.begins), chunk.frames)
    first = next(frames, None)
    if first is None or _checksum(first) != chunk.mark:
        return None
    return _checked(itertools.chain((first,), frames), chunk)


def _checked(frames: Iterator[VideoFrame], chunk: Chunk) -> Iterator[VideoFrame]:
    count = marks = 0
    for frame in frames:
        count, marks = count + 1, _combined_checksum(marks, _checksum(frame))
        yield frame
    if (count, marks) != (chunk.frames, chunk.marks):
        raise _AstrayError


def _from_the_beginning(video: VideoReader, chunk: Chunk, settings: Settings) -> Iterator[VideoFrame]:
    """The frames of a part, read as they are when the film is coloured in one go."""
    count = 0
    every = video.frames(settings.video.start, settings.video.duration)
    for frame in itertools.islice(every, chunk.first, chunk.first + chunk.frames):
        count += 1
        yield frame
    if count != chunk.frames:
        raise ReadError(f"it had {chunk.first + chunk.frames} frames, and has {chunk.first + count} now")


def _checksum(frame: VideoFrame) -> int:
    """A number that frames hardly share which differ in luma, in time, or in whether they are key frames."""
    rows = pixel_format.luma_of(frame)[::_ROWS].tobytes()
    return zlib.crc32(rows, zlib.crc32(f"{frame.pts} {frame.key_frame}".encode()))


def _combined_checksum(marks: int, mark: int) -> int:
    """The mark of a row of frames, of that of all but the last and that of the last."""
    return zlib.crc32(mark.to_bytes(4, "little"), marks)


def _frames_in(folder: WorkDir) -> int:
    return sum(segment.frames for segment in folder.done)
