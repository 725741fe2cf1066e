"""The default generator: a U-Net decoder over an encoder that was trained to recognize things.

The color of a thing follows from what it is, and an ImageNet classifier knows what things are. Its features
at 1/32 and 1/16 of the picture say what is seen, those at 1/8 and 1/4 where; chroma is predicted at a quarter
of the working size, since the full-resolution lightness guides its upsampling later.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.blocks import GlobalContext, Residual, Upsample
from trainer.models.encoders import ENCODER_MULTIPLE, build_encoder
from trainer.models.generator import Generator
from trainer.models.norm import BatchNorm

_REDUCTION = 4  # sides of the encoder's input over those of the chroma


class EncoderUNet(Generator):
    """Lightness to chroma by a pretrained encoder and a residual decoder.

    Args:
        encoder: a row of `trainer.models.encoders.ENCODERS`.
        width: unit of the decoder's channels: 4, 4, 3 and 2 times as many at 1/32, 1/16, 1/8 and 1/4.
        enlarge: factor by which the network enlarges its input, 1, 2 or 4, for pictures of a few pixels.
        frozen_blocks: first blocks of the encoder that are not trained.
    """

    _AB_UNIT = 50.0  # a network output of 1 is this much a* or b*: about a saturated color

    def __init__(
        self, encoder: str = "efficientnet_lite0", width: int = 48, enlarge: int = 1, frozen_blocks: int = 0
    ) -> None:
        super().__init__()
        self.enlarge = enlarge
        self.chroma_scale = _REDUCTION // enlarge
        self.multiple_of = ENCODER_MULTIPLE // enlarge
        self.encoder = build_encoder(encoder)
        self.encoder.freeze(frozen_blocks)
        _, quarter, eighth, sixteenth, deepest = self.encoder.channels
        wide, middle, fine = 4 * width, 3 * width, 2 * width
        self.top = nn.Sequential(
            nn.Conv2d(deepest, wide, 1, bias=False),
            BatchNorm(wide),
            nn.ReLU(),
            GlobalContext(wide),
            Residual(wide),
            GlobalContext(wide),
        )
        self.to_sixteenth = Upsample(wide, sixteenth, wide)
        self.decode_sixteenth = nn.Sequential(
            Residual(wide), GlobalContext(wide), Residual(wide), GlobalContext(wide)
        )
        self.to_eighth = Upsample(wide, eighth, middle)
        self.decode_eighth = nn.Sequential(Residual(middle), Residual(middle))
        self.to_quarter = Upsample(middle, quarter, fine)
        self.decode_quarter = Residual(fine)
        self.head = nn.Conv2d(fine, 2, 3, padding=1)

    def load_pretrained(self) -> None:
        """Load the encoder's ImageNet weights."""
        self.encoder.load_pretrained()

    def forward(self, lightness: Tensor) -> Tensor:
        """(N, 1, H, W) L* in [0, 100] => (N, 2, H/s, W/s) a*, b* in CIE units, s = `chroma_scale`."""
        ab: Tensor = self.head(self.features(lightness)) * self._AB_UNIT
        return ab

    def features(self, lightness: Tensor) -> Tensor:
        """(N, 1, H, W) L* in [0, 100] => (N, 2 * width, H/s, W/s), the input of the head."""
        if self.enlarge > 1:
            lightness = F.interpolate(
                lightness, scale_factor=float(self.enlarge), mode="bilinear", align_corners=False
            )
        gray = (lightness * 2.55).expand(-1, 3, -1, -1)
        _, quarter, eighth, sixteenth, deepest = self.encoder(gray)
        x = self.decode_sixteenth(self.to_sixteenth(self.top(deepest), sixteenth))
        x = self.decode_eighth(self.to_eighth(x, eighth))
        features: Tensor = self.decode_quarter(self.to_quarter(x, quarter))
        return features
