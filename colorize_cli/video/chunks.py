"""A video as chunks that are colorized independently, by any process or machine, in any order.

    split -> colorize_chunk, for each -> concat

On one machine there is one chunk, the whole video. A chunk of several begins at a split point (see `stages`)
and ends before the next chunk. So its segments, and the whole output, are the same as of one chunk.

A worker decodes a chunk from the key frame at its beginning, if the video is seekable. It compares checksums
of the decoded frames with those taken while splitting. On a mismatch it decodes the chunk from the beginning
of the video. This is slow, but gives the same frames as without splitting.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from av.video.frame import VideoFrame

from colorize_cli.core.errors import ReadError, WriteError
from colorize_cli.core.jobs import Progress
from colorize_cli.core.settings import Settings
from colorize_cli.inference.adapters import ModelInfo
from colorize_cli.inference.model import Model
from colorize_cli.storage import atomic
from colorize_cli.storage.filesystem import open_regular
from colorize_cli.video import encoder, muxer, pixel_format
from colorize_cli.video.pixel_format import VideoInfo
from colorize_cli.video.reader import VideoReader
from colorize_cli.video.stages import Segmenter, VideoStages, VideoStats, small_copier
from colorize_cli.video.temporal import FlowTracker
from colorize_cli.video.work_dir import Chunk, WorkDir, sweep

_CHUNKS_FILE = "parts.json"
_RECORDED = ("number", "first", "begins", "frames", "damaged", "mark", "marks", "cut_off")
# Checksums cover every eighth row of luma: a frame decoded without its reference frame is wrong all over.
_ROWS = 8


def split(
    video: VideoReader, whole: Chunk, model_info: ModelInfo, settings: Settings, count: int
) -> tuple[Chunk, ...]:
    """Return the chunks of a video: those of the run that began it, or new ones, for which it is decoded.

    Args:
        video: The open source, at its first frame. It is read only to make several new chunks.
        whole: The whole video as one chunk. In its work directory an earlier run may have recorded chunks,
            or begun without splitting. A resumed run continues with them whatever `count` is.
        model_info: Properties of the model.
        settings: The settings of the run.
        count: Number of chunks to aim for, of about equal length. There are fewer if there are not enough
            split points.

    Raises:
        ReadError: The source is damaged beyond use, or ends before the time range.
        OSError: A file cannot be read or written.
    """
    if WorkDir(whole.folder, check=False).done:
        return (whole,)
    recorded = whole.folder / _CHUNKS_FILE
    files = whole.source, whole.destination, whole.folder
    with (
        contextlib.suppress(FileNotFoundError, ValueError, TypeError, RecursionError),
        open_regular(recorded) as file,
    ):
        digest, text = file.read().split(b"\n", 1)
        if digest == _digest(text):
            return tuple(Chunk(*files, **values) for values in json.loads(text))
    if count == 1:
        return (whole,)
    points, marks = _survey(video, whole, model_info, settings)
    if not marks:
        raise ReadError(f"it ends before {settings.video.start:g} seconds")
    found = tuple(_chunks(points, marks, video.damaged, count))
    found = (*found[:-1], replace(found[-1], cut_off=video.cut_off))
    if len(found) == 1:
        return (whole,)
    with atomic.writing(recorded) as written:
        values = [{name: getattr(chunk, name) for name in _RECORDED} for chunk in found]
        text = json.dumps(values).encode()
        written.write(_digest(text) + b"\n" + text)
    return found


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).hexdigest().encode()


def colorize_chunk(
    chunk: Chunk,
    video: VideoReader,
    network: Model,
    settings: Settings,
    progress: Progress = lambda _: None,
) -> VideoStats:
    """Colorize the frames of a chunk that are not done yet.

    Args:
        chunk: The chunk.
        video: The open source, at its first frame.
        network: The model.
        settings: The settings of the run.
        progress: Called after every frame with the position in the chunk.

    Returns:
        The statistics of the chunk.

    Raises:
        ReadError: The source is damaged beyond use, or can no longer be read as it was while splitting.
        WriteError: The encoder or the container does not accept the video.
        UsageError: The requested encoding is not possible.
        OSError: A file cannot be read or written.
    """
    asked, stats, folder = settings.video, VideoStats(), open_directory(chunk)
    chosen = encoder.choose(chunk.kind, video.info, asked)

    def run(frames: Iterator[VideoFrame], expected: int | None) -> None:
        stages = VideoStages(video, chosen, network, settings, stats, chunk.first)
        stages.run(chunk.source, folder, frames, expected, progress)

    if chunk.frames is None:
        expected = video.expected
        if asked.trial:
            length = max(0.0, video.seconds - asked.start)
            expected = round(min(length, asked.duration or length) * video.info.rate) or None
        run(video.frames(asked.start, asked.duration), expected)
        if not folder.done:
            raise ReadError(f"it ends before {asked.start:g} seconds")
        stats.damaged, stats.cut_off = video.damaged, video.cut_off
        return stats
    if folder.done and (folder.done[0].first != chunk.begins or folder.frames > chunk.frames):
        folder.clear()  # its segments are from a different split
    stats.damaged, stats.cut_off = chunk.damaged, chunk.cut_off
    if folder.frames == chunk.frames:
        stats.frames, stats.cuts = chunk.frames, folder.done[-1].cuts
        return stats
    # Decoding of damaged frames depends on the frames before them, so damaged chunks are read from the start.
    if chunk.first and not chunk.damaged:
        if (frames := _seek_frames(video, chunk)) is not None:
            try:
                run(frames, chunk.frames)
            except _MismatchError:
                folder.clear()
            else:
                return stats
        video.rewind()
    run(_from_the_beginning(video, chunk, settings), chunk.frames)
    return stats


def open_directory(chunk: Chunk) -> WorkDir:
    """Return the work directory of a chunk, creating it if needed, without what killed workers left.

    Raises:
        OSError: The directory cannot be created.
    """
    if chunk.directory != chunk.folder:
        chunk.directory.mkdir(exist_ok=True)
        sweep(chunk.directory)
    return WorkDir(chunk.directory)


def concat(chunks: Sequence[Chunk], info: VideoInfo, output: Path, settings: Settings, frames: int) -> None:
    """Write the output video from finished chunks and the source's other streams.

    Args:
        chunks: All chunks, in order.
        info: Properties of the source's frames.
        output: The file to write.
        settings: The settings with which they were colorized.
        frames: Number of their frames.

    Raises:
        WriteError: A chunk is incomplete or was damaged since, or the container does not accept a stream.
        ReadError: The source can no longer be read.
        OSError: A file cannot be read or written.
    """
    segments: list[muxer.TimedSegment] = []
    joined = 0
    for chunk in chunks:
        folder = WorkDir(chunk.directory)
        if chunk.frames not in (None, folder.frames):
            raise WriteError(
                f"its chunk {chunk.number} is incomplete: {folder.frames} of {chunk.frames} frames are done"
            )
        segments += [(folder.path / segment.file, segment.first) for segment in folder.done]
        joined += folder.frames
    if joined != frames:
        raise WriteError(f"only {joined} of {frames} frames in its work directory are intact; run it again")
    source, kind, asked = chunks[0].source, chunks[0].kind, settings.video
    time_range = info.time_range(asked.start, asked.duration)
    muxer.join(segments, source, info, output, kind, time_range, audio=asked.audio)


def _survey(
    video: VideoReader, whole: Chunk, model_info: ModelInfo, settings: Settings
) -> tuple[list[Chunk], "array[int]"]:
    """Decode the whole video.

    Returns:
        The possible beginnings of chunks, as chunks without an end, whose `damaged` counts what is damaged
        before them; and the checksums of all frames.
    """
    small, segmenter = small_copier(video.info, model_info, settings), Segmenter(video.info.rate)
    tracker = FlowTracker()
    points: list[Chunk] = []
    marks = array("I")
    before: VideoFrame | None = None
    tracked: VideoFrame | None = None
    for number, frame in enumerate(video.frames(settings.video.start, settings.video.duration)):
        assert frame.pts is not None  # noqa: S101 - the reader sets it on every frame
        if before is None:
            points.append(replace(whole, begins=frame.pts))
        elif frame.key_frame and segmenter.wants(number):
            if tracked is not before:
                tracker = FlowTracker()
                tracker.next(small(before))
            motion, tracked = tracker.next(small(frame)), frame
            if motion is not None and motion.cut:
                segmenter.split_point = number
                points.append(replace(whole, first=number, begins=frame.pts, damaged=video.damaged))
        marks.append(_checksum(frame))
        before = frame
    return points, marks


def _chunks(points: Sequence[Chunk], marks: "array[int]", damaged: int, count: int) -> Iterator[Chunk]:
    """Yield about `count` chunks. Each begins at the point nearest to an equal share of the frames left."""
    begins = [points[0]]
    for left in range(count, 1, -1):
        begun = begins[-1].first
        wanted = begun + (len(marks) - begun) / left
        if later := [point for point in points if point.first > begun]:
            begins.append(min(later, key=lambda point: abs(point.first - wanted)))
    ends = [*begins[1:], replace(points[0], first=len(marks), damaged=damaged)]
    for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        own = marks[begin.first : end.first]
        yield replace(
            begin,
            number=number,
            frames=len(own),
            damaged=end.damaged - begin.damaged,
            mark=own[0],
            marks=functools.reduce(_combined_checksum, own, 0),
        )


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
    count, wanted = 0, chunk.frames or 0
    frames = video.frames(settings.video.start, settings.video.duration)
    for frame in itertools.islice(frames, chunk.first, chunk.first + wanted):
        count += 1
        yield frame
    if count != wanted:
        raise ReadError(f"it had {chunk.first + wanted} frames, and has {chunk.first + count} now")


def _checksum(frame: VideoFrame) -> int:
    """Return a checksum of a frame's luma, time stamp and key frame flag."""
    rows = pixel_format.luma_of(frame)[::_ROWS].tobytes()
    return zlib.crc32(rows, zlib.crc32(f"{frame.pts} {frame.key_frame}".encode()))


def _combined_checksum(marks: int, mark: int) -> int:
    """Return the checksum of a sequence extended by a frame with checksum `mark`."""
    return zlib.crc32(mark.to_bytes(4, "little"), marks)
