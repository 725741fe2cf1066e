"""Videos on this machine, one after the other: a single video keeps all stages busy."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import av
import numpy as np

from colorize_cli.core.errors import ReadError, WriteError, one_line
from colorize_cli.core.formats import FORMATS, SHEET, is_video
from colorize_cli.core.jobs import Job, Outcome, Progress
from colorize_cli.core.location import STREAM
from colorize_cli.core.settings import Settings
from colorize_cli.engine.outputs import Outputs, Skip
from colorize_cli.image.frame import from_image
from colorize_cli.inference.model import Model
from colorize_cli.storage import atomic, stdio
from colorize_cli.storage.fingerprint import DAMAGED, SourceFingerprint
from colorize_cli.video import colorize, grayscale, preview, reader, work_dir
from colorize_cli.video.stages import VideoStats
from colorize_cli.video.work_dir import WorkDir

_Y4M, _RAW = "yuv4mpegpipe", ".y4m"  # uncompressed frames in sequence: FFmpeg's format name, and the suffix

Result = TypeVar("Result")


def colorize_video(
    job: Job, network: Model, settings: Settings, outputs: Outputs, progress: Progress
) -> Outcome:
    """Colorize one video. Errors become a failed outcome and are not raised.

    Args:
        job: The job; its source or destination may be a standard stream.
        network: The model.
        settings: The settings of the run.
        outputs: The outputs of the run.
        progress: Called with the position after each frame.
    """

    def work() -> Outcome:
        stats = _colorized(job, network, settings, outputs, progress)
        return ended(job, stats, network.device, settings.batch_size or network.batch_size)

    return explained(job, work)


def explained(job: Job, work: Callable[[], Result]) -> Result | Outcome:
    """Return the result of `work`, or the outcome that describes the exception it raised."""
    try:
        return work()
    except Skip as skip:
        return Outcome.skipped(job, str(skip))
    except (OSError, av.error.FFmpegError) as error:
        return Outcome.failed(job, one_line(error.strerror or error))
    except Exception as error:  # any error fails this job only, as for images
        return Outcome.failed(job, error)


def ended(job: Job, stats: VideoStats, device: str | None, batch: int | None) -> Outcome:
    """Return the outcome of a video that was written: done, or failed if its source is damaged.

    Args:
        job: The job of the video.
        stats: Seconds by stage, frames, cuts and damaged packets or frames.
        device: Device of the network; None if the network was not used.
        batch: Batch size of the network; None if the network was not used.
    """
    figures = {"device": device, "batch": batch, "frames": stats.frames, "cuts": stats.cuts}
    if stats.damaged:
        reason = (
            f"{stats.damaged} packets or frames are damaged; the output contains only what could be decoded"
        )
        return Outcome.failed(job, reason, seconds=stats.seconds, **figures)
    return Outcome.done(job, seconds=stats.seconds, **figures)


def in_segments(job: Job, settings: Settings) -> bool:
    """Return True if the video is colorized in segments that a later run can reuse.

    False for a preview, a standard stream or a Y4M output. A stream is read or written once from beginning
    to end.
    """
    streamed = STREAM in (job.source, job.destination) or job.destination.suffix.lower() == _RAW
    return not streamed and settings.video.preview is None


def prepared(job: Job, settings: Settings, outputs: Outputs) -> SourceFingerprint | None:
    """Check that the video needs colorizing. Both ends of the job must be files.

    Returns:
        The fingerprint of the source, or None if the source was in color and was copied unchanged.

    Raises:
        Skip: The video need not be colorized.
        ReadError: The source cannot be read.
        WriteError: The output cannot have this suffix, or its folder cannot be created.
        OSError: The source cannot be read, or its copy cannot be written.
    """
    if (reason := outputs.reason_to_skip(job)) is not None:
        raise Skip(reason)
    _check_destination(job)
    read = _read(job, outputs)
    outputs.make_folder(job)
    if settings.if_colored == "recolor" or not _is_color(job.source):
        return read
    if settings.if_colored == "skip":
        raise Skip("already in color")
    with atomic.naming(job.destination, outputs.note(job, read)) as temporary:
        shutil.copyfile(job.source, temporary)
    return None


class VideoWork:
    """A video with a claimed work directory, to be colorized in segments.

    Attributes:
        folder: The work directory, which contains the segments.
        kind: Suffix of the output in lower case.
    """

    def __init__(self, job: Job, read: SourceFingerprint, outputs: Outputs, folder: WorkDir) -> None:
        """Keep what `write` needs: the job, the source's fingerprint as it was read, and the outputs."""
        self._job, self._source, self._outputs = job, read, outputs
        self.folder, self.kind = folder, job.destination.suffix.lower()

    def write(self, stats: VideoStats, whole: Callable[[Path], None]) -> None:
        """Write the output under its final name, record it in the manifest, and remove the work directory.

        Args:
            stats: Statistics of the video, complete once `whole` has returned.
            whole: Writes the complete video to the given temporary path.
        """
        note = _note(self._job, self._source, self._outputs, stats)
        with atomic.naming(self._job.destination, note) as temporary:
            whole(temporary)
        self.folder.remove()


