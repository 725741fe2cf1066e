"""Express the colors of a picture as factors on its grays, computed for cells of several pixels.

Surfaces lit by light of one color have the same proportions of red, green and blue, whether light or dark.
The sRGB curve (IEC 61966-2-1) is, except for its darkest ten codes, a power 2.4 of the code c plus an offset.
Codes with this offset therefore keep the proportions too. Let q be the three factors that turn the gray of a
color's lightness into its red, green and blue. Then for any other gray c

    c' + 14 = q (c + 14)

is a color with exactly the lightness of that gray. With the weights w of linear red, green and blue in
luminance,

    sum(w q ** 2.4) = 1.

Luma and chroma of JPEG (ITU-T T.871) are weighted sums of these codes, so they have factors too. The factors
of chroma come from the prediction. The factor of luma is near 1 and follows from them by the sum.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from colorize_cli.color import lab
from colorize_cli.color.lab import Bytes, Floats
from colorize_cli.color.lightness import GRAY8, Lightness
from colorize_cli.color.resize import resized
from colorize_cli.color.ycbcr import BT601, luma_of
from colorize_cli.compose.upsample import GuidedUpsampler

Indices = npt.NDArray[np.intp]

OFFSET = 14
_POWER = 2.4
# Red, green and blue of luma, Cb and Cr (T.871).
_RED_OF_RED, _BLUE_OF_BLUE = 2 * (1 - BT601.red), 2 * (1 - BT601.blue)
_GREEN = 1 - BT601.red - BT601.blue
TO_RGB = np.array(
    [
        [1, 0, _RED_OF_RED],
        [1, -_BLUE_OF_BLUE * BT601.blue / _GREEN, -_RED_OF_RED * BT601.red / _GREEN],
        [1, _BLUE_OF_BLUE, 0],
    ],
    np.float32,
)
# Maximum number of cells per pixel of a* and b*, and bounds of the total. At least 4 x 4 cells per pixel are
# finer than the prediction.
_PER_PIXEL, _FEWEST, _MOST = 128, 1 << 16, 1 << 20
_LONGEST = 1 << 14  # cells per side; the limit of cv2.remap is just below twice that
# A cell's color must lie inside sRGB for grays up to this many levels lighter than the neighboring cells.
# Lighter grays, such as specks of dust, get separate factors (see `ChromaRatios.beyond`).
_GRAIN = np.uint8(6)
_NEIGHBORS = np.ones((3, 3), np.uint8)
_SLACK = 0.5  # levels, lost in rounding
# Cb and Cr must lie in [-125, 125]. Full red or blue would exceed that, since factors apply to codes plus 14.
_PER_CHROMA = (255 + OFFSET) / 125
_TINY = np.float32(1e-6)


@dataclass(frozen=True)
class ChromaRatios:
    """Factors of the cells on their gray plus 14, (rows, columns) each.

    Attributes:
        luma: Factors of Y' plus 14.
        blue: Factors of Cb.
        red: Factors of Cr.
        limit: The lightest gray, uint8, for which the factors, also when interpolated with those of the
            neighboring cells, give a color inside sRGB. 255 if cells are single pixels, as nothing is
            interpolated then.
    """

    luma: Floats
    blue: Floats
    red: Floats
    limit: Bytes

    def beyond(self, grays: Bytes, times: int) -> Iterator[tuple[Indices, Floats, Floats, Floats]]:
        """Find grays beyond the limit of their cells, and compute separate factors for them.

        Args:
            grays: Grays of the picture, or means of them, (H, W).
            times: Number of grays in a cell, per side.

        Yields:
            Flat indices into `grays`, and factors of luma, Cb and Cr with chroma reduced so that the colors
            lie inside sRGB; (n,) each.
        """
        width = grays.shape[1]
        chroma = np.asarray(cv2.merge([self.blue, self.red]), np.float32)
        step = max(1, _BLOCK // (width * times))
        for start in range(0, len(self.limit), step):
            cells = self.limit[start : start + step]
            rows = grays[start * times : (start + len(cells)) * times]
            size = cells.shape[1] * times, len(cells)
            limit = cv2.resize(cells, size, interpolation=cv2.INTER_NEAREST)[:, :width]
            lighter = np.empty(rows.shape, np.bool_)
            for row in range(times):  # the same row of all cells
                levels = rows[row::times]
                np.greater(levels, limit[: len(levels)], out=lighter[row::times])
            indices = np.flatnonzero(lighter) + start * times * width
            if indices.size:
                centers = (((axis + 0.5) / times - 0.5).astype(np.float32) for axis in divmod(indices, width))
                down, across = centers
                blue, red = _sampled(chroma, across, down)
                yield indices, *_inside(blue, red, _headroom(grays.ravel()[indices]))


def cell_size(shape: tuple[int, int], ab: Floats, most: int | None = None) -> int:
    """Choose the side of a cell in pixels, a power of 2.

    Args:
        shape: Height and width of the picture in pixels.
        ab: CIE a* and b* at low resolution, (2, h, w).
        most: Maximum number of cells; None for cells finer than the prediction.
    """
    most = most or min(max(_FEWEST, _PER_PIXEL * ab[0].size), _MOST)
    size = 1
    while True:
        rows, columns = (-(-side // size) for side in shape)
        if rows * columns <= most and max(rows, columns) <= _LONGEST:
            return size
        size *= 2


def ratios_of(cells: Bytes, size: int, ab: Floats) -> ChromaRatios:
    """Compute the factors of a picture's cells.

    Args:
        cells: Mean gray of each cell, as 8-bit sRGB, (rows, columns).
        size: Side of a cell in pixels.
        ab: CIE a* and b* at low resolution, (2, h, w), covering the same picture.
    """
    lightness = Lightness(cells, GRAY8)
    guide = resized(lightness, (ab.shape[1], ab.shape[2]))
    red, green, blue = lab.planes_to_srgb(guide, *ab)  # with chroma reduced to the gamut
    luma = luma_of((red, green, blue), BT601)
    gray = lab.srgb_of_lightness(guide) + np.float32(OFFSET / 255)
    blue = (blue - luma) / (gray * np.float32(_BLUE_OF_BLUE))
    red = (red - luma) / (gray * np.float32(_RED_OF_RED))
    upsampler = GuidedUpsampler.of(guide, np.stack([blue, red]))
    blue, red = upsampler.whole(lightness.rows(0, lightness.shape[0]))
    headroom = _headroom(
        cells if size == 1 else np.minimum(cv2.dilate(cells, _NEIGHBORS), 255 - int(_GRAIN)) + _GRAIN
    )
    luma, needed = _luma_and_headroom(blue, red)
    outside = np.flatnonzero(needed > headroom)
    if outside.size:
        reduced = _inside(*(plane.ravel()[outside] for plane in (blue, red, headroom)))
        for plane, values in zip((luma, blue, red), reduced, strict=True):
            np.put(plane, outside, values)
        np.put(needed, outside, headroom.ravel()[outside])
    if size == 1:
        return ChromaRatios(luma, blue, red, np.full_like(cells, 255))
    limit = np.minimum(np.float32(255 + OFFSET + _SLACK) / needed - np.float32(OFFSET), 255).astype(np.uint8)
    return ChromaRatios(luma, blue, red, np.asarray(cv2.erode(limit, _NEIGHBORS), np.uint8))


def _headroom(grays: Bytes) -> Floats:
    """Return the largest factor that keeps the product of each gray at or below 255."""
    return np.float32(255 + OFFSET) / (grays + np.float32(OFFSET))


def _inside(blue: Floats, red: Floats, headroom: Floats) -> tuple[Floats, Floats, Floats]:
    """Reduce chroma until the factors of red, green and blue lie in [0, `headroom`]. All arrays are (n,).

    Each of these factors is a concave function of the fraction of chroma that is kept, and 1 at fraction 0.
    It lies below its tangent at 0, which bounds the fraction that keeps it within the headroom. It lies above
    its secant, which bounds the fraction that keeps it positive. Cb and Cr are also kept in their range.

    Returns:
        Factors of luma, Cb and Cr.
    """
    steps = [blue * of_blue + red * of_red for of_blue, of_red in TO_RGB[:, 1:]]
    fall = sum(np.float32(w) * step for w, step in zip(lab.LUMINANCE, steps, strict=True))
    rise = functools.reduce(np.maximum, steps) - fall
    least = _luma_and_headroom(blue, red)[0] + functools.reduce(np.minimum, steps)
    fraction = np.minimum((headroom - 1) / np.maximum(rise, _TINY), 1 / np.maximum(1 - least, _TINY))
    chroma = np.maximum(np.abs(blue), np.abs(red)) * np.float32(_PER_CHROMA)
    fraction = np.clip(np.minimum(fraction, headroom / np.maximum(chroma, _TINY)), 0, 1)
    blue, red = blue * fraction, red * fraction
    return _luma_and_headroom(blue, red)[0], blue, red


def _luma_and_headroom(blue: Floats, red: Floats) -> tuple[Floats, Floats]:
    """Return the factor of luma for factors of chroma, and the headroom that the color needs.

    The needed headroom is the greatest factor of red, green and blue, or the greatest magnitude of chroma
    relative to its range. It exceeds any headroom if a factor of red, green or blue is negative. Arrays are
    planes or (n,).
    """
    across, down = ((plane - _LEAST) * _PER_UNIT for plane in (blue, red))
    luma, needed = _sampled(_table(), across, down)
    return luma, needed


def _sampled(planes: Floats, across: Floats, down: Floats) -> list[Floats]:
    """Sample each channel of planes (H, W, channels) at fractional positions by bilinear interpolation."""
    shape = across.shape
    if across.ndim == 1:  # cv2.remap takes at most 32767 per side
        rows = max(1, -(-across.size // _ROW))
        across, down = (np.resize(axis, (rows, _ROW)) for axis in (across, down))
    found = cv2.remap(planes, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    channels = (np.asarray(channel, np.float32) for channel in cv2.split(found))
    return [channel.ravel()[: shape[0]] if len(shape) == 1 else channel for channel in channels]


_ROW = 256
_BLOCK = 1 << 20  # grays per stripe of `ChromaRatios.beyond`
# Range of the chroma factors of sRGB colors. The steps of the table keep its error below a tenth of a level.
_LEAST, _MOST_BLUE, _MOST_RED = np.float32(-0.75), 1.5, 1.0
_PER_UNIT = np.float32(64)
_ITERATIONS = 8
_TOO_MUCH = 1e6


@functools.cache
def _table() -> Floats:
    """Tabulate `_luma_and_headroom` over Cr and Cb.

    Newton's method, started from above, solves sum(w q ** 2.4) = 1.
    """
    blue = np.arange(_LEAST, _MOST_BLUE, 1 / _PER_UNIT)
    red = np.arange(_LEAST, _MOST_RED, 1 / _PER_UNIT)
    steps = np.tensordot(TO_RGB[:, 1:], np.stack(np.meshgrid(blue, red)), 1)
    luma = 1 - steps.min(axis=0)
    weights = np.asarray(lab.LUMINANCE)[:, None, None]
    for _ in range(_ITERATIONS):
        ratios = np.maximum(luma + steps, 0)
        powers = weights * ratios ** (_POWER - 1)
        luma -= ((powers * ratios).sum(axis=0) - 1) / (_POWER * powers.sum(axis=0))
    chroma = np.maximum(np.abs(blue), np.abs(red)[:, None]) * _PER_CHROMA
    needed = np.maximum(luma + steps.max(axis=0), chroma)
    needed[luma + steps.min(axis=0) < 0] = _TOO_MUCH
    return np.dstack([luma, needed]).astype(np.float32)
