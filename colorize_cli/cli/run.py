"""The command `colorize`: options to `Settings`, outcomes to exit codes, and nothing else.

What needs Pillow, OpenCV or onnxruntime is imported where it is used: `--doctor` must start without them.
"""

import contextlib
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from colorize_cli.cli import options
from colorize_cli.cli.progress import Display
from colorize_cli.core import formats
from colorize_cli.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, UsageError, printable
from colorize_cli.core.jobs import Job, Outcome, Plan, Status, Transfer
from colorize_cli.core.location import STREAM, Location
from colorize_cli.core.settings import Settings, VideoSettings
from colorize_cli.storage import discovery
from colorize_cli.storage.discovery import Selection

if TYPE_CHECKING:
    from colorize_cli.engine.transfer import RemotePlan
    from colorize_cli.report.run_page import Report


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 all done, 1 some failed, 2 wrong usage, 3 device does not work, 130 interrupted.",
)
@click.argument("inputs", nargs=-1, type=options.PathOrStream(), metavar="[INPUT...]")
@click.argument("output", type=options.PathOrStream())
@options.choosing
@options.network
@options.colors
@options.videos
@options.running
@click.version_option(package_name="colorize-cli")
@click.pass_context
def command(
    context: click.Context,
    /,
    inputs: tuple[Location, ...],
    output: Location,
    files_from: BinaryIO | None,
    null: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    shard: tuple[int, int],
    fail_fast: bool,
    as_json: bool,
    report: Path | None,
    quiet: bool,
    dry_run: bool,
    **asked: Any,
) -> None:
    """Colours black-and-white photographs and films.

    INPUT... are photographs (JPEG, PNG, WebP, TIFF, AVIF, BMP, JPEG 2000, GIF), films (MP4, MOV, MKV, WebM,
    AVI, MPEG), patterns of their names, and directories, which are searched to their leaves. OUTPUT is a
    directory, in which their tree is kept, or for a single photograph or film a file. A single one may come
    from standard input, a film as Y4M or Matroska, and go to standard output, both written as -. Any of them
    may be in a remote store (s3://, gs:// and whatever else fsspec knows); INPUT may be https:// too.

    Detail and lightness are those of the input; the pages of a TIFF and the frames of an animation are all
    coloured. Outputs have the format of their input, or the nearest that holds their colours: PNG for GIF.
    They appear under their name only when they are complete. Inputs are never modified.

    What is done is not done again: an output is skipped if its input's content, the model and the options
    that shape pixels are still the same, and made anew if not. So the same command continues a run that was
    interrupted.

    \b
    Examples:
      colorize scans/ coloured/
      colorize grandmother.jpg grandmother-coloured.png
      colorize --strength 0.8 --device cuda a.tif b.tif albums/ coloured/
      colorize holiday.mp4 holiday-coloured.mp4
      colorize holiday.mp4 sheet.png --preview 12
      curl -s https://example.org/old.jpg | colorize - - > coloured.jpg
      find . -name '*.tif' -print0 | colorize --files-from - -0 coloured/ --json
      colorize s3://bucket/scans s3://bucket/coloured
      colorize --shard 2/5 /mnt/scans /mnt/coloured    # on the second of five machines
      eval "$(_COLORIZE_COMPLETE=bash_source colorize)"    # completion: also zsh_source, fish_source
    """  # noqa: D301 - click looks for the backspace
    with options.told(context):
        video = VideoSettings(**{field.name: asked.pop(field.name) for field in fields(VideoSettings)})
        settings = Settings(**asked, video=video)
        listed = discovery.read_list(files_from, nul=null) if files_from is not None else []
        if not inputs and files_from is None:
            raise UsageError("nothing to colour: give INPUT and OUTPUT (see colorize --help)")
        if as_json and output == STREAM:
            raise UsageError("--json and the picture would both go to standard output")
        selection = Selection(include, exclude, shard)
        endings = formats.endings(settings.format, formats.SHEET if video.preview else None)
        plan = _plan(inputs, output, endings, listed, selection)
        if dry_run:
            _print_plan(plan, settings)
        else:
            display = Display(len(plan.jobs), quiet=quiet, json_lines=sys.stdout if as_json else None)
            context.exit(_run(plan, settings, display, report, fail_fast=fail_fast))


def _plan(
    inputs: Sequence[Location],
    output: Location,
    endings: Mapping[str, str],
    listed: Sequence[Location],
    selection: Selection,
) -> "Plan | RemotePlan":
    if isinstance(output, Path):
        paths = [location for location in inputs if isinstance(location, Path)]
        listed_paths = [location for location in listed if isinstance(location, Path)]
        if (len(paths), len(listed_paths)) == (len(inputs), len(listed)):
            return discovery.plan(paths, output, endings, listed=listed_paths, selection=selection)
    from colorize_cli.engine import transfer

    return transfer.plan(inputs, output, endings, listed=listed, selection=selection)


def _outcomes(
    plan: "Plan | RemotePlan", settings: Settings, display: Display
) -> Generator[Outcome, None, None]:
    if isinstance(plan, Plan):
        from colorize_cli.engine import ENGINES

        return ENGINES[settings.engine](plan, settings, display.say, display.video)
    if settings.engine != "local":
        raise UsageError(f"--engine {settings.engine} needs files that all nodes see, not addresses")
    from colorize_cli.engine import transfer

    return transfer.run(plan, settings, display.say, display.video)


def _run(
    plan: "Plan | RemotePlan", settings: Settings, display: Display, report: Path | None, *, fail_fast: bool
) -> int:
    if plan.ignored:
        display.say(f"{plan.ignored} files of other kinds ignored")
    from colorize_cli.engine import process_setup

    with contextlib.ExitStack() as stack:
        page = None
        if report is not None:
            from colorize_cli.report.run_page import Report

            page = stack.enter_context(Report(report, settings))
        outcomes = _outcomes(plan, settings, display)
        process_setup.prepare()
        stopped = None
        try:
            display.show(_tapped(outcomes, page, fail_fast=fail_fast))
        except KeyboardInterrupt:
            stopped = "interrupted"
        finally:
            outcomes.close()  # finishes what is being written
        failed = display.counts[Status.FAILED] > 0
        if stopped is None and fail_fast and failed:
            stopped = "stopped at the first failure"
        display.summarize(stopped)
        if page is not None:
            page.write(stopped, len(plan.jobs) - display.counts.total())
    if stopped == "interrupted":
        return EXIT_INTERRUPTED
    return EXIT_FAILED if failed else EXIT_OK


def _tapped(outcomes: Iterable[Outcome], page: "Report | None", *, fail_fast: bool) -> Iterator[Outcome]:
    """The outcomes, up to the first failure if that is the end, each also on the page if there is one."""
    for outcome in outcomes:
        if page is not None:
            page.add(outcome)
        yield outcome
        if fail_fast and outcome.status is Status.FAILED:
            return


def _previewed(plan: "Plan | RemotePlan", settings: Settings) -> Iterable[tuple[Job | Transfer, str | None]]:
    if isinstance(plan, Plan):
        from colorize_cli.engine import local

        return local.preview(plan, settings)
    from colorize_cli.engine import transfer

    return transfer.preview(plan, settings)


def _print_plan(plan: "Plan | RemotePlan", settings: Settings) -> None:
    for job, reason in _previewed(plan, settings):
        action = "colour" if reason is None else "skip"
        columns = (action, printable(job.source), printable(job.destination), *([reason] if reason else []))
        click.echo("\t".join(columns))
