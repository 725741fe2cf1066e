"""Training state on disk: written atomically, read without running code from the file."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer.config import Config, ConfigError, from_json, to_json
from trainer.models import Generator, build_generator
from trainer.step import Trainee

_FORMAT = 1


class CheckpointError(Exception):
    """A file that is no usable checkpoint; the message names it."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    samples_seen: int = 0
    seconds: float = 0.0
    """Time spent training, over all sessions of the run."""


def save_checkpoint(path: Path, trainee: Trainee, config: Config, progress: Progress) -> None:
    """Write all that a run needs to continue bit for bit; the one before is kept beside it."""
    state = {
        "format": _FORMAT,
        "config": to_json(config),
        "samples_seen": progress.samples_seen,
        "seconds": progress.seconds,
        "updates": trainee.updates,
        "random": torch.get_rng_state(),
        **{name: part.state_dict() for name, part in _parts(trainee).items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        path.replace(previous(path))
    temporary.replace(path)


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest is."""
    return path.with_suffix(f".previous{path.suffix}")


def resume(
    path: Path, trainee: Trainee, config: Config, notice: Callable[[str], None] = lambda _: None
) -> Progress | None:
    """Restore `trainee` from the newest checkpoint that can be read; None where there is none.

    Args:
        path: the newest.
        trainee: changed in place.
        config: of the run.
        notice: told in a line if the newest cannot be used and the one before is.

    Raises:
        CheckpointError: as `load_checkpoint`, of the newest, if the one before is not usable either.
    """
    if not path.exists() and not previous(path).exists():
        return None
    try:
        return load_checkpoint(path, trainee, config)
    except CheckpointError as error:
        try:
            progress = load_checkpoint(previous(path), trainee, config)
        except CheckpointError:
            raise error from None
        notice(f"{error}; going on from {previous(path)}")
        return progress


def load_checkpoint(path: Path, trainee: Trainee, config: Config) -> Progress:
    """Restore `trainee` to what `save_checkpoint` wrote.

    Raises:
        CheckpointError: if the file is damaged or belongs to another configuration of networks.
    """
    state = _read(path)
    try:
        if from_json(state["config"]).model != config.model:
            raise CheckpointError(f"{path}: its networks are not those of this configuration")
        for name, part in _parts(trainee).items():
            part.load_state_dict(state[name])
        trainee.updates = state["updates"]
        torch.set_rng_state(state["random"])
        return Progress(state["samples_seen"], state["seconds"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this run ({_first_line(error)})") from error


def load_generator(path: Path) -> tuple[Generator, Config]:
    """The averaged generator of a checkpoint (.pt) or of a weights file (.safetensors), for inference.

    Raises:
        CheckpointError: if the file cannot be read as either.
    """
    try:
        if path.suffix == ".safetensors":
            weights, text = _read_weights(path)
        else:
            state = _read(path)
            weights, text = state["ema"], state["config"]
        config = from_json(text)
        generator = build_generator(config.model)
        generator.load_state_dict(weights)
    except (KeyError, RuntimeError, ConfigError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this trainer ({_first_line(error)})") from error
    generator.eval().requires_grad_(False)
    return generator, config


def blended(first: Generator, second: Generator, share: float) -> Generator:
    """`second` with weights that are `share` its own and otherwise those of `first`.

    Network interpolation (Wang et al. 2018, "ESRGAN", section 3.4): between a generator before and after its
    adversarial training, a balance of fidelity and liveliness that neither has. Changes `second`.

    Raises:
        CheckpointError: if the two are not of the same shape.
    """
    ours, theirs = first.state_dict(), second.state_dict()
    if {name: value.shape for name, value in ours.items()} != {n: v.shape for n, v in theirs.items()}:
        raise CheckpointError("only generators of the same shape can be blended")
    mixed = {
        name: torch.lerp(ours[name], value, share) if value.is_floating_point() else value
        for name, value in theirs.items()
    }
    second.load_state_dict(mixed)
    return second


def save_weights(path: Path, generator: nn.Module, config: Config) -> None:
    """Write the weights as fp16 safetensors with the configuration inside: small enough to keep."""
    from safetensors.torch import save_file

    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in generator.state_dict().items()
    }
    if not all(value.isfinite().all() for value in weights.values()):
        raise CheckpointError(f"{path}: not written, for weights do not fit into fp16")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, metadata={"config": to_json(config.published)})


def start_from(trainee: Trainee, path: Path) -> None:
    """Begin a new run with the generator of an earlier one.

    Raises:
        CheckpointError: if the file cannot be read, or its generator is of another shape.
    """
    weights = load_generator(path)[0].state_dict()
    try:
        trainee.generator.load_state_dict(weights)
        trainee.ema.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: its generator is not that of this configuration ({_first_line(error)})"
        ) from error


def load_pretrained(trainee: Trainee) -> None:
    """Begin a new run with the published weights of the generator's encoder, if it has one.

    Raises:
        ConfigError: if the package that contains them is not installed.
    """
    trainee.ema.load_pretrained()  # type: ignore[operator]  # it is a Generator
    trainee.generator.load_state_dict(trainee.ema.state_dict())


def _first_line(error: Exception) -> str:
    """torch lists every tensor that does not fit, one to a line."""
    return str(error).partition("\n")[0]


def _parts(trainee: Trainee) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "generator": trainee.generator,
        "ema": trainee.ema,
    }
    for i, optimizer in enumerate(trainee.generator_optimizers):
        parts[f"generator_optimizer_{i}"] = optimizer
    if trainee.discriminator is not None:
        parts["discriminator"] = trainee.discriminator
        parts["discriminator_optimizer"] = trainee.discriminator_optimizer
    return parts


def _read(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: unreadable ({error.strerror})") from error
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: not a checkpoint, or damaged") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this trainer")
    return state


def _read_weights(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {})["config"]
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: unreadable ({error})") from error
    return {
        name: value.float() if value.is_floating_point() else value for name, value in weights.items()
    }, text
