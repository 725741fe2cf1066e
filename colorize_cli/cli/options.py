"""The options of `colorize`, in groups that decorate its command, and how a command ends.

What needs Pillow, OpenCV or onnxruntime is imported where it is used: `--doctor` must start without them.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from colorize_cli.core import formats
from colorize_cli.core.errors import EXIT_INTERRUPTED, ColorizeError, printable
from colorize_cli.core.location import STREAM, Location, parse_location
from colorize_cli.core.settings import (
    ENGINES,
    IF_COLORED,
    MODEL_KINDS,
    MOST_PREVIEWED,
    MOST_STRENGTH,
    PRECISIONS,
    SIZES,
    Settings,
)

F = TypeVar("F", bound=Callable[..., Any])
_DEFAULTS = Settings()


class PathOrStream(click.ParamType[Location]):
    """A path, an address in a remote store, or - for standard input or output; shells complete paths."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Location:  # noqa: ARG002
        """The place; ./- is a file of that name."""
        where = parse_location(str(value))
        return Path.cwd() / where if where == STREAM and str(value) != str(STREAM) else where

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """What a shell knows of files."""
        return click.Path().shell_complete(ctx, param, incomplete)


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
    if value is None:
        return None
    from colorize_cli.inference import registry

    return registry.resolve(value)


