"""The configuration of a training run: frozen dataclasses that are printed, saved with the run and hashed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import PurePath
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that is not valid: an unknown field, or a value of the wrong type or range."""


@dataclass(frozen=True)
class Phase:
    """A phase of training with constant crop size, batch size and losses."""

    samples: int = 100_000
    """Number of crops in the phase."""
    crop_size: int = 64
    """Side of the square training crop, in pixels; a multiple of the generator's `multiple_of`."""
    batch_size: int = 32
    """Crops in one update, over all processes."""
    learning_rate: float = 1e-3
    """The generator's learning rate at the start of the phase."""
    final_learning_rate: float = 1e-3
    """The generator's learning rate at the end of the phase, with cosine decay in between."""
    warmup: int = 0
    """Samples over which the learning rate rises linearly from zero."""
    losses: dict[str, float] = field(default_factory=dict)
    """Weights of losses beside the reconstruction: rows of `trainer.losses.LOSSES`, such as `perceptual`."""
    adversarial: float = 0.0
    """Weight of the adversarial loss; 0 skips the discriminator."""
    feature_matching: float = 0.0
    """Weight of the discriminator's feature matching loss (Wang et al. 2018, pix2pixHD)."""
    discriminator_learning_rate: float = 2e-4
    """The discriminator's constant learning rate."""


@dataclass(frozen=True)
class ModelConfig:
    """The two networks."""

    generator: str = "encoder_unet"
    """A row of `trainer.models.GENERATORS`."""
    width: int = 48
    """Unit of the generator's channel count; each scale has a multiple of it."""
    encoder: str = "efficientnet_lite0"
    """A row of `trainer.models.encoders.ENCODERS`: the encoder of `encoder_unet`, of the projected
    discriminator and of the perceptual loss."""
    frozen_blocks: int = 3
    """`encoder_unet` only: number of blocks after the stem that are not trained. At 0 all is trained."""
    enlarge: int = 1
    """`encoder_unet` only: upsampling factor of the network's input, 1, 2 or 4."""
    depth: int = 8
    """`pix2pix_unet` only: number of stride-2 layers of the encoder."""
    discriminator: str = "patchgan"
    """A row of `trainer.models.DISCRIMINATORS`."""
    discriminator_width: int = 64
    """Channels of the PatchGAN's first layer or of the projected discriminator's heads."""
    discriminator_layers: int = 3
    """Stride-2 layers of the PatchGAN; 3 gives the 70 x 70 receptive field of pix2pix."""
    spectral_norm: bool = True
    """Spectral normalization (Miyato et al. 2018) of the PatchGAN in place of its batch normalization."""


@dataclass(frozen=True)
class LossConfig:
    """Parameters of all losses, common to all phases."""

    reconstruction: str = "smooth_l1"
    """A row of `trainer.losses.RECONSTRUCTION`."""
    beta: float = 6.0
    """Error above which `smooth_l1` is linear, and below which the logarithmic losses are nearly flat. In CIE
    units of ab, or in levels of 255 for `log_mse_rgb`."""
    saturation_weight: float = 4.0
    """Additional weight of pixels whose true chroma is `saturated_chroma` or more; 0 weighs all equally."""
    saturated_chroma: float = 50.0
    """Chroma C*ab at which the additional weight is reached; below, it grows linearly."""
    gan: str = "hinge"
    """A row of `trainer.losses.ADVERSARIAL`."""


@dataclass(frozen=True)
class DegradationConfig:
    """The share of samples that get each degradation of old film; see `trainer.data.degradation`."""

    spectral: float = 0.0
    """Spectral response of another emulsion."""
    softness: float = 0.0
    """Blur."""
    contrast: float = 0.0
    """Exposure and contrast."""
    grain: float = 0.0
    """Noise in the mid-tones."""
    fading: float = 0.0
    """Raised blacks, lowered whites, and a gradient of the lightness."""
    damage: float = 0.0
    """Scratches and dust."""
    jpeg: float = 0.0
    """Compression."""


@dataclass(frozen=True)
class AugmentConfig:
    """Random augmentation of the crops of a batch."""

    min_scale: float = 0.6
    """Minimum length of the window's longer side, as a fraction of the stored crop's side."""
    aspect: float = 0.15
    """Maximum relative stretch of one side against the other."""
    flip: bool = True
    """Flip half of the crops horizontally."""
    film: DegradationConfig = field(default_factory=DegradationConfig)
    """Degradations of old film."""


