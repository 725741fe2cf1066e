"""Splitting a video into chunks that are colorized independently, by any process or machine, in any order.

    split -> colorize_chunk, for each -> concat_chunks

A chunk begins at a split point (see `segments`) and ends before the next chunk. So its segments, and the
whole output, are the same as without splitting.

A worker decodes a chunk from the key frame at its beginning, if the video is seekable. It compares checksums
of the decoded frames with those taken while splitting. On a mismatch it decodes the chunk from the beginning
of the video. This is slow, but gives the same frames as without splitting.
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
# Checksums cover every eighth row of luma: a frame decoded without its reference frame is wrong all over.
_ROWS = 8


@dataclass(frozen=True)
class Chunk:
    """A chunk of a video, or of the requested time range.

    Attributes:
        number: Number of the chunk, from 0.
        first: Number of its first frame.
        begins: Presentation time of its first frame, in units of the stream's time base.
        frames: Number of frames.
        damaged: Number of its packets and frames that could not be decoded when the whole video was read.
        mark: Checksum of its first frame (see `_checksum`).
        marks: Combined checksum of all its frames.
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
    """Split a video into chunks, decoding it once. Returns the recorded chunks if it was split before.

    Args:
        path: The source video.
        folder: The video's work directory. The chunks are recorded there, and recorded chunks are used
            whatever `count` is, so that a resumed run continues with them.
        model_info: Properties of the model.
        settings: The settings of the run.
        count: Number of chunks to aim for, of about equal length. There are fewer if there are not enough
            split points.

    Raises:
        ReadError: The source is not a supported video, is damaged beyond use, or ends before the time range.
        OSError: A file cannot be read or written.
    """
    recorded = folder.path / _CHUNKS_FILE
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        return tuple(Chunk(**values) for values in json.loads(recorded.read_bytes()))
    with reader.opened(path) as video:
        survey = _read_whole(video, model_info, settings)
    if not survey.marks:
        raise ReadError(f"it ends before {settings.video.start:g} seconds")
    found = tuple(_chunks(survey, count))
    with atomic.writing(recorded) as file:
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
    """Colorize the frames of a chunk that are not done yet.

    Args:
        path: The source video.
        kind: Extension of the final output file with the dot, in lower case.
        folder: The video's work directory, which contains the chunk's.
        chunk: The chunk.
        network: The model.
        settings: The settings of the run.
        stats: Statistics of the chunk, updated while it is processed.
        progress: Called after every frame.

    Raises:
        ReadError: The source can no longer be read as it was while splitting.
        WriteError: The encoder or the container does not accept the video.
        UsageError: The requested encoding is not possible.
        OSError: A file cannot be read or written.
    """
    chunk_folder = folder.chunk(chunk.number)
    if chunk_folder.done and (
        chunk_folder.done[0].first != chunk.begins or _frames_in(chunk_folder) > chunk.frames
    ):
        chunk_folder.clear()  # its segments are from a different split
    stats.damaged = chunk.damaged
    if _frames_in(chunk_folder) == chunk.frames:
        stats.frames, stats.cuts = chunk.frames, chunk_folder.done[-1].cuts
        return

    def run(video: VideoReader, frames: Iterator[VideoFrame]) -> None:
        chosen = encoder.choose(kind, video.info, settings.video)
        stages = VideoStages(video, chosen, network, settings, stats, chunk.first)
        stages.run(path, chunk_folder, frames, chunk.frames, progress)

    # Decoding of damaged frames depends on the frames before them, so damaged chunks are read from the start.
    if chunk.first and not chunk.damaged:
        with reader.opened(path) as video:
            frames = _seek_frames(video, chunk)
            if frames is not None:
                try:
                    run(video, frames)
                except _MismatchError:
                    chunk_folder.clear()
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
    """Write the output video from finished chunks and the source's other streams.

    Args:
        path: The source video.
        output: The file to write.
        kind: The final file name's extension with the dot, in lower case.
        folder: The video's work directory, which contains those of the chunks.
        chunks: All chunks, in order.
        settings: The settings with which they were colorized.
        stats: Receives the statistics of the whole video.

    Raises:
        WriteError: A chunk is incomplete, or the container does not accept a stream.
        ReadError: The source can no longer be read.
        OSError: A file cannot be read or written.
    """
    folders = [folder.chunk(chunk.number) for chunk in chunks]
    for chunk, chunk_folder in zip(chunks, folders, strict=True):
        done = _frames_in(chunk_folder)
        if done != chunk.frames:
            raise WriteError(
                f"its chunk {chunk.number} is incomplete: {done} of {chunk.frames} frames are done"
            )
    stats.frames = sum(chunk.frames for chunk in chunks)
    stats.cuts = sum(chunk_folder.done[-1].cuts for chunk_folder in folders)
    stats.damaged = sum(chunk.damaged for chunk in chunks)
    colorize.join(path, output, kind, folders, settings, stats)


