"""Chroma onto lightness, in 8 bits: the colour of a pixel as factors on its grey.

What light of one colour falls on gets, lighter or darker, the same proportions of red, green and blue. So a
colour of lightness L* is kept as the three factors q that make it from the grey of L*, and the same q on
another grey give that grey's lightness exactly: with red, green and blue in linear light and their weights w
in luminance,

    sum(w q) Y = Y    whatever Y is,  as sum(w q) = 1

The curve of sRGB (IEC 61966-2-1) is, but for its darkest ten codes, a power of the code c plus an offset; so
the same holds of codes, with q to the power of 1 / 2.4:

    c' = q (c + 14) - 14,     sum(w q ** 2.4) = 1

That leaves one multiplication for each sample of the full picture. The factors are worked out on a picture
of `CHROMA_PIXELS` at most, with the guided upsampling of `compose`, and enlarged: far finer than what the
network says, and finer than the chroma of most JPEGs.
"""

import cv2
import numpy as np

from colorize_cli import color
from colorize_cli.color import Bytes, Floats, Lightness
from colorize_cli.guided import Low
from colorize_cli.working import reduced, resized, whole_cells

CHROMA_PIXELS = 800_000
_OFFSET, _POWER = 14, 2.4
_TOP = 255 + _OFFSET
_RED, _GREEN, _BLUE = (np.float32(weight) for weight in color.LUMINANCE)
# Pixels of the full picture that are worked on at a time: what the processor keeps beside it.
_STRIPE_PIXELS = 1 << 17
_TINY = np.float32(1e-6)


def tint(levels: Bytes, ab: Floats, chroma_pixels: int = CHROMA_PIXELS) -> Bytes:
    """Colours a picture.

    Args:
        levels: Its greys, as 8-bit sRGB, (H, W).
        ab: CIE a* and b* at low resolution, (2, h, w), covering the same picture.
        chroma_pixels: Most pixels of the picture on which factors are worked out.

    Returns:
        (H, W, 3) uint8 sRGB of the greys' lightness, to one level; of the greys where a* = b* = 0. Where sRGB
        does not hold a colour, its factors are brought nearer to 1.
    """
    height, width = levels.shape
    cell = max(1, int(np.ceil(np.sqrt(height * width / chroma_pixels))))
    factors = _factors(levels, ab, cell)
    rgb = np.empty((height, width, 3), np.uint8)
    _multiply(levels, factors, cell, rgb)
    return rgb


