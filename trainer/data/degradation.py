"""Degradations of old film, as augmentation of the lightness.

The gray versions of color photographs are sharp, clean and panchromatic. Old photographs, the network's later
input, are not. Each degradation is a pure function of a batch and of a random generator on the batch's
device. It draws a strength for every sample. The maximum strength is the one still visible after a damaged
photograph is reduced to the network's working size. The true ab do not change.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from trainer.config import DegradationConfig
from trainer.lab import luminance_to_lightness, rgb_to_linear

Look = Callable[[Tensor, Generator], Tensor]
"""(N, 1, H, W) L* in [0, 100] => the same shape; values may leave the range."""

_EMULSIONS = (
    # Response to linear red, green and blue; probability.
    ((0.30, 0.40, 0.30), 0.55),  # panchromatic
    ((0.03, 0.57, 0.40), 0.30),  # orthochromatic: insensitive to red
    ((0.02, 0.18, 0.80), 0.15),  # blue-sensitive plates, older than orthochromatic film
)
_LINES = 3
_SPECKS = 8
_BLOCK = 8
_JPEG_LUMINANCE = (
    # ITU-T T.81 (1992), table K.1.
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def age(rgb: Tensor, lightness: Tensor, film: DegradationConfig, random: Generator) -> Tensor:
    """Degrade the lightness of pictures as old film would.

    Args:
        rgb: (N, 3, H, W) sRGB in [0, 1].
        lightness: (N, 1, H, W), the L* of `rgb`, in [0, 100].
        film: the share of samples that get each degradation.
        random: a generator on the device of both tensors.

    Returns:
        (N, 1, H, W) L* in [0, 100], unchanged for samples without degradations.
    """
    looks: dict[str, Look] = {"spectral": lambda _, stream: spectral(rgb, stream)} | LOOKS
    for name, look in looks.items():
        if share := getattr(film, name):
            chosen = _uniform(lightness, 0, 1, random) < share
            lightness = torch.where(chosen, look(lightness, random), lightness)
    return lightness.clamp(0, 100)


def spectral(rgb: Tensor, random: Generator) -> Tensor:
    """Compute the lightness of an emulsion with another spectral response.

    The response varies randomly around panchromatic, orthochromatic or blue-sensitive film. It sums to 1, so
    that grays do not change.

    Args:
        rgb: (N, 3, H, W) sRGB in [0, 1].
        random: a generator on the same device.

    Returns:
        (N, 1, H, W) L* in [0, 100].
    """
    shares = torch.tensor([share for _, share in _EMULSIONS], device=rgb.device)
    kinds = torch.multinomial(shares, len(rgb), replacement=True, generator=random)
    response = torch.tensor([response for response, _ in _EMULSIONS], device=rgb.device)[kinds]
    response = response * torch.empty_like(response).uniform_(0.6, 1.6, generator=random)
    response = response / response.sum(1, keepdim=True)
    exposed = torch.einsum("nc,nchw->nhw", response, rgb_to_linear(rgb)).unsqueeze(1)
    return luminance_to_lightness(exposed)


def softness(lightness: Tensor, random: Generator) -> Tensor:
    """Blend with a blur by a 5 x 5 binomial kernel, by a random factor in [0, 1].

    Imitates poor lenses, camera shake and repeated copies.
    """
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=lightness.device) / 16
    padded = F.pad(lightness, (2, 2, 2, 2), mode="replicate")
    blurred = F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, 5)), kernel.view(1, 1, 5, 1))
    return lightness.lerp(blurred, _uniform(lightness, 0, 1, random))


def contrast(lightness: Tensor, random: Generator) -> Tensor:
    """Apply a gamma for the exposure, then an S-shaped or flattened curve for the paper."""
    gamma = _uniform(lightness, math.log(0.6), math.log(1.7), random).exp()
    toned = (lightness / 100).clamp(0, 1) ** gamma
    steep = toned * toned * (3 - 2 * toned)
    return 100 * toned.lerp(steep, _uniform(lightness, -0.5, 1, random))


def grain(lightness: Tensor, random: Generator) -> Tensor:
    """Add noise with a standard deviation of up to 4 L*, strongest in the mid-tones and partly clumped."""
    count, _, height, width = lightness.shape
    white = torch.empty(count, 1, height + 1, width + 1, device=lightness.device).normal_(generator=random)
    clumped = 2 * F.avg_pool2d(white, 2, stride=1)
    noise = white[..., 1:, 1:].lerp(clumped, _uniform(lightness, 0, 1, random))
    tones = 0.4 + 0.6 * (1 - (lightness / 50 - 1).square()).clamp(min=0)
    return lightness + _uniform(lightness, 0.5, 4, random) * tones * noise


def fading(lightness: Tensor, random: Generator) -> Tensor:
    """Raise blacks and lower whites by up to 30 L*, and add a gradient of up to 12 L* along each axis."""
    low, high = _uniform(lightness, 0, 30, random), _uniform(lightness, 70, 100, random)
    faded = low + lightness * (high - low) / 100
    down, right = _grid(lightness)
    slope_down, slope_right = (_uniform(lightness, -12, 12, random) for _ in range(2))
    return faded + slope_down * (down - 0.5) + slope_right * (right - 0.5)


def damage(lightness: Tensor, random: Generator) -> Tensor:
    """Draw scratches along the film or across a print, and specks of dust, light or dark."""
    count = len(lightness)
    height, width = lightness.shape[-2:]
    down, right = _grid(lightness)

    def draw(number: int, low: float, high: float) -> Tensor:
        values = torch.empty(count, number, 1, 1, device=lightness.device)
        return values.uniform_(low, high, generator=random)

    def from_random_point(number: int) -> tuple[Tensor, Tensor]:
        return height * (down - draw(number, 0, 1)), width * (right - draw(number, 0, 1))

    upright = draw(_LINES, -0.5, 1.5).clamp(0, 1)  # 0 (along the film) for 1 in 4, 1 (any angle) for 1 in 4
    angle = math.pi * draw(_LINES, 0, 1) * upright
    below, beside = from_random_point(_LINES)
    from_line = (beside * angle.cos() + below * angle.sin()).abs()
    lines = (draw(_LINES, 0.5, 1.6) - from_line).clamp(0, 1) * draw(_LINES, -0.5, 1).clamp(0, 1)
    radius = draw(_SPECKS, 0.5, max(0.5, 0.05 * max(height, width))) * draw(_SPECKS, 0, 1)
    specks = (radius - torch.hypot(*from_random_point(_SPECKS))).clamp(0, 1) * draw(_SPECKS, 0, 1)

    damaged = lightness
    for marks in (lines, specks):
        tones = torch.where(draw(marks.shape[1], -1, 2) > 0, 97.0, 5.0)  # two in three are light
        for i in range(marks.shape[1]):
            damaged = damaged + (tones[:, i : i + 1] - damaged) * marks[:, i : i + 1]
    return damaged


def jpeg(lightness: Tensor, random: Generator) -> Tensor:
    """Quantize the 8 x 8 cosine transform like the luminance of a JPEG, at qualities from 15 to 80."""
    height, width = lightness.shape[-2:]
    padded = F.pad(lightness, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    rows, columns = padded.shape[-2] // _BLOCK, padded.shape[-1] // _BLOCK
    cosine = _cosine_transform(lightness.device)
    blocks = padded.view(-1, rows, _BLOCK, columns, _BLOCK).transpose(2, 3) * 2.55 - 128
    quality = _uniform(lightness, 15, 80, random).unsqueeze(-1)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)  # libjpeg's scaling of the table
    table = (torch.tensor(_JPEG_LUMINANCE, device=lightness.device) * scale).clamp(1, 255)
    coefficients = ((cosine @ blocks @ cosine.T) / table).round() * table
    restored = (cosine.T @ coefficients @ cosine + 128) / 2.55
    return restored.transpose(2, 3).reshape(padded.shape)[..., :height, :width]


LOOKS: dict[str, Look] = {
    "softness": softness,
    "contrast": contrast,
    "grain": grain,
    "fading": fading,
    "damage": damage,
    "jpeg": jpeg,
}
"""The degradations of lightness, in the order in which they happen to a photograph."""


def _uniform(like: Tensor, low: float, high: float, random: Generator) -> Tensor:
    """Draw a value for every sample: (N, 1, 1, 1)."""
    return torch.empty(len(like), 1, 1, 1, device=like.device).uniform_(low, high, generator=random)


def _grid(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the vertical and horizontal coordinates in [0, 1] of a picture's pixels: (H, 1) and (1, W)."""
    height, width = like.shape[-2:]
    down = torch.linspace(0, 1, height, device=like.device).unsqueeze(1)
    return down, torch.linspace(0, 1, width, device=like.device).unsqueeze(0)


def _cosine_transform(device: torch.device) -> Tensor:
    """Return the orthonormal DCT-II matrix of JPEG's blocks: (8, 8)."""
    k = torch.arange(_BLOCK, device=device, dtype=torch.float32)
    matrix = torch.cos(math.pi / _BLOCK * (k + 0.5) * k.unsqueeze(1)) * math.sqrt(2 / _BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix
