"""Chroma onto lightness, in 8 bits: one multiplication for each sample of what is stored of a colour.

The factors are those of `chroma_ratios`, worked out on cells and enlarged: far finer than what the network
says.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from colorize_cli.color.lab import Bytes, Floats
from colorize_cli.color.resize import reduced
from colorize_cli.color.ycbcr import BytePlanes
from colorize_cli.compose.chroma_ratios import OFFSET, TO_RGB, ChromaRatios, cell_size, ratios_of

# Pixels that are worked on at a time. As floats they are what the processor keeps beside it; as integers, of
# which there are more steps, so many that threads do not spend their time on handing on Python's lock.
_STRIPE_FLOATS, _STRIPE_SHORTS = 1 << 17, 1 << 19
# Products of greys and factors are kept in 16 bits: how many of these are behind the point, and what is added
# so that none is negative. Cb and Cr are -125 to 125, and luma is more than the grey by -76 to 8.
_LIFT, _CHROMA = (9, 112), (8, 128)
_Form = tuple[int, int]
Values = TypeVar("Values", npt.NDArray[np.int16], Floats)


def compose_rgb8(levels: Bytes, ab: Floats, cells: int | None = None) -> Bytes:
    """Colours a picture.

    Args:
        levels: Its greys, as 8-bit sRGB, (H, W).
        ab: CIE a* and b* at low resolution, (2, h, w), covering the same picture.
        cells: The most of them; see `cell_size`.

    Returns:
        (H, W, 3) uint8 sRGB of the greys' lightness, to one level; of the greys where a* = b* = 0. Where sRGB
        does not hold a colour, its chroma is reduced.
    """
    size = cell_size(levels.shape, ab, cells)
    ratios = ratios_of(reduced(levels, size), size, ab)
    rgb = np.empty((*levels.shape, 3), np.uint8)
    _multiply(levels, ratios, size, rgb)
    pixels = rgb.reshape(-1, 3)
    for places, *own in ratios.beyond(levels, size):
        light = levels.ravel()[places] + np.float32(OFFSET)
        codes = TO_RGB @ np.stack(own) * light - np.float32(OFFSET)
        pixels[places] = np.rint(np.clip(codes, 0, 255)).T
    return rgb


def compose_planes8(levels: Bytes, ab: Floats, cells: int | None = None) -> BytePlanes:
    """As `compose_rgb8`, to planes: chroma of each pixel where cells are pixels, and else of two by two."""
    size = cell_size(levels.shape, ab, cells)
    shared = min(size, 2)
    grays, times = reduced(levels, shared), size // shared
    ratios = ratios_of(reduced(grays, times), size, ab)
    forms = _LIFT, _CHROMA, _CHROMA
    planes = _products(grays, (ratios.luma - 1, ratios.blue, ratios.red), times, forms)
    for places, luma, *chroma in ratios.beyond(grays, times):
        light = grays.ravel()[places] + np.float32(OFFSET)
        for plane, own, (_, more) in zip(planes, (luma - 1, *chroma), forms, strict=True):
            np.put(plane, places, np.rint(own * light + more))
    lift, blue, red = planes
    return BytePlanes(_lifted(levels, lift), blue, red)


def _multiply(levels: Bytes, ratios: ChromaRatios, size: int, rgb: Bytes) -> None:
    """Fills `rgb` with levels (H, W) times the factors of their cells, in stripes."""
    height, width = levels.shape
    cells = cv2.transform(cv2.merge([ratios.luma, ratios.blue, ratios.red]), TO_RGB)
    count = max(1, _STRIPE_FLOATS // (width * size))
    shifted = np.empty((count * size, width), np.float32)
    product = np.empty((count * size, width, 3), np.float32)
    for rows, enlarged in _enlarged(np.asarray(cells, np.float32), size, height, count):
        light, samples = shifted[: len(enlarged)], product[: len(enlarged)]
        np.add(levels[rows], np.float32(OFFSET), out=light)
        cv2.cvtColor(light, cv2.COLOR_GRAY2RGB, samples)
        cv2.multiply(samples, enlarged[:, :width], samples)
        samples, done = samples.reshape(len(light), -1), rgb[rows].reshape(len(light), -1)
        cv2.max(samples, OFFSET, samples)  # type: ignore[call-overload]
        cv2.convertScaleAbs(samples, done, 1, -OFFSET)  # rounds to bytes; nothing is below 0


def _products(grays: Bytes, cells: Iterable[Floats], times: int, forms: Sequence[_Form]) -> list[Bytes]:
    """Greys (H, W) plus 14, times several factors; for each of these (H, W) bytes.

    Args:
        grays: (H, W).
        cells: The factors, each for `times` by `times` greys.
        times: A power of 2.
        forms: How the products of each are kept.
    """
    height, width = grays.shape
    count = max(1, _STRIPE_SHORTS // (width * times))
    planes = [np.empty(grays.shape, np.uint8) for _ in forms]
    fixed = [
        np.rint(own * np.float32(1 << bits)).astype(np.int16)
        for own, (bits, _) in zip(cells, forms, strict=True)
    ]
    lights = np.empty((count * times, width), np.uint16)
    for stripes in zip(*(_enlarged(own, times, height, count) for own in fixed), strict=True):
        rows, first = stripes[0]
        light = lights[: len(first)]
        np.copyto(light, grays[rows])
        light += np.uint16(OFFSET)
        for plane, (_, ratios), (bits, more) in zip(planes, stripes, forms, strict=True):
            # Modulo 2 ** 16, until what is added makes it what it is.
            product = ratios[:, :width].view(np.uint16)
            product *= light
            product += np.uint16((more << bits) + (1 << bits - 1))  # for rounding
            product >>= np.uint16(bits)
            np.copyto(plane[rows], product, casting="unsafe")
    return planes


def _lifted(levels: Bytes, lift: Bytes) -> Bytes:
    """Levels (H, W) plus what is said for each of them, or for two by two; between 0 and 255."""
    width = levels.shape[1]
    lifted = np.empty(levels.shape, np.uint8)
    shared = 1 if lift.shape == levels.shape else 2
    step = max(1, _STRIPE_SHORTS // width)
    for start in range(0, len(lift), step):
        stripe = lift[start : start + step]
        none = np.full_like(stripe, _LIFT[1])
        changes = cv2.subtract(stripe, none), cv2.subtract(none, stripe)
        # Each as often beside itself as it is shared.
        up, down = (cv2.merge([change] * shared).reshape(len(stripe), -1)[:, :width] for change in changes)
        for row in range(start * shared, start * shared + shared):
            rows = slice(row, (start + step) * shared, shared)
            own = lifted[rows]
            cv2.add(levels[rows], up[: len(own)], own)
            cv2.subtract(own, down[: len(own)], own)
    return lifted


def _enlarged(cells: Values, times: int, height: int, count: int) -> Iterator[tuple[slice, Values]]:
    """Cells `times` as large, linear between their centres, in stripes of so many rows of cells.

    Yields:
        The rows of the picture, of which there are `height`, that a stripe is for, and the stripe, as wide as
        whole cells are, until the next is asked for. It may be written to.
    """
    width = cells.shape[1] * times
    # With a row of cells more at both ends, as these have a part in what is inside.
    large = np.empty(((count + 2) * times, width, *cells.shape[2:]), cells.dtype)
    for start in range(0, len(cells), count):
        above, below = max(start - 1, 0), min(start + count + 1, len(cells))
        rows = large[: (below - above) * times]
        cv2.resize(cells[above:below], (width, len(rows)), rows, interpolation=cv2.INTER_LINEAR)
        first, beyond = start * times, (start - above) * times
        last = min(first + count * times, height)
        yield slice(first, last), rows[beyond : beyond + last - first]