def _multiply(levels: Bytes, factors: Floats, cell: int, rgb: Bytes) -> None:
    """Fills `rgb` with levels (H, W) times the factors of their cells, in stripes."""
    height, width = levels.shape
    rows, columns, _ = factors.shape
    step = max(1, _STRIPE_PIXELS // (width * cell))
    shifted = np.empty((step * cell, width), np.float32)
    product = np.empty((step * cell, width, 3), np.float32)
    # What is enlarged has a row of cells more at both ends, as their factors have a part in those inside.
    large = np.empty(((step + 2) * cell, columns * cell, 3), np.float32)
    for start in range(0, rows, step):
        above, below = max(start - 1, 0), min(start + step + 1, rows)
        first, last = start * cell, min((start + step) * cell, height)
        count = last - first
        enlarged = large[: (below - above) * cell]
        cv2.resize(factors[above:below], enlarged.shape[1::-1], enlarged, interpolation=cv2.INTER_LINEAR)
        beyond = (start - above) * cell
        np.add(levels[first:last], np.float32(_OFFSET), out=shifted[:count])
        samples = product[:count]
        cv2.cvtColor(shifted[:count], cv2.COLOR_GRAY2RGB, samples)
        cv2.multiply(samples, enlarged[beyond : beyond + count, :width], samples)
        samples, done = samples.reshape(count, -1), rgb[first:last].reshape(count, -1)
        cv2.max(samples, _OFFSET, samples)  # type: ignore[call-overload]
        cv2.convertScaleAbs(samples, done, 1, -_OFFSET)  # rounds to bytes; nothing is below 0


def _factors(levels: Bytes, ab: Floats, cell: int) -> Floats:
    """(ceil(H / cell), ceil(W / cell), 3): the factors of cells of so many pixels across."""
    levels = whole_cells(levels, cell, cell)
    lightness = Lightness(reduced(levels, cell), color.GREY8)
    guide = resized(lightness, (ab.shape[1], ab.shape[2]))
    low = Low.of(guide, np.stack(_of_colour(guide, ab)))
    red, blue = low.whole(lightness.rows(0, lightness.shape[0]))
    left = _left(red, blue)
    green = _looked_up(left, _ROOTS)
    room = np.float32(_TOP) / (_lightest(levels, cell).astype(np.float32) + np.float32(_OFFSET))
    outside = np.flatnonzero((np.maximum(np.maximum(red, blue), green) > room) | (left < 0))
    if outside.size:
        part = _part_inside(*(plane.ravel()[outside] for plane in (red, blue, left, room)))
        for plane in (red, blue):
            np.put(plane, outside, 1 + (plane.ravel()[outside] - 1) * part)
        left = _left(red.ravel()[outside], blue.ravel()[outside])
        np.put(green, outside, _looked_up(left, _ROOTS))
    return np.asarray(cv2.merge([red, green, blue]), np.float32)


def _of_colour(lightness: Floats, ab: Floats) -> tuple[Floats, Floats]:
    """The factors of red and blue of colours, their chroma reduced where sRGB ends."""
    red, _, blue = color.planes_to_srgb(lightness, *ab)
    shift = np.float32(_OFFSET / 255)
    grey = color.srgb_of_lightness(lightness) + shift
    return (red + shift) / grey, (blue + shift) / grey


def _left(red: Floats, blue: Floats) -> Floats:
    """What the power of green's factor is, so that with those of red and blue luminance stays as it is."""
    powers = _RED * _looked_up(red, _POWERS) + _BLUE * _looked_up(blue, _POWERS)
    return np.asarray((1 - powers) * (1 / _GREEN), np.float32)


def _part_inside(red: Floats, blue: Floats, left: Floats, room: Floats) -> Floats:
    """How far factors may differ from 1, as a part of what they do, so that none exceeds `room`.

    Green's, to the power, is a concave function of that part: it lies below its tangent at 0, which gives a
    part where it is below `room`, and above its secant, which gives one where it is above 0.
    """
    rise = (_RED * (1 - red) + _BLUE * (1 - blue)) * (1 / _GREEN)
    rises = np.maximum(np.maximum(red - 1, blue - 1), rise)
    part = np.minimum((room - 1) / np.maximum(rises, _TINY), 1 / np.maximum(1 - left, _TINY))
    return np.clip(part, 0, 1)


def _lightest(levels: Bytes, cell: int) -> Bytes:
    """The lightest level that the factors of each cell have a part in, of whole cells."""
    if cell == 1:
        return levels
    # Up to half a cell beyond its own edges.
    window = np.ones((2 * cell, 2 * cell), np.uint8)
    lightest = cv2.dilate(levels, window, anchor=(cell, cell))
    return np.ascontiguousarray(lightest[cell // 2 :: cell, cell // 2 :: cell])


def _looked_up(values: Floats, table: Floats) -> Floats:
    """What a table has at the places nearest to values; its ends beyond."""
    places = values * np.float32(_PER_UNIT)
    places += np.float32(0.5)
    np.clip(places, 0, len(table) - 1, out=places)
    return np.asarray(table.take(places.astype(np.uint16)))


# A factor to the power and back, in steps that are below a tenth of a level.
_PER_UNIT = 1 << 13
_POWERS: Floats = (np.arange(1 << 16) / _PER_UNIT).astype(np.float32) ** np.float32(_POWER)
_ROOTS: Floats = (np.arange(2 * _PER_UNIT) / _PER_UNIT).astype(np.float32) ** np.float32(1 / _POWER)
