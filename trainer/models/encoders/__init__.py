"""Pretrained encoders, with a table of encoders by name."""

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
    """Build an encoder with random weights. Its `load_pretrained` loads the ImageNet weights.

    Raises:
        ConfigError: if there is no encoder of that name.
    """
    if name not in ENCODERS:
        raise ConfigError(f"model.encoder: {name!r} is not one of {', '.join(ENCODERS)}")
    return ENCODERS[name]()
