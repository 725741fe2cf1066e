"""The command `colorize run`: converts options to `Settings` and outcomes to an exit code.

Modules that load Pillow, OpenCV or onnxruntime are imported inside functions: `--help` and `--doctor` must
start without them.
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from colorize_cli.cli import options, scope
from colorize_cli.cli.progress import Display, to_json
from colorize_cli.core import formats, interrupt
from colorize_cli.core.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    ReadError,
    UsageError,
    WriteError,
    printable,
)
from colorize_cli.core.jobs import Outcome, Plan, Status
from colorize_cli.core.location import STREAM, Location
from colorize_cli.core.settings import Settings, VideoSettings
from colorize_cli.storage import discovery
from colorize_cli.storage.discovery import Selection

if TYPE_CHECKING:
    from colorize_cli.report.run_page import Report

NOTHING = "nothing to colorize: give INPUT and OUTPUT"


@click.command(
    cls=options.GroupedCommand,
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Colorize photographs and films. This is the default.",
    epilog="Exit status: 0 all done, 1 some failed, 2 wrong usage, 3 device does not work, 130 interrupted.",
)
@click.argument("inputs", nargs=-1, type=options.PathOrStream(), metavar="[INPUT...]")
@click.argument("output", type=click.Path(readable=False))
@options.choosing
@options.looks
@options.videos
@options.running
@options.machines
@click.version_option(package_name="colorize-cli")
@click.pass_context
def command(
    context: click.Context,
    /,
    inputs: tuple[Location, ...],
    output: str,
    files_from: BinaryIO | None,
    null: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    allow_empty: bool,
    shard: tuple[int, int],
    fail_fast: bool,
    as_json: bool,
    report: Path | None,
    quiet: bool,
    dry_run: bool,
    **asked: Any,
) -> None:
    """Colorize black-and-white photographs and films.

    \b
    Examples:
      colorize scans/ colorized/
      colorize grandmother.jpg grandmother-colorized.png
      colorize --start 1:00 --duration 10 film.mp4 ten-seconds.mp4

    INPUT... are photographs (JPEG, PNG, WebP, TIFF, AVIF, HEIC, BMP, JPEG 2000, GIF), films (MP4, MOV, MKV,
    WebM, AVI, MPEG and more), glob patterns, and directories, which are searched recursively. OUTPUT is a
    directory, with the same subdirectories as the inputs, or a file for a single photograph or film; with a /
    at its end it is a directory. A single input may
    come from standard input and go to standard output, both written as -; a film is then Y4M or Matroska.
    Inputs and outputs may be in a remote store (s3://, gs:// and other protocols of fsspec); inputs may also
    be https:// URLs.

    Outputs keep the detail and lightness of the input. All pages of a TIFF and all frames of an animation are
    colorized. Outputs have the name and format of their input, but a.gif becomes a.gif.png and a.heic becomes
    a.heic.jpg. They appear under their name only when they are complete. Inputs are never modified.
    Directories inside an input that hold outputs of an earlier run are left out.

    Finished work is not repeated. An output is skipped if its input (see --checksum), the model and the
    options that affect pixels are unchanged. Otherwise it is made again, unless colorize did not make it or
    it was changed since (see --overwrite). The same command thus resumes an interrupted run. Inputs that are
    already in color are skipped (see --if-colored).

    \b
    More examples:
      colorize --strength 0.8 --device cuda a.tif b.tif albums/ colorized/
      colorize holiday.mp4 sheet.png --preview 12
      curl -s https://example.org/old.jpg | colorize - - > colorized.jpg
      find . -name '*.tif' -print0 | colorize --files-from - -0 colorized/ --json
      colorize s3://bucket/scans s3://bucket/colorized
      colorize --shard 2/5 /mnt/scans /mnt/colorized    # on the second of five machines
      eval "$(_COLORIZE_COMPLETE=bash_source colorize)"    # completion: also zsh_source, fish_source
    """  # noqa: D301 - click needs the backspace
    with options.exit_on_error(context.exit):
        video = VideoSettings(**{field.name: asked.pop(field.name) for field in fields(VideoSettings)})
        settings = Settings(**asked, video=video)
        listed = discovery.read_list(files_from, nul=null) if files_from is not None else []
        if not inputs and files_from is None:
            raise click.UsageError(NOTHING, context)
        if as_json and output == str(STREAM):
            raise UsageError("--json and the output would both go to standard output; give a file as OUTPUT")
        selection = Selection(include, exclude, shard)
        endings = formats.endings(settings.format, formats.SHEET if video.preview else None)
        plan = discovery.plan(
            inputs,
            options.location_of(output),
            endings,
            is_directory=output.endswith(("/", os.sep)),
            listed=listed,
            selection=selection,
            trial=video.trial,
        )
        json_lines = sys.stdout if as_json else None
        display = Display(len(plan.jobs), quiet=quiet, json_lines=json_lines)
        for outcome in plan.left_out:
            display.leave_out(outcome)
        if not (plan.jobs or plan.elsewhere or allow_empty):
            where = [*map(str, inputs), *(["the list"] if files_from is not None else [])]
            raise ReadError(f"no pictures or films in {', '.join(where)}; --allow-empty allows that")
        for line in scope.without_effect(context, plan, settings):
            display.say(line)
        if dry_run:
            from colorize_cli.engine import session

            for job, ended in session.preview(plan, settings, display.say):
                if as_json:
                    click.echo(to_json(ended or Outcome.done(job), None if ended else "planned"))
                    continue
                verb = "colorize" if ended is None else {Status.SKIPPED: "skip"}.get(ended.status, "fail")
                reason = [] if ended is None else [printable(ended.reason)]
                click.echo("\t".join([verb, printable(job.source), printable(job.destination), *reason]))
        else:
            context.exit(_run(plan, settings, display, report, fail_fast=fail_fast))


def _run(plan: Plan, settings: Settings, display: Display, report: Path | None, *, fail_fast: bool) -> int:
    from colorize_cli.engine import ENGINES, process_setup

    # Ray takes longer to end its processes.
    patience = interrupt.PATIENCE if settings.engine == "local" else 10.0
    with interrupt.graceful(patience), contextlib.ExitStack() as stack:
        page = None
        if report is not None:
            from colorize_cli.report.run_page import Report

            page = stack.enter_context(Report(report, settings, plan.left_out))
        outcomes = ENGINES[settings.engine](plan, settings, display.say, display.video)
        process_setup.prepare()
        stopped = None
        try:
            display.show(_reported(outcomes, page, fail_fast=fail_fast))
        except KeyboardInterrupt:
            stopped = "interrupted"
        except WriteError as error:  # the lines of --json have nowhere to go
            stopped = str(error)
        finally:
            outcomes.close()  # finishes outputs in progress
        failed = display.counts[Status.FAILED] > 0
        if stopped is None and fail_fast and failed:
            stopped = "stopped at the first failure"
        display.summarize(stopped)
        if page is not None:
            page.write(stopped, len(plan.jobs) - display.counts.total())
    if stopped == "interrupted":
        return EXIT_INTERRUPTED
    return EXIT_FAILED if failed or stopped else EXIT_OK


def _reported(outcomes: Iterable[Outcome], page: "Report | None", *, fail_fast: bool) -> Iterator[Outcome]:
    """Yield the outcomes and add each to `page`. With `fail_fast`, stop after the first failure."""
    for outcome in outcomes:
        if page is not None:
            page.add(outcome)
        yield outcome
        if fail_fast and outcome.status is Status.FAILED:
            return
