"""The networks, with tables of generators and discriminators by name."""

from __future__ import annotations

from collections.abc import Callable

from trainer.config import ConfigError, ModelConfig
from trainer.models.encoder_unet import EncoderUNet
from trainer.models.generator import Generator
from trainer.models.patchgan import PatchGAN
from trainer.models.pix2pix_unet import Pix2PixUNet
from trainer.models.projected import ProjectedDiscriminator

__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "Discriminator",
    "Generator",
    "build_discriminator",
    "build_generator",
]


GENERATORS: dict[str, Callable[[ModelConfig], Generator]] = {
    "encoder_unet": lambda config: EncoderUNet(
        config.encoder, config.width, config.enlarge, config.frozen_blocks
    ),
    "pix2pix_unet": lambda config: Pix2PixUNet(config.width, config.depth),
}


def build_generator(config: ModelConfig) -> Generator:
    """Build the generator named by the configuration, with random weights.

    Raises:
        ConfigError: if there is no generator of that name.
    """
    if config.generator not in GENERATORS:
        raise ConfigError(f"model.generator: {config.generator!r} is not one of {', '.join(GENERATORS)}")
    return GENERATORS[config.generator](config)


Discriminator = PatchGAN | ProjectedDiscriminator

DISCRIMINATORS: dict[str, Callable[[ModelConfig, Generator], Discriminator]] = {
    "patchgan": lambda config, generator: PatchGAN(
        generator.chroma_scale,
        config.discriminator_width,
        config.discriminator_layers,
        spectral_norm=config.spectral_norm,
    ),
    "projected": lambda config, _: ProjectedDiscriminator(config.encoder, config.discriminator_width),
}


def build_discriminator(config: ModelConfig, generator: Generator) -> Discriminator:
    """Build the discriminator named by the configuration, with random weights, for a generator's output.

    Raises:
        ConfigError: if there is no discriminator of that name.
    """
    if config.discriminator not in DISCRIMINATORS:
        names = ", ".join(DISCRIMINATORS)
        raise ConfigError(f"model.discriminator: {config.discriminator!r} is not one of {names}")
    return DISCRIMINATORS[config.discriminator](config, generator)
