"""The training loop: schedule, logging, evaluation, checkpoints."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import Tensor

from trainer.checkpoint import Progress, load_pretrained, resume, save_checkpoint, start_from
from trainer.config import Config, ConfigError, Phase, from_json
from trainer.data.dataset import Batch, Crops, Shard, draw_batch, load_crops, resize, to_batch
from trainer.losses import ADVERSARIAL, LOSSES, RECONSTRUCTION
from trainer.metrics import measure
from trainer.models import build_discriminator, build_generator
from trainer.models.encoders import ENCODERS
from trainer.optim import set_learning_rate
from trainer.run_log import CONFIG_NAME, RunLog
from trainer.step import TrainState, build_train_state, update

CHECKPOINT_NAME = "checkpoint.pt"
_LOG_EVERY = 50  # updates
_LOG_SECONDS = 30.0  # maximum time between lines of the log
_EVALUATE_SECONDS = 600.0  # maximum time between evaluations, and between checkpoints
_EVALUATION_BATCH = 64


class Watcher(Protocol):
    """Receives the progress of a run, to display it for example."""

    def advanced(self, progress: Progress, figures: dict[str, float]) -> None:
        """Report the progress at the start and after every update, and new figures if there are any."""

    def notice(self, text: str) -> None:
        """Report one line of information for the user."""


@dataclass(frozen=True)
class Run:
    """Input and output folders of a run."""

    folder: Path
    train_data: Path
    validation_data: Path


@dataclass(frozen=True)
class Estimate:
    """The expected extent of a run on this machine."""

    samples: int
    seconds: float


def on_hardware(config: Config, device: str) -> Config:
    """Resolve a precision of `auto` for `device` (`auto`, `cpu` or `cuda`): bf16 if the hardware has it."""
    if config.precision != "auto":
        return config
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return replace(config, precision="bf16-mixed" if has_bf16 else "32-true")


def launched(device: str, precision: str) -> Fabric:
    """Set up device and precision, and join the other processes if `torchrun` started this one.

    Raises:
        RuntimeError: if the device does not exist.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
    distributed = processes * nodes > 1
    fabric = Fabric(
        accelerator=device,
        devices=processes,
        num_nodes=nodes,
        strategy=DDPStrategy(broadcast_buffers=False) if distributed else "auto",
        precision=precision,  # type: ignore[arg-type]
    )
    if distributed:
        fabric.launch()
    return fabric


def train(config: Config, run: Run, fabric: Fabric, watcher: Watcher) -> Progress:
    """Train until the last phase ends, or until SIGINT or SIGTERM. Continues an interrupted run.

    Raises:
        DataError: if the prepared data cannot be read.
        CheckpointError: if the checkpoint or the weights to start from do not match the configuration.
        ConfigError: if the configuration cannot be trained, or the run's folder belongs to another one.
        TrainingError: if the loss becomes NaN or infinite.
        OSError: if the run's folder cannot be written.
    """
    crops, validation = _load(config, run, fabric)
    _check_folder(config, run)
    state = build_train_state(config, fabric)
    checkpoint = run.folder / CHECKPOINT_NAME
    progress = resume(checkpoint, state, config, watcher.notice)
    if progress is None:
        progress = Progress()
        _initialize(state, config)
    if (position := config.position(progress.samples_seen, progress.seconds)) >= config.total_samples:
        return progress
    main = fabric.is_global_zero
    if progress.samples_seen and main:
        watcher.notice(f"continuing from {progress.samples_seen} samples")
    watcher.advanced(progress, {})
    with RunLog(run.folder if main else None, config, progress) as run_log:
        with _interruptible(fabric) as interrupted:
            clock = _Clock(progress.seconds)
            logged = evaluated = progress.seconds
            saved = progress.samples_seen
            while position < config.total_samples and not interrupted():
                before = progress
                progress, log = _advance(state, crops, progress, config, fabric)
                progress = replace(progress, seconds=_agreed(clock.seconds(), fabric))
                position = config.position(progress.samples_seen, progress.seconds)
                done = position >= config.total_samples
                if state.updates % _LOG_EVERY == 0 or done or progress.seconds - logged >= _LOG_SECONDS:
                    logged = progress.seconds
                    watcher.advanced(progress, run_log.record("train", progress, _means(log, fabric)))
                else:
                    watcher.advanced(progress, {})
                late = progress.seconds - evaluated >= _EVALUATE_SECONDS
                if main and (done or late or _crosses(before, progress, config.evaluate_every)):
                    evaluated = progress.seconds
                    _evaluate(state, validation, progress, run_log, watcher)
                if main and (done or late or _crosses(before, progress, config.checkpoint_every)):
                    save_checkpoint(checkpoint, state, config, progress)
                    saved = progress.samples_seen
            if main and saved < progress.samples_seen:
                save_checkpoint(checkpoint, state, config, progress)
        if main and position < config.total_samples and evaluated < progress.seconds:
            watcher.notice("stopping after an evaluation; Ctrl-C again stops at once")
            with suppress(KeyboardInterrupt):  # the checkpoint is written
                _evaluate(state, validation, progress, run_log, watcher)
    return progress


