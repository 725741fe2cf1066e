"""Measures of fidelity and colorfulness: pure functions of batches of pictures.

`scores.Scores` has a field for each figure that `evaluate` prints, and `scores.Tally` computes them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from trainer.lab import recompose

SSIM_WINDOW = 11  # pixels across
_WORST = 150.0  # maximum ab error in the curve of Zhang et al. 2016
_CELL = 10.0  # side of a cell of the ab plane, in CIE units
_CELLS = 27  # per row and column, centered on the gray axis; they contain the sRGB gamut


def psnr(prediction: Tensor, truth: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio of each picture, in dB: (N, 3, H, W) in [0, 1] twice => (N,)."""
    return -10 * (prediction - truth).square().mean(dim=(1, 2, 3)).clamp(min=1e-10).log10()


def colorfulness(rgb: Tensor) -> Tensor:
    """Compute the colorfulness of each picture: (N, 3, H, W) sRGB in [0, 1] => (N,).

    Hasler & Suesstrunk 2003, "Measuring colorfulness in natural images": the joint standard deviation of the
    opponent axes R - G and (R + G) / 2 - B, in 8-bit units, plus 0.3 times the length of their mean.
    """
    red, green, blue = (255 * rgb).unbind(1)
    opponents = torch.stack((red - green, (red + green) / 2 - blue), dim=1)
    spread = opponents.var(dim=(2, 3), correction=0).sum(1).sqrt()
    return spread + 0.3 * opponents.mean(dim=(2, 3)).square().sum(1).sqrt()


def ssim(prediction: Tensor, truth: Tensor) -> Tensor:
    """Compute the structural similarity of each picture, averaged over channels: (N, 3, H, W) twice => (N,).

    Wang et al. 2004, with their Gaussian window of 11 x 11 pixels.

    Raises:
        ValueError: if the shorter side is less than 11 pixels.
    """
    if min(truth.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs {SSIM_WINDOW} pixels on each side, but the pictures have {tuple(truth.shape[-2:])}"
        )
    _, everywhere = structural_similarity_index_measure(
        prediction,
        truth,
        kernel_size=SSIM_WINDOW,
        data_range=1.0,
        reduction="none",
        return_full_image=True,
    )
    edge = SSIM_WINDOW // 2  # only windows inside the picture count
    inside: Tensor = everywhere[..., edge:-edge, edge:-edge]
    return inside.mean(dim=(1, 2, 3))


def accuracy(prediction: Tensor, truth: Tensor, tolerance: float) -> Tensor:
    """Compute the share of pixels with the true color: (N, 3, H, W) sRGB in [0, 1] twice => (N,).

    Nazeri et al. 2018, "Image Colorization using Generative Adversarial Networks", section 4: a pixel counts
    if each of its channels is within the tolerance. Here the channels are sRGB, and `tolerance` is a fraction
    of full scale: 0.02 allows an error of 5.1 levels of 255 in each channel.
    """
    close = (prediction - truth).abs() <= tolerance + 1e-6
    return close.all(dim=1).float().mean(dim=(1, 2))