@dataclass(frozen=True)
class _SplitPoint:
    """A possible beginning of a chunk.

    Attributes:
        number: Number of the frame.
        shown: Presentation time of the frame.
        damaged: Number of packets and frames before it that could not be decoded.
    """

    number: int
    shown: int
    damaged: int


@dataclass(frozen=True)
class _Survey:
    """Result of reading the whole video: split points, checksums of all frames, and the damage count."""

    points: list[_SplitPoint]
    marks: "array[int]"
    damaged: int


def _read_whole(video: VideoReader, model_info: ModelInfo, settings: Settings) -> _Survey:
    cuts, segmenter = _Cuts(SmallCopy(video.info, model_info, settings)), Segmenter(video.info.rate)
    points: list[_SplitPoint] = []
    marks = array("I")
    before: VideoFrame | None = None
    for number, frame in enumerate(video.frames(settings.video.start, settings.video.duration)):
        assert frame.pts is not None  # noqa: S101 - the reader sets it on every frame
        if before is None:
            points.append(_SplitPoint(0, frame.pts, 0))
        elif frame.key_frame and segmenter.wants(number) and cuts.between(before, frame):
            segmenter.split_point = number
            points.append(_SplitPoint(number, frame.pts, video.damaged))
        marks.append(_checksum(frame))
        before = frame
    return _Survey(points, marks, video.damaged)


class _Cuts:
    """Detects cuts at selected frames of a video."""

    def __init__(self, small: SmallCopy) -> None:
        self._small = small
        self._tracker = FlowTracker()
        self._seen: VideoFrame | None = None

    def between(self, before: VideoFrame, frame: VideoFrame) -> bool:
        """Return True if there is a cut between two consecutive frames."""
        if before is not self._seen:
            self._tracker = FlowTracker()
            self._tracker.next(self._small(before))
        motion = self._tracker.next(self._small(frame))
        self._seen = frame
        return motion is not None and motion.cut


def _chunks(survey: _Survey, count: int) -> Iterator[Chunk]:
    frames = len(survey.marks)
    begins = _chunk_begins(survey.points, frames, count)
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


def _chunk_begins(points: Sequence[_SplitPoint], frames: int, count: int) -> list[_SplitPoint]:
    """Return the split points at which chunks begin, each nearest to an equal share of the frames left."""
    chosen = [points[0]]
    for left in range(count, 1, -1):
        begun = chosen[-1].number
        wanted = begun + (frames - begun) / left
        later = [point for point in points if point.number > begun]
        if not later:
            break
        chosen.append(min(later, key=lambda point: abs(point.number - wanted)))
    return chosen


class _MismatchError(Exception):
    """The decoded frames differ from those read while splitting."""


def _seek_frames(video: VideoReader, chunk: Chunk) -> Iterator[VideoFrame] | None:
    """Return the frames of a chunk after seeking to its beginning; None if the first frame does not match."""
    frames = itertools.islice(video.between(chunk.begins), chunk.frames)
    first = next(frames, None)
    if first is None or _checksum(first) != chunk.mark:
        return None
    return _verified(itertools.chain((first,), frames), chunk)


def _verified(frames: Iterator[VideoFrame], chunk: Chunk) -> Iterator[VideoFrame]:
    count = marks = 0
    for frame in frames:
        count, marks = count + 1, _combined_checksum(marks, _checksum(frame))
        yield frame
    if (count, marks) != (chunk.frames, chunk.marks):
        raise _MismatchError


def _from_the_beginning(video: VideoReader, chunk: Chunk, settings: Settings) -> Iterator[VideoFrame]:
    """Yield the frames of a chunk by decoding the video from its beginning."""
    count = 0
    frames = video.frames(settings.video.start, settings.video.duration)
    for frame in itertools.islice(frames, chunk.first, chunk.first + chunk.frames):
        count += 1
        yield frame
    if count != chunk.frames:
        raise ReadError(f"it had {chunk.first + chunk.frames} frames, and has {chunk.first + count} now")


def _checksum(frame: VideoFrame) -> int:
    """Return a checksum of a frame's luma, time stamp and key frame flag."""
    rows = pixel_format.luma_of(frame)[::_ROWS].tobytes()
    return zlib.crc32(rows, zlib.crc32(f"{frame.pts} {frame.key_frame}".encode()))


def _combined_checksum(marks: int, mark: int) -> int:
    """Return the checksum of a sequence extended by a frame with checksum `mark`."""
    return zlib.crc32(mark.to_bytes(4, "little"), marks)


def _frames_in(folder: WorkDir) -> int:
    return sum(segment.frames for segment in folder.done)
