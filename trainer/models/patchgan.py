"""The conditional discriminator of pix2pix (Isola et al. 2017): a score for every patch of a picture."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as with_spectral_norm

from trainer.models.norm import BatchNorm


class PatchGAN(nn.Module):
    """Scores how real the chroma of each patch is, given the lightness.

    Lightness may be finer than chroma: its `chroma_scale` x `chroma_scale` cells become channels, so that no
    detail is lost and the patches are counted in pixels of chroma. With three stride-2 layers a score sees
    70 x 70 of them.

    Args:
        chroma_scale: height and width of the lightness over those of the chroma.
        width: channels of the first layer; doubled up to 8 times by the later ones.
        layers: number of stride-2 layers.
        spectral_norm: spectral normalization (Miyato et al. 2018) in place of batch normalization.
    """

    _AB_UNIT = 50.0

    def __init__(
        self, chroma_scale: int = 1, width: int = 64, layers: int = 3, *, spectral_norm: bool = True
    ) -> None:
        super().__init__()
        self.chroma_scale = chroma_scale
        channels = [chroma_scale**2 + 2] + [width * min(2**i, 8) for i in range(layers + 1)]
        self.blocks = nn.ModuleList(
            _block(inputs, outputs, 2 if i < layers else 1, spectral_norm, first=i == 0)
            for i, (inputs, outputs) in enumerate(pairwise(channels))
        )
        self.score = _convolution(channels[-1], 1, 1, spectral_norm)

    def load_pretrained(self) -> None:
        """Do nothing: all of the network is trained from scratch."""

    def forward(self, lightness: Tensor, ab: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Scores and features.

        Args:
            lightness: (N, 1, H, W) L* in [0, 100].
            ab: (N, 2, H/s, W/s) a*, b* in CIE units, s = `chroma_scale`.

        Returns:
            A list of one tensor of scores (N, 1, h, w), positive for real, and the output of each layer
            before them.
        """
        x = torch.cat((F.pixel_unshuffle(lightness / 50 - 1, self.chroma_scale), ab / self._AB_UNIT), dim=1)
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return [self.score(x)], features


def _convolution(inputs: int, outputs: int, stride: int, spectral_norm: bool) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, 4, stride, padding=1)
    return with_spectral_norm(convolution) if spectral_norm else convolution


def _block(inputs: int, outputs: int, stride: int, spectral_norm: bool, *, first: bool) -> nn.Module:
    """Convolution, batch normalization (not in the first layer, nor beside spectral), leaky ReLU."""
    layers = [_convolution(inputs, outputs, stride, spectral_norm)]
    if not first and not spectral_norm:
        layers.append(BatchNorm(outputs))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))
