"""The colours among which a classifying generator chooses, and how rare each of them is.

All of it follows Zhang et al. 2016, "Colorful Image Colorization", section 2: ab quantised to a grid of 10
units, as far as sRGB has such colours; true ab softly encoded over its 5 nearest colours; classes rebalanced
by how rare they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.lab import lab_to_rgb

_STEP = 10.0  # between colours, in CIE units
_REACH = 110.0
_NEAREST = 5
_SPREAD = 5.0  # of the encoding's Gaussian, in CIE units
_UNIFORM = 0.5  # lambda: the share of the uniform distribution mixed into the prior


class Palette(nn.Module):
    """K colours of the ab plane."""

    centres: Tensor
    """(K, 2) a*, b*."""
    weights: Tensor
    """(K,): of a pixel whose true colour is nearest to each; all 1 until `learn_prior`."""

    def __init__(self) -> None:
        super().__init__()
        centres = _within_srgb()
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("weights", torch.ones(len(centres)))

    def __len__(self) -> int:
        return len(self.centres)

    def learn_prior(self, ab: Tensor) -> None:
        """Set the weights by how often colours occur in (N, 2, H, W) true ab (equation 4).

        The histogram is smoothed as the encoding is, mixed with the uniform distribution, inverted, and
        scaled so that the expected weight of a pixel is 1.
        """
        near, shares = self.encode(ab)
        counts = torch.zeros_like(self.weights).index_add_(0, near.flatten(), shares.flatten())
        prior = counts / counts.sum()
        weights = 1 / ((1 - _UNIFORM) * prior + _UNIFORM / len(self))
        self.weights.copy_(weights / (weights * prior).sum())

    def encode(self, ab: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 2, H, W) ab to its 5 nearest colours and their shares, each (N * H * W, 5); shares sum to 1."""
        pixels = ab.permute(0, 2, 3, 1).reshape(-1, 2)
        squared, near = torch.cdist(pixels, self.centres).square().topk(_NEAREST, dim=1, largest=False)
        return near, torch.softmax(-squared / (2 * _SPREAD**2), dim=1)

    def decode(self, scores: Tensor, temperature: float) -> Tensor:
        """The annealed mean (equation 5): (N, K, H, W) logits => (N, 2, H, W) ab.

        At a temperature of 1 the mean of the distribution, towards 0 its mode.
        """
        shares = torch.softmax(scores / temperature, dim=1)
        return F.conv2d(shares, self.centres.T.reshape(2, -1, 1, 1))


def cross_entropy(scores: Tensor, ab: Tensor, palette: Palette) -> Tensor:
    """Cross entropy of (N, K, H, W) logits with softly encoded true ab, classes rebalanced (equation 2)."""
    near, shares = palette.encode(ab)
    chosen = scores.log_softmax(1).permute(0, 2, 3, 1).flatten(0, 2).gather(1, near)
    return -(palette.weights[near[:, 0]] * (shares * chosen).sum(1)).mean()


def _within_srgb() -> Tensor:
    """The colours of the grid that sRGB holds at some lightness; on the CPU, for the meta device has none."""
    line = torch.arange(-_REACH, _REACH + _STEP, _STEP, device="cpu")
    ab = torch.cartesian_prod(line, line)
    lightness = torch.arange(0.0, 101.0, device="cpu")
    lab = torch.cat(
        (lightness.repeat(len(ab))[:, None], ab.repeat_interleave(len(lightness), dim=0)), dim=1
    ).view(1, len(ab), len(lightness), 3)
    rgb = lab_to_rgb(lab.permute(0, 3, 1, 2))
    held = ((rgb >= -1e-3) & (rgb <= 1 + 1e-3)).all(dim=1).any(dim=2)[0]
    return ab[held]