def _examine(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from colorize_cli.cli import doctor

        findings = doctor.examine(context.params.get("model"))
        context.exit(doctor.tell(findings, lambda line: click.echo(printable(line))))


@contextlib.contextmanager
def told(context: click.Context) -> Iterator[None]:
    """Ends a command by what is raised within: an error's one line on stderr, and its exit status."""
    try:
        yield
    except ColorizeError as error:
        click.echo(f"colorize: {printable(error)}", err=True)
        context.exit(error.exit_code)
    except KeyboardInterrupt:
        context.exit(EXIT_INTERRUPTED)


def _group(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """One decorator of several, the first of which is shown first."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


# What other commands have too.
device = click.option(
    "--device",
    metavar="auto|cpu|cuda|cuda:N",
    default=_DEFAULTS.device,
    show_default=True,
    help="Where the network runs. cuda fails unless all of it runs there; auto says what it chose. Of "
    "several GPUs, cuda:0,2 takes those and cuda:all all.",
)
precision = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=_DEFAULTS.precision,
    show_default=True,
    help="What the network computes in. int8 is the model's variant with integers, for the CPU, and fp16 "
    "that with short floats, for GPUs; auto is int8 on the CPU, where there is one, and fp32 on GPUs.",
)
size = click.option(
    "--size",
    type=click.IntRange(*SIZES),
    default=None,
    help="Short side in pixels of the copy that the network sees.  [default: what suits the model best]",
)
strength = click.option(
    "--strength",
    type=click.FloatRange(0, MOST_STRENGTH),
    default=_DEFAULTS.strength,
    show_default=True,
    help="Factor on the colours: 0 leaves grey, 1 is what the model says.",
)
max_pixels = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=_DEFAULTS.max_pixels,
    show_default=True,
    help="Refuse pictures of more pixels before they are decoded.",
)
quiet = click.option("--quiet", "-q", is_flag=True, help="Say nothing but failures.")

# Which files are taken.
choosing = _group(
    click.option(
        "--files-from",
        type=click.File("rb"),
        metavar="FILE|-",
        help="Take files from a list too, one a line; - reads it from standard input. Relative names keep "
        "their directories below OUTPUT.",
    ),
    click.option(
        "--null", "-0", is_flag=True, help="The list's names end in NUL characters, as of find -print0."
    ),
    click.option(
        "--include",
        multiple=True,
        metavar="PATTERN",
        help="In directories take only what matches, as *.tif or 1950s/*. May be given several times.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="In directories leave out what matches. May be given several times.",
    ),
    click.option(
        "--shard",
        type=_shard,
        default="1/1",
        metavar="i/N",
        help="Do the i-th of N parts; N machines that are given the same files share them so.",
    ),
)

# What colours, and where.
network = _group(
    device,
    precision,
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=None,
        help="Most pictures in one call of the network.  [default: on the CPU 1, several calls at the same "
        "time, or of a film 8; on a GPU what a trial finds best]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=_DEFAULTS.workers,
        help="Threads for each of reading, composing and writing.  [default: one per core]",
    ),
    click.option(
        "--model",
        type=click.Path(path_type=Path),
        default=None,
        callback=_named_model,
        is_eager=True,
        metavar="FILE|NAME",
        help="An ONNX file: made by colorize-train, or of DDColor or DeOldify; or the name of one, of which "
        "`colorize models` has a list.  [default: the one that comes with this program]",
    ),
    click.option(
        "--model-kind",
        type=click.Choice(MODEL_KINDS),
        help="What the file is, where it does not say so itself.",
    ),
    size,
)

# What comes out.
colors = _group(
    strength,
    click.option(
        "--format",
        type=click.Choice([name.lower() for name in formats.WRITABLE]),
        callback=lambda _, __, value: value and value.upper(),
        help="Format of all outputs.  [default: that of each input]",
    ),
    click.option(
        "--quality",
        type=click.IntRange(1, 100),
        help="Of JPEG, WebP and AVIF outputs.  [default: a JPEG's own, else a high one]",
    ),
    click.option(
        "--if-colored",
        type=click.Choice(IF_COLORED),
        default=_DEFAULTS.if_colored,
        show_default=True,
        help="What to do with pictures that are in colour already; sepia and other toned prints are not. copy"
        " puts them into OUTPUT as they are, recolor colours them anew.",
    ),
    click.option(
        "--hints",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Colours that pictures are to have at some places, as JSON or, for a single picture, as a PNG "
        "that is transparent elsewhere; they spread as far as edges of lightness let them.",
    ),
    click.option(
        "--reference",
        type=click.Path(path_type=Path),
        metavar="PHOTO",
        help="A photograph in colour whose palette all pictures are to have.",
    ),
)

# What is asked of films.
videos = _group(
    click.option(
        "--steady",
        type=click.FloatRange(0, 1),
        default=_DEFAULTS.video.steady,
        show_default=True,
        help="Of films: how far colours are held steady from frame to frame; 0 colours each by itself.",
    ),
    click.option(
        "--every",
        type=_Every(),
        default="auto",
        show_default=True,
        metavar="auto|N",
        help="Of films: the network sees every N-th frame of a shot, and colours are carried along the "
        "movement in between; auto: as many as the movement asks for. 1 is all of them.",
    ),
    click.option(
        "--codec",
        metavar="NAME",
        help="Of films: an encoder of FFmpeg's, as libx265, ffv1 or h264_nvenc.  [default: H.264 where the "
        "file takes it]",
    ),
    click.option(
        "--crf",
        type=click.IntRange(0, 63),
        help="Of films: the encoder's constant quality, less is better.  [default: 18 of H.264]",
    ),
    click.option("--preset", metavar="NAME", help="Of films: the encoder's choice between speed and size."),
    click.option(
        "--pixel-format",
        metavar="NAME",
        help="Of films: how samples are stored, as yuv444p.  [default: as in the film]",
    ),
    click.option(
        "--start",
        type=click.FloatRange(min=0),
        default=_DEFAULTS.video.start,
        show_default=True,
        metavar="SECONDS",
        help="Of films: begin here, to try a part first.",
    ),
    click.option(
        "--duration",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Of films: end after so long.  [default: at the end]",
    ),
    click.option(
        "--preview",
        type=click.IntRange(1, MOST_PREVIEWED),
        metavar="N",
        help="Of films: write, instead of a film, a PNG that shows N of its frames before and after.",
    ),
)

# How a run goes on, and what it says.
running = _group(
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default=_DEFAULTS.engine,
        show_default=True,
        help="What runs the jobs: this machine, or a Ray cluster whose nodes all see the same files.",
    ),
    click.option(
        "--address",
        metavar="HOST:PORT|auto",
        help="Of --engine ray: the cluster's head.  [default: a cluster of this machine alone, for this run]",
    ),
    max_pixels,
    click.option(
        "--overwrite",
        is_flag=True,
        help="Make all outputs anew. Otherwise those that are up to date are skipped, and those that "
        "colorize did not make or that were changed since.",
    ),
    click.option("--fail-fast", is_flag=True, help="Stop at the first failure; otherwise the rest is done."),
    click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object per picture to standard output."
    ),
    click.option(
        "--report",
        type=click.Path(path_type=Path),
        metavar="PAGE.html",
        help="Write a page to look at: each picture before and after, the failures, the settings.",
    ),
    quiet,
    click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing."),
    click.option(
        "--doctor",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_examine,
        help="Say what works in this installation, with the command that mends what does not, and exit. "
        "After --model, of that model.",
    ),
)
