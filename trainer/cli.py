"""The command line of `colorize-train`: parses options, calls the package, prints errors in one line."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from trainer.config import Config, ConfigError, override, to_json, with_samples
from trainer.presets import PRESETS

if TYPE_CHECKING:
    from trainer.checkpoint import Progress as TrainingProgress
    from trainer.realism import Recognizer
    from trainer.scores import Evaluation

_PATH = click.Path(path_type=Path)
_SHARES = (0.65, 0.8, 0.97)  # shares of the true colorfulness at which `evaluate` compares models


@click.group()
@click.version_option(package_name="colorize-cli")
def main() -> None:
    """Train colorization models and export them for `colorize`."""


@main.command()
@click.argument("sources", nargs=-1, required=True, type=_PATH, metavar="SOURCE...")
@click.argument("out", type=_PATH)
@click.option(
    "--size", type=click.IntRange(16), help="Side of the crops in pixels.  [default: 128; CIFAR-10: 32]"
)
@click.option(
    "--workers", default=4, show_default=True, type=click.IntRange(1), help="Number of decoding threads."
)
def prepare(sources: tuple[Path, ...], out: Path, size: int | None, workers: int) -> None:
    """Cut training crops from the pictures of each SOURCE (folder, tar shard or file) and write them to OUT.

    CIFAR-10, packed or extracted, becomes OUT/train and OUT/test.
    """
    from trainer.data.cifar10 import SIDE, is_cifar10, prepare_cifar10
    from trainer.data.prepare import DataError
    from trainer.data.prepare import prepare as run

    try:
        if any(is_cifar10(source) for source in sources):
            if len(sources) > 1 or size not in (None, SIDE):
                raise click.UsageError(
                    f"CIFAR-10 cannot be combined with other sources, and its size is always {SIDE} pixels"
                )
            for split, manifest in prepare_cifar10(sources[0], out).items():
                click.echo(f"{manifest.crops} pictures of {manifest.size} pixels in {out / split}", err=True)
            return
        console = Console(stderr=True)
        with Progress(TextColumn("{task.completed} pictures"), TimeElapsedColumn(), console=console) as bar:
            task = bar.add_task("", total=None)
            manifest = run(sources, out, size or 128, workers=workers, progress=lambda: bar.advance(task))
    except DataError as error:
        raise click.ClickException(str(error)) from error
    for reason, names in sorted(manifest.dropped.items()):
        click.echo(f"left out {len(names)}: {reason} ({names[0]}{', ...' if names[1:] else ''})", err=True)
    click.echo(
        f"{manifest.crops} crops of {manifest.size} pixels from {manifest.pictures} pictures in {out}",
        err=True,
    )


@main.command()
@click.argument("data", type=_PATH)
@click.option("--validation", required=True, type=_PATH, help="Prepared folder to evaluate on.")
@click.option(
    "--run", "folder", required=True, type=_PATH, help="Folder of the run. An interrupted run is continued."
)
@click.option(
    "--preset", default="photo", show_default=True, type=click.Choice(list(PRESETS)), help="Recipe."
)
@click.option(
    "--set", "assignments", multiple=True, metavar="FIELD=VALUE", help="Override a field of the recipe."
)
@click.option("--samples", type=click.IntRange(1), help="Scale the recipe to this number of crops.")
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Scale the recipe to this time, whatever the speed of the machine.",
)
@click.option(
    "--start-from",
    type=_PATH,
    help="Initialize a new run with the generator of this checkpoint or weights file; photo or open for the "
    "weights of a bundled model.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Device to train on.",
)
@click.option(
    "--dry-run", is_flag=True, help="Print the configuration and the estimated time, write nothing."
)
def train(
    data: Path,
    validation: Path,
    folder: Path,
    preset: str,
    assignments: tuple[str, ...],
    samples: int | None,
    minutes: float | None,
    start_from: Path | None,
    device: str,
    dry_run: bool,
) -> None:
    """Train on the crops in DATA.

    `torchrun --nproc-per-node N -m trainer train ...` trains in N processes that share every batch.
    """
    if samples is not None and minutes is not None:
        raise click.UsageError("--samples and --minutes exclude each other")
    if start_from is not None:
        assignments = (*assignments, f"start_from={json.dumps(str(start_from))}")
    if minutes is not None:
        assignments = (*assignments, f"minutes={minutes}")
    try:
        config = override(PRESETS[preset], list(assignments))
        if samples is not None:
            config = with_samples(config, samples)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    from trainer.checkpoint import CheckpointError
    from trainer.data.prepare import DataError
    from trainer.loop import Run, launched, on_hardware, rehearse
    from trainer.loop import train as run
    from trainer.step import TrainingError

    config = on_hardware(config, device)
    try:
        fabric = launched(device, config.precision)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error
    if fabric.is_global_zero:
        click.echo(to_json(config))
    files = Run(folder, data, validation)
    try:
        if dry_run:
            expected = rehearse(config, files, fabric)
            if fabric.is_global_zero:
                duration = timedelta(seconds=round(expected.seconds))
                click.echo(f"about {expected.samples} samples in {duration} (h:mm:ss)", err=True)
            return
        with _Bar(config, visible=fabric.is_global_zero) as bar:
            progress = run(config, files, fabric, bar)
    except (CheckpointError, ConfigError, DataError, TrainingError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if config.position(progress.samples_seen, progress.seconds) < config.total_samples:
        if not fabric.is_global_zero:
            raise SystemExit(130)
        click.echo(
            f"stopped after {progress.samples_seen} samples; run the same command to continue", err=True
        )
        raise SystemExit(130)


@main.command()
@click.argument("model", type=_PATH)
@click.argument("sources", nargs=-1, required=True, type=_PATH, metavar="PICTURES...")
@click.option(
    "--size",
    type=click.IntRange(16),
    help="Short side of the network input in pixels.  [default: the model's working size]",
)
@click.option("--strength", default=1.0, show_default=True, help="Factor on the predicted chroma.")
@click.option(
    "--at-colorfulness",
    "--at-colourfulness",
    "at_colorfulness",
    type=click.FloatRange(0, 2),
    metavar="SHARE",
    help="Choose the strength that gives this share of the true pictures' colorfulness.",
)
@click.option("--sheet", type=_PATH, help="Write a PNG of gray, colorized and true pictures.")
@click.option(
    "--sheet-pictures",
    default=24,
    show_default=True,
    type=click.IntRange(1),
    help="Number of pictures in the sheet.",
)
@click.option(
    "--realism/--no-realism",
    default=True,
    show_default=True,
    help="Measure KID and the probability of the true class, the slowest part of the evaluation.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    model: Path,
    sources: tuple[Path, ...],
    size: int | None,
    strength: float,
    at_colorfulness: float | None,
    sheet: Path | None,
    sheet_pictures: int,
    realism: bool,
    as_json: bool,
) -> None:
    """Measure MODEL, an ONNX file or a checkpoint, on color PICTURES.

    PICTURES are folders, tar files, single files, folders written by `prepare`, or CIFAR-10 (its test split).
    """
    from colorize_cli.core.errors import ColorizeError
    from trainer.checkpoint import CheckpointError
    from trainer.data.prepare import DataError
    from trainer.evaluate import evaluate as measure
    from trainer.evaluate import load_predictor, predict_samples, strength_for, write_sheet

    try:
        samples = predict_samples(sources, load_predictor(model), size, skipped=_left_out)
        if at_colorfulness is not None:
            strength = strength_for(samples, at_colorfulness)
        figures = measure(samples, strength, _SHARES, _recognizer() if realism else None)
    except (ColorizeError, CheckpointError, DataError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(figures.to_json()))
    else:
        _print_scores(figures)
    if sheet is not None:
        try:
            write_sheet(samples, strength, sheet, sheet_pictures)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"{sheet}: cannot be written ({error})") from error


def _left_out(name: str, reason: str) -> None:
    click.echo(f"left out {name}: {reason}", err=True)


def _recognizer() -> Recognizer | None:
    """Load the classifier that measures realism. Print a line to stderr and return None if it is missing."""
    from trainer.realism import Recognizer

    try:
        return Recognizer()
    except ConfigError as error:
        click.echo(f"realism is not measured: {error}", err=True)
        return None


def _print_scores(figures: Evaluation) -> None:
    numbers = (Column(name, justify="right") for name in ("model", "left gray", "truth"))
    table = Table(f"{figures.pictures} pictures", *numbers)
    for row in figures.rows():
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(
        f"{figures.gain:+.3f} dB above gray at {figures.colorfulness_share:.1%} of the true colorfulness, "
        f"strength {figures.strength:.3f}"
    )


@main.command()
@click.argument("checkpoint", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--name", default="colorize", show_default=True, help="Name of the model.")
@click.option(
    "--working-size",
    required=True,
    type=click.IntRange(16),
    help="Short side of the network input that scored best, in pixels.",
)
@click.option("--trained-on", required=True, help="Description of the training pictures.")
@click.option("--license", "--licence", "license_", required=True, help="License of the weights.")
@click.option("--chroma-gain", default=1.0, show_default=True, help="Factor on the predicted chroma.")
@click.option(
    "--mean-factor",
    default=1.0,
    show_default=True,
    help="Factor on the mean chroma (color cast) of each picture.",
)
@click.option(
    "--chroma-exponent",
    default=1.0,
    show_default=True,
    help="Exponent of the predicted chroma. Above 1, pale colors become paler and strong colors stronger.",
)
@click.option(
    "--blend",
    type=(_PATH, click.FloatRange(0, 1)),
    metavar="EARLIER SHARE",
    help="Mix in this share of an earlier checkpoint's weights, such as one before the adversarial phase.",
)
@click.option(
    "--weights", type=_PATH, help="Also write the weights as fp16 safetensors, for `train --start-from`."
)
def export(
    checkpoint: Path,
    out: Path,
    name: str,
    working_size: int,
    trained_on: str,
    license_: str,
    chroma_gain: float,
    mean_factor: float,
    chroma_exponent: float,
    blend: tuple[Path, float] | None,
    weights: Path | None,
) -> None:
    """Write the averaged generator of CHECKPOINT as ONNX to OUT."""
    from colorize_cli.core.errors import ColorizeError
    from trainer.checkpoint import CheckpointError, blended, load_generator, save_weights
    from trainer.export import Calibration, ExportError, ModelFacts
    from trainer.export import export as run

    if weights is not None and weights.suffix != ".safetensors":
        raise click.ClickException(f"{weights}: weights files end in .safetensors")
    try:
        generator, config = load_generator(checkpoint)
        if blend is not None:
            generator = blended(load_generator(blend[0])[0], generator, 1 - blend[1])
        calibration = Calibration(chroma_gain, mean_factor, chroma_exponent)
        facts = ModelFacts(name, working_size, trained_on, license_, calibration)
        difference = run(generator, config, facts, out)
        if weights is not None:
            save_weights(weights, generator, config)
    except (CheckpointError, ColorizeError, ExportError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{out}: onnxruntime agrees with torch to {difference:.4f} in a* and b*", err=True)


@main.command()
@click.argument("model", type=_PATH)
@click.argument("out", type=_PATH)
@click.argument("sources", nargs=-1, required=True, type=_PATH)
@click.option(
    "--pictures",
    default=400,
    show_default=True,
    help="Number of pictures for calibration and check.",
)
@click.option(
    "--to",
    type=click.Choice(["int8", "fp16"]),
    default="int8",
    show_default=True,
    help="8-bit integers for the CPU, or 16-bit floats for GPUs.",
)
def quantize(model: Path, out: Path, sources: tuple[Path, ...], pictures: int, to: str) -> None:
    """Convert the exported MODEL to another precision, calibrated and checked on SOURCES. Write it to OUT.

    `colorize` finds OUT beside MODEL if its name is MODEL-int8.onnx or MODEL-fp16.onnx. It uses the first on
    the CPU and the second on GPUs with --precision fp16.
    """
    from itertools import islice

    from colorize_cli.color.resize import working_copy
    from colorize_cli.core.errors import ColorizeError
    from colorize_cli.image.frame import lightness_of
    from colorize_cli.inference.model import load
    from trainer.data.prepare import DataError
    from trainer.evaluate import read_pictures
    from trainer.export import ExportError
    from trainer.quantize import quantize as run

    try:
        info = load(model, "cpu", precision="fp32").info
        copies = [
            working_copy(lightness_of(picture, None), info.working_size, info.multiple_of)
            for _, picture in islice(read_pictures(sources, _left_out), pictures)
        ]
        difference = run(model, copies, out, to)
    except (ColorizeError, DataError, ExportError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{out}: a* and b* differ by {difference:.2f} on average", err=True)


# Keep the spelling of earlier versions working, without listing the command twice.
_quantise = copy.copy(quantize)
_quantise.hidden = True
main.add_command(_quantise, "quantise")


@main.command()
@click.argument("run", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--evaluation", type=_PATH, help="Output of `evaluate --json`, to include as a table.")
def report(run: Path, out: Path, evaluation: Path | None) -> None:
    """Write the curves, samples, scores and configuration of RUN, a run's folder, as one HTML page to OUT."""
    from trainer.report import ReportError
    from trainer.report import report as write

    try:
        write(run, out, evaluation)
    except (ReportError, OSError) as error:
        raise click.ClickException(str(error)) from error


