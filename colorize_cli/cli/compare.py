"""The command `colorize compare`: several models on the same pictures, as an HTML page.

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
from colorize_cli.core.settings import Settings
from colorize_cli.storage import discovery

if TYPE_CHECKING:
    from colorize_cli.report.benchmark import BenchmarkedModel, Comparison
    from colorize_cli.report.comparison_page import ComparisonPage

_FEWEST, _MOST = 2, 4
_SIDES = (64, 4096)
_SIDE = 640


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Compare models on the same pictures, in one HTML page.",
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
    help="A model, as for colorize --model; default is the bundled model. Give two to four. In the page they "
    "are A, B, C and D, in this order.",
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
    help="Longest side in pixels of the pictures in the page, which are JPEGs of quality 90. At the default "
    "a picture takes about 110 KB. The page holds each picture once before and once for each model.",
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
    """Compare models side by side on the same pictures, in one HTML page.

    INPUT... are photographs, glob patterns, and directories, which are searched recursively. Videos are not
    compared. Pictures that are already in color are treated as gray. Only PAGE.html is written; it is
    self-contained.

    In the page a slider, moved by pointer or arrow keys, shows all pictures before and after. Keys and
    buttons show all models or only one. A table gives the kind, license and device of each model, its seconds
    per picture (network and composition, without reading and writing) and the colorfulness of its results.
    Only the first 200 are shown; further pictures are listed with their figures.

    \b
    Examples:
      colorize compare scans/ --model default --model ddcolor.onnx page.html
      colorize compare 'scans/*.tif' --model old.onnx --model new.onnx --side 1200 page.html
    """  # noqa: D301 - click needs the backspace
    with options.exit_on_error(context.exit):
        if not _FEWEST <= len(models) <= _MOST:
            text = f"compare takes {_FEWEST} to {_MOST} models, each after --model; {len(models)} given"
            folder = "; to colorize a directory of this name, give ./compare" if not models else ""
            raise UsageError(f"{text}{folder}")
        if STREAM in inputs:
            raise UsageError("compare cannot read standard input (-); give files or directories")
        paths, left_out = discovery.find(inputs, FORMAT_OF_SUFFIX)
        if not paths:
            raise UsageError("nothing to compare: give pictures as INPUT (see colorize compare --help)")
        display = Display(len(paths), quiet=quiet)
        for outcome in left_out:
            display.leave_out(outcome)
        context.exit(_run(paths, page, models, side, Settings(**asked), display))


def _run(
    paths: Mapping[Path, str | None],
    path: Path,
    models: Sequence[Path],
    side: int,
    settings: Settings,
    display: Display,
) -> int:
    from colorize_cli.engine import process_setup
    from colorize_cli.inference import registry
    from colorize_cli.report import benchmark
    from colorize_cli.report.comparison_page import ComparisonPage
    from colorize_cli.report.html import Page

    process_setup.prepare()
    stopped = None
    with interrupt.graceful(), Page(path, "page") as page:
        loaded = benchmark.load([(str(named), registry.resolve(named)) for named in models], settings)
        if settings.device == "auto":
            for candidate in loaded:
                where = (
                    f"{candidate.network.device} ({candidate.network.reason}), {candidate.network.precision}"
                )
                display.say(f"{candidate.letter} {candidate.named}: {where}")
        comparison = ComparisonPage(page, loaded, settings, side)
        try:
            display.show(_outcomes(paths, path, loaded, comparison, settings.max_pixels, side))
        except KeyboardInterrupt:
            stopped = "interrupted"
        display.summarize(stopped)
        comparison.write(stopped, len(paths) - display.counts.total())
    if stopped:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if display.counts[Status.FAILED] else EXIT_OK


def _outcomes(
    paths: Mapping[Path, str | None],
    destination: Path,
    candidates: "Sequence[BenchmarkedModel]",
    page: "ComparisonPage",
    max_pixels: int,
    side: int,
) -> Iterator[Outcome]:
    """Compare the models on one picture at a time, and add each picture to the page.

    `paths` gives the reason for each directory that cannot be searched.
    """
    from colorize_cli.report.benchmark import compare

    for path, refused in paths.items():
        job = Job(path, destination)
        if refused is not None:
            page.fail(path, refused)
            yield Outcome.failed(job, refused)
            continue
        try:
            compared = compare(path, candidates, max_pixels, side)
        except Exception as error:  # one bad picture must not stop the others
            reason = reason_of(error)
            page.fail(path, reason)
            yield Outcome.failed(job, reason)
            continue
        page.add(compared)
        failures = _failures(compared, candidates)
        yield Outcome.failed(job, failures) if failures else Outcome.done(job)


def _failures(compared: "Comparison", candidates: "Sequence[BenchmarkedModel]") -> str | None:
    """Return the models that failed, with their reasons; None if all succeeded."""
    failed = [
        f"model {candidate.letter} ({candidate.named}): {result}"
        for candidate, result in zip(candidates, compared.results, strict=True)
        if isinstance(result, str)
    ]
    return "; ".join(failed) or None
