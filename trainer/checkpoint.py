"""Checkpoints and weights files: written atomically, read without executing code from the file."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from colorize_cli.storage import atomic
from trainer.config import Config, ConfigError, from_json, to_json
from trainer.models import Generator, build_generator
from trainer.step import TrainState

_FORMAT = 1
_PRETRAINED = Path(__file__).parent / "pretrained"
_BUNDLED = ("photo", "open")  # the weights of the models `default` and `open`


class CheckpointError(Exception):
    """A checkpoint or weights file that cannot be used. The message names the file."""


@dataclass(frozen=True)
class Progress:
    """Progress of a run."""

    samples_seen: int = 0
    seconds: float = 0.0
    """Training time, including the time before the run was resumed."""


def save_checkpoint(path: Path, state: TrainState, config: Config, progress: Progress) -> None:
    """Write everything needed to continue a run bit for bit. Keeps the previous checkpoint beside it."""
    content = {
        "format": _FORMAT,
        "config": to_json(config),
        "samples_seen": progress.samples_seen,
        "seconds": progress.seconds,
        "updates": state.updates,
        "random": torch.get_rng_state(),
        **{name: part.state_dict() for name, part in _parts(state).items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.sweep(path.parent)  # a run that was killed may have left a file as large as a checkpoint

    def keep(_: object) -> None:
        if path.exists():
            path.replace(previous(path))

    with atomic.writing(path, ready=keep) as file:
        torch.save(content, file)


def previous(path: Path) -> Path:
    """Return the path of the checkpoint before the newest."""
    return path.with_suffix(f".previous{path.suffix}")


def resume(
    path: Path, state: TrainState, config: Config, notice: Callable[[str], None] = lambda _: None
) -> Progress | None:
    """Restore `state` from the newest readable checkpoint. Returns None if there is no checkpoint.

    Args:
        path: path of the newest checkpoint.
        state: changed in place.
        config: configuration of the run.
        notice: called with one line of text if the previous checkpoint replaces a damaged one.

    Raises:
        CheckpointError: if neither checkpoint can be used. The message is about the newest.
    """
    if not path.exists() and not previous(path).exists():
        return None
    try:
        return load_checkpoint(path, state, config)
    except CheckpointError as error:
        try:
            progress = load_checkpoint(previous(path), state, config)
        except CheckpointError:
            raise error from None
        notice(f"{error}; continuing from {previous(path)}")
        return progress


def load_checkpoint(path: Path, state: TrainState, config: Config) -> Progress:
    """Restore `state` from a file written by `save_checkpoint`.

    Raises:
        CheckpointError: if the file is damaged or its networks have another configuration.
    """
    content = _read(path)
    try:
        if from_json(content["config"]).model != config.model:
            raise CheckpointError(f"{path}: its networks have another configuration than this run")
        for name, part in _parts(state).items():
            part.load_state_dict(content[name])
        state.updates = content["updates"]
        torch.set_rng_state(content["random"])
        return Progress(content["samples_seen"], content["seconds"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this run ({_first_line(error)})") from error


def load_generator(path: Path) -> tuple[Generator, Config]:
    """Load the averaged generator of a checkpoint (.pt) or weights file (.safetensors), for inference.

    Returns the generator and the configuration of its training.

    Raises:
        CheckpointError: if the file cannot be read as either.
    """
    try:
        if path.suffix == ".safetensors":
            weights, text = _read_weights(path)
        else:
            content = _read(path)
            weights, text = content["ema"], content["config"]
        config = from_json(text)
        generator = build_generator(config.model)
        generator.load_state_dict(weights)
    except (KeyError, RuntimeError, ConfigError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this trainer ({_first_line(error)})") from error
    generator.eval().requires_grad_(False)
    return generator, config


def blended(first: Generator, second: Generator, share: float) -> Generator:
    """Interpolate the weights of two generators: (1 - share) * first + share * second. Changes `second`.

    Network interpolation (Wang et al. 2018, "ESRGAN", section 3.4). Between a generator before and after its
    adversarial training, it balances fidelity and vividness.

    Raises:
        CheckpointError: if the generators have different shapes.
    """
    start, end = first.state_dict(), second.state_dict()
    if {name: value.shape for name, value in start.items()} != {n: v.shape for n, v in end.items()}:
        raise CheckpointError("only generators of the same shape can be blended")
    mixed = {
        name: torch.lerp(start[name], value, share) if value.is_floating_point() else value
        for name, value in end.items()
    }
    second.load_state_dict(mixed)
    return second


def save_weights(path: Path, generator: nn.Module, config: Config) -> None:
    """Write the weights as fp16 safetensors, with the configuration in the metadata.

    Raises:
        CheckpointError: if a weight exceeds the range of fp16.
    """
    from safetensors.torch import save_file

    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in generator.state_dict().items()
    }
    if not all(value.isfinite().all() for value in weights.values()):
        raise CheckpointError(f"{path}: not written: some weights exceed the range of fp16")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.naming(path) as temporary:
        save_file(weights, temporary, metadata={"config": to_json(config.published)})


def start_from(state: TrainState, source: str) -> None:
    """Initialize the generator and its average from a checkpoint or weights file.

    Args:
        state: changed in place.
        source: path of the file, or the name of bundled weights: `photo` or `open`.

    Raises:
        CheckpointError: if the file cannot be read, or its generator has another shape.
    """
    path = Path(source)
    if source in _BUNDLED:
        path = _PRETRAINED / f"{source}.safetensors"
        if not path.exists():
            raise CheckpointError(f"{source}: {path} is not installed; use a clone of the repository")
    weights = load_generator(path)[0].state_dict()
    try:
        state.generator.load_state_dict(weights)
        state.ema.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: its generator has another configuration than this run ({_first_line(error)})"
        ) from error


def load_pretrained(state: TrainState) -> None:
    """Initialize the generator and its average with the encoder's ImageNet weights, if it has an encoder.

    Raises:
        ConfigError: if the package with the weights is not installed.
    """
    state.ema.load_pretrained()  # type: ignore[operator]  # it is a Generator
    state.generator.load_state_dict(state.ema.state_dict())


def _first_line(error: Exception) -> str:
    """Return the first line of an error: torch lists every mismatched tensor on a separate line."""
    return str(error).partition("\n")[0]


def _parts(state: TrainState) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "generator": state.generator,
        "ema": state.ema,
    }
    for i, optimizer in enumerate(state.generator_optimizers):
        parts[f"generator_optimizer_{i}"] = optimizer
    if state.discriminator is not None:
        parts["discriminator"] = state.discriminator
        parts["discriminator_optimizer"] = state.discriminator_optimizer
    return parts


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: unreadable ({error.strerror})") from error
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: not a checkpoint, or a damaged one") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this trainer")
    return content


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
