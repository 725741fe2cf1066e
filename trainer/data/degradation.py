"""Looks of old film, as augmentation of the lightness: what no color photograph has and a network will meet.

Color photographs turned gray are sharp, clean and panchromatic; old photographs are not. Each look is a pure
function of a batch and of a random stream on the batch's device. It draws a strength for every sample, up to
what still shows when a damaged photograph has been made as small as the network's working size. The true ab
stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from trainer.config import FilmConfig
from trainer.lab import luminance_to_lightness, rgb_to_linear

Look = Callable[[Tensor, Generator], Tensor]
"""(N, 1, H, W) L* in [0, 100] to the same; values may leave the range."""

_EMULSIONS = (
    # Response to linear red, green and blue, and how often it is drawn.
    ((0.30, 0.40, 0.30), 0.55),  # panchromatic
    ((0.03, 0.57, 0.40), 0.30),  # orthochromatic: blind to red
    ((0.02, 0.18, 0.80), 0.15),  # the blue-sensitive plates before it
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


def age(rgb: Tensor, lightness: Tensor, film: FilmConfig, random: Generator) -> Tensor:
    """The lightness of the pictures as old film might show it.

    Args:
        rgb: (N, 3, H, W) sRGB in [0, 1].
        lightness: (N, 1, H, W), its L* in [0, 100].
        film: the share of samples that gets each look.
        random: on the device of both.

    Returns:
        (N, 1, H, W) L* in [0, 100]; samples that get no look keep their own.
    """
    looks: dict[str, Look] = {"spectral": lambda _, stream: spectral(rgb, stream)} | LOOKS
    for name, look in looks.items():
        if share := getattr(film, name):
            chosen = _uniform(lightness, 0, 1, random) < share
            lightness = torch.where(chosen, look(lightness, random), lightness)
    return lightness.clamp(0, 100)


def spectral(rgb: Tensor, random: Generator) -> Tensor:
    """(N, 3, H, W) sRGB in [0, 1] to the lightness that an emulsion of another color response would give.

    The response is drawn about that of panchromatic, orthochromatic or blue-sensitive film, and sums to 1, so
    that grays stay as they are.
    """
    shares = torch.tensor([share for _, share in _EMULSIONS], device=rgb.device)
    kinds = torch.multinomial(shares, len(rgb), replacement=True, generator=random)
    response = torch.tensor([response for response, _ in _EMULSIONS], device=rgb.device)[kinds]
    response = response * torch.empty_like(response).uniform_(0.6, 1.6, generator=random)
    response = response / response.sum(1, keepdim=True)
    exposed = torch.einsum("nc,nchw->nhw", response, rgb_to_linear(rgb)).unsqueeze(1)
    return luminance_to_lightness(exposed)


def softness(lightness: Tensor, random: Generator) -> Tensor:
    """Blur by a binomial kernel of 5 x 5, from none of it to all: lenses, camera shake, copies of copies."""
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=lightness.device) / 16
    padded = F.pad(lightness, (2, 2, 2, 2), mode="replicate")
    blurred = F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, 5)), kernel.view(1, 1, 5, 1))
    return lightness.lerp(blurred, _uniform(lightness, 0, 1, random))


def contrast(lightness: Tensor, random: Generator) -> Tensor:
    """A gamma for the exposure, then an S-shaped or flattened curve for the paper."""
    gamma = _uniform(lightness, math.log(0.6), math.log(1.7), random).exp()
    toned = (lightness / 100).clamp(0, 1) ** gamma
    steep = toned * toned * (3 - 2 * toned)
    return 100 * toned.lerp(steep, _uniform(lightness, -0.5, 1, random))


def grain(lightness: Tensor, random: Generator) -> Tensor:
    """Noise of up to 4 L*, strongest in the mid-tones, partly clumped."""
    count, _, height, width = lightness.shape
    white = torch.empty(count, 1, height + 1, width + 1, device=lightness.device).normal_(generator=random)
    clumped = 2 * F.avg_pool2d(white, 2, stride=1)
    noise = white[..., 1:, 1:].lerp(clumped, _uniform(lightness, 0, 1, random))
    tones = 0.4 + 0.6 * (1 - (lightness / 50 - 1).square()).clamp(min=0)
    return lightness + _uniform(lightness, 0.5, 4, random) * tones * noise


def fading(lightness: Tensor, random: Generator) -> Tensor:
    """Blacks raised by up to 30 and whites lowered by as much, about a slope of up to 12 each way."""
    low, high = _uniform(lightness, 0, 30, random), _uniform(lightness, 70, 100, random)
    faded = low + lightness * (high - low) / 100
    down, right = _grid(lightness)
    slope_down, slope_right = (_uniform(lightness, -12, 12, random) for _ in range(2))
    return faded + slope_down * (down - 0.5) + slope_right * (right - 0.5)


def damage(lightness: Tensor, random: Generator) -> Tensor:
    """Scratches along the film or across a print, and specks of dust, light or dark."""
    count = len(lightness)
    height, width = lightness.shape[-2:]
    down, right = _grid(lightness)

    def draw(number: int, low: float, high: float) -> Tensor:
        values = torch.empty(count, number, 1, 1, device=lightness.device)
        return values.uniform_(low, high, generator=random)

    def from_a_place(number: int) -> tuple[Tensor, Tensor]:
        return height * (down - draw(number, 0, 1)), width * (right - draw(number, 0, 1))

    upright = draw(_LINES, -0.5, 1.5).clamp(0, 1)  # half of the lines run nearly along the film
    angle = math.pi * draw(_LINES, 0, 1) * upright
    below, beside = from_a_place(_LINES)
    from_line = (beside * angle.cos() + below * angle.sin()).abs()
    lines = (draw(_LINES, 0.5, 1.6) - from_line).clamp(0, 1) * draw(_LINES, -0.5, 1).clamp(0, 1)
    radius = draw(_SPECKS, 0.5, max(0.5, 0.05 * max(height, width))) * draw(_SPECKS, 0, 1)
    specks = (radius - torch.hypot(*from_a_place(_SPECKS))).clamp(0, 1) * draw(_SPECKS, 0, 1)

    damaged = lightness
    for marks in (lines, specks):
        tones = torch.where(draw(marks.shape[1], -1, 2) > 0, 97.0, 5.0)  # two in three are light
        for i in range(marks.shape[1]):
            damaged = damaged + (tones[:, i : i + 1] - damaged) * marks[:, i : i + 1]
    return damaged


def jpeg(lightness: Tensor, random: Generator) -> Tensor:
    """Quantisation of the 8 x 8 cosine transform as JPEG does it to luminance, at qualities from 15 to 80."""
    height, width = lightness.shape[-2:]
    padded = F.pad(lightness, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    rows, columns = padded.shape[-2] // _BLOCK, padded.shape[-1] // _BLOCK
    cosine = _cosine_transform(lightness.device)
    blocks = padded.view(-1, rows, _BLOCK, columns, _BLOCK).transpose(2, 3) * 2.55 - 128
    quality = _uniform(lightness, 15, 80, random).unsqueeze(-1)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)  # as libjpeg scales the table
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
"""The looks that change lightness, in the order in which they happened to a photograph."""


def _uniform(like: Tensor, low: float, high: float, random: Generator) -> Tensor:
    """(N, 1, 1, 1), a value for every sample."""
    return torch.empty(len(like), 1, 1, 1, device=like.device).uniform_(low, high, generator=random)


def _grid(like: Tensor) -> tuple[Tensor, Tensor]:
    """(H, 1) and (1, W): places in a picture, in [0, 1]."""
    height, width = like.shape[-2:]
    down = torch.linspace(0, 1, height, device=like.device).unsqueeze(1)
    return down, torch.linspace(0, 1, width, device=like.device).unsqueeze(0)


def _cosine_transform(device: torch.device) -> Tensor:
    """The orthonormal DCT-II matrix of JPEG's blocks."""
    k = torch.arange(_BLOCK, device=device, dtype=torch.float32)
    matrix = torch.cos(math.pi / _BLOCK * (k + 0.5) * k.unsqueeze(1)) * math.sqrt(2 / _BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix
