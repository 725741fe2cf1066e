"""The options of the commands, as groups of decorators, and the exit of a command on errors.

Modules that load Pillow, OpenCV or onnxruntime are imported inside functions: the command `doctor` must
start without them.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

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


def location_of(text: str) -> Location:
    """Return the location of a path, a URL, or - for standard input or output; ./- is a file named -."""
    location = parse_location(text)
    return Path.cwd() / location if location == STREAM and text != str(STREAM) else location


class PathOrStream(click.ParamType[Location]):
    """A path, a URL, or - for standard input or output. Shells complete paths."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Location:  # noqa: ARG002
        """Return the location."""
        return location_of(str(value))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete names of files and directories."""
        return click.Path().shell_complete(ctx, param, incomplete)


class _Time(click.ParamType[float]):
    """A time in seconds, or in hours, minutes and seconds as FFmpeg writes it: 90, 1:30, 00:01:30.5."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the time in seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)", str(value).strip(), re.ASCII)
        hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0, 0, 60)
        if match is None or (":" in value and (seconds >= 60 or (match[1] and minutes >= 60))):
            self.fail(f"{value!r} is not a time such as 90, 1:30 or 00:01:30.5", param, ctx)
        return 3600 * hours + 60 * minutes + seconds


_ALIASES = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}


class _Format(click.Choice[str]):
    """A format of pictures by Pillow's name, in lower case, or by the suffix that most files have."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return Pillow's name."""
        return _ALIASES.get(str(value)) or super().convert(value, param, ctx).upper()


def _every(context: click.Context, option: click.Parameter, value: Any) -> int | None:
    """Return a number of frames, or None for auto."""
    return None if value == "auto" else click.IntRange(min=1).convert(value, option, context)


