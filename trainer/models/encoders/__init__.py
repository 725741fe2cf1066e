"""Pretrained encoders, and the table in which a configuration finds its encoder."""

from __future__ import annotations

from collections.abc import Callable

from trainer.config import ConfigError
from trainer.models.encoders.efficientnet_lite import EfficientNetLite

__all__ = ["ENCODERS", "ENCODER_MULTIPLE", "EfficientNetLite", "build_encoder"]

ENCODER_MULTIPLE = 32
"""Height and width of an encoder's input must be multiples of this."""

ENCODERS: dict[str, Callable[[], EfficientNetLite]] = {
    "efficientnet_lite0": lambda: EfficientNetLite("efficientnet_lite0"),
    "efficientnet_lite2": lambda: EfficientNetLite("efficientnet_lite2"),
}


def build_encoder(name: str) -> EfficientNetLite:
    """Build the encoder of that name with fresh weights; `load_pretrained` loads those of ImageNet.

    Raises:
        ConfigError: if there is no such encoder.
    """
    if name not in ENCODERS:
        raise ConfigError(f"model.encoder: {name!r} is none of {', '.join(ENCODERS)}")
    return ENCODERS[name]()
