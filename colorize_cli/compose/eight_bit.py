"""Combine chroma with 8-bit lightness by one multiplication per stored sample.

The factors come from `chroma_ratios`. They are computed on cells and upsampled. Cells are much finer than the
resolution of the prediction.
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

# Pixels per stripe. A stripe of floats fits the processor's cache. Integers take more steps, so their stripes
# are larger, to keep threads from contending for Python's lock.
_STRIPE_FLOATS, _STRIPE_SHORTS = 1 << 17, 1 << 19
# Fixed-point formats of products of grays and factors in 16 bits: the number of fraction bits, and an offset
# that makes every product positive. Cb and Cr are in [-125, 125]; luma minus gray is in [-76, 8].
_LIFT, _CHROMA = (9, 112), (8, 128)
_Form = tuple[int, int]
Values = TypeVar("Values", npt.NDArray[np.int16], Floats)


def compose_rgb8(levels: Bytes, ab: Floats, cells: int | None = None) -> Bytes:
    """Colorize a picture.

    Args:
        levels: Grays of the picture, as 8-bit sRGB, (H, W).
        ab: CIE a* and b* at low resolution, (2, h, w), covering the same picture.
        cells: Maximum number of cells; see `cell_size`.

    Returns:
        (H, W, 3) uint8 sRGB with the lightness of the grays, within one level; exactly the grays where
        a* = b* = 0. The chroma of colors outside the sRGB gamut is reduced.
    """
    size = cell_size(levels.shape, ab, cells)
    ratios = ratios_of(reduced(levels, size), size, ab)
    rgb = np.empty((*levels.shape, 3), np.uint8)
    _multiply(levels, ratios, size, rgb)
    pixels = rgb.reshape(-1, 3)
    for indices, *factors in ratios.beyond(levels, size):
        light = levels.ravel()[indices] + np.float32(OFFSET)
        codes = TO_RGB @ np.stack(factors) * light - np.float32(OFFSET)
        pixels[indices] = np.rint(np.clip(codes, 0, 255)).T
    return rgb


def compose_planes8(levels: Bytes, ab: Floats, cells: int | None = None) -> BytePlanes:
    """Like `compose_rgb8`, but returns planes, with 4:4:4 chroma if cells are single pixels, else 4:2:0."""
    size = cell_size(levels.shape, ab, cells)
    shared = min(size, 2)
    grays, times = reduced(levels, shared), size // shared
    ratios = ratios_of(reduced(grays, times), size, ab)
    forms = _LIFT, _CHROMA, _CHROMA
    planes = _products(grays, (ratios.luma - 1, ratios.blue, ratios.red), times, forms)
    for indices, luma, *chroma in ratios.beyond(grays, times):
        light = grays.ravel()[indices] + np.float32(OFFSET)
        for plane, factors, (_, offset) in zip(planes, (luma - 1, *chroma), forms, strict=True):
            np.put(plane, indices, np.rint(factors * light + offset))
    lift, blue, red = planes
    return BytePlanes(_lifted(levels, lift), blue, red)


def _multiply(levels: Bytes, ratios: ChromaRatios, size: int, rgb: Bytes) -> None:
    """Fill `rgb` with levels (H, W) times the factors of their cells, in stripes."""
    height, width = levels.shape
    cells = cv2.transform(cv2.merge([ratios.luma, ratios.blue, ratios.red]), TO_RGB)
    count = max(1, _STRIPE_FLOATS // (width * size))
    shifted = np.empty((count * size, width), np.float32)
    product = np.empty((count * size, width, 3), np.float32)
    for rows, enlarged in _upsampled(np.asarray(cells, np.float32), size, height, count):
        light, samples = shifted[: len(enlarged)], product[: len(enlarged)]
        np.add(levels[rows], np.float32(OFFSET), out=light)
        cv2.cvtColor(light, cv2.COLOR_GRAY2RGB, samples)
        cv2.multiply(samples, enlarged[:, :width], samples)
        samples, done = samples.reshape(len(light), -1), rgb[rows].reshape(len(light), -1)
        cv2.max(samples, OFFSET, samples)  # type: ignore[call-overload]
        cv2.convertScaleAbs(samples, done, 1, -OFFSET)  # rounds to bytes; nothing is below 0


def _products(grays: Bytes, cells: Iterable[Floats], times: int, forms: Sequence[_Form]) -> list[Bytes]:
    """Multiply grays plus 14 by several factors.

    Args:
        grays: (H, W).
        cells: Planes of factors, each value for `times` by `times` grays.
        times: A power of 2.
        forms: Fixed-point format of each product.

    Returns:
        For each plane of factors the products plus the offset of its format, (H, W) bytes.
    """
    height, width = grays.shape
    count = max(1, _STRIPE_SHORTS // (width * times))
    planes = [np.empty(grays.shape, np.uint8) for _ in forms]
    fixed = [
        np.rint(factors * np.float32(1 << bits)).astype(np.int16)
        for factors, (bits, _) in zip(cells, forms, strict=True)
    ]
    lights = np.empty((count * times, width), np.uint16)
    for stripes in zip(*(_upsampled(plane, times, height, count) for plane in fixed), strict=True):
        rows, first = stripes[0]
        light = lights[: len(first)]
        np.copyto(light, grays[rows])
        light += np.uint16(OFFSET)
        for plane, (_, ratios), (bits, offset) in zip(planes, stripes, forms, strict=True):
            # Factors are int16 and may be negative, light is uint16. Two's complement products are right
            # modulo 2 ** 16. With the offset added the true sum lies in [0, 2 ** 16), so the wrapped sum is
            # equal to it, and an unsigned shift divides it. Grays beyond the limit of their cell may leave
            # that range; the caller overwrites them.
            product = ratios[:, :width].view(np.uint16)
            product *= light
            product += np.uint16((offset << bits) + (1 << bits - 1))  # half a unit, to round
            product >>= np.uint16(bits)
            np.copyto(plane[rows], product, casting="unsafe")
    return planes


def _lifted(levels: Bytes, lift: Bytes) -> Bytes:
    """Add a lift (with offset) per pixel or per 2 x 2 pixels to levels (H, W). Saturates at 0 and 255."""
    width = levels.shape[1]
    lifted = np.empty(levels.shape, np.uint8)
    shared = 1 if lift.shape == levels.shape else 2
    step = max(1, _STRIPE_SHORTS // width)
    for start in range(0, len(lift), step):
        stripe = lift[start : start + step]
        none = np.full_like(stripe, _LIFT[1])
        changes = cv2.subtract(stripe, none), cv2.subtract(none, stripe)
        # Merging a plane with itself and flattening repeats each value horizontally.
        up, down = (cv2.merge([change] * shared).reshape(len(stripe), -1)[:, :width] for change in changes)
        for row in range(start * shared, start * shared + shared):
            rows = slice(row, (start + step) * shared, shared)
            target = lifted[rows]
            cv2.add(levels[rows], up[: len(target)], target)
            cv2.subtract(target, down[: len(target)], target)
    return lifted


def _upsampled(cells: Values, times: int, height: int, count: int) -> Iterator[tuple[slice, Values]]:
    """Upsample cells by `times`, linearly between their centers, in stripes of `count` rows of cells.

    Yields:
        The rows of the picture (of height `height`) that a stripe covers, and the stripe, as wide as whole
        cells. Its memory is reused for the next stripe. The caller may write to it.
    """
    width = cells.shape[1] * times
    # One more row of cells at both ends, since interpolation uses them.
    large = np.empty(((count + 2) * times, width, *cells.shape[2:]), cells.dtype)
    for start in range(0, len(cells), count):
        above, below = max(start - 1, 0), min(start + count + 1, len(cells))
        rows = large[: (below - above) * times]
        cv2.resize(cells[above:below], (width, len(rows)), rows, interpolation=cv2.INTER_LINEAR)
        first, beyond = start * times, (start - above) * times
        last = min(first + count * times, height)
        yield slice(first, last), rows[beyond : beyond + last - first]
