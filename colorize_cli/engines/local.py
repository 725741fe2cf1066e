"""All on this machine: decode -> infer -> compose -> encode, each stage in threads of its own."""

import functools
import io
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colorize_cli import model
from colorize_cli.color import Codes, Floats
from colorize_cli.compose import compose, compose16
from colorize_cli.errors import ColorizeError, one_line
from colorize_cli.jobs import STREAM, Job, Outcome, Plan, Settings, Status, available_cores
from colorize_cli.ledger import Ledger, Source, Stamp, State
from colorize_cli.media import atomic, check_kind, photo, pipe
from colorize_cli.media.frame import Frame
from colorize_cli.model import Model
from colorize_cli.pipeline import Gate, Pipeline, Result, Stage
from colorize_cli.working import working_copy

# Pixels of pictures between the start of their decoding and the end of their writing. At 10 bytes for each of
# a grey picture, and up to 20 of a coloured one, this bounds the memory; a larger picture is worked on alone.
PIXELS_IN_FLIGHT = 64_000_000
_LEAST_CAPACITY = 4
# Who interrupts is answered within two seconds.
_PATIENCE = 1.2


@dataclass(frozen=True)
class _Decoded:
    job: Job
    source: Source | None
    frame: Frame
    small: Floats


@dataclass(frozen=True)
class _Predicted:
    decoded: _Decoded
    ab: Floats


@dataclass(frozen=True)
class _Composed:
    decoded: _Decoded
    rgb: Codes


class _SkippedError(Exception):
    """There is no need to colour a picture after all; the text says why."""


def run(plan: Plan, settings: Settings, announce: Callable[[str], None]) -> Generator[Outcome, None, None]:
    """Colours pictures; yields outcomes as they end, those skipped first.

    Args:
        plan: What to colour.
        settings: How.
        announce: Receives one line on the device chosen where `settings.device` is "auto".

    Raises:
        ModelError: The model cannot be loaded. Like the next, only if there is anything to be done.
        DeviceError: The device asked for does not work.
    """
    if not plan.jobs:
        return
    outputs = _Outputs(plan, settings)
    try:
        for directory in sorted({job.destination.parent for job in plan.jobs if job.destination != STREAM}):
            atomic.sweep(directory)
        waiting = []
        for job in plan.jobs:
            reason = outputs.reason_to_skip(job)
            if reason is None:
                waiting.append(job)
            else:
                yield Outcome(job, Status.SKIPPED, reason)
        if waiting:
            network = model.load(settings.model, settings.device, threads=available_cores())
            if settings.device == "auto":
                announce(f"device: {network.device} ({network.reason})")
            yield from _colour(waiting, network, settings, outputs)
    finally:
        outputs.close()


def preview(plan: Plan, settings: Settings) -> Iterator[tuple[Job, str | None]]:
    """What `run` would do: the jobs, and why each would be skipped, if it would. Nothing is written.

    Raises:
        ModelError: The model cannot be read.
    """
    outputs = _Outputs(plan, settings, read_only=True)
    for job in plan.jobs:
        yield job, outputs.reason_to_skip(job)


class _Outputs:
    """What is there already, and the notes on what is made."""

    def __init__(self, plan: Plan, settings: Settings, *, read_only: bool = False) -> None:
        self._overwrite = settings.overwrite
        self._ledger: Ledger | None = None
        if plan.root is not None:
            recipe = settings.recipe(model.read(settings.model))
            self._ledger = Ledger(plan.root, recipe, read_only=read_only)

    def reason_to_skip(self, job: Job) -> str | None:
        """Why the job's output can stay as it is; None if it is to be made."""
        if self._overwrite or job.destination == STREAM:
            return None
        if self._ledger is None:
            return State.FOREIGN.value if _exists(job.destination) else None
        state = self._ledger.state(job)
        return state.value if state in (State.CURRENT, State.FOREIGN) else None

    def write(self, item: _Composed) -> None:
        """Writes an output, and a note of how it was made."""
        job, source = item.decoded.job, item.decoded.source
        if job.destination == STREAM:
            file = io.BytesIO()
            photo.encode(file, _format(item.decoded), item.decoded.frame, item.rgb)
            pipe.write_stdout(file.getvalue())
            return
        ledger = self._ledger

        def note(status: os.stat_result) -> None:
            if ledger is not None and source is not None:
                ledger.add(job, source, Stamp.of(status))

        photo.write(job.destination, item.decoded.frame, item.rgb, note)

    def source_of(self, job: Job) -> Source | None:
        """What there is to note of a source before it is read."""
        if self._ledger is None:
            return None
        with photo.explained():
            return Source.of(job.source)

    def close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()


def _colour(
    jobs: list[Job], network: Model, settings: Settings, outputs: _Outputs
) -> Generator[Outcome, None, None]:
    results = _pipeline(network, settings, outputs).run(jobs)
    try:
        for result in results:
            yield _outcome(result, network.device)
    finally:
        results.close()
        atomic.abandon()


def _pipeline(network: Model, settings: Settings, outputs: _Outputs) -> Pipeline:
    workers = settings.workers
    sides = settings.size or network.card.working_size, network.card.multiple_of
    stdin = functools.cache(pipe.read_stdin)

    def content(job: Job) -> Path | bytes:
        return stdin() if job.source == STREAM else job.source

    def weigh(job: Job) -> int:
        if job.source != STREAM:
            check_kind(job.source)
        return photo.size_of(content(job), settings.max_pixels)

    def decode(job: Job) -> _Decoded:
        # Another process may have made it since this one looked.
        if (reason := outputs.reason_to_skip(job)) is not None:
            raise _SkippedError(reason)
        source = outputs.source_of(job)
        frame = photo.read(content(job), settings.max_pixels)
        return _Decoded(job, source, frame, working_copy(frame.lightness, *sides))

    def infer(batch: list[_Decoded]) -> list[_Predicted]:
        lightness = np.stack([item.small for item in batch])[:, None]
        return list(map(_Predicted, batch, network.predict(lightness)))

    def paint(item: _Predicted) -> _Composed:
        frame = item.decoded.frame
        held = photo.HOLDS[_format(item.decoded)]
        draw = compose16 if frame.deep and held.deep else compose
        return _Composed(item.decoded, draw(frame.lightness, item.ab, settings.strength))

    return Pipeline(
        stages=(
            Stage("decode", decode, workers, gate=Gate(weigh, PIXELS_IN_FLIGHT)),
            Stage("infer", infer, batch=settings.batch_size, key=lambda item: item.small.shape),
            Stage("compose", paint, workers),
            Stage("encode", outputs.write, workers),
        ),
        capacity=max(_LEAST_CAPACITY, settings.batch_size),
        patience=_PATIENCE,
    )


def _format(item: _Decoded) -> str:
    """Of the output, by Pillow's name."""
    if item.job.destination == STREAM:
        return item.frame.format or "PNG"
    return photo.FORMATS[item.job.destination.suffix.lower()]


def _exists(destination: Path) -> bool:
    try:
        return destination.is_file()
    except OSError:  # the writing will say what is wrong with it
        return False


def _outcome(result: Result[Job], device: str) -> Outcome:
    job, error = result.source, result.error
    if isinstance(error, _SkippedError):
        return Outcome(job, Status.SKIPPED, str(error))
    used = device if result.batch else None
    if error is None:
        return Outcome(job, Status.DONE, None, result.seconds, used, result.batch)
    reason = str(error) if isinstance(error, ColorizeError) else f"{type(error).__name__}: {error}"
    return Outcome(job, Status.FAILED, one_line(reason), result.seconds, used, result.batch)
