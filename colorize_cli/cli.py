"""The command `colorize`: options to `Settings`, outcomes to exit codes, and nothing else."""

import os
import sys
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

import click

from colorize_cli import jobs, media
from colorize_cli.display import Display, printable
from colorize_cli.engines import ENGINES
from colorize_cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, ColorizeError
from colorize_cli.jobs import MOST_STRENGTH, SIZES, Outcome, Plan, Settings, Status

_DEFAULTS = Settings()


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 all done, 1 some failed, 2 wrong usage, 3 device does not work, 130 interrupted.",
)
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--device",
    type=click.Choice(["auto", "cuda", "cpu"]),
    default=_DEFAULTS.device,
    show_default=True,
    help="Where the network runs. cuda fails unless all of it runs there; auto says what it chose.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=_DEFAULTS.batch_size,
    show_default=True,
    help="Most pictures in one call of the network.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=_DEFAULTS.workers,
    help="Threads for each of reading, composing and writing.  [default: one per core]",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=None,
    help="An ONNX file made by colorize-train.  [default: the one that comes with this program]",
)
@click.option(
    "--size",
    type=click.IntRange(*SIZES),
    default=None,
    help="Short side in pixels of the copy that the network sees.  [default: what suits the model best]",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, MOST_STRENGTH),
    default=_DEFAULTS.strength,
    show_default=True,
    help="Factor on the colours: 0 leaves grey, 1 is what the model says.",
)
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist; otherwise they are skipped.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing but failures.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@click.version_option(package_name="colorize-cli")
@click.pass_context
def command(
    context: click.Context,
    inputs: tuple[Path, ...],
    output: Path,
    device: str,
    batch_size: int,
    workers: int,
    model: Path | None,
    size: int | None,
    strength: float,
    overwrite: bool,
    quiet: bool,
    dry_run: bool,
) -> None:
    """Colours black-and-white photographs.

    INPUT... are photographs (JPEG, PNG, WebP, TIFF, BMP, AVIF) and directories, which are searched to their
    leaves. OUTPUT is a directory, in which their tree is kept, or for a single photograph a file. Detail and
    lightness are those of the input; inputs are never modified.

    \b
    Examples:
      colorize scans/ coloured/
      colorize grandmother.jpg grandmother-coloured.png
      colorize --strength 0.8 --device cuda a.tif b.tif albums/ coloured/
    """  # noqa: D301 - click looks for the backspace
    try:
        settings = Settings(
            model=model,
            device=device,
            batch_size=batch_size,
            workers=workers,
            size=size,
            strength=strength,
            overwrite=overwrite,
        )
        plan = jobs.plan(inputs, output, media.SUFFIXES)
        if dry_run:
            _print_plan(plan, settings)
        else:
            context.exit(_run(plan, settings, quiet=quiet))
    except ColorizeError as error:
        click.echo(f"colorize: {printable(error)}", err=True)
        context.exit(error.exit_code)
    except KeyboardInterrupt:
        context.exit(EXIT_INTERRUPTED)


def main() -> NoReturn:
    """The entry point: as `command`, for a process of its own."""
    _protect_stdout()
    # Pillow warns of oddities in pictures that it reads all the same; what it cannot read it raises.
    warnings.simplefilter("ignore")
    command(prog_name="colorize")
    raise AssertionError("click ends the process")


def _run(plan: Plan, settings: Settings, *, quiet: bool) -> int:
    import cv2

    # The stages are parallel already; threads inside each of their steps would only compete.
    cv2.setNumThreads(1)
    display = Display(len(plan.jobs), quiet=quiet)
    if plan.ignored:
        display.say(f"{plan.ignored} files of other kinds ignored")
    outcomes: Generator[Outcome, None, None] = ENGINES["local"](plan.jobs, settings, display.say)
    try:
        display.show(outcomes)
    except KeyboardInterrupt:
        outcomes.close()  # finishes what is being written
        display.summarise(interrupted=True)
        return EXIT_INTERRUPTED
    display.summarise()
    return EXIT_FAILED if display.counts[Status.FAILED] else EXIT_OK


def _print_plan(plan: Plan, settings: Settings) -> None:
    for job in plan.jobs:
        skipped = not settings.overwrite and job.destination.is_file()
        action = "skip" if skipped else "colour"
        click.echo(f"{action}\t{printable(job.source)}\t{printable(job.destination)}")


def _protect_stdout() -> None:
    """Keeps stdout for data the user asked for: what native libraries print goes to stderr."""
    if sys.stdout is None:  # closed by whoever started this: there is nothing to protect
        return
    sys.stdout.flush()
    data = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(data, "w", encoding=sys.stdout.encoding, errors="surrogateescape")
