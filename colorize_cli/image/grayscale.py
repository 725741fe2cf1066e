"""Whether a picture is in colour, or a print in black and white that may be toned.

Sepia, selenium, cyanotype and the yellow of age give every lightness one colour; a picture in colour has many
colours of the same lightness. So it is the spread of a* and b* about their mean at each lightness that tells
them apart, not chroma itself.
"""

import numpy as np

from colorize_cli.color import lab
from colorize_cli.color.lab import Codes, Floats

# In CIE units. Two scans of toned prints spread by 0.5 and 0.9; of 850 colour photographs one in a hundred by
# less than 3.3 to 3.5.
COLOR_SPREAD = 3.0
_SIDE = 48  # pixels, of the copy that is looked at: so small that JPEG's blocks of chroma average out
_TONES = 24  # parts of equal size, by lightness


def spread(lab: Floats) -> float:
    """Root mean square distance of a* and b* from their mean at the same lightness.

    Args:
        lab: (N, 3) CIE L*a*b* of the pixels of a small copy.
    """
    if not len(lab):
        return 0.0
    chroma = lab[np.argsort(lab[:, 0], kind="stable"), 1:]
    squares = [np.square(part - part.mean(0)).sum() for part in np.array_split(chroma, _TONES) if len(part)]
    return float(np.sqrt(np.sum(squares) / len(chroma)))


def small_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the copy that is looked at."""
    scale = min(1.0, _SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def spread_of(rgb: Codes, alpha: Codes | None = None) -> float:
    """The spread in a small copy, (H, W, 3) sRGB of 8 or 16 bits, where `alpha` (H, W) is not 0."""
    seen = rgb.reshape(-1, 3) if alpha is None else rgb[alpha > 0]
    return spread(lab.srgb_to_lab(seen / np.float32(np.iinfo(rgb.dtype).max)))
