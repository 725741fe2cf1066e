"""The U-Net of pix2pix (Isola et al. 2017, "Image-to-Image Translation with Conditional GANs"), in Lab."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from trainer.models.generator import Generator
from trainer.models.norm import BatchNorm


class Pix2PixUNet(Generator):
    """Predicts chroma at the size of the lightness.

    As in the paper's appendix: 4 x 4 convolutions of stride 2, channels doubled up to 8 times `width`, batch
    normalization in all layers except the first, the innermost and the last, tanh, and weights drawn from
    N(0, 0.02). Dropout of 0.5 follows the decoder layers after the innermost whose input and output have the
    maximum number of channels: three at a depth of 8, none below 6, as in the authors' code. Unlike in the
    paper, inference uses the running statistics of batch normalization and no dropout, so that a picture's
    colors do not depend on the other pictures in its batch.

    Args:
        width: channels of the first layer, 64 in the paper.
        depth: number of stride-2 layers of the encoder, 8 in the paper.
    """

    chroma_scale = 1

    _AB_RANGE = 110.0  # tanh covers the a* and b* of the sRGB gamut

    def __init__(self, width: int = 64, depth: int = 8) -> None:
        super().__init__()
        channels = [width * min(2**i, 8) for i in range(depth)]
        self.multiple_of = 2**depth
        self.down = nn.ModuleList(
            _down(inputs, outputs, norm=0 < i < depth - 1, activate=i > 0)
            for i, (inputs, outputs) in enumerate(pairwise([1, *channels]))
        )
        self.up = nn.ModuleList(
            _up(
                channels[i] * (1 if i == depth - 1 else 2),
                channels[i - 1],
                dropout=4 <= i < depth - 1,
            )
            for i in range(depth - 1, 0, -1)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * width, 2, 4, 2, 1), nn.Tanh())
        self.apply(_initialize)

    def forward(self, lightness: Tensor) -> Tensor:
        """Predict chroma: (N, 1, H, W) L* in [0, 100] => (N, 2, H, W) a*, b* in CIE units."""
        x = lightness / 50 - 1
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        skips.pop()
        for up in self.up:
            x = torch.cat((up(x), skips.pop()), dim=1)
        ab: Tensor = self.head(x) * self._AB_RANGE
        return ab


def _initialize(layer: nn.Module) -> None:
    """Draw weights from N(0, 0.02) and norms' scales from N(1, 0.02); zero biases. As in the paper's code."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d) and layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _down(inputs: int, outputs: int, *, norm: bool, activate: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.LeakyReLU(0.2)] if activate else []
    layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=not norm))
    if norm:
        layers.append(BatchNorm(outputs))
    return nn.Sequential(*layers)


def _up(inputs: int, outputs: int, *, dropout: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.ReLU(),
        nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False),
        BatchNorm(outputs),
    ]
    if dropout:
        layers.append(nn.Dropout(0.5))
    return nn.Sequential(*layers)