class ChromaStatistics:
    """Statistics of the chroma of a whole set of pictures, accumulated in batches.

    Chroma is binned in square cells of 10 a* and b*, the grid of Zhang et al. 2016, "Colorful Image
    Colorization".
    """

    def __init__(self) -> None:
        self._error = torch.zeros(_CELLS**2, dtype=torch.float64)
        self._true = torch.zeros(_CELLS**2, dtype=torch.float64)
        self._predicted = torch.zeros(_CELLS**2, dtype=torch.float64)

    def add(self, prediction: Tensor, ab: Tensor) -> None:
        """Add predicted and true chroma, (N, 2, H, W) a*, b* in CIE units."""
        error = (prediction - ab).square().sum(1).sqrt().clamp(max=_WORST).flatten().double().cpu()
        cells, predicted_cells = _cells_of(ab), _cells_of(prediction)
        self._error += torch.bincount(cells, error, minlength=_CELLS**2)
        self._true += torch.bincount(cells, minlength=_CELLS**2)
        self._predicted += torch.bincount(predicted_cells, minlength=_CELLS**2)

    @property
    def auc(self) -> float:
        """Area under the share of pixels whose ab error is at most t, over t from 0 to 150, in [0, 1].

        Zhang et al. 2016, section 3.1. The exact integral is 1 - mean(min(error, 150)) / 150.
        """
        return 1 - float(self._error.sum() / self._true.sum()) / _WORST

    @property
    def auc_balanced(self) -> float:
        """Area under the same curve with pixels weighted inversely to the share of their true cell."""
        present = self._true > 0
        return 1 - float((self._error[present] / self._true[present]).mean()) / _WORST

    @property
    def jensen_shannon(self) -> float:
        """Jensen-Shannon distance of the histograms of predicted and true ab over the cells, in [0, 1].

        The square root of the Jensen-Shannon divergence to base 2 (Endres & Schindelin 2003).
        """
        p, q = self._predicted / self._predicted.sum(), self._true / self._true.sum()
        middle = (p + q) / 2
        divergence = sum(torch.where(x > 0, x * (x / middle).log2(), 0).sum() for x in (p, q)) / 2
        return float(torch.as_tensor(divergence).clamp(0, 1).sqrt())


def _cells_of(ab: Tensor) -> Tensor:
    """Compute the index of each pixel's cell: (N, 2, H, W) a*, b* => (N * H * W,)."""
    row, column = ((ab / _CELL).round().long() + _CELLS // 2).clamp(0, _CELLS - 1).unbind(1)
    return (row * _CELLS + column).flatten().cpu()


def find_strength(colorfulness_at: Callable[[float], float], target: float) -> float | None:
    """Find the factor on the chroma, in [0, 8], at which the mean colorfulness is `target`.

    Recipes are compared at equal colorfulness. Colorfulness grows nearly linearly with the factor, so the
    Illinois variant of regula falsi (Dowell & Jarratt 1971) needs only a few steps to come within 0.05 % of
    the target. Returns None if a factor of 8 is still too pale.
    """
    low, high = 0.0, 8.0
    below, above = colorfulness_at(low) - target, colorfulness_at(high) - target
    if below >= 0:
        return low
    if above < 0:
        return None
    side = 0
    for _ in range(30):
        middle = (low * above - high * below) / (above - below)
        value = colorfulness_at(middle) - target
        if abs(value) <= 5e-4 * target:
            break
        if value < 0:
            low, below = middle, value
            above = above / 2 if side < 0 else above
            side = -1
        else:
            high, above = middle, value
            below = below / 2 if side > 0 else below
            side = 1
    return middle


def measure(
    lightness: Tensor, prediction: Tensor, ab: Tensor, shares: tuple[float, ...] = (0.65,)
) -> dict[str, float]:
    """Compute the figures for the log of a training run.

    Args:
        lightness: (N, 1, H, W) L*.
        prediction: (N, 2, H, W) predicted a*, b*.
        ab: (N, 2, H, W) true a*, b*.
        shares: shares of the true colorfulness at which to measure the gain as well.

    Returns:
        Mean PSNR in dB, mean colorfulness, its share of the true colorfulness, mean absolute ab error, and
        `gain`: the PSNR minus the PSNR of the gray picture. For each share also the gain with the chroma
        scaled to it, `gain_at_65` for example, unless the chroma is too pale.
    """
    truth = recompose(lightness, ab)
    gray = psnr(recompose(lightness, torch.zeros_like(ab)), truth).mean()
    predicted = recompose(lightness, prediction)
    target = float(colorfulness(truth).mean())
    figures = {
        "psnr": float(psnr(predicted, truth).mean()),
        "gain": float(psnr(predicted, truth).mean() - gray),
        "colorfulness": float(colorfulness(predicted).mean()),
        "colorfulness_share": float(colorfulness(predicted).mean()) / target,
        "ab_mae": float((prediction - ab).abs().mean()),
    }
    for share in shares:
        strength = find_strength(
            lambda factor: float(colorfulness(recompose(lightness, prediction * factor)).mean()),
            share * target,
        )
        if strength is not None:
            matched = psnr(recompose(lightness, prediction * strength), truth).mean()
            figures[f"gain_at_{share * 100:.0f}"] = float(matched - gray)
    return figures
