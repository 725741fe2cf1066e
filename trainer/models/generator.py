"""The common interface of all generators."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Generator(nn.Module, ABC):
    """Predicts chroma from lightness. Built by a row of `trainer.models.GENERATORS`.

    Generators are fully convolutional: they accept any height and width that are multiples of `multiple_of`.
    At inference, the chroma of a picture does not depend on the other pictures in its batch.
    """

    multiple_of: int
    """Height and width of the lightness must be multiples of this number."""
    chroma_scale: int
    """Ratio of the lightness's height and width to the chroma's."""

    def load_pretrained(self) -> None:
        """Load the published weights of a part of the network, if there are any, to initialize it.

        Raises:
            ConfigError: if the package with the weights is not installed.
        """

    @abstractmethod
    def forward(self, lightness: Tensor) -> Tensor:
        """Predict chroma.

        Args:
            lightness: (N, 1, H, W) L* in [0, 100].

        Returns:
            (N, 2, H/s, W/s) a*, b* in CIE units, s = `chroma_scale`.
        """
