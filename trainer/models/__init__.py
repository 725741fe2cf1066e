"""The networks, and the table in which a configuration finds its generator."""

from __future__ import annotations

from collections.abc import Callable

from trainer.config import ConfigError, ModelConfig
from trainer.models.chroma_classes import ChromaClasses
from trainer.models.chroma_unet import ChromaUNet
from trainer.models.generator import Generator
from trainer.models.patchgan import PatchGAN
from trainer.models.pix2pix_unet import Pix2PixUNet

__all__ = ["GENERATORS", "Generator", "PatchGAN", "build_discriminator", "build_generator"]


GENERATORS: dict[str, Callable[[ModelConfig], Generator]] = {
    "chroma_classes": lambda config: ChromaClasses(config.width, config.temperature, config.chroma_scale),
    "chroma_unet": lambda config: ChromaUNet(config.width, config.chroma_scale),
    "pix2pix_unet": lambda config: Pix2PixUNet(config.width, config.depth),
}


def build_generator(config: ModelConfig) -> Generator:
    """The generator that the configuration names, with fresh weights.

    Raises:
        ConfigError: if there is none of that name.
    """
    if config.generator not in GENERATORS:
        raise ConfigError(f"model.generator: {config.generator!r} is none of {', '.join(GENERATORS)}")
    return GENERATORS[config.generator](config)


def build_discriminator(config: ModelConfig, generator: Generator) -> PatchGAN:
    """The PatchGAN that judges this generator's chroma, with fresh weights."""
    return PatchGAN(
        generator.chroma_scale,
        config.discriminator_width,
        config.discriminator_layers,
        spectral_norm=config.spectral_norm,
    )
