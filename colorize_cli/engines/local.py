"""All on this machine: decode -> infer -> compose -> encode, each stage in threads of its own."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colorize_cli import model
from colorize_cli.color import Bytes, Floats
from colorize_cli.compose import compose
from colorize_cli.contracts import Card
from colorize_cli.errors import ColorizeError, one_line
from colorize_cli.jobs import Job, Outcome, Settings, Status, available_cores
from colorize_cli.media import atomic, check_kind, photo
from colorize_cli.media.frame import Frame
from colorize_cli.model import Model
from colorize_cli.pipeline import Gate, Pipeline, Result, Stage
from colorize_cli.working import working_copy

# Pixels of pictures between the start of their decoding and the end of their writing. At 10 bytes for each of
# a grey picture, and up to 20 of a coloured one, this bounds the memory; a larger picture is worked on alone.
PIXELS_IN_FLIGHT = 64_000_000
_LEAST_CAPACITY = 4


@dataclass(frozen=True)
class _Decoded:
    job: Job
    frame: Frame
    small: Floats


@dataclass(frozen=True)
class _Predicted:
    job: Job
    frame: Frame
    ab: Floats


@dataclass(frozen=True)
class _Composed:
    job: Job
    frame: Frame
    rgb: Bytes


def run(
    jobs: Sequence[Job], settings: Settings, announce: Callable[[str], None]
) -> Generator[Outcome, None, None]:
    """Colours pictures; yields outcomes as they end, those skipped first.

    Args:
        jobs: What to colour.
        settings: How.
        announce: Receives one line on the device chosen where `settings.device` is "auto".

    Raises:
        ModelError: The model cannot be loaded. Like the next, only if there is anything to be done.
        DeviceError: The device asked for does not work.
    """
    for directory in sorted({job.destination.parent for job in jobs}):
        atomic.sweep(directory)
    waiting = []
    for job in jobs:
        if not settings.overwrite and _exists(job.destination):
            yield Outcome(job, Status.SKIPPED)
        else:
            waiting.append(job)
    if not waiting:
        return
    network = model.load(settings.model, settings.device, threads=available_cores())
    if settings.device == "auto":
        announce(f"device: {network.device} ({network.reason})")
    results = _pipeline(network, settings).run(waiting)
    try:
        for result in results:
            yield _outcome(result)
    finally:
        results.close()


def _pipeline(network: Model, settings: Settings) -> Pipeline:
    workers = settings.workers

    def weigh(job: Job) -> int:
        check_kind(job.source)
        return photo.size_of(job.source, settings.max_pixels)

    def decode(job: Job) -> _Decoded:
        frame = photo.read(job.source, settings.max_pixels)
        return _Decoded(job, frame, working_copy(frame.lightness, *_sides(network.card, settings)))

    def infer(batch: list[_Decoded]) -> list[_Predicted]:
        lightness = np.stack([item.small for item in batch])[:, None]
        chroma = network.predict(lightness)
        return [_Predicted(item.job, item.frame, ab) for item, ab in zip(batch, chroma, strict=True)]

    def paint(item: _Predicted) -> _Composed:
        return _Composed(item.job, item.frame, compose(item.frame.lightness, item.ab, settings.strength))

    def encode(item: _Composed) -> None:
        photo.write(item.job.destination, item.frame, item.rgb)

    return Pipeline(
        stages=(
            Stage("decode", decode, workers, gate=Gate(weigh, PIXELS_IN_FLIGHT)),
            Stage("infer", infer, batch=settings.batch_size, key=lambda item: item.small.shape),
            Stage("compose", paint, workers),
            Stage("encode", encode, workers),
        ),
        capacity=max(_LEAST_CAPACITY, settings.batch_size),
    )


def _exists(destination: Path) -> bool:
    try:
        return destination.is_file()
    except OSError:  # the writing will say what is wrong with it
        return False


def _sides(card: Card, settings: Settings) -> tuple[int, int]:
    return settings.size or card.working_size, card.multiple_of


def _outcome(result: Result[Job]) -> Outcome:
    if result.error is None:
        return Outcome(result.source, Status.DONE, None, result.seconds)
    error = result.error
    reason = str(error) if isinstance(error, ColorizeError) else f"{type(error).__name__}: {error}"
    return Outcome(result.source, Status.FAILED, one_line(reason), result.seconds)