@dataclass(frozen=True)
class Config:
    """One training run."""

    phases: tuple[Phase, ...] = (Phase(),)
    """The phases of the training, in order."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The two networks."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The losses."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """The augmentation of the crops."""
    start_from: str = ""
    """Checkpoint or weights file that initializes the generator of a new run; `photo` or `open` for the
    weights of a bundled model. If empty, the encoder starts with its ImageNet weights and the decoder with
    random ones."""
    minutes: float = 0.0
    """If not 0, the run ends after this time, and the phases share it in proportion to their samples. Such a
    run depends on the speed of the machine."""
    optimizer: str = "muon"
    """The generator's optimizer: a row of `trainer.optim.OPTIMIZERS`."""
    encoder_rate: float = 0.25
    """Learning rate of a pretrained encoder (trained by AdamW) relative to the decoder's."""
    weight_decay: float = 1e-2
    """Decoupled weight decay of the generator's convolutions."""
    ema_decay: float = 0.998
    """Decay per update of the generator's moving average, which is evaluated and exported."""
    gradient_clip: float = 1.0
    """Maximum norm of the generator's gradient."""
    precision: str = "auto"
    """Fabric's precision: `32-true`, `bf16-mixed`, or `auto` for `bf16-mixed` on hardware with bf16."""
    seed: int = 0
    """Seed of the weights and, together with the number of samples seen, of all random choices of data."""
    evaluate_every: int = 20_000
    """Samples between evaluations, each with a sample sheet; there is one every ten minutes at least. May
    change when a run is continued."""
    checkpoint_every: int = 20_000
    """Samples between checkpoints; there is one every ten minutes at least. May change when a run is
    continued."""
    evaluate_size: int = 64
    """Side of the validation crops during training, in pixels."""
    evaluate_crops: int = 1000
    """Maximum number of validation crops, evenly spread over the set."""

    def __post_init__(self) -> None:
        """Check the ranges of all values."""
        if not self.phases:
            raise ConfigError("phases: at least one is needed")
        for name in ("evaluate_every", "checkpoint_every", "evaluate_size", "evaluate_crops"):
            _require(getattr(self, name) >= 1, name, "must be positive")
        _require(0 <= self.minutes < float("inf"), "minutes", "must not be negative")
        _require(self.gradient_clip > 0, "gradient_clip", "must be positive")
        _require(0 <= self.ema_decay < 1, "ema_decay", "must be in [0, 1)")
        _require(0 < self.augment.min_scale <= 1, "augment.min_scale", "must be in (0, 1]")
        _require(self.augment.aspect >= 0, "augment.aspect", "must not be negative")
        for name, share in asdict(self.augment.film).items():
            _require(0 <= share <= 1, f"augment.film.{name}", "must be in [0, 1]")
        _require(self.loss.beta > 0, "loss.beta", "must be positive")
        _require(self.loss.saturated_chroma > 0, "loss.saturated_chroma", "must be positive")
        _require(self.model.depth >= 2, "model.depth", "must be at least 2")
        _require(self.model.enlarge in {1, 2, 4}, "model.enlarge", "must be 1, 2 or 4")
        _require(self.model.frozen_blocks >= 0, "model.frozen_blocks", "must not be negative")
        _require(0 <= self.encoder_rate < float("inf"), "encoder_rate", "must not be negative")
        for name in ("width", "discriminator_width", "discriminator_layers"):
            _require(getattr(self.model, name) >= 1, f"model.{name}", "must be positive")
        precisions = ("auto", "32-true", "bf16-mixed")
        _require(self.precision in precisions, "precision", f"must be one of {', '.join(precisions)}")
        for i, phase in enumerate(self.phases):
            for name in ("samples", "crop_size", "batch_size"):
                _require(getattr(phase, name) >= 1, f"phases.{i}.{name}", "must be positive")
            rates = ("learning_rate", "final_learning_rate", "discriminator_learning_rate")
            weights = {name: getattr(phase, name) for name in (*rates, "adversarial", "feature_matching")}
            weights |= {f"losses.{name}": weight for name, weight in phase.losses.items()}
            for name, value in weights.items():
                _require(0 <= value < float("inf"), f"phases.{i}.{name}", "must not be negative")
            if phase.feature_matching:
                _require(phase.adversarial > 0, f"phases.{i}.feature_matching", "needs adversarial > 0")

    @property
    def total_samples(self) -> int:
        """Crops seen by the end of the last phase."""
        return sum(phase.samples for phase in self.phases)

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the published configuration's JSON."""
        return hashlib.sha256(to_json(self.published).encode()).hexdigest()[:16]

    @property
    def published(self) -> Config:
        """The configuration as stored in exported files, where `start_from` is reduced to its file name."""
        return replace(self, start_from=PurePath(self.start_from).name)

    @property
    def used_losses(self) -> list[str]:
        """Names of the losses in `Phase.losses` that have a weight in any phase, sorted."""
        return sorted({name for phase in self.phases for name, weight in phase.losses.items() if weight > 0})

    @property
    def adversarial(self) -> bool:
        """True if any phase needs a discriminator."""
        return any(phase.adversarial > 0 for phase in self.phases)

    def position(self, samples_seen: int, seconds: float) -> int:
        """Return the position in the phases after samples and seconds of training: up to `total_samples`."""
        if self.minutes:
            return min(self.total_samples, int(self.total_samples * seconds / (60 * self.minutes)))
        return samples_seen

    def phase_at(self, position: int) -> tuple[Phase, int]:
        """Return the phase of the next sample, and the number of samples of that phase already seen.

        Raises:
            ConfigError: if the run is complete.
        """
        start = 0
        for phase in self.phases:
            if position < start + phase.samples:
                return phase, position - start
            start += phase.samples
        raise ConfigError(f"the run is complete: all {start} samples have been seen")