@contextlib.contextmanager
def claimed(job: Job, read: SourceFingerprint, outputs: Outputs) -> Iterator[VideoWork]:
    """Claim the work directory of a video, so that no other run of this host works on the video.

    Raises:
        Skip: Another run is colorizing the video.
        OSError: The work directory cannot be created.
    """
    with work_dir.claimed(job.destination, f"{outputs.recipe_of(job)} {read.content}") as folder:
        if folder is None:
            raise Skip("another run is colorizing it")
        yield VideoWork(job, read, outputs, folder)


def _colorized(
    job: Job, network: Model, settings: Settings, outputs: Outputs, progress: Progress
) -> VideoStats:
    if STREAM in (job.source, job.destination) or settings.video.preview is not None:
        if (reason := outputs.reason_to_skip(job)) is not None:
            raise Skip(reason)
        if settings.video.preview is not None:
            return _previewed(job, settings.video.preview, network, settings, outputs)
        _check_destination(job)
        known = None if job.source == STREAM else _read(job, outputs)
        return _piped(job, known, network, settings, outputs, progress)
    read = prepared(job, settings, outputs)
    if read is None:
        return VideoStats()
    if not in_segments(job, settings):
        return _piped(job, read, network, settings, outputs, progress)
    stats = VideoStats()
    with claimed(job, read, outputs) as work:

        def whole(path: Path) -> None:
            colorize.colorize_video(
                job.source, path, work.kind, work.folder, network, settings, stats, progress
            )

        work.write(stats, whole)
    return stats


def _check_destination(job: Job) -> None:
    if job.destination != STREAM and not is_video(job.destination):
        raise WriteError(
            f"the output of a video must be a video, not {job.destination.suffix}; choose another suffix"
        )


def _read(job: Job, outputs: Outputs) -> SourceFingerprint:
    try:
        return outputs.source_of(job) or SourceFingerprint.of(job.source)
    except OSError as error:
        raise ReadError(error.strerror or str(error)) from error


def _is_color(path: Path) -> bool:
    with reader.opened(path) as video:
        return grayscale.is_color(video)


def _previewed(job: Job, frames: int, network: Model, settings: Settings, outputs: Outputs) -> VideoStats:
    if job.source == STREAM:
        raise ReadError("a preview needs a video that can seek, not standard input; give it as a file")
    if job.destination != STREAM and job.destination.suffix.lower() != SHEET:
        raise WriteError(
            f"a preview must be written as PNG, not {job.destination.suffix}; give the output the suffix .png"
        )
    if settings.if_colored != "recolor" and _is_color(job.source):
        raise Skip("already in color")
    stats = VideoStats()
    sheet = preview.preview(job.source, frames, network, settings, stats)
    outputs.write(job, outputs.source_of(job), FORMATS[SHEET], [(from_image(sheet), np.asarray(sheet))])
    return stats


def _piped(
    job: Job,
    read: SourceFingerprint | None,
    network: Model,
    settings: Settings,
    outputs: Outputs,
    progress: Progress,
) -> VideoStats:
    """Colorize a video that is read or written once, from beginning to end.

    On standard output a Y4M source stays Y4M, and everything else becomes Matroska.
    """
    stats = VideoStats()
    format_ = stdio.video_format() if job.source == STREAM else None
    readable = stdio.stdin() if job.source == STREAM else job.source
    if job.destination == STREAM:
        kind = _RAW if format_ == _Y4M or job.source.suffix.lower() == _RAW else ".mkv"
        writable = stdio.stdout()
        colorize.pipe(readable, format_, writable, kind, network, settings, stats, progress)
        writable.flush()
        return stats
    kind = job.destination.suffix.lower()
    with atomic.naming(job.destination, _note(job, read, outputs, stats)) as temporary:
        colorize.pipe(readable, format_, temporary, kind, network, settings, stats, progress)
    return stats


def _note(
    job: Job, read: SourceFingerprint | None, outputs: Outputs, stats: VideoStats
) -> Callable[[os.stat_result], None]:
    """Like `Outputs.note`, but records a damaged source as changed, so that the next run tries it again."""

    def note(status: os.stat_result) -> None:
        outputs.note(job, DAMAGED if stats.damaged and read else read)(status)

    return note
