"""The colour of a picture as factors on its grey, worked out for cells of some pixels.

What light of one colour falls on gets, lighter or darker, the same proportions of red, green and blue. The
curve of sRGB (IEC 61966-2-1) is, but for its darkest ten codes, a power 2.4 of the code c plus an offset, so
that codes keep proportions too. With the three factors q that make a colour's red, green and blue from the
grey of its lightness, on any other grey c

    c' + 14 = q (c + 14)

is a colour of that grey's lightness exactly: with the weights w of linear red, green and blue in luminance,

    sum(w q ** 2.4) = 1.

Luma and chroma of JPEG (ITU-T T.871) are weighted sums of these codes, and have factors likewise: luma's is
near 1, those of chroma are what the network says, and it is luma's that follows from them by the sum.
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
# Most cells for each pixel of a* and b*, which is at least four by four: finer than anything can be told.
_PER_PIXEL, _FEWEST, _MOST = 128, 1 << 16, 1 << 20
_LONGEST = 1 << 14  # cells beside each other; cv2 takes less than twice as many
# A cell's colour is to be one of sRGB for greys that are lighter than the cells around it by so much. Lighter
# ones, as specks of dust, are a matter of their own.
_GRAIN = np.uint8(6)
_BESIDE = np.ones((3, 3), np.uint8)
_SLACK = 0.5  # of a level, which is rounded away
# Cb and Cr are to lie between -125 and 125: those of full red or blue would not, as codes plus 14.
_PER_CHROMA = (255 + OFFSET) / 125
_TINY = np.float32(1e-6)


@dataclass(frozen=True)
class ChromaRatios:
    """Of each cell, (rows, columns) each.

    Attributes:
        luma: Of Y' plus 14.
        blue: Of Cb.
        red: Of Cr.
        limit: The lightest grey, uint8, for which they give a colour of sRGB, also where those of the cells
            beside it have a part in them; 255 where a cell is a pixel, and its factors are for that alone.
    """

    luma: Floats
    blue: Floats
    red: Floats
    limit: Bytes

    def beyond(self, grays: Bytes, times: int) -> Iterator[tuple[Indices, Floats, Floats, Floats]]:
        """Greys beyond the limit of their cells, with factors of their own.

        Args:
            grays: The picture's, (H, W), or means of some.
            times: How many of them, down and across, a cell has.

        Yields:
            Their places in `grays`, as if that were one row, and their factors of luma, Cb and Cr, with which
            they, with less chroma, are colours of sRGB; (n,) each.
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
            for row in range(times):  # of each cell
                own = rows[row::times]
                np.greater(own, limit[: len(own)], out=lighter[row::times])
            places = np.flatnonzero(lighter) + start * times * width
            if places.size:
                centers = (((axis + 0.5) / times - 0.5).astype(np.float32) for axis in divmod(places, width))
                down, across = centers
                blue, red = _sampled(chroma, across, down)
                yield places, *_inside(blue, red, _room(grays.ravel()[places]))


