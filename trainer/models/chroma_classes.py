"""`chroma_unet` that chooses among colours, as Zhang et al. 2016 do, in place of naming a* and b*.

A regression answers with the mean of all colours that a thing may have, which is brown; a distribution can
keep them apart, and the annealed mean leans to one of them. It is taken inside the network, so that what is
exported gives a* and b* like any other.
"""

from __future__ import annotations

from torch import Tensor, nn

from trainer.models.chroma_unet import ChromaUNet
from trainer.models.generator import Generator
from trainer.models.palette import Palette


class ChromaClasses(Generator):
    """Lightness to chroma by classification.

    Args:
        width: as for `chroma_unet`.
        temperature: of the annealed mean; Zhang et al. 2016 found 0.38 best.
        chroma_scale: as for `chroma_unet`.
    """

    palette: Palette

    def __init__(self, width: int = 32, temperature: float = 0.38, chroma_scale: int = 2) -> None:
        super().__init__()
        self.temperature = temperature
        self.palette = Palette()
        self.trunk = ChromaUNet(width, chroma_scale)
        self.multiple_of = self.trunk.multiple_of
        self.chroma_scale = chroma_scale
        self.trunk.head = nn.Conv2d(width, len(self.palette), 1)

    def forward(self, lightness: Tensor) -> Tensor:
        """(N, 1, H, W) L* in [0, 100] => (N, 2, H/s, W/s) a*, b* in CIE units."""
        return self.learn(lightness)[0]

    def learn(self, lightness: Tensor) -> tuple[Tensor, Tensor]:
        """a*, b*, and the logits (N, K, H/s, W/s) of the palette's colours."""
        scores: Tensor = self.trunk.head(self.trunk.features(lightness))
        return self.palette.decode(scores.float(), self.temperature), scores
