"""The common interface of the losses beside the reconstruction."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Loss(nn.Module, ABC):
    """Compares predicted and true chroma. Built by a row of `trainer.losses.LOSSES`; never trained."""

    multiple_of: int = 1
    """Height and width of the lightness must be multiples of this number."""

    def load_pretrained(self) -> None:
        """Load the published weights of a part of the network, if there are any.

        Raises:
            ConfigError: if the package with the weights is not installed.
        """

    @abstractmethod
    def forward(self, lightness: Tensor, prediction: Tensor, ab: Tensor) -> Tensor:
        """Compute the loss, a scalar.

        Args:
            lightness: (N, 1, H, W) L* in [0, 100], without degradations.
            prediction: (N, 2, h, w) predicted a*, b* in CIE units, which get the gradient.
            ab: (N, 2, h, w) true a*, b*.
        """
