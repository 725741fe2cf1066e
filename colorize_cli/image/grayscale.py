"""Distinguish color pictures from black-and-white prints, which may be toned.

Sepia, selenium, cyanotype and the yellow of age give each lightness a single color. A color picture has many
colors of the same lightness. The measure is therefore the spread of a* and b* about their mean at each
lightness, not chroma itself.
"""

import numpy as np

from colorize_cli.color import lab
from colorize_cli.color.lab import Codes, Floats

# In CIE units. The spread of two scans of toned prints was 0.5 and 0.9. One in a hundred of 850 color
# photographs had a spread below 3.3 to 3.5.
COLOR_SPREAD = 3.0
_SIDE = 48  # pixels, long side of the measured copy: small enough to average out JPEG's chroma blocks
_TONES = 24  # groups of equal size, by lightness


def spread(lab: Floats) -> float:
    """Return the root mean square distance of a* and b* from their mean at the same lightness.

    Args:
        lab: (N, 3) CIE L*a*b* of the pixels of a small copy; 0 is returned for N = 0.
    """
    if not len(lab):
        return 0.0
    chroma = lab[np.argsort(lab[:, 0], kind="stable"), 1:]
    squares = [np.square(tone - tone.mean(0)).sum() for tone in np.array_split(chroma, _TONES) if len(tone)]
    return float(np.sqrt(np.sum(squares) / len(chroma)))


def small_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height of the small copy that is measured, in pixels."""
    scale = min(1.0, _SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def spread_of(rgb: Codes, alpha: Codes | None = None) -> float:
    """Measure the spread in a small copy, (H, W, 3) 8-bit or 16-bit sRGB, where `alpha` (H, W) is not 0."""
    visible = rgb.reshape(-1, 3) if alpha is None else rgb[alpha > 0]
    return spread(lab.srgb_to_lab(visible / np.float32(np.iinfo(rgb.dtype).max)))
