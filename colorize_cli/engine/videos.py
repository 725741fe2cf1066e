"""Films on this machine, one after the other: each keeps all stages busy by itself."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import av
import numpy as np

from colorize_cli.core.errors import ReadError, WriteError, one_line, reason_of
from colorize_cli.core.formats import FORMATS, SHEET, is_video
from colorize_cli.core.jobs import Job, Outcome, Progress, Status
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

_Y4M, _RAW = "yuv4mpegpipe", ".y4m"  # frames as they are, one after the other

Result = TypeVar("Result")


def colorize_video(
    job: Job, network: Model, settings: Settings, outputs: Outputs, progress: Progress
) -> Outcome:
    """Colours one film.

    Args:
        job: The film.
        network: What colours.
        settings: How.
        outputs: What is there, and notes on what is made.
        progress: Is told how far it is.
    """

    def work() -> Outcome:
        stats = _colorized(job, network, settings, outputs, progress)
        return ended(job, stats, network.device, settings.batch_size or network.batch_size)

    return explained(job, work)


def explained(job: Job, work: Callable[[], Result]) -> Result | Outcome:
    """What some work on a film gives; where it raises, the outcome that says why."""
    try:
        return work()
    except Skip as why:
        return Outcome(job, Status.SKIPPED, str(why))
    except (OSError, av.error.FFmpegError) as error:
        return Outcome(job, Status.FAILED, one_line(error.strerror or error))
    except Exception as error:  # a stage's defect is this film's failure, as it is a picture's
        return Outcome(job, Status.FAILED, reason_of(error))


def ended(job: Job, stats: VideoStats, device: str | None, batch: int | None) -> Outcome:
    """The outcome of a film that is there: done, or failed where it is damaged."""
    done = Outcome(job, Status.DONE, None, stats.seconds, device, batch, stats.frames, stats.cuts)
    if stats.damaged:
        reason = f"{stats.damaged} packets or frames of it are damaged; what could be decoded is coloured"
        return replace(done, status=Status.FAILED, reason=reason)
    return done


def in_segments(job: Job, settings: Settings) -> bool:
    """Whether a film is coloured in stretches, and not read or written once from its beginning to its end."""
    streamed = STREAM in (job.source, job.destination) or job.destination.suffix.lower() == _RAW
    return not streamed and settings.video.preview is None


def prepared(job: Job, settings: Settings, outputs: Outputs) -> SourceFingerprint | None:
    """Gets ready for a film from a file to a file; what was read, or None if a copy of it is all it takes.

    Raises:
        Skip: It need not be coloured.
        ReadError: It cannot be read.
        WriteError: It cannot become what it is to become.
        OSError: Likewise.
    """
    if (why := outputs.reason_to_skip(job)) is not None:
        raise Skip(why)
    _refuse_picture(job)
    read = _read(job, outputs)
    outputs.make_folder(job)
    if settings.if_colored == "recolor" or not _is_color(job.source):
        return read
    if settings.if_colored == "skip":
        raise Skip("in colour already")
    with atomic.naming(job.destination, outputs.note(job, read)) as temporary:
        shutil.copyfile(job.source, temporary)
    return None


class VideoWork:
    """A film whose work folder is claimed, to be coloured in stretches.

    Attributes:
        folder: Where the stretches lie.
        kind: The ending of the final name of the file that it becomes, in lower case.
    """

    def __init__(self, job: Job, read: SourceFingerprint, outputs: Outputs, folder: WorkDir) -> None:
        """Of a film that was read so."""
        self._job, self._source, self._outputs = job, read, outputs
        self.folder, self.kind = folder, job.destination.suffix.lower()

    def write(self, stats: VideoStats, whole: Callable[[Path], None]) -> None:
        """Gives the film its name, notes how it was made, and removes the work folder.

        Args:
            stats: What became of it, once `whole` is through.
            whole: Writes it whole under the name that it is given.
        """
        note = _note(self._job, self._source, self._outputs, stats)
        with atomic.naming(self._job.destination, note) as temporary:
            whole(temporary)
        self.folder.remove()


@contextlib.contextmanager
def claimed(job: Job, read: SourceFingerprint, outputs: Outputs) -> Iterator[VideoWork]:
    """A film that no other run works on meanwhile.

    Raises:
        Skip: Another run is colouring it.
        OSError: Its work folder cannot be made.
    """
    with work_dir.claimed(job.destination, f"{outputs.recipe_of(job)} {read.content}") as folder:
        if folder is None:
            raise Skip("another run is colouring it")
        yield VideoWork(job, read, outputs, folder)


def _colorized(
    job: Job, network: Model, settings: Settings, outputs: Outputs, progress: Progress
) -> VideoStats:
    if STREAM in (job.source, job.destination) or settings.video.preview is not None:
        if (why := outputs.reason_to_skip(job)) is not None:
            raise Skip(why)
        if settings.video.preview is not None:
            return _previewed(job, settings.video.preview, network, settings, outputs)
        _refuse_picture(job)
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


def _refuse_picture(job: Job) -> None:
    if job.destination != STREAM and not is_video(job.destination):
        raise WriteError(f"a film becomes a film, not {job.destination.suffix}")


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
        raise ReadError("frames for a preview are searched for, which standard input does not allow")
    if job.destination != STREAM and job.destination.suffix.lower() != SHEET:
        raise WriteError(f"a preview is a PNG, not {job.destination.suffix}")
    if settings.if_colored != "recolor" and _is_color(job.source):
        raise Skip("in colour already")
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
    """A film that is read or written once and from its beginning to its end.

    To standard output Y4M stays Y4M, and all else becomes Matroska.
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
    """As `Outputs.note`; a damaged film's source counts as changed, so that the next run tries it again."""

    def note(status: os.stat_result) -> None:
        outputs.note(job, DAMAGED if stats.damaged and read else read)(status)

    return note