def _require(condition: bool, name: str, problem: str) -> None:
    if not condition:
        raise ConfigError(f"{name}: {problem}")


def with_samples(config: Config, samples: int) -> Config:
    """Scale the phases and their warm-ups so that the run has `samples` samples.

    Raises:
        ConfigError: if a phase is left without samples.
    """
    share = samples / config.total_samples
    phases: list[Phase] = []
    end = 0
    for phase in config.phases:
        start, end = end, end + phase.samples
        count = round(share * end) - round(share * start)
        phases.append(replace(phase, samples=count, warmup=round(share * phase.warmup)))
    return replace(config, phases=tuple(phases))


def to_json(config: Config) -> str:
    """Serialize a configuration as JSON with sorted keys, the form that is printed, saved and hashed."""
    return json.dumps(asdict(_build(Config, asdict(config), "config")), indent=2, sort_keys=True)


def from_json(text: str) -> Config:
    """Read a configuration from JSON. The inverse of `to_json`.

    Raises:
        ConfigError: for an unknown field or a value of the wrong type.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON ({error})") from error
    return _build(Config, values, "config")


def override(config: Config, assignments: list[str]) -> Config:
    """Replace fields given as `name=value`, with dots in nested names.

    Examples: `loss.beta=5`, `phases.0.samples=1000`.

    Raises:
        ConfigError: for an unknown field or a value of the wrong type.
    """
    for assignment in assignments:
        tree: Any = asdict(config)
        name, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"{assignment!r} is not name=value")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        *path, last = name.split(".")
        node = tree
        try:
            for key in path:
                node = node[int(key)] if isinstance(node, list | tuple) else node[key]
            if last != "perceptual" and path[-1:] != ["losses"]:
                node[last]  # only known fields may be set
            node[last] = value
        except (KeyError, IndexError, ValueError, TypeError):
            raise ConfigError(f"{name}: no such field") from None
        config = _build(Config, tree, "config")
    return config


def _build(cls: type[T], values: Any, where: str) -> T:
    """Build a dataclass from JSON values, checking names and types."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected fields, found {values!r}")
    if cls is Phase and "perceptual" in values and isinstance(values.get("losses", {}), dict):
        # Earlier versions wrote the weight of the perceptual loss so.
        weights = {**values.get("losses", {}), "perceptual": values["perceptual"]}
        if weights["perceptual"] == 0:
            del weights["perceptual"]
        values = {name: value for name, value in values.items() if name != "perceptual"} | {"losses": weights}
    hints = get_type_hints(cls)
    if unknown := values.keys() - hints.keys():
        raise ConfigError(f"{where}: no such field: {', '.join(sorted(unknown))}")
    return cls(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    if hint == tuple[Phase, ...]:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list of phases, found {value!r}")
        return tuple(_build(Phase, item, f"{where}.{i}") for i, item in enumerate(value))
    if hint == dict[str, float]:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected weights by name, found {value!r}")
        return {name: _convert(float, weight, f"{where}.{name}") for name, weight in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value
