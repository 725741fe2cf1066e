"""The conditional discriminator of pix2pix (Isola et al. 2017): a score for every patch of a picture."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as with_spectral_norm

from trainer.models.norm import BatchNorm


class PatchGAN(nn.Module):
    """Scores the realism of each patch's chroma, given the lightness.

    The lightness may have a higher resolution than the chroma. Its cells of `chroma_scale` x `chroma_scale`
    pixels become channels (pixel unshuffle), so that no detail is lost. With three stride-2 layers, the
    receptive field of a score is 70 x 70 pixels of chroma.

    Args:
        chroma_scale: ratio of the lightness's height and width to the chroma's.
        width: channels of the first layer, doubled in later layers up to 8 times the width.
        layers: number of stride-2 layers.
        spectral_norm: spectral normalization (Miyato et al. 2018) in place of batch normalization.

    Attributes:
        minimum_chroma: smallest height and width of the chroma that gives a score, in pixels.
    """

    multiple_of = 1
    """Number that the height and width of the lightness must be multiples of, beside `chroma_scale`."""

    _AB_UNIT = 50.0

    def __init__(
        self, chroma_scale: int = 1, width: int = 64, layers: int = 3, *, spectral_norm: bool = True
    ) -> None:
        super().__init__()
        self.chroma_scale = chroma_scale
        self.minimum_chroma = 3 * 2**layers
        channels = [chroma_scale**2 + 2] + [width * min(2**i, 8) for i in range(layers + 1)]
        self.blocks = nn.ModuleList(
            _block(inputs, outputs, 2 if i < layers else 1, spectral_norm, first=i == 0)
            for i, (inputs, outputs) in enumerate(pairwise(channels))
        )
        self.score = _convolution(channels[-1], 1, 1, spectral_norm)

    def load_pretrained(self) -> None:
        """Do nothing, because the whole network is trained from scratch."""

    def forward(self, lightness: Tensor, ab: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Compute scores and features.

        Args:
            lightness: (N, 1, H, W) L* in [0, 100].
            ab: (N, 2, H/s, W/s) a*, b* in CIE units, s = `chroma_scale`.

        Returns:
            A list of one tensor of scores, (N, 1, h, w), positive for real, and a list of the outputs of all
            layers before it.
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
    """Build convolution, batch norm (not in the first layer or with spectral norm) and leaky ReLU."""
    layers = [_convolution(inputs, outputs, stride, spectral_norm)]
    if not first and not spectral_norm:
        layers.append(BatchNorm(outputs))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))
