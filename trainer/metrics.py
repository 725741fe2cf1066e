"""How close and how colourful predicted pictures are: pure functions of batches of pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.lab import lab_to_rgb


def psnr(prediction: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture, in dB: (N, 3, H, W) twice => (N,)."""
    return -10 * (prediction - truth).square().mean(dim=(1, 2, 3)).clamp(min=1e-10).log10()


def colourfulness(rgb: Tensor) -> Tensor:
    """Colourfulness of each picture: (N, 3, H, W) => (N,).

    Hasler & Suesstrunk 2003, "Measuring colourfulness in natural images": the standard deviations of the
    opponent axes R - G and (R + G) / 2 - B, in 8-bit units, plus 0.3 times the length of their mean.
    """
    red, green, blue = (255 * rgb).unbind(1)
    opponents = torch.stack((red - green, (red + green) / 2 - blue), dim=1)
    spread = opponents.var(dim=(2, 3), correction=0).sum(1).sqrt()
    return spread + 0.3 * opponents.mean(dim=(2, 3)).square().sum(1).sqrt()


def to_rgb(lightness: Tensor, ab: Tensor) -> Tensor:
    """(N, 1, H, W) L* and (N, 2, H, W) ab to (N, 3, H, W) sRGB, clipped to [0, 1]."""
    return lab_to_rgb(torch.cat((lightness, ab), dim=1)).clamp(0, 1)


def bisect_strength(colourfulness_at: Callable[[float], float], target: float) -> float:
    """The factor of the chroma, in [0, 8], at which the mean colourfulness is `target`, by bisection.

    Recipes are compared at equal colourfulness, not at each one's own.
    """
    low, high = 0.0, 8.0
    for _ in range(12):
        middle = (low + high) / 2
        if colourfulness_at(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def measure(
    lightness: Tensor, prediction: Tensor, ab: Tensor, shares: tuple[float, ...] = (0.65,)
) -> dict[str, float]:
    """The figures that are watched during training.

    Args:
        lightness: (N, 1, H, W) L*.
        prediction: (N, 2, H, W) predicted a*, b*.
        ab: (N, 2, H, W) true a*, b*.
        shares: parts of the true colourfulness at which the PSNR is read as well.

    Returns:
        Mean PSNR and colourfulness, `gain` (PSNR above that of the grey picture), mean absolute ab error, and
        `gain_at_65` and the like with the chroma scaled to that share of the true colourfulness.
    """
    truth = to_rgb(lightness, ab)
    grey = psnr(to_rgb(lightness, torch.zeros_like(ab)), truth).mean()
    predicted = to_rgb(lightness, prediction)
    target = float(colourfulness(truth).mean())
    figures = {
        "psnr": float(psnr(predicted, truth).mean()),
        "gain": float(psnr(predicted, truth).mean() - grey),
        "colourfulness": float(colourfulness(predicted).mean()),
        "colourfulness_share": float(colourfulness(predicted).mean()) / target,
        "ab_mae": float((prediction - ab).abs().mean()),
    }
    for share in shares:
        strength = bisect_strength(
            lambda factor: float(colourfulness(to_rgb(lightness, prediction * factor)).mean()), share * target
        )
        matched = psnr(to_rgb(lightness, prediction * strength), truth).mean()
        figures[f"gain_at_{share * 100:.0f}"] = float(matched - grey)
    return figures
