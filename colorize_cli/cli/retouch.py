"""The command `colorize retouch`: a page on which colors of photographs are corrected.

Modules that load Pillow, OpenCV or onnxruntime are imported inside functions, so that `--help` is fast.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colorize_cli.cli import options
from colorize_cli.cli.progress import Display
from colorize_cli.core import interrupt
from colorize_cli.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, UsageError, reason_of
from colorize_cli.core.formats import FORMAT_OF_SUFFIX
from colorize_cli.core.jobs import Job, Outcome, Status
from colorize_cli.core.location import STREAM
from colorize_cli.core.settings import Settings, available_cores
from colorize_cli.storage import discovery

if TYPE_CHECKING:
    from colorize_cli.report.retouch_page import RetouchPage

# Photographs in one page, which holds up to 1.5 MB of each.
_MOST = 50


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Correct colors of photographs in a web browser.",
    epilog="Exit status: 0 all done, 1 some failed, 2 wrong usage, 3 device does not work, 130 interrupted.",
)
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PHOTO...")
@click.option(
    "--page",
    type=click.Path(path_type=Path),
    default=Path("retouch.html"),
    show_default=True,
    metavar="PAGE.html",
    help="The page to write. A page that is there already is replaced.",
)
@click.option(
    "--hints",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The directory that colorize --hints is given. The page shows the hints for each photograph from "
    "there, otherwise those beside it.  [default: hints are beside the photographs]",
)
@options.model
@options.device
@options.precision
@options.size
@options.strength
@options.max_pixels
@options.quiet
@click.pass_context
def command(
    context: click.Context, /, inputs: tuple[Path, ...], page: Path, quiet: bool, **asked: Any
) -> None:
    """Correct colors of photographs on an HTML page, without reading coordinates.

    PHOTO... are black-and-white photographs as they are given to colorize, glob patterns, and directories,
    which are searched recursively. Open the page in a web browser; it is self-contained and needs no network.
    It shows each photograph in color. Click on a thing, choose its color, and see how far the color spreads.

    Saving downloads PHOTO.hints.json. Move it to the folder of the photograph, or to its place below the
    directory of --hints: each later run of colorize uses it. The page shows the hints that are there already.
    Give the same --model, --size, --strength and --hints as in the run that is corrected.

    \b
    Examples:
      colorize retouch scans/grandmother.jpg
      colorize retouch 'scans/195*.tif' --page fifties.html
    """  # noqa: D301 - click needs the backspace
    with options.exit_on_error(context.exit):
        if STREAM in inputs:
            raise UsageError("retouch cannot read standard input (-); give files or directories")
        paths, left_out = discovery.find(inputs, FORMAT_OF_SUFFIX)
        if not paths:
            raise UsageError("no photographs to retouch (see colorize retouch --help)")
        if len(paths) > _MOST:
            raise UsageError(f"retouch takes at most {_MOST} photographs for one page; {len(paths)} given")
        display = Display(len(paths), quiet=quiet)
        for outcome in left_out:
            display.leave_out(outcome)
        folders = [each for each in inputs if each.is_dir()]
        context.exit(_run(paths, folders, page, Settings(**asked), display))


def _run(
    paths: Mapping[Path, str | None],
    folders: Sequence[Path],
    path: Path,
    settings: Settings,
    display: Display,
) -> int:
    from colorize_cli.engine import process_setup
    from colorize_cli.inference import model
    from colorize_cli.report.html import Page
    from colorize_cli.report.retouch_page import RetouchPage

    process_setup.prepare()
    with interrupt.graceful(), Page(path, "page") as page:
        network = model.load(settings.model, settings.device, available_cores(), settings.precision)
        if settings.device == "auto":
            display.say(f"device: {network.device} ({network.reason}), {network.precision}")
        retouched = RetouchPage(page, network, settings)
        try:
            display.show(_outcomes(paths, folders, path, retouched))
        except KeyboardInterrupt:
            display.summarize("interrupted")
            return EXIT_INTERRUPTED
        display.summarize()
        if retouched.photos:
            retouched.write()
            display.say(f"open {path} in a web browser; it says where to put the hints that it saves")
    return EXIT_FAILED if display.counts[Status.FAILED] else EXIT_OK


def _outcomes(
    paths: Mapping[Path, str | None], folders: Sequence[Path], destination: Path, page: "RetouchPage"
) -> Iterator[Outcome]:
    """Add one photograph at a time to the page.

    `paths` gives the reason for each directory that cannot be searched, and `folders` are those searched.
    """
    for path, refused in paths.items():
        job = Job(path, destination)
        if refused is not None:
            yield Outcome.failed(job, refused)
            continue
        try:
            folder = next((each for each in folders if path.is_relative_to(each)), path.parent)
            page.add(path, path.relative_to(folder))
        except Exception as error:  # one bad photograph must not stop the others
            yield Outcome.failed(job, reason_of(error))
            continue
        yield Outcome.done(job)
