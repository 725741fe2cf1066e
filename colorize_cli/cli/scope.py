"""The runs and jobs that each option of `colorize run` applies to, so that none is ignored in silence."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import click
from click.core import ParameterSource

from colorize_cli.core.errors import ReadError, UsageError
from colorize_cli.core.formats import FORMAT_OF_SUFFIX, LOSSY, PICTURE_FORMATS
from colorize_cli.core.jobs import Job, Plan
from colorize_cli.core.location import STREAM
from colorize_cli.core.settings import Settings
from colorize_cli.storage import stdio


@dataclass(frozen=True)
class Scope:
    """The runs, or the jobs of a run, that an option applies to.

    Attributes:
        otherwise: Why the option has no effect on a run without such jobs.
        of_job: True if the option applies to a job of the run.
        of_run: True if the option applies to a run whatever its jobs are.
        needed: True if the run is refused where the option has no effect, because its outputs would be of
            another kind than the user asked for.
    """

    otherwise: str
    of_job: Callable[[Job, Settings], bool] = lambda _job, _settings: False
    of_run: Callable[[Plan, Mapping[str, object]], bool] = lambda _plan, _given: False
    needed: bool = False


# The first bytes of pictures whose outputs have a quality: JPEG, WebP, AVIF and HEIC.
_LOSSY = re.compile(rb"\xff\xd8|RIFF....WEBP|....ftyp", re.DOTALL)


def _is_film(job: Job) -> bool:
    return stdio.is_video(job.source)


def _is_lossy(job: Job, settings: Settings) -> bool:
    """Return True if the output of a picture is, or may be, in a format that has a quality."""
    suffix = (job.source if job.destination == STREAM else job.destination).suffix.lower()
    format_ = FORMAT_OF_SUFFIX.get(suffix)
    if job.destination == STREAM:
        format_ = settings.format or (format_ and PICTURE_FORMATS[format_].written_as) or format_
    if _is_film(job):
        return False
    if format_ is None and job.source == STREAM:
        with contextlib.suppress(ReadError):  # which the run will report
            return bool(_LOSSY.match(stdio.first_bytes()))
    return format_ is None or format_ in LOSSY


_ALL = Scope("", of_run=lambda _plan, _given: True)
_PICTURES = Scope("there are only films", lambda job, _: not _is_film(job))
_FILMS = Scope("there is no film", lambda job, _: _is_film(job))
_ENCODED = Scope("no film is encoded", lambda job, settings: settings.video.preview is None and _is_film(job))
_SEARCHED = Scope("no directory is searched", of_run=lambda plan, _: plan.searched)
_FILES = Scope("it is for files, not for standard input or output", lambda job, _: not _is_piped(job))


def _is_piped(job: Job) -> bool:
    return STREAM in (job.source, job.destination)


# By the names of the parameters, with a row for each.
SCOPES: Mapping[str, Scope] = {
    "inputs": _ALL,
    "output": _ALL,
    "files_from": _ALL,
    "null": Scope("it needs --files-from", of_run=lambda _, given: bool(given["files_from"]), needed=True),
    "include": _SEARCHED,
    "exclude": _SEARCHED,
    "shard": _FILES,
    "allow_empty": _ALL,
    "model": _ALL,
    "model_kind": _ALL,
    "device": _ALL,
    "precision": _ALL,
    "batch_size": _ALL,
    "workers": _ALL,
    "size": _ALL,
    "strength": _ALL,
    "format": _PICTURES,
    "quality": Scope("no output is JPEG, WebP or AVIF", _is_lossy),
    "if_colored": Scope(
        "a film in a pipe is always colorized",
        lambda job, _: not (_is_piped(job) and _is_film(job)),
    ),
    "hints": Scope("hints are for photographs, and there are only films", _PICTURES.of_job, needed=True),
    "reference": _ALL,
    "steady": _ENCODED,
    "every": Scope(
        "the network sees every frame with --steady 0, and only some in a preview",
        lambda job, settings: bool(settings.video.steady) and _ENCODED.of_job(job, settings),
    ),
    "codec": _ENCODED,
    "crf": _ENCODED,
    "preset": _ENCODED,
    "pixel_format": _ENCODED,
    "audio": _ENCODED,
    "start": _FILMS,
    "duration": _FILMS,
    "preview": Scope("a preview is of films, and there is none", _FILMS.of_job, needed=True),
    "engine": _ALL,
    "address": _ALL,
    "max_pixels": Scope(
        "there are only films, which it does not limit",
        lambda job, settings: settings.reference is not None or not _is_film(job),
    ),
    "overwrite": Scope("the output is standard output", lambda job, _: job.destination != STREAM),
    "checksum": Scope(
        "outputs are made again whatever their inputs are, or the output is standard output",
        lambda job, settings: job.destination != STREAM and not settings.overwrite,
    ),
    "fail_fast": _ALL,
    "as_json": _ALL,
    "report": Scope("a dry run writes nothing", of_run=lambda _, given: not given["dry_run"]),
    "quiet": _ALL,
    "dry_run": _ALL,
}


def without_effect(context: click.Context, plan: Plan, settings: Settings) -> Iterator[str]:
    """Yield a line for each option that the user gave and that applies to nothing in the run.

    Raises:
        UsageError: One of them is needed.
    """
    jobs = (*plan.jobs, *plan.elsewhere)
    for parameter in context.command.params if jobs else ():
        name = parameter.name or ""
        scope = SCOPES.get(name, _ALL)
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if scope.of_run(plan, context.params) or any(scope.of_job(job, settings) for job in jobs):
            continue
        options = parameter.opts if context.params[name] is not False else parameter.secondary_opts
        line = f"{max(options, key=len)} has no effect: {scope.otherwise}"
        if scope.needed:
            raise UsageError(line)
        yield line
