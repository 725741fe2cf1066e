"""Videos as lists of chunks: one chunk on this machine, several on a cluster, joined where the run began.

    ClaimedVideo -> colorize_chunk, for each chunk, in any process -> the outcome of the video

Videos on this machine follow one after the other: a single video keeps all stages busy.
"""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import av
import numpy as np

from colorize_cli.core.errors import ReadError, WriteError, one_line, reason_of
from colorize_cli.core.formats import FORMAT_OF_SUFFIX, SHEET, is_video
from colorize_cli.core.jobs import Job, LocalFiles, Outcome, Position, Progress, Status
from colorize_cli.core.location import STREAM
from colorize_cli.core.settings import Settings
from colorize_cli.engine.outputs import Outputs, Recorder, Skip, own_files, shown
from colorize_cli.image.frame import from_image
from colorize_cli.inference.adapters import ModelInfo
from colorize_cli.inference.model import Model
from colorize_cli.storage import atomic, stdio
from colorize_cli.storage.filesystem import DAMAGED, SourceFingerprint
from colorize_cli.video import chunks, encoder, pipe, preflight, preview, work_dir
from colorize_cli.video.encoder import CONTAINERS
from colorize_cli.video.reader import VideoReader, opened
from colorize_cli.video.stages import VideoStats
from colorize_cli.video.work_dir import Chunk, WorkDir

# Seconds. Splitting reads the video once more, in the process that dispatches all work. A shorter video is
# done by one worker.
SHORTEST = 20.0
_Y4M, _RAW = "yuv4mpegpipe", ".y4m"  # uncompressed frames in sequence: FFmpeg's format name, and the suffix
# Errors that only writing has; the output is named in their message.
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

Result = TypeVar("Result")


