"""The default generator: a U-Net decoder on an encoder pretrained for image classification.

The color of an object depends on its class, and an ImageNet classifier recognizes classes. Its features at
1/32 and 1/16 of the picture's size are semantic, those at 1/8 and 1/4 localize. Chroma is predicted at a
quarter of the working size, because a guided filter upsamples it later with the full-resolution lightness.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.blocks import GlobalContext, Residual, Upsample
from trainer.models.encoders import ENCODER_MULTIPLE, build_encoder
from trainer.models.generator import Generator
from trainer.models.norm import BatchNorm

_REDUCTION = 4  # ratio of the encoder input's sides to the chroma's


class EncoderUNet(Generator):
    """Predicts chroma by a pretrained encoder and a residual decoder.

    Args:
        encoder: a row of `trainer.models.encoders.ENCODERS`.
        width: unit of the decoder's channel count, which is 4, 4, 3 and 2 times as large at 1/32, 1/16, 1/8
            and 1/4.
        enlarge: upsampling factor of the input, 1, 2 or 4, for very small pictures.
        frozen_blocks: number of the encoder's first blocks that are not trained.
    """

    _AB_UNIT = 50.0  # a* or b* for a network output of 1: about a saturated color

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
        """Predict chroma: (N, 1, H, W) L* in [0, 100] => (N, 2, H/s, W/s) a*, b*, s = `chroma_scale`."""
        ab: Tensor = self.head(self.features(lightness)) * self._AB_UNIT
        return ab

    def features(self, lightness: Tensor) -> Tensor:
        """Compute the input of the head: (N, 1, H, W) L* in [0, 100] => (N, 2 * width, H/s, W/s)."""
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
