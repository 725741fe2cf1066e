"""The palette of a reference photograph, and its transfer to a picture.

Means and standard deviations of a* and b* are made those of the reference, as in Reinhard et al. 2001 ("Color
Transfer between Images", IEEE CG&A 21(5)), among pixels of like lightness, as in Welsh et al. 2002
("Transferring Color to Greyscale Images", ACM TOG 21(3)), after whom the lightness of the two is made alike
first too. It is a function of the picture and the reference alone.
"""

from dataclasses import dataclass

import numpy as np

from colorize_cli.color.lab import Bytes, Floats, srgb_to_lab
from colorize_cli.color.lightness import Lightness
from colorize_cli.color.resize import resized
from colorize_cli.core.errors import UsageError

# L* of the middles of the zones; each reaches to those of its neighbours.
_ZONES = np.array([10, 30, 50, 70, 90], np.float32)
# How much the whole picture counts in each zone, as a share of its pixels.
_WHOLE = 0.02
# Standard deviations change by no more than this factor up or down, so that noise stays noise.
_MOST_GAIN = 2.0
# In a photograph that is not grey at least so large a share of the pixels has so much chroma.
_COLORED_SHARE, _COLORED = 0.01, 5.0
# No colour becomes stronger than all but this share of the reference's.
_STRONGEST_SHARE = 0.01


@dataclass(frozen=True)
class Palette:
    """What is kept of a photograph's colours.

    Attributes:
        lightness: Mean and standard deviation of L*.
        means: Of a* and b* in each zone of lightness, (zones, 2).
        deviations: Their standard deviations, (zones, 2).
        strongest: The chroma that hardly any of its colours exceeds.
    """

    lightness: tuple[float, float]
    means: Floats
    deviations: Floats
    strongest: float

    @staticmethod
    def of(rgb: Bytes) -> "Palette":
        """The palette of a photograph, (H, W, 3) sRGB.

        Raises:
            UsageError: It is grey.
        """
        lab = srgb_to_lab(rgb.reshape(-1, 3) / np.float32(255))
        chroma = np.hypot(lab[:, 1], lab[:, 2])
        if np.quantile(chroma, 1 - _COLORED_SHARE) < _COLORED:
            raise UsageError("it has no colours")
        means, deviations = _statistics(lab[:, 0], lab[:, 1:])
        lightness = float(lab[:, 0].mean()), float(lab[:, 0].std())
        return Palette(lightness, means, deviations, float(np.quantile(chroma, 1 - _STRONGEST_SHARE)))


def transfer(lightness: Lightness, ab: Floats, palette: Palette) -> Floats:
    """Moves a picture's chroma to the palette of a reference.

    Args:
        lightness: The picture's own, (H, W).
        ab: CIE a* and b* at low resolution, (2, h, w), covering the same picture.
        palette: Of the reference.

    Returns:
        The new a* and b*, (2, h, w). Contrasts of chroma within a zone of lightness grow at most twofold, and
        no colour becomes stronger than it was and than the reference's.
    """
    values = _like(resized(lightness, (ab.shape[1], ab.shape[2])).ravel(), palette.lightness)
    chroma = ab.reshape(2, -1).T
    means, deviations = _statistics(values, chroma)
    gains = np.clip(palette.deviations / np.maximum(deviations, np.float32(1e-3)), 1 / _MOST_GAIN, _MOST_GAIN)
    zones = _zones(values)
    moved = chroma * (zones @ gains) + zones @ (palette.means - gains * means)
    strength, before = np.hypot(*moved.T), np.hypot(*chroma.T)
    limit = np.maximum(before, np.float32(palette.strongest))
    moved *= np.minimum(1, limit / np.maximum(strength, np.float32(1e-6)))[:, None]
    return np.ascontiguousarray(moved.T, np.float32).reshape(ab.shape)


def _like(lightness: Floats, wanted: tuple[float, float]) -> Floats:
    """L* with the mean and standard deviation wanted, the latter within the bound of gains."""
    mean, deviation = wanted
    gain = np.clip(deviation / max(float(lightness.std()), 1e-3), 1 / _MOST_GAIN, _MOST_GAIN)
    return np.asarray((lightness - lightness.mean()) * gain + mean, np.float32)


def _zones(lightness: Floats) -> Floats:
    """How far each of n pixels is in each zone, (n, zones); its shares add up to 1."""
    position = np.interp(lightness, _ZONES, np.arange(len(_ZONES)))
    shares = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(len(_ZONES))))
    return np.asarray(shares, np.float32)


def _statistics(lightness: Floats, chroma: Floats) -> tuple[Floats, Floats]:
    """Means and standard deviations in each zone, (zones, 2) each, of the a* and b* of n pixels, (n, 2)."""
    zones = _zones(lightness).astype(np.float64) + _WHOLE
    shares = zones / zones.sum(axis=0)
    means = shares.T @ chroma
    squares = shares.T @ (chroma.astype(np.float64) ** 2)
    deviations = np.sqrt(np.maximum(squares - means**2, 0))
    return means.astype(np.float32), deviations.astype(np.float32)