class _Bar:
    """A progress bar with samples per second and remaining time. Implements `trainer.loop.Watcher`."""

    def __init__(self, config: Config, *, visible: bool = True) -> None:
        columns = (
            TextColumn("{task.fields[samples]} samples"),
            BarColumn(),
            TextColumn("{task.fields[speed]:.1f}/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not visible)
        self._config = config
        self._first: TrainingProgress | None = None
        self._known: dict[str, float] = {}

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    @property
    def task(self) -> Task:
        """The state of the bar."""
        return self._bar.tasks[0]

    def notice(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advanced(self, progress: TrainingProgress, figures: dict[str, float]) -> None:
        """Show the progress of the run and its two most informative figures."""
        config = self._config
        position = config.position(progress.samples_seen, progress.seconds)
        samples = f"{progress.samples_seen}" + ("" if config.minutes else f"/{config.total_samples}")
        if self._first is None:
            self._first = progress
            self._bar.add_task(
                "", total=config.total_samples, completed=position, samples=samples, speed=0.0, figures=""
            )
        self._known |= {name: figures[name] for name in ("reconstruction", "gain_at_65") if name in figures}
        text = "  ".join(f"{name} {value:.3f}" for name, value in self._known.items())
        seconds = progress.seconds - self._first.seconds
        speed = (progress.samples_seen - self._first.samples_seen) / seconds if seconds else 0.0
        self._bar.update(self.task.id, completed=position, samples=samples, speed=speed, figures=text)
