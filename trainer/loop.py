"""Training from the first batch to the last: schedule, logging, evaluation, checkpoints."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Protocol

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from trainer.checkpoint import Progress, load_checkpoint, save_checkpoint, start_from
from trainer.config import Config, ConfigError, Phase, from_json, to_json
from trainer.data.dataset import Batch, Crops, draw_batch, load_crops, resize, to_batch
from trainer.losses import ADVERSARIAL, RECONSTRUCTION
from trainer.metrics import measure, to_rgb
from trainer.models import build_generator
from trainer.sheet import save_sheet
from trainer.step import Trainee, build_trainee, set_learning_rate, update

CHECKPOINT_NAME = "checkpoint.pt"
CONFIG_NAME = "config.json"
METRICS_NAME = "metrics.jsonl"
_LOG_EVERY = 50  # updates
_SHEET_PICTURES = 24
_EVALUATION_BATCH = 64


class Watcher(Protocol):
    """Whoever wants to see a run go by: a progress bar, or nobody."""

    def advanced(self, samples_seen: int, figures: dict[str, float]) -> None:
        """Training has come this far; `figures` are the last known ones."""


@dataclass(frozen=True)
class Run:
    """Where a run reads and writes."""

    folder: Path
    train_data: Path
    validation_data: Path
    start_from: Path | None = None
    """Weights that a new run begins with."""
    stop_after: int | None = None
    """Updates after which to stop, for a dry run: nothing is written."""


def train(config: Config, run: Run, fabric: Fabric, watcher: Watcher) -> Progress:
    """Train until the last phase ends, or SIGINT or SIGTERM; a run that has begun is continued.

    Raises:
        DataError: if the prepared data cannot be read.
        CheckpointError: if a checkpoint or the weights to start from do not fit.
        ConfigError: if the run's folder belongs to another configuration.
    """
    crops = load_crops(run.train_data, fabric.device)
    validation = _validation_batch(load_crops(run.validation_data, fabric.device), config.evaluate_size)
    _check(config, crops, run)
    trainee = build_trainee(config, fabric)
    checkpoint = run.folder / CHECKPOINT_NAME
    progress = Progress()
    if run.stop_after is None and checkpoint.exists():
        progress = load_checkpoint(checkpoint, trainee, config)
    elif run.start_from is not None:
        start_from(trainee, run.start_from)
    with _Journal(run, config) as journal, _interruptible() as interrupted:
        clock = _Clock(progress.seconds)
        log: dict[str, Tensor] = {}
        while progress.samples_seen < config.total_samples and not interrupted():
            phase, within = config.phase_at(progress.samples_seen)
            before, progress, log = (
                progress,
                *_advance(trainee, crops, phase, within, progress, config, fabric),
            )
            progress = replace(progress, seconds=clock.seconds())
            done = progress.samples_seen >= config.total_samples
            if trainee.updates % _LOG_EVERY == 0 or done:
                watcher.advanced(progress.samples_seen, journal.record("train", progress, _floats(log)))
            if done or _crosses(before, progress, config.evaluate_every):
                predicted = predict(trainee.ema, validation.lightness)
                figures = measure(validation.lightness, predicted, validation.ab)
                watcher.advanced(progress.samples_seen, journal.record("evaluation", progress, figures))
                journal.show(progress, validation, predicted)
            if run.stop_after is not None and trainee.updates >= run.stop_after:
                return progress
            if _crosses(before, progress, config.checkpoint_every):
                _save(run, trainee, config, progress)
        _save(run, trainee, config, progress)
    return progress


def predict(generator: torch.nn.Module, lightness: Tensor) -> Tensor:
    """(N, 1, H, W) L* => (N, 2, H, W) ab, resized bilinearly from the generator's own resolution."""
    parts = []
    with torch.inference_mode():
        for part in torch.split(lightness, _EVALUATION_BATCH):
            ab = generator(part.contiguous(memory_format=torch.channels_last)).float()
            parts.append(F.interpolate(ab, part.shape[-2:], mode="bilinear", align_corners=False))
    return torch.cat(parts)


def learning_rate(phase: Phase, within: int) -> float:
    """The generator's learning rate after `within` samples of a phase: linear warm-up, then cosine."""
    if within < phase.warmup:
        return phase.learning_rate * (within + 1) / phase.warmup
    done = within / phase.samples
    return phase.final_learning_rate + (phase.learning_rate - phase.final_learning_rate) * (
        0.5 + 0.5 * math.cos(math.pi * done)
    )


