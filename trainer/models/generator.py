"""What a caller may know of any generator."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Generator(nn.Module, ABC):
    """Paints chroma onto lightness; a row of `trainer.models.GENERATORS` builds one.

    Fully convolutional: any height and width that are multiples of `multiple_of` will do. At inference no
    picture's chroma depends on what else is in its batch.
    """

    multiple_of: int
    """Height and width of the lightness must be multiples of this."""
    chroma_scale: int
    """Height and width of the lightness are this many times those of the chroma."""

    def load_pretrained(self) -> None:
        """Load the weights that a fresh generator begins with, if any are published for a part of it.

        Raises:
            ConfigError: if the package that contains them is not installed.
        """

    @abstractmethod
    def forward(self, lightness: Tensor) -> Tensor:
        """(N, 1, H, W) L* in [0, 100] => (N, 2, H / chroma_scale, W / chroma_scale) a*, b* in CIE units."""