class ClaimedVideo:
    """A video that no other run colorizes until `close`, in one or several chunks.

    Attributes:
        chunks: The chunks to colorize.
    """

    def __init__(
        self,
        files: LocalFiles,
        source: SourceFingerprint,
        video: VideoReader,
        model_info: ModelInfo,
        settings: Settings,
        outputs: Outputs,
        count: int,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Claim the work directory, so that no other run works on the video, and split it.

        Args:
            files: The files of the job.
            source: Fingerprint of the source as it was read.
            video: The open source, at its first frame.
            model_info: Metadata of the model.
            settings: The settings of the run.
            outputs: The outputs of the run.
            count: Approximate number of chunks.
            notes: Lines for the user about what the output lacks or holds in another form.

        Raises:
            Skip: Another run has just made the output.
            WriteError: Another run is colorizing the video, or its work directory is a link.
            ReadError: The source is damaged beyond use, or ends before the time range.
            UsageError: The requested encoding is not possible.
            OSError: The work directory cannot be created.
        """
        self._files, self._source, self._info = files, source, video.info
        self._settings, self._outputs = settings, outputs
        self._answers: dict[int, Outcome] = {}
        self._frames: dict[int, int] = {}
        chosen = encoder.choose(files.destination.suffix.lower(), video.info, settings.video)
        self._notes = notes
        key = f"{outputs.recipe_of(files.job)} {source.content} {chosen}"
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(work_dir.claimed(files.destination, key))
            if folder is None:
                raise WriteError("another run is colorizing it; run the command again when that has ended")
            if (kept := outputs.kept(files)) is not None:  # another run has just ended
                raise Skip(kept.value)
            self._folder = folder
            whole = Chunk(files.source, files.destination, folder.path)
            self.chunks = chunks.split(video, whole, model_info, settings, count)
            if len(self.chunks) > 1:  # as far as an earlier run came
                self._frames = {each.number: WorkDir(each.directory).frames for each in self.chunks}
            self._release = stack.pop_all()

    def close(self) -> None:
        """Give up the claim on the work directory. Finished segments stay for the next run."""
        self._release.close()

    def advanced(self, chunk: Chunk, position: Position) -> Position:
        """Return the position in the whole video, given a new position in one chunk.

        The other chunks count with their last known positions.
        """
        if chunk.frames is None:
            return position
        self._frames[chunk.number] = position.frames
        expected = sum(each.frames or 0 for each in self.chunks)
        return replace(position, frames=sum(self._frames.values()), expected=expected)

    def write(self, stats: VideoStats) -> None:
        """Join the finished chunks under the output's final name, and remove the work directory.

        Args:
            stats: Statistics of all chunks. The time for joining is added.

        Raises:
            ReadError: The source can no longer be read.
            WriteError: A chunk is incomplete, or the container does not accept a stream.
            OSError: A file cannot be read or written.
        """
        begun = time.perf_counter()
        stats.notes = self._notes
        record = _recorder(self._files, self._source, self._outputs, stats)
        with atomic.naming(self._files.destination, record) as temporary:
            chunks.concat(self.chunks, self._info, temporary, self._settings, stats.frames)
        stats.seconds["join"] = time.perf_counter() - begun
        self._folder.remove()

    def answered(self, chunk: Chunk, outcome: Outcome) -> Outcome | None:
        """Take a worker's outcome of a chunk. After the last one, write the video and return its outcome.

        The video fails if one of its chunks failed. The other chunks then stay in the work directory for the
        next run.
        """
        self._answers[chunk.number] = outcome
        self._frames[chunk.number] = chunk.frames or 0
        if len(self._answers) < len(self.chunks):
            return None
        answers = [self._answers[each.number] for each in self.chunks]

        def work() -> Outcome:
            total = VideoStats()
            for each, answer in zip(self.chunks, answers, strict=True):
                frames, cuts = answer.frames or 0, answer.cuts or 0
                total.add(VideoStats(frames, cuts, each.damaged, each.cut_off, answer.seconds))
            self.write(total)
            return _ended(self._files, total, answers[-1].device, answers[-1].batch)

        try:
            failed = next((answer for answer in answers if answer.status is not Status.DONE), None)
            return failed or explained(self._files, work)
        finally:
            self.close()


def colorize_video(
    files: LocalFiles, network: Model, settings: Settings, outputs: Outputs, progress: Progress
) -> Outcome:
    """Colorize one video. Errors become a failed outcome and are not raised.

    Args:
        files: The files of the job; source or destination may be a standard stream.
        network: The model.
        settings: The settings of the run.
        outputs: The outputs of the run.
        progress: Called with the position after each frame.
    """

    def work() -> Outcome:
        stats = VideoStats()
        if settings.video.preview is not None:
            _preview(files, settings.video.preview, network, settings, outputs, stats)
        elif STREAM in (files.source, files.destination):
            _refuse_needless(files, outputs)
            source = None if files.source == STREAM else _fingerprint_of_source(files, outputs)
            _pipe(files, source, network, settings, outputs, stats, progress)
        else:
            is_copied, notes, source = _prepared(files, settings, outputs)
            if is_copied:
                return _ended(files, stats, None, None)
            if is_split(files, settings):
                with opened(files.source, upright=_upright(files)) as video:
                    claimed = ClaimedVideo(files, source, video, network.info, settings, outputs, 1, notes)
                    _colorize_here(claimed, video, network, settings, stats, progress)
            else:
                _pipe(files, source, network, settings, outputs, stats, progress)
        return _ended(files, stats, network.device, settings.batch_size or network.batch_size)

    return explained(files, work)


def split_video(
    files: LocalFiles, model_info: ModelInfo, settings: Settings, outputs: Outputs, count: int
) -> ClaimedVideo | Outcome | None:
    """Split a video into chunks if it needs colorizing and is long enough.

    Args:
        files: The files of the job.
        model_info: Metadata of the model.
        settings: The settings of the run.
        outputs: The outputs of the run.
        count: Approximate number of chunks.

    Returns:
        The video in several chunks; its outcome if the job has ended already; or None if one worker must do
        it whole.
    """

    def work() -> ClaimedVideo | Outcome | None:
        with opened(files.source) as video:
            length, asked = video.seconds - settings.video.start, settings.video.duration
            if (length if asked is None else min(length, asked)) < SHORTEST:
                return None
        is_copied, notes, source = _prepared(files, settings, outputs)
        if is_copied:
            return _ended(files, VideoStats(), None, None)
        with opened(files.source, upright=_upright(files)) as video:
            claimed = ClaimedVideo(files, source, video, model_info, settings, outputs, count, notes)
            if len(claimed.chunks) > 1:
                return claimed
            claimed.close()
            return None

    return explained(files, work) if is_split(files, settings) else None


def colorize_chunk(chunk: Chunk, network: Model, settings: Settings, progress: Progress) -> Outcome:
    """Colorize a chunk of a video that another process split.

    Args:
        chunk: The chunk.
        network: The model.
        settings: The settings of the run.
        progress: Called with the position in the chunk.

    Returns:
        An outcome of the video's job that covers only this chunk. A damaged chunk does not fail: damage is
        reported in the outcome of the video.
    """
    files = own_files(Job(chunk.source, chunk.destination))

    def work() -> Outcome:
        with opened(chunk.source, upright=_upright(files)) as video:
            stats = chunks.colorize_chunk(chunk, video, network, settings, progress)
        stats.damaged, stats.cut_off = 0, ""
        return _ended(files, stats, network.device, settings.batch_size or network.batch_size)

    return explained(files, work)


def explained(files: LocalFiles, work: Callable[[], Result]) -> Result | Outcome:
    """Return the result of `work`, or the outcome that describes the exception it raised."""
    try:
        return work()
    except Skip as skip:
        return Outcome.skipped(files.job, str(skip))
    except (OSError, av.error.FFmpegError) as error:
        why = one_line(error.strerror or error)
        if error.errno in _OF_WRITING:
            why = f"cannot write {files.job.destination}: {why}"
        return Outcome.failed(files.job, shown(why, files))
    except Exception as error:  # any error fails this job only, as for images
        return Outcome.failed(files.job, shown(reason_of(error), files))


def is_split(files: LocalFiles, settings: Settings) -> bool:
    """Return True if the video is colorized in chunks, in segments that a later run can reuse.

    False for a preview, a standard stream or a Y4M output. A stream is read or written once from beginning
    to end.
    """
    streamed = STREAM in (files.source, files.destination) or files.destination.suffix.lower() == _RAW
    return not streamed and settings.video.preview is None


def _upright(files: LocalFiles) -> bool:
    """Return True if frames must be turned for display, because the output's format cannot ask players to."""
    return CONTAINERS[files.destination.suffix.lower()].upright


def _ended(files: LocalFiles, stats: VideoStats, device: str | None, batch: int | None) -> Outcome:
    """Return the outcome of a video that was written: done, or failed if its source is damaged or cut off.

    Device and batch size of the network are None if the network was not used.
    """
    figures = {
        "seconds": stats.seconds,
        "device": device,
        "batch": batch,
        "frames": stats.frames,
        "cuts": stats.cuts,
        "notes": stats.notes,
    }
    damage = f"{stats.damaged} packets or frames are damaged" if stats.damaged else ""
    if reasons := [reason for reason in (stats.cut_off, damage) if reason]:
        reason = f"{', and '.join(reasons)}; the output contains only what could be decoded"
        return Outcome.failed(files.job, reason, **figures)
    return Outcome.done(files.job, **figures, files=files)


def _refuse_needless(files: LocalFiles, outputs: Outputs) -> None:
    """Raise Skip if the output can be left as it is, and WriteError if its suffix is not of a video."""
    if (kept := outputs.kept(files)) is not None:
        raise Skip(kept.value)
    if files.destination != STREAM and not is_video(files.destination):
        raise WriteError(
            f"the output of a video must be a video, not {files.destination.suffix}; choose another suffix"
        )


def _fingerprint_of_source(files: LocalFiles, outputs: Outputs) -> SourceFingerprint:
    try:
        return outputs.source_of(files) or SourceFingerprint.of(files.source)
    except OSError as error:
        raise ReadError(error.strerror or str(error)) from error


def _prepared(
    files: LocalFiles, settings: Settings, outputs: Outputs
) -> tuple[bool, tuple[str, ...], SourceFingerprint]:
    """Check all that can be known before the first frame, and create the output's folder.

    Copies a video in color if that is asked for.

    Returns:
        True if the video was copied; the notes of the check (see `preflight.check`); and the fingerprint of
        the source. Taking it reads the whole file, so it comes after the check. If the source is replaced
        later, the output counts as made from the older one, and the next run makes it again.

    Raises:
        Skip: The output is up to date, or the video is in color and is to be skipped.
        WriteError: The encoder or the container does not accept the video.
        UsageError: The requested encoding is not possible.
        OSError: The copy cannot be written.
    """
    _refuse_needless(files, outputs)
    notes: tuple[str, ...] = ()
    with opened(files.source, upright=_upright(files)) as video:
        colored = settings.if_colored != "recolor" and video.is_color()
        if colored and settings.if_colored == "skip":
            raise Skip("already in color")
        if not colored:
            kind = files.destination.suffix.lower()
            chosen = encoder.choose(kind, video.info, settings.video)
            notes = preflight.check(video, kind, chosen, settings.video)
    source = _fingerprint_of_source(files, outputs)
    outputs.make_folder(files)
    if colored:
        with atomic.naming(files.destination, outputs.recorder(files, source)) as temporary:
            shutil.copyfile(files.source, temporary)
    return colored, notes, source


def _colorize_here(
    claimed: ClaimedVideo,
    video: VideoReader,
    network: Model,
    settings: Settings,
    stats: VideoStats,
    progress: Progress,
) -> None:
    """Colorize and write a video as one chunk, or in the chunks of the run on a cluster that began it."""
    with contextlib.closing(claimed):
        for chunk in claimed.chunks:
            if chunk.number:
                video.rewind()

            def advance(position: Position, chunk: Chunk = chunk) -> None:
                progress(claimed.advanced(chunk, position))

            stats.add(chunks.colorize_chunk(chunk, video, network, settings, advance))
        claimed.write(stats)


def _preview(
    files: LocalFiles, frames: int, network: Model, settings: Settings, outputs: Outputs, stats: VideoStats
) -> None:
    if (kept := outputs.kept(files)) is not None:
        raise Skip(kept.value)
    if files.source == STREAM:
        raise ReadError("a preview needs a video that can seek, not standard input; give it as a file")
    if files.destination != STREAM and files.destination.suffix.lower() != SHEET:
        raise WriteError(
            f"a preview must be written as PNG, not {files.destination.suffix};"
            " give the output the suffix .png"
        )
    with opened(files.source) as video:
        if settings.if_colored != "recolor" and video.is_color():
            raise Skip("already in color")
        sheet = preview.preview(video, frames, network, settings, stats)
    page = from_image(sheet), np.asarray(sheet)
    outputs.write(files, outputs.source_of(files), FORMAT_OF_SUFFIX[SHEET], [page])


def _pipe(
    files: LocalFiles,
    source: SourceFingerprint | None,
    network: Model,
    settings: Settings,
    outputs: Outputs,
    stats: VideoStats,
    progress: Progress,
) -> None:
    """Colorize a video that is read or written once, from beginning to end.

    On standard output a Y4M source stays Y4M, and everything else becomes Matroska.
    """
    with contextlib.ExitStack() as stack:
        readable: Path | BinaryIO = files.source
        format_ = None
        if files.source == STREAM:
            format_ = stdio.video_format()
            readable = stack.enter_context(stdio.spooled()) if stdio.must_spool() else stdio.stdin()
        if files.destination != STREAM:
            kind = files.destination.suffix.lower()
            record = _recorder(files, source, outputs, stats)
            temporary = stack.enter_context(atomic.naming(files.destination, record))
            pipe.pipe(readable, format_, temporary, kind, network, settings, stats, progress)
            return
        kind = _RAW if format_ == _Y4M or files.source.suffix.lower() == _RAW else ".mkv"
        writable = stdio.stdout()
        try:
            pipe.pipe(readable, format_, writable, kind, network, settings, stats, progress)
        except av.error.PyAVCallbackError as error:  # closing the container repeats the error of the stream
            raise error.__context__ or error from error
        writable.flush()


def _recorder(
    files: LocalFiles, source: SourceFingerprint | None, outputs: Outputs, stats: VideoStats
) -> Recorder:
    """Like `Outputs.recorder`, but a damaged source counts as changed, so the next run tries it again."""

    def record(status: os.stat_result) -> None:
        is_whole = not (stats.damaged or stats.cut_off)
        outputs.recorder(files, DAMAGED if source and not is_whole else source)(status)

    return record
