"""The command `colorize compare`: several models on the same pictures, as a page to look at.

What needs Pillow, OpenCV or onnxruntime is imported where it is used, so that `--help` is quick.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colorize_cli.cli import options
from colorize_cli.cli.progress import Display
from colorize_cli.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, UsageError, reason_of
from colorize_cli.core.formats import FORMATS
from colorize_cli.core.jobs import Job, Outcome, Status
from colorize_cli.core.location import STREAM
from colorize_cli.core.settings import Settings
from colorize_cli.storage import discovery

if TYPE_CHECKING:
    from colorize_cli.report.benchmark import BenchmarkedModel, Comparison
    from colorize_cli.report.comparison_page import ComparisonPage

NAME = "compare"
_FEWEST, _MOST = 2, 4
_SIDES = (64, 4096)
_SIDE = 640


def is_meant(arguments: Sequence[str]) -> bool:
    """Whether the word `compare` at the beginning of a command line is this command, and no file or folder.

    It is in three cases: --help follows; some argument ends in .html or .htm and --report, which takes such a
    name too, is not among them; or there is more than one --model, of which `colorize` itself takes one. A
    file or folder of that name is always reached as ./compare.

    Args:
        arguments: Those of `colorize`, without its own name.
    """
    if arguments[:1] != [NAME] or len(arguments) < 2:
        return False
    if arguments[1] in ("--help", "-h"):
        return True
    named = [argument.partition("=")[0] for argument in arguments]
    page = any(argument.lower().endswith((".html", ".htm")) for argument in arguments[1:])
    return named.count("--model") > 1 or (page and "--report" not in named)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 all done, 1 some failed, 2 wrong usage, 3 device does not work, 130 interrupted.",
)
@click.argument("inputs", nargs=-1, type=click.Path(path_type=Path), metavar="INPUT...")
@click.argument("page", type=click.Path(path_type=Path), metavar="PAGE.html")
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE|NAME",
    help="A model, as colorize --model takes it; default is the one that comes with this program. Give two "
    "to four. In the page they are A, B, C and D, in this order.",
)
@options.device
@options.precision
@options.size
@options.strength
@options.max_pixels
@click.option(
    "--side",
    type=click.IntRange(*_SIDES),
    default=_SIDE,
    show_default=True,
    help="Longest side in pixels of the pictures in the page, JPEGs of quality 90. With the default one "
    "takes about 110 KB, and each picture is there once before and once by each model.",
)
@options.quiet
@click.pass_context
def command(
    context: click.Context,
    /,
    inputs: tuple[Path, ...],
    page: Path,
    models: tuple[Path, ...],
    side: int,
    quiet: bool,
    **asked: Any,
) -> None:
    """Shows what several models make of the same pictures, side by side in one HTML page.

    INPUT... are photographs, patterns of their names, and directories, which are searched to their leaves.
    Films are not compared. Pictures that are in colour already are taken as grey. Nothing but PAGE.html is
    written; it needs nothing beside itself.

    In the page one slider, by pointer or arrow keys, shows all pictures before and after; keys and buttons
    show all models or one alone. A table has each model's kind, licence and device, the seconds that it takes
    for a picture, the network and composition without reading and writing, and how colourful its results
    are. The pictures beyond the first 200 are in the figures, but not shown.

    A folder that is called compare is coloured by colorize ./compare OUTPUT.

    \b
    Examples:
      colorize compare scans/ --model default --model ddcolor.onnx page.html
      colorize compare 'scans/*.tif' --model old.onnx --model new.onnx --side 1200 page.html
    """  # noqa: D301 - click looks for the backspace
    with options.told(context):
        if not _FEWEST <= len(models) <= _MOST:
            given = f"{len(models)} given"
            raise UsageError(f"compare takes {_FEWEST} to {_MOST} models, each after --model; {given}")
        if STREAM in inputs:
            raise UsageError("compare reads files; standard input, -, is none")
        paths, ignored = discovery.find(inputs, FORMATS)
        if not paths:
            raise UsageError("nothing to compare: give INPUT with pictures (see colorize compare --help)")
        display = Display(len(paths), quiet=quiet)
        if ignored:
            display.say(f"{ignored} files of other kinds ignored")
        context.exit(_run(paths, page, models, side, Settings(**asked), display))


def _run(
    paths: Sequence[Path], path: Path, models: Sequence[Path], side: int, settings: Settings, display: Display
) -> int:
    from PIL import Image

    from colorize_cli.engine import process_setup
    from colorize_cli.inference import registry
    from colorize_cli.report import benchmark
    from colorize_cli.report.comparison_page import ComparisonPage
    from colorize_cli.report.html import Page

    process_setup.prepare()
    Image.MAX_IMAGE_PIXELS = None  # Pillow's limit; ours is `settings.max_pixels`
    jobs = [Job(source, path) for source in paths]
    stopped = None
    with Page(path, "page") as page:
        loaded = benchmark.load([(str(named), registry.resolve(named)) for named in models], settings)
        if settings.device == "auto":
            for candidate in loaded:
                where = (
                    f"{candidate.network.device} ({candidate.network.reason}), {candidate.network.precision}"
                )
                display.say(f"{candidate.letter} {candidate.named}: {where}")
        comparison = ComparisonPage(page, loaded, settings, side)
        try:
            display.show(_outcomes(jobs, loaded, comparison, settings.max_pixels, side))
        except KeyboardInterrupt:
            stopped = "interrupted"
        display.summarize(stopped)
        comparison.write(stopped, len(paths) - display.counts.total())
    if stopped:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if display.counts[Status.FAILED] else EXIT_OK


def _outcomes(
    jobs: Sequence[Job],
    candidates: "Sequence[BenchmarkedModel]",
    page: "ComparisonPage",
    max_pixels: int,
    side: int,
) -> Iterator[Outcome]:
    """Compares the models on one picture after the other, each of which goes onto the page."""
    from colorize_cli.report.benchmark import compare

    for job in jobs:
        try:
            compared = compare(job.source, candidates, max_pixels, side)
        except Exception as error:  # whatever is wrong with one, the others are compared
            unread = reason_of(error)
            page.fail(job.source, unread)
            yield Outcome(job, Status.FAILED, unread)
            continue
        page.add(compared)
        failures = _failures(compared, candidates)
        yield Outcome(job, Status.FAILED if failures else Status.DONE, failures)


def _failures(compared: "Comparison", candidates: "Sequence[BenchmarkedModel]") -> str | None:
    """Which models failed, and why; None where none did."""
    failed = [
        f"model {candidate.letter} ({candidate.named}): {result}"
        for candidate, result in zip(candidates, compared.results, strict=True)
        if isinstance(result, str)
    ]
    return "; ".join(failed) or None
