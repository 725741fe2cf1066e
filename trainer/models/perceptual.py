"""A perceptual loss: the distance of two pictures in the feature space of a fixed image classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.lab import recompose
from trainer.models.encoders import ENCODER_MULTIPLE, build_encoder
from trainer.models.loss import Loss


class PerceptualLoss(Loss):
    """Feature distance between two chroma maps on the same lightness.

    Johnson et al. 2016, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution". Features are
    normalized over channels as in LPIPS (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features
    as a Perceptual Metric"), but without its learned weights. The encoder keeps its ImageNet weights.

    Args:
        encoder: a row of `trainer.models.encoders.ENCODERS`.
    """

    multiple_of = ENCODER_MULTIPLE

    def __init__(self, encoder: str) -> None:
        super().__init__()
        self.encoder = build_encoder(encoder).eval().requires_grad_(False)

    def load_pretrained(self) -> None:
        """Load the encoder's ImageNet weights.

        Raises:
            ConfigError: if the package with the weights is not installed.
        """
        self.encoder.load_pretrained()

    def forward(self, lightness: Tensor, prediction: Tensor, ab: Tensor) -> Tensor:
        """Compute the distance, averaged over the scales 1/4 to 1/32, positions and pictures.

        Args:
            lightness: (N, 1, H, W) L* in [0, 100]; H and W multiples of 32.
            prediction: (N, 2, h, w) predicted a*, b* in CIE units, which get the gradient.
            ab: (N, 2, h, w) true a*, b*.

        Returns:
            A scalar in [0, 4].
        """
        found = self.encoder(255 * recompose(lightness, prediction))[1:]
        with torch.no_grad():
            expected = self.encoder(255 * recompose(lightness, ab))[1:]
        distances = [
            (F.normalize(f.float(), dim=1) - F.normalize(e.float(), dim=1)).square().sum(1).mean()
            for f, e in zip(found, expected, strict=True)
        ]
        return torch.stack(distances).mean()