def _shard(value: str) -> tuple[int, int]:
    """Parse i/N."""
    try:
        part, parts = map(int, value.split("/"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not of the form i/N, for example 1/4") from None
    return part, parts


def _named_model(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    if value is None:
        return None
    from colorize_cli.inference import registry

    return registry.resolve(value)


def _examine(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from colorize_cli.cli import doctor

        context.invoke(doctor.command, model=context.params.get("model"))


@contextlib.contextmanager
def exit_on_error(leave: Callable[[int], NoReturn], program: str = "colorize") -> Iterator[None]:
    """Call `leave` with the status of an error raised in the block, after printing it as one line on stderr.

    Nothing is printed if the reader of standard output has gone, as `head` does when it has seen enough.
    """
    try:
        yield
    except ColorizeError as error:
        if not isinstance(error.__cause__, BrokenPipeError):
            click.echo(f"{program}: {printable(error)}", err=True)
        leave(error.exit_code)
    except click.ClickException as error:
        text = printable(error.format_message().rstrip("."))
        if (context := getattr(error, "ctx", None)) is not None:  # of a wrong use
            text += f" (see {context.command_path.removesuffix(' run')} --help)"
        click.echo(f"{program}: {text}", err=True)
        leave(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        leave(EXIT_INTERRUPTED)


def _group(title: str, *options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Combine option decorators into one. `--help` shows them under the title, in the given order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
            vars(function)["__click_params__"][-1].title = title
        return function

    return decorate


class GroupedCommand(click.Command):
    """A command whose `--help` shows the options under the titles of their groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by group. Those without a title come last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        for option in sorted(options, key=lambda each: not hasattr(each, "title")):
            if (record := option.get_help_record(ctx)) is not None:
                groups.setdefault(getattr(option, "title", "Other options"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


# Options shared with other commands.
device = click.option(
    "--device",
    metavar="auto|cpu|cuda|cuda:N",
    default=_DEFAULTS.device,
    show_default=True,
    help="Where the network runs. cuda fails unless the whole network runs on the GPU; auto uses "
    "the GPU if it works, else the CPU, and reports its choice. With several GPUs, cuda:0,2 uses GPUs 0 and "
    "2, and cuda:all uses all.",
)
model = click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=None,
    callback=_named_model,
    is_eager=True,
    metavar="FILE|NAME",
    help="An ONNX file made by colorize-train or exported from DDColor or DeOldify, or a name from the "
    "list of `colorize models`.  [default: the bundled model]",
)
precision = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=_DEFAULTS.precision,
    show_default=True,
    help="Number format of the network. int8 selects the model's 8-bit integer variant, for the CPU; fp16 "
    "selects its 16-bit float variant, for GPUs. auto is int8 on the CPU if the model has it, else fp32.",
)
size = click.option(
    "--size",
    type=click.IntRange(*SIZES),
    default=None,
    help="Short side of the network's input in pixels.  [default: the model's working size]",
)
strength = click.option(
    "--strength",
    type=click.FloatRange(0, MOST_STRENGTH),
    default=_DEFAULTS.strength,
    show_default=True,
    help="Factor on the predicted chroma: 0 leaves gray, 1 keeps the prediction.",
)
max_pixels = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=_DEFAULTS.max_pixels,
    show_default=True,
    help="Reject pictures with more pixels before decoding them.",
)
quiet = click.option("--quiet", "-q", is_flag=True, help="Print only failures.")

choosing = _group(
    "What is colorized",
    click.option(
        "--files-from",
        type=click.File("rb"),
        metavar="FILE|-",
        help="Also take files from a list with one name per line, in UTF-8 or, with a byte order mark, in "
        "UTF-16; - is standard input. Relative names keep their directories below OUTPUT.",
    ),
    click.option(
        "--null",
        "-0",
        is_flag=True,
        help="Names in the list end with NUL, as printed by find -print0, and are taken byte by byte.",
    ),
    click.option(
        "--include",
        multiple=True,
        metavar="PATTERN",
        help="In directories, take only files that match, for example *.tif or 1950s/*. May be repeated.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="In directories, leave out files that match. May be repeated.",
    ),
    click.option(
        "--if-colored",
        type=click.Choice(IF_COLORED),
        default=_DEFAULTS.if_colored,
        show_default=True,
        help="Treatment of inputs already in color; sepia and other toned prints count as gray. copy puts "
        "them into OUTPUT unchanged, recolor replaces their colors.",
    ),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace all existing outputs. Without it, an output is skipped if it is up to date, was not "
        "made by colorize, or was changed since.",
    ),
    click.option(
        "--checksum",
        is_flag=True,
        help="Read all inputs to find out which have changed. Without it, an input whose size and time of "
        "modification are unchanged is not read. Objects in a store are compared by version.",
    ),
    click.option(
        "--allow-empty",
        is_flag=True,
        help="Do not count it as a failure if there are no pictures and no videos.",
    ),
)

looks = _group(
    "How it looks",
    model,
    click.option(
        "--model-kind",
        type=click.Choice(MODEL_KINDS),
        help="Kind of the ONNX file, if it cannot be detected.",
    ),
    size,
    strength,
    click.option(
        "--reference",
        type=click.Path(path_type=Path),
        metavar="PHOTO",
        help="A color photograph whose palette all pictures take on.",
    ),
    click.option(
        "--hints",
        type=click.Path(path_type=Path),
        metavar="FILE|DIR",
        help="Colors for parts of the pictures, as JSON or, for a single picture, as a PNG that is "
        "transparent where there is no hint. Each color spreads until it meets an edge. A directory has a "
        "file a.jpg.hints.json for a.jpg, at the same path below it as the picture below INPUT. Hints beside "
        "a picture (see colorize retouch) are used without this option; hints that it gives replace them.",
    ),
    click.option(
        "--format",
        type=_Format([name.lower() for name in formats.WRITABLE]),
        help="Format of all pictures; jpg and tif are accepted too.  [default: the format of each input]",
    ),
    click.option(
        "--quality",
        type=click.IntRange(1, 100),
        help="Quality of JPEG, WebP and AVIF outputs.  [default: as in a JPEG input, otherwise high]",
    ),
)

videos = _group(
    "Films",
    click.option(
        "--preview",
        type=click.IntRange(1, MOST_PREVIEWED),
        metavar="N",
        help="Instead of a video, write a PNG that shows N frames, each gray and colorized.",
    ),
    click.option(
        "--start",
        type=_Time(),
        default=_DEFAULTS.video.start,
        metavar="TIME",
        help="Start at this time, in seconds or as 1:30 or 00:01:30.5, for example to try a short "
        "part first. In a directory the output is then called film.90s-100s.mp4.  [default: the beginning]",
    ),
    click.option(
        "--duration",
        type=_Time(),
        metavar="TIME",
        help="Stop after this time, given as for --start.  [default: the rest of the video]",
    ),
    click.option(
        "--audio/--no-audio",
        default=_DEFAULTS.video.audio,
        show_default=True,
        help="Keep the sound, or leave it out.",
    ),
    click.option(
        "--steady",
        type=click.FloatRange(0, 1),
        default=_DEFAULTS.video.steady,
        show_default=True,
        help="Smoothing of colors over time; 0 colorizes each frame independently.",
    ),
    click.option(
        "--every",
        callback=_every,
        default="auto",
        show_default=True,
        metavar="auto|N",
        help="Run the network on every N-th frame of a shot, and move the colors along with the "
        "motion for the frames in between. auto chooses frames by the amount of motion; 1 runs the network "
        "on all.",
    ),
    click.option(
        "--codec",
        metavar="NAME",
        help="FFmpeg encoder, for example libx265, ffv1 or h264_nvenc.  [default: H.264; VP9 for "
        "WebM, MPEG-4 for AVI, MPEG-2 for MPEG]",
    ),
    click.option(
        "--crf",
        type=click.IntRange(0, 63),
        help="Constant quality of the encoder; lower is better.  [default: 18 for H.264]",
    ),
    click.option("--preset", metavar="NAME", help="Encoder preset, which trades speed for size."),
    click.option(
        "--pixel-format",
        metavar="NAME",
        help="Pixel format, for example yuv444p.  [default: as in the input]",
    ),
)

running = _group(
    "How it runs",
    device,
    precision,
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=None,
        help="Maximum number of pictures in one call of the network.  [default: on the CPU, 1 for pictures, "
        "with several calls in parallel, and 8 for videos; on a GPU, the fastest in a trial]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=_DEFAULTS.workers,
        help="Threads for each of reading, composing and writing.  [default: one per core]",
    ),
    max_pixels,
    click.option("--dry-run", is_flag=True, help="Print the planned jobs without running them."),
    click.option("--fail-fast", is_flag=True, help="Stop at the first failure instead of continuing."),
    click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object per file to standard output."
    ),
    click.option(
        "--report",
        type=click.Path(path_type=Path),
        metavar="PAGE.html",
        help="Write an HTML page: each picture before and after, the failures, the settings.",
    ),
    quiet,
    click.option(
        "--doctor",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        hidden=True,
        callback=_examine,
        help="The command `doctor`, as an option. To check another model, put --model before it.",
    ),
)

machines = _group(
    "Several machines",
    click.option(
        "--shard",
        type=_shard,
        default="1/1",
        metavar="i/N",
        help="Process only the i-th of N parts, to divide the same files among N machines.",
    ),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default=_DEFAULTS.engine,
        show_default=True,
        help="Where jobs run: on this machine, or on a Ray cluster whose nodes all see the same files.",
    ),
    click.option(
        "--address",
        metavar="HOST:PORT|auto",
        help="With --engine ray: head node of the cluster.  [default: a temporary cluster on this machine]",
    ),
)