def cell_size(shape: tuple[int, int], ab: Floats, most: int | None = None) -> int:
    """Pixels of a cell, down and across: a power of 2.

    Args:
        shape: Height and width of the picture in pixels.
        ab: CIE a* and b* at low resolution, (2, h, w).
        most: How many cells there may be; None for some as fine as anything can be told of them.
    """
    most = most or min(max(_FEWEST, _PER_PIXEL * ab[0].size), _MOST)
    size = 1
    while True:
        rows, columns = (-(-side // size) for side in shape)
        if rows * columns <= most and max(rows, columns) <= _LONGEST:
            return size
        size *= 2


def ratios_of(cells: Bytes, size: int, ab: Floats) -> ChromaRatios:
    """The factors of a picture's cells.

    Args:
        cells: Mean greys of each, as 8-bit sRGB, (rows, columns).
        size: Pixels of a cell, down and across.
        ab: CIE a* and b* at low resolution, (2, h, w), covering the same picture.
    """
    lightness = Lightness(cells, GRAY8)
    guide = resized(lightness, (ab.shape[1], ab.shape[2]))
    upsampler = GuidedUpsampler.of(guide, np.stack(_of_color(guide, ab)))
    blue, red = upsampler.whole(lightness.rows(0, lightness.shape[0]))
    room = _room(cells if size == 1 else np.minimum(cv2.dilate(cells, _BESIDE), 255 - int(_GRAIN)) + _GRAIN)
    luma, needed = _luma(blue, red)
    outside = np.flatnonzero(needed > room)
    if outside.size:
        parts = _inside(*(plane.ravel()[outside] for plane in (blue, red, room)))
        for plane, part in zip((luma, blue, red), parts, strict=True):
            np.put(plane, outside, part)
        np.put(needed, outside, room.ravel()[outside])
    if size == 1:
        return ChromaRatios(luma, blue, red, np.full_like(cells, 255))
    limit = np.minimum(np.float32(255 + OFFSET + _SLACK) / needed - np.float32(OFFSET), 255).astype(np.uint8)
    return ChromaRatios(luma, blue, red, np.asarray(cv2.erode(limit, _BESIDE), np.uint8))


def _room(grays: Bytes) -> Floats:
    """How large a factor may be for greys."""
    return np.float32(255 + OFFSET) / (grays + np.float32(OFFSET))


def _of_color(lightness: Floats, ab: Floats) -> tuple[Floats, Floats]:
    """The factors of Cb and Cr of colours, their chroma reduced where sRGB ends."""
    red, green, blue = lab.planes_to_srgb(lightness, *ab)
    luma = luma_of((red, green, blue), BT601)
    gray = lab.srgb_of_lightness(lightness) + np.float32(OFFSET / 255)
    return (blue - luma) / (gray * np.float32(_BLUE_OF_BLUE)), (red - luma) / (gray * np.float32(_RED_OF_RED))


def _inside(blue: Floats, red: Floats, room: Floats) -> tuple[Floats, Floats, Floats]:
    """Factors of luma, Cb and Cr, chroma so much less that those of red, green and blue are 0 to `room`.

    Each of these is a concave function of the part of chroma that stays, and 1 where none does. So it lies
    below its tangent there, which gives a part that is below `room`, and above its secant, which gives one
    that is above 0. Chroma itself is to stay where it can be stored. All are (n,).
    """
    steps = [blue * of_blue + red * of_red for of_blue, of_red in TO_RGB[:, 1:]]
    fall = sum(np.float32(w) * step for w, step in zip(lab.LUMINANCE, steps, strict=True))
    rise = functools.reduce(np.maximum, steps) - fall
    least = _luma(blue, red)[0] + functools.reduce(np.minimum, steps)
    part = np.minimum((room - 1) / np.maximum(rise, _TINY), 1 / np.maximum(1 - least, _TINY))
    chroma = np.maximum(np.abs(blue), np.abs(red)) * np.float32(_PER_CHROMA)
    part = np.clip(np.minimum(part, room / np.maximum(chroma, _TINY)), 0, 1)
    blue, red = blue * part, red * part
    return _luma(blue, red)[0], blue, red


def _luma(blue: Floats, red: Floats) -> tuple[Floats, Floats]:
    """The factor of luma for those of chroma, and what there has to be room for.

    That is the greatest of those of red, green and blue, or of chroma as a part of what can be stored; and
    more than there ever is where one of the former is below 0. Of planes, or of any number in a row.
    """
    across, down = ((plane - _LEAST) * _PER_UNIT for plane in (blue, red))
    luma, needed = _sampled(_table(), across, down)
    return luma, needed


def _sampled(planes: Floats, across: Floats, down: Floats) -> list[Floats]:
    """What each channel of planes (H, W, channels) has at some places, linear between their centres."""
    shape = across.shape
    if across.ndim == 1:  # of which cv2 takes no more than 32767
        rows = max(1, -(-across.size // _ROW))
        across, down = (np.resize(axis, (rows, _ROW)) for axis in (across, down))
    found = cv2.remap(planes, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    channels = (np.asarray(channel, np.float32) for channel in cv2.split(found))
    return [channel.ravel()[: shape[0]] if len(shape) == 1 else channel for channel in channels]


_ROW = 256
_BLOCK = 1 << 20  # greys that are looked at at a time
# The factors of chroma that colours of sRGB have lie between these; the table's steps are so fine that it is
# off by less than a tenth of a level.
_LEAST, _MOST_BLUE, _MOST_RED = np.float32(-0.75), 1.5, 1.0
_PER_UNIT = np.float32(64)
_ITERATIONS = 8
_TOO_MUCH = 1e6


@functools.cache
def _table() -> Floats:
    """What `_luma` says by steps of Cr and Cb: where the sum is 1, by Newton's method from above."""
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
