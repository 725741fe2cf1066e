"""The palette of a reference photograph, and its transfer to an image.

The means and standard deviations of a* and b* are changed to those of the reference, as in Reinhard et al.
2001 ("Color Transfer between Images", IEEE CG&A 21(5)). This is done for pixels of similar lightness, as in
Welsh et al. 2002 ("Transferring Color to Greyscale Images", ACM TOG 21(3)). As in the latter paper, the
image's lightness is first matched to the reference's. The result depends only on the image and the reference.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from colorize_cli.color.lab import Bytes, Floats, srgb_to_lab
from colorize_cli.color.lightness import Lightness
from colorize_cli.color.resize import resized
from colorize_cli.core.errors import UsageError

# L* of the centers of the zones. Each zone extends to the centers of its neighbors.
_ZONES = np.array([10, 30, 50, 70, 90], np.float32)
# Weight of all pixels in every zone's statistics, relative to a pixel fully in the zone.
_WHOLE = 0.02
# Maximum factor by which standard deviations change, up or down. It keeps noise from being amplified.
_MOST_GAIN = 2.0
# A photograph is in color if at least this share of its pixels has at least this chroma.
_COLORED_SHARE, _COLORED = 0.01, 5.0
# Share of the reference's pixels whose chroma may exceed the limit for the result.
_STRONGEST_SHARE = 0.01


@dataclass(frozen=True)
class Palette:
    """Color statistics of a photograph.

    Attributes:
        lightness: Mean and standard deviation of L*.
        means: Means of a* and b* in each zone of lightness, (zones, 2).
        deviations: Standard deviations of a* and b* in each zone of lightness, (zones, 2).
        strongest: 99th percentile of chroma.
        digest: Digest of the pixels.
    """

    lightness: tuple[float, float]
    means: Floats
    deviations: Floats
    strongest: float
    digest: bytes

    @staticmethod
    def of(rgb: Bytes) -> "Palette":
        """Compute the palette of a photograph, (H, W, 3) sRGB uint8.

        Raises:
            UsageError: The photograph is gray.
        """
        lab = srgb_to_lab(rgb.reshape(-1, 3) / np.float32(255))
        chroma = np.hypot(lab[:, 1], lab[:, 2])
        if np.quantile(chroma, 1 - _COLORED_SHARE) < _COLORED:
            raise UsageError("it has no colors")
        means, deviations = _statistics(lab[:, 0], lab[:, 1:])
        lightness = float(lab[:, 0].mean()), float(lab[:, 0].std())
        strongest = float(np.quantile(chroma, 1 - _STRONGEST_SHARE))
        content = repr(rgb.shape).encode() + rgb.tobytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        return Palette(lightness, means, deviations, strongest, digest)


def transfer(lightness: Lightness, ab: Floats, palette: Palette) -> Floats:
    """Transfer the palette of a reference to an image's chroma.

    Args:
        lightness: Lightness of the image, (H, W).
        ab: CIE a* and b* of the same image at low resolution, (2, h, w).
        palette: The reference's palette.

    Returns:
        The new a* and b*, (2, h, w). The contrast of chroma within a zone of lightness at most doubles. The
        chroma of a pixel does not exceed the larger of its previous chroma and the palette's strongest.
    """
    values = resized(lightness, (ab.shape[1], ab.shape[2])).ravel()
    # Shift and scale L* to the mean and the standard deviation of the palette.
    mean, deviation = palette.lightness
    gain = np.clip(deviation / max(float(values.std()), 1e-3), 1 / _MOST_GAIN, _MOST_GAIN)
    values = np.asarray((values - values.mean()) * gain + mean, np.float32)
    chroma = ab.reshape(2, -1).T
    means, deviations = _statistics(values, chroma)
    gains = np.clip(palette.deviations / np.maximum(deviations, np.float32(1e-3)), 1 / _MOST_GAIN, _MOST_GAIN)
    zones = _zones(values)
    moved = chroma * (zones @ gains) + zones @ (palette.means - gains * means)
    strength, before = np.hypot(*moved.T), np.hypot(*chroma.T)
    limit = np.maximum(before, np.float32(palette.strongest))
    moved *= np.minimum(1, limit / np.maximum(strength, np.float32(1e-6)))[:, None]
    return np.ascontiguousarray(moved.T, np.float32).reshape(ab.shape)


def _zones(lightness: Floats) -> Floats:
    """Return the weights of n pixels in the zones, (n, zones). The weights of a pixel sum to 1."""
    position = np.interp(lightness, _ZONES, np.arange(len(_ZONES)))
    shares = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(len(_ZONES))))
    return np.asarray(shares, np.float32)


def _statistics(lightness: Floats, chroma: Floats) -> tuple[Floats, Floats]:
    """Return the means and standard deviations of a* and b* of n pixels, (n, 2), by zone, (zones, 2) each."""
    zones = _zones(lightness).astype(np.float64) + _WHOLE
    shares = zones / zones.sum(axis=0)
    means = shares.T @ chroma
    squares = shares.T @ (chroma.astype(np.float64) ** 2)
    deviations = np.sqrt(np.maximum(squares - means**2, 0))
    return means.astype(np.float32), deviations.astype(np.float32)
