"""The command `colorize`: options to `Settings`, outcomes to exit codes, and nothing else.

What needs Pillow, OpenCV or onnxruntime is imported where it is used: `--doctor` must start without them.
"""

import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Generator, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click

from colorize_cli import discovery, media
from colorize_cli.discovery import Selection
from colorize_cli.display import Display
from colorize_cli.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    ColorizeError,
    UsageError,
    printable,
)
from colorize_cli.jobs import (
    IF_COLORED,
    MOST_PREVIEWED,
    MOST_STRENGTH,
    SIZES,
    STREAM,
    FilmSettings,
    Outcome,
    Plan,
    Settings,
    Status,
)

if TYPE_CHECKING:
    from colorize_cli.report import Report

_DEFAULTS = Settings()
# After `models` these list models; a folder of that name is coloured as any other.
_LISTING = ("--json", "--help", "-h")


class _PathOrStream(click.Path):
    """A path, or - for standard input or output; shells complete it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ARG002
        """The path; ./- is a file of that name."""
        path = Path(value)
        return Path.cwd() / path if path == STREAM and str(value) != str(STREAM) else path


class _Every(click.ParamType[int | None]):
    """A number of frames, or auto, which is None."""

    name = "every"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """The number."""
        if value in (None, "auto"):
            return None
        return click.IntRange(min=1).convert(value, param, ctx)


def _shard(value: str) -> tuple[int, int]:
    """i/N."""
    try:
        part, parts = map(int, value.split("/"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not i/N, for instance 1/4") from None
    return part, parts


def _named_model(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    if value is None or value.exists():
        return value
    from colorize_cli import shelf

    return shelf.resolve(value)


def _examine(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from colorize_cli import doctor

        findings = doctor.examine(context.params.get("model"))
        context.exit(doctor.tell(findings, lambda line: click.echo(printable(line))))


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 all done, 1 some failed, 2 wrong usage, 3 device does not work, 130 interrupted.",
)
@click.argument("inputs", nargs=-1, type=_PathOrStream(), metavar="[INPUT...]")
@click.argument("output", type=_PathOrStream())
@click.option(
    "--files-from",
    type=click.File("rb"),
    metavar="FILE|-",
    help="Take files from a list too, one a line; - reads it from standard input. Relative names keep their "
    "directories below OUTPUT.",
)
@click.option(
    "--null", "-0", is_flag=True, help="The list's names end in NUL characters, as of find -print0."
)
@click.option(
    "--include",
    multiple=True,
    metavar="PATTERN",
    help="In directories take only what matches, as *.tif or 1950s/*. May be given several times.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="In directories leave out what matches. May be given several times.",
)
@click.option(
    "--shard",
    type=_shard,
    default="1/1",
    metavar="i/N",
    help="Do the i-th of N parts; N machines that are given the same files share them so.",
)
@click.option(
    "--device",
    metavar="auto|cpu|cuda|cuda:N",
    default=_DEFAULTS.device,
    show_default=True,
    help="Where the network runs. cuda fails unless all of it runs there; auto says what it chose. Of "
    "several GPUs, cuda:0,2 takes those and cuda:all all.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "int8"]),
    default=_DEFAULTS.precision,
    show_default=True,
    help="What the network computes in. int8 is the model's variant with integers, for the CPU; auto is that "
    "on the CPU, where there is one.",
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
    callback=_named_model,
    is_eager=True,
    metavar="FILE|NAME",
    help="An ONNX file: made by colorize-train, or of DDColor or DeOldify; or the name of one, of which "
    "`colorize models` has a list.  [default: the one that comes with this program]",
)
@click.option(
    "--model-kind",
    type=click.Choice(["native", "ddcolor", "deoldify"]),
    help="What the file is, where it does not say so itself.",
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
@click.option(
    "--format",
    type=click.Choice([name.lower() for name in media.WRITABLE]),
    callback=lambda _, __, value: value and value.upper(),
    help="Format of all outputs.  [default: that of each input]",
)
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="Of JPEG, WebP and AVIF outputs.  [default: a JPEG's own, else a high one]",
)
@click.option(
    "--if-colored",
    type=click.Choice(IF_COLORED),
    default=_DEFAULTS.if_colored,
    show_default=True,
    help="What to do with pictures that are in colour already; sepia and other toned prints are not. copy"
    " puts them into OUTPUT as they are, recolor colours them anew.",
)
@click.option(
    "--hints",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Colours that pictures are to have at some places, as JSON or, for a single picture, as a PNG that "
    "is transparent elsewhere; they spread as far as edges of lightness let them.",
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="PHOTO",
    help="A photograph in colour whose palette all pictures are to have.",
)
@click.option(
    "--steady",
    type=click.FloatRange(0, 1),
    default=_DEFAULTS.film.steady,
    show_default=True,
    help="Of films: how far colours are held steady from frame to frame; 0 colours each by itself.",
)
@click.option(
    "--every",
    type=_Every(),
    default="auto",
    show_default=True,
    metavar="auto|N",
    help="Of films: the network sees every N-th frame of a shot, and colours are carried along the movement "
    "in between; auto: as many as the movement asks for. 1 is all of them.",
)
@click.option(
    "--codec",
    metavar="NAME",
    help="Of films: an encoder of FFmpeg's, as libx265, ffv1 or h264_nvenc.  [default: H.264 where the file "
    "takes it]",
)
@click.option(
    "--crf",
    type=click.IntRange(0, 63),
    help="Of films: the encoder's constant quality, less is better.  [default: 18 of H.264]",
)
@click.option("--preset", metavar="NAME", help="Of films: the encoder's choice between speed and size.")
@click.option(
    "--pixel-format",
    metavar="NAME",
    help="Of films: how samples are stored, as yuv444p.  [default: as in the film]",
)
@click.option(
    "--start",
    type=click.FloatRange(min=0),
    default=_DEFAULTS.film.start,
    show_default=True,
    metavar="SECONDS",
    help="Of films: begin here, to try a part first.",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Of films: end after so long.  [default: at the end]",
)
@click.option(
    "--preview",
    type=click.IntRange(1, MOST_PREVIEWED),
    metavar="N",
    help="Of films: write, instead of a film, a PNG that shows N of its frames before and after.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=_DEFAULTS.max_pixels,
    show_default=True,
    help="Refuse pictures of more pixels before they are decoded.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Make all outputs anew. Otherwise those that are up to date are skipped, and those that colorize "
    "did not make or that were changed since.",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure; otherwise the rest is done.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per picture to standard output.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="PAGE.html",
    help="Write a page to look at: each picture before and after, the failures, the settings.",
)
@click.option("--quiet", "-q", is_flag=True, help="Say nothing but failures.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@click.option(
    "--doctor",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_examine,
    help="Say what works in this installation, with the command that mends what does not, and exit. After "
    "--model, of that model.",
)
@click.version_option(package_name="colorize-cli")
@click.pass_context
def command(
    context: click.Context,
    /,
    inputs: tuple[Path, ...],
    output: Path,
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
    **options: Any,
) -> None:
    """Colours black-and-white photographs and films.

    INPUT... are photographs (JPEG, PNG, WebP, TIFF, AVIF, BMP, JPEG 2000, GIF), films (MP4, MOV, MKV, WebM,
    AVI, MPEG), patterns of their names, and directories, which are searched to their leaves. OUTPUT is a
    directory, in which their tree is kept, or for a single photograph or film a file. A single one may come
    from standard input, a film as Y4M or Matroska, and go to standard output, both written as -.

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
      colorize --shard 2/5 /mnt/scans /mnt/coloured    # on the second of five machines
      eval "$(_COLORIZE_COMPLETE=bash_source colorize)"    # completion: also zsh_source, fish_source
    """  # noqa: D301 - click looks for the backspace
    try:
        film = FilmSettings(**{field.name: options.pop(field.name) for field in fields(FilmSettings)})
        settings = Settings(**options, film=film)
        listed = discovery.read_list(files_from, nul=null) if files_from is not None else []
        if not inputs and files_from is None:
            raise UsageError("nothing to colour: give INPUT and OUTPUT (see colorize --help)")
        if as_json and output == STREAM:
            raise UsageError("--json and the picture would both go to standard output")
        selection = Selection(include, exclude, shard)
        endings = media.endings(settings.format, ".png" if film.preview else None)
        plan = discovery.plan(inputs, output, endings, listed=listed, selection=selection)
        if dry_run:
            _print_plan(plan, settings)
        else:
            display = Display(len(plan.jobs), quiet=quiet, json_lines=sys.stdout if as_json else None)
            context.exit(_run(plan, settings, display, report, fail_fast=fail_fast))
    except ColorizeError as error:
        click.echo(f"colorize: {printable(error)}", err=True)
        context.exit(error.exit_code)
    except KeyboardInterrupt:
        context.exit(EXIT_INTERRUPTED)


def main() -> NoReturn:
    """The entry point: as `command`, for a process of its own."""
    _protect_stdout()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Pillow warns of oddities in pictures that it reads all the same; what it cannot read it raises.
    warnings.simplefilter("ignore")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    if sys.argv[1:] == ["models"] or (sys.argv[1:2] == ["models"] and sys.argv[2] in _LISTING):
        from colorize_cli import shelf

        shelf.command(sys.argv[2:], prog_name="colorize models")
    command(prog_name="colorize")
    raise AssertionError("click ends the process")


def _run(plan: Plan, settings: Settings, display: Display, report: Path | None, *, fail_fast: bool) -> int:
    import cv2

    from colorize_cli import process
    from colorize_cli.engines import ENGINES

    process.prepare()
    cv2.utils.logging.setLogLevel(0)  # what it cannot read is said once, with the name of the file
    if plan.ignored:
        display.say(f"{plan.ignored} files of other kinds ignored")
    with contextlib.ExitStack() as stack:
        page = None
        if report is not None:
            from colorize_cli.report import Report

            page = stack.enter_context(Report(report, settings))
        outcomes: Generator[Outcome, None, None] = ENGINES["local"](plan, settings, display.say, display.film)
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
        display.summarise(stopped)
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


def _print_plan(plan: Plan, settings: Settings) -> None:
    from colorize_cli.engines import local

    for job, reason in local.preview(plan, settings):
        action = "colour" if reason is None else "skip"
        columns = (action, printable(job.source), printable(job.destination), *([reason] if reason else []))
        click.echo("\t".join(columns))


def _protect_stdout() -> None:
    """Keeps stdout for data the user asked for: what native libraries print goes to stderr."""
    if sys.stdout is None:  # closed by whoever started this: there is nothing to protect
        return
    sys.stdout.flush()
    data = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(data, "w", encoding=sys.stdout.encoding, errors="surrogateescape")