def _advance(
    trainee: Trainee,
    crops: Crops,
    phase: Phase,
    within: int,
    progress: Progress,
    config: Config,
    fabric: Fabric,
) -> tuple[Progress, dict[str, Tensor]]:
    """One update on the next batch of the phase, which the last batch may end exactly."""
    count = min(phase.batch_size, phase.samples - within)
    for optimizer in trainee.generator_optimizers:
        set_learning_rate(optimizer, learning_rate(phase, within))
    if trainee.discriminator_optimizer is not None:
        set_learning_rate(trainee.discriminator_optimizer, phase.discriminator_learning_rate)
    batch = draw_batch(
        crops, progress.samples_seen, count, phase.crop_size, config.augment, config.seed, fabric.device
    )
    log = update(trainee, batch, phase, config, fabric)
    return replace(progress, samples_seen=progress.samples_seen + count), log


def _save(run: Run, trainee: Trainee, config: Config, progress: Progress) -> None:
    if run.stop_after is None:
        save_checkpoint(run.folder / CHECKPOINT_NAME, trainee, config, progress)


def _validation_batch(crops: Crops, size: int) -> Batch:
    return to_batch(torch.cat([resize(part, size) for part in torch.split(crops.pixels, _EVALUATION_BATCH)]))


def _check(config: Config, crops: Crops, run: Run) -> None:
    """Find before anything is written what would stop the run later.

    Raises:
        ConfigError: if a name is in no table, a size does not fit, or the folder is another configuration's.
    """
    saved = run.folder / CONFIG_NAME
    if run.stop_after is None and saved.exists() and from_json(saved.read_text()) != config:
        raise ConfigError(f"{run.folder}: belongs to another configuration; see {saved}")
    for name, table in (("reconstruction", RECONSTRUCTION), ("gan", ADVERSARIAL)):
        if getattr(config.loss, name) not in table:
            raise ConfigError(f"loss.{name}: {getattr(config.loss, name)!r} is none of {', '.join(table)}")
    with torch.device("meta"):
        generator = build_generator(config.model)
    multiple = generator.multiple_of
    sizes = {f"phases.{i}.crop_size": phase.crop_size for i, phase in enumerate(config.phases)}
    for name, size in (sizes | {"evaluate_size": config.evaluate_size}).items():
        if size % multiple:
            raise ConfigError(f"{name}: {size} is no multiple of the generator's {multiple}")
    smallest = 3 * 2**config.model.discriminator_layers
    for i, phase in enumerate(config.phases):
        if phase.adversarial and phase.crop_size // generator.chroma_scale < smallest:
            raise ConfigError(f"phases.{i}.crop_size: {phase.crop_size} is too small for the discriminator")
    for i, phase in enumerate(config.phases):
        if phase.crop_size > crops.size:
            raise ConfigError(
                f"phases.{i}.crop_size: {phase.crop_size} is larger than the prepared crops ({crops.size})"
            )


def _crosses(before: Progress, after: Progress, every: int) -> bool:
    return before.samples_seen // every != after.samples_seen // every


def _floats(log: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in log.items()}


class _Clock:
    """Seconds of training, continued from an earlier session."""

    def __init__(self, earlier: float) -> None:
        self._start = time.monotonic() - earlier

    def seconds(self) -> float:
        return time.monotonic() - self._start


class _Journal:
    """What a run leaves beside its checkpoint: configuration, JSON lines, TensorBoard, sample sheets."""

    def __init__(self, run: Run, config: Config) -> None:
        self._folder = run.folder
        self._silent = run.stop_after is not None
        self._config = config

    def __enter__(self) -> _Journal:
        if not self._silent:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / CONFIG_NAME).write_text(to_json(self._config))
            self._lines = (self._folder / METRICS_NAME).open("a")
            self._board = SummaryWriter(str(self._folder / "tensorboard"))
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._silent:
            self._lines.close()
            self._board.close()

    def record(self, kind: str, progress: Progress, figures: dict[str, float]) -> dict[str, float]:
        """Write figures down and hand them back."""
        if not self._silent:
            line = {
                "kind": kind,
                "samples": progress.samples_seen,
                "seconds": round(progress.seconds, 1),
                **figures,
            }
            self._lines.write(json.dumps(line) + "\n")
            self._lines.flush()
            for name, value in figures.items():
                self._board.add_scalar(f"{kind}/{name}", value, progress.samples_seen)
        return figures

    def show(self, progress: Progress, batch: Batch, predicted: Tensor) -> None:
        """Save a sample sheet of pictures spread over the validation set."""
        if self._silent:
            return
        every = max(1, len(predicted) // _SHEET_PICTURES)
        lightness, ab, predicted = (x[::every][:_SHEET_PICTURES] for x in (*batch, predicted))
        rows = (to_rgb(lightness, chroma) for chroma in (torch.zeros_like(ab), predicted, ab))
        save_sheet(self._folder / "samples" / f"{progress.samples_seen:09d}.png", *rows)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a question that the loop asks between updates."""
    received: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