def _evaluate(
    state: TrainState, validation: Batch, progress: Progress, run_log: RunLog, watcher: Watcher
) -> None:
    """Evaluate the generator's average, log the figures and save a sample sheet."""
    predicted = predict(state.ema, validation.lightness)
    figures = measure(validation.lightness, predicted, validation.ab)
    watcher.advanced(progress, run_log.record("evaluation", progress, figures))
    run_log.show(progress, validation, predicted)


def rehearse(config: Config, run: Run, fabric: Fabric) -> Estimate:
    """Estimate the time of the whole run from two updates of each phase and an evaluation. Writes nothing.

    Raises:
        DataError, CheckpointError, ConfigError, TrainingError: as `train`.
    """
    crops, validation = _load(config, run, fabric)
    state = build_train_state(config, fabric)
    _initialize(state, config)
    samples, seconds, start = 0, 0.0, 0
    for phase in config.phases:
        for _ in range(2):  # the first update also allocates memory
            clock = _Clock(0.0)
            after, _ = _advance(state, crops, Progress(start), replace(config, minutes=0.0), fabric)
        speed = (after.samples_seen - start) / max(clock.seconds(), 1e-6)
        duration = phase.samples / speed
        if config.minutes:
            duration = 60 * config.minutes * phase.samples / config.total_samples
        samples += round(speed * duration)
        seconds += duration
        start += phase.samples
    if config.minutes:
        return Estimate(samples, seconds)
    clock = _Clock(0.0)
    predict(state.ema, validation.lightness)
    evaluations = max(samples // config.evaluate_every, int(seconds / _EVALUATE_SECONDS)) + 1
    return Estimate(samples, seconds + evaluations * clock.seconds())


def predict(generator: torch.nn.Module, lightness: Tensor) -> Tensor:
    """Predict chroma, upsampled bilinearly: (N, 1, H, W) L* => (N, 2, H, W) a*, b*."""
    predicted = []
    with torch.inference_mode():
        for batch in torch.split(lightness, _EVALUATION_BATCH):
            ab = generator(batch.contiguous(memory_format=torch.channels_last)).float()
            predicted.append(F.interpolate(ab, batch.shape[-2:], mode="bilinear", align_corners=False))
    return torch.cat(predicted)


def learning_rate(phase: Phase, within: int) -> float:
    """Return the generator's learning rate after `within` samples of a phase: linear warm-up, then cosine.

    Cosine decay without restarts: Loshchilov & Hutter 2017, "SGDR", equation 5.
    """
    if within < phase.warmup:
        return phase.learning_rate * (within + 1) / phase.warmup
    done = within / phase.samples
    return phase.final_learning_rate + (phase.learning_rate - phase.final_learning_rate) * (
        0.5 + 0.5 * math.cos(math.pi * done)
    )


def _advance(
    state: TrainState, crops: Crops, progress: Progress, config: Config, fabric: Fabric
) -> tuple[Progress, dict[str, Tensor]]:
    """Run one update on the next batch of the phase. The last batch is smaller if the phase requires it."""
    phase, within = config.phase_at(config.position(progress.samples_seen, progress.seconds))
    count = phase.batch_size if config.minutes else min(phase.batch_size, phase.samples - within)
    for optimizer in state.generator_optimizers:
        set_learning_rate(optimizer, learning_rate(phase, within))
    if state.discriminator_optimizer is not None:
        set_learning_rate(state.discriminator_optimizer, phase.discriminator_learning_rate)
    shard = Shard(fabric.global_rank, fabric.world_size)
    batch = draw_batch(
        crops,
        progress.samples_seen,
        count,
        phase.crop_size,
        config.augment,
        config.seed,
        fabric.device,
        shard,
    )
    log = update(state, batch, phase, config, fabric)
    return replace(progress, samples_seen=progress.samples_seen + count), log


def _validation_batch(crops: Crops, config: Config) -> Batch:
    """Select at most `evaluate_crops` crops, evenly spread over the set, at size `evaluate_size`."""
    selected = crops.pixels[:: math.ceil(len(crops) / config.evaluate_crops)]
    resized = [resize(pixels, config.evaluate_size) for pixels in torch.split(selected, _EVALUATION_BATCH)]
    return to_batch(torch.cat(resized))


def _load(config: Config, run: Run, fabric: Fabric) -> tuple[Crops, Batch]:
    """Load the training crops and the validation batch, and check them against the configuration."""
    crops = load_crops(run.train_data, fabric.device)
    validation = _validation_batch(load_crops(run.validation_data, fabric.device), config)
    _check(config, crops, fabric.world_size)
    return crops, validation


def _initialize(state: TrainState, config: Config) -> None:
    """Give a new run its first weights."""
    if config.start_from:
        start_from(state, config.start_from)
    else:
        load_pretrained(state)


def _check_folder(config: Config, run: Run) -> None:
    """Check that a run in the folder has the same configuration, up to the intervals of its outputs.

    Raises:
        ConfigError: if it has another one.
    """
    path = run.folder / CONFIG_NAME
    if not path.exists():
        return
    saved = from_json(path.read_text())
    saved = replace(saved, evaluate_every=config.evaluate_every, checkpoint_every=config.checkpoint_every)
    if saved != config:
        raise ConfigError(
            f"{run.folder}: belongs to a run with another configuration ({path}); choose another folder"
        )


def _check(config: Config, crops: Crops, processes: int) -> None:
    """Check, before anything is written, for errors that would stop the run later.

    Raises:
        ConfigError: if a name is in no table, or a size does not fit.
    """
    names: list[tuple[str, str, Iterable[str]]] = [
        ("loss.reconstruction", config.loss.reconstruction, RECONSTRUCTION),
        ("loss.gan", config.loss.gan, ADVERSARIAL),
        ("model.encoder", config.model.encoder, ENCODERS),
    ]
    names += [("phases.losses", name, LOSSES) for phase in config.phases for name in phase.losses]
    for name, value, table in names:
        if value not in table:
            raise ConfigError(f"{name}: {value!r} is not one of {', '.join(table)}")
    with torch.device("meta"):
        generator = build_generator(config.model)
        discriminator = build_discriminator(config.model, generator)
        multiples = {name: LOSSES[name](config).multiple_of for name in config.used_losses}
    if config.evaluate_size % generator.multiple_of:
        raise ConfigError(
            f"evaluate_size: {config.evaluate_size} is not a multiple of {generator.multiple_of}, "
            "as the generator requires"
        )
    for i, phase in enumerate(config.phases):
        multiple = math.lcm(
            generator.multiple_of,
            discriminator.multiple_of if phase.adversarial else 1,
            *(multiples[name] for name, weight in phase.losses.items() if weight),
        )
        where = f"phases.{i}.crop_size: {phase.crop_size}"
        if phase.crop_size % multiple:
            raise ConfigError(f"{where} is not a multiple of {multiple}, as the networks require")
        if phase.adversarial and phase.crop_size // generator.chroma_scale < discriminator.minimum_chroma:
            raise ConfigError(f"{where} is too small for the discriminator")
        for name in ("batch_size", "samples"):
            if getattr(phase, name) % processes:
                raise ConfigError(
                    f"phases.{i}.{name}: is not a multiple of the number of processes ({processes})"
                )
        last = phase.samples % phase.batch_size or phase.batch_size
        if last == 1 and phase.crop_size == generator.multiple_of:
            raise ConfigError(
                f"phases.{i}.samples: the last batch has only one crop, too few for batch normalization"
            )
    for i, phase in enumerate(config.phases):
        if phase.crop_size > crops.size:
            raise ConfigError(
                f"phases.{i}.crop_size: {phase.crop_size} is larger than the prepared crops ({crops.size})"
            )


def _crosses(before: Progress, after: Progress, every: int) -> bool:
    return before.samples_seen // every != after.samples_seen // every


def _means(log: dict[str, Tensor], fabric: Fabric) -> dict[str, float]:
    """Average the log over all processes."""
    means: Any = fabric.all_reduce(log, reduce_op="mean")
    return {name: float(value) for name, value in means.items()}


def _agreed(seconds: float, fabric: Fabric) -> float:
    """Return the time of the first process, so that all processes log and change phases together."""
    return seconds if fabric.world_size == 1 else float(fabric.broadcast(seconds))


def _any(here: bool, fabric: Fabric) -> bool:
    """Return True if `here` is true in any process."""
    if fabric.world_size == 1:
        return here
    total: Any = fabric.all_reduce(torch.tensor(float(here), device=fabric.device), reduce_op="sum")
    return bool(total > 0)


class _Clock:
    """Measures seconds of training, including `earlier` seconds before the run was resumed."""

    def __init__(self, earlier: float) -> None:
        self._start = time.monotonic() - earlier

    def seconds(self) -> float:
        return time.monotonic() - self._start


@contextmanager
def _interruptible(fabric: Fabric) -> Iterator[Callable[[], bool]]:
    """Provide a function that is true in all processes once SIGINT or SIGTERM reached any of them."""
    received: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: _any(bool(received), fabric)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
