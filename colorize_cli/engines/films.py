"""Films on this machine, one after the other: each keeps all stages busy by itself."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np

from colorize_cli import filming
from colorize_cli.colouring import Told
from colorize_cli.engines.outputs import Outputs, SkippedError
from colorize_cli.errors import ColorizeError, ReadError, WriteError, one_line
from colorize_cli.jobs import STREAM, Job, Outcome, Progress, Settings, Status
from colorize_cli.ledger import DAMAGED, Source
from colorize_cli.media import atomic, is_film, pipe
from colorize_cli.media.film import looks, source, workfolder
from colorize_cli.media.formats import FORMATS, SHEET
from colorize_cli.media.frame import from_image
from colorize_cli.model import Model

_Y4M, _RAW = "yuv4mpegpipe", ".y4m"  # frames as they are, one after the other


def colour(job: Job, network: Model, settings: Settings, outputs: Outputs, progress: Progress) -> Outcome:
    """Colours one film.

    Args:
        job: The film.
        network: What colours.
        settings: How.
        outputs: What is there, and notes on what is made.
        progress: Is told how far it is.
    """
    try:
        told = _coloured(job, network, settings, outputs, progress)
    except SkippedError as why:
        return Outcome(job, Status.SKIPPED, str(why))
    except ColorizeError as error:
        return Outcome(job, Status.FAILED, one_line(error))
    except (OSError, av.error.FFmpegError) as error:
        return Outcome(job, Status.FAILED, one_line(error.strerror or error))
    except Exception as error:  # a stage's defect is this film's failure, as it is a picture's
        return Outcome(job, Status.FAILED, one_line(f"{type(error).__name__}: {error}"))
    batch = settings.batch_size or network.batch_size
    done = Outcome(job, Status.DONE, None, told.seconds, network.device, batch, told.frames, told.cuts)
    if told.damaged:
        reason = f"{told.damaged} packets or frames of it are damaged; what could be decoded is coloured"
        return replace(done, status=Status.FAILED, reason=reason)
    return done


def _coloured(job: Job, network: Model, settings: Settings, outputs: Outputs, progress: Progress) -> Told:
    if (why := outputs.reason_to_skip(job)) is not None:
        raise SkippedError(why)
    if settings.film.preview is not None:
        return _previewed(job, settings.film.preview, network, settings, outputs)
    if job.destination != STREAM and not is_film(job.destination):
        raise WriteError(f"a film becomes a film, not {job.destination.suffix}")
    try:
        read = None if job.source == STREAM else outputs.source_of(job) or Source.of(job.source)
    except OSError as error:
        raise ReadError(error.strerror or str(error)) from error
    if read is None or job.destination == STREAM:
        return _piped(job, read, network, settings, outputs, progress)
    outputs.make_folder(job)
    if settings.if_colored != "recolor" and _in_colour(job.source):
        if settings.if_colored == "skip":
            raise SkippedError("in colour already")
        with atomic.naming(job.destination, outputs.note(job, read)) as temporary:
            shutil.copyfile(job.source, temporary)
        return Told()
    if job.destination.suffix.lower() == _RAW:
        return _piped(job, read, network, settings, outputs, progress)
    key = f"{outputs.recipe_of(job)} {read.content}"
    with workfolder.claimed(job.destination, key) as folder:
        if folder is None:
            raise SkippedError("another run is colouring it")
        told = Told()
        with atomic.naming(job.destination, _note(job, read, outputs, told)) as temporary:
            kind = job.destination.suffix.lower()
            filming.colour(job.source, temporary, kind, folder, network, settings, told, progress)
        folder.remove()
    return told


def _in_colour(path: Path) -> bool:
    with source.opened(path) as film:
        return looks.coloured(film)


def _previewed(job: Job, frames: int, network: Model, settings: Settings, outputs: Outputs) -> Told:
    if job.source == STREAM:
        raise ReadError("frames for a preview are searched for, which standard input does not allow")
    if job.destination != STREAM and job.destination.suffix.lower() != SHEET:
        raise WriteError(f"a preview is a PNG, not {job.destination.suffix}")
    if settings.if_colored != "recolor" and _in_colour(job.source):
        raise SkippedError("in colour already")
    told = Told()
    sheet = filming.preview(job.source, frames, network, settings, told)
    outputs.write(job, outputs.source_of(job), FORMATS[SHEET], [(from_image(sheet), np.asarray(sheet))])
    return told


def _piped(
    job: Job, read: Source | None, network: Model, settings: Settings, outputs: Outputs, progress: Progress
) -> Told:
    """A film that is read or written once and from its beginning to its end.

    To standard output Y4M stays Y4M, and all else becomes Matroska.
    """
    told = Told()
    format_ = pipe.film_format() if job.source == STREAM else None
    readable = pipe.stdin() if job.source == STREAM else job.source
    if job.destination == STREAM:
        kind = _RAW if format_ == _Y4M or job.source.suffix.lower() == _RAW else ".mkv"
        writable = pipe.stdout()
        filming.pipe(readable, format_, writable, kind, network, settings, told, progress)
        writable.flush()
        return told
    kind = job.destination.suffix.lower()
    with atomic.naming(job.destination, _note(job, read, outputs, told)) as temporary:
        filming.pipe(readable, format_, temporary, kind, network, settings, told, progress)
    return told


def _note(job: Job, read: Source | None, outputs: Outputs, told: Told) -> Callable[[os.stat_result], None]:
    """As `Outputs.note`; a damaged film's source counts as changed, so that the next run tries it again."""

    def note(status: os.stat_result) -> None:
        outputs.note(job, DAMAGED if told.damaged and read else read)(status)

    return note
