"""Propagation of color hints to the parts of an image that they touch.

Hints spread by geodesic distance, in which lightness edges are long distances, as in Yatziv & Sapiro 2006
("Fast Image and Video Colorization Using Chrominance Blending", IEEE TIP 15(5)) and Criminisi et al. 2010
("Geodesic Image and Video Editing", ACM TOG 29(5)). Near a hint its color replaces the network's. Further
away it fades, and beyond a limit nothing changes.

The linear system of Levin et al. 2004 ("Colorization using Optimization") has no such limit: constrained to
the network's colors, a small hint fades within its object and leaks through every edge.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from colorize_cli.color.lab import Floats
from colorize_cli.color.lightness import Lightness
from colorize_cli.color.resize import resized
from colorize_cli.compose import Overlay, Pins

# Maximum number of pixels of the reduced image on which hints spread.
_MAX_PIXELS = 1 << 18
# Distances in units of L*. A hint has full weight up to the first distance, and none from the second on.
_NEAR, _FAR = 7.0, 20.0
# Distance across the longer side of an image of uniform lightness.
_ACROSS = 32.0
# Steps of L* between neighbors well below this are shading or grain, and add almost no distance.
_SHADING = 3.0
# Exponent of the weights by distance between hints. Yatziv & Sapiro use 1 to 6.
_FALLOFF = 4
# Resolution in a* and b* at which colors are merged. It becomes coarser until there are few enough colors.
_FINEST, _MAX_COLORS = 2.0, 48
_GROUP_SIZE = 8
# Distances are iterated in sweeps over the image until no distance changes by more than this.
_CONVERGED, _MAX_SWEEPS = 0.02, 200
_STRIPE_PIXELS = 1 << 20


# Draws the hints on the rows [start, stop) of an image; None if there are none.
HintRows = Callable[[int, int], Pins | None]


def guide_of(lightness: Lightness) -> Floats:
    """Return the lightness of an image on which hints spread, L* (h, w), reduced to at most 2**18 pixels."""
    height, width = lightness.shape
    scale = min(1.0, (_MAX_PIXELS / (height * width)) ** 0.5)
    return resized(lightness, (max(1, round(height * scale)), max(1, round(width * scale))))


def spread(lightness: Lightness, rows: HintRows) -> Overlay:
    """Return the chroma that hints give to an image.

    Args:
        lightness: Lightness of the image, (H, W).
        rows: The hints: a mask of the pixels of rows [start, stop) that they cover, (stop - start, width),
            and the a* and b* of these pixels, (2, n); None if there are none.

    Returns:
        The overlay for the network's chroma. On the hints it is exactly their chroma. Its weight is close to
        0 beyond an edge of 25 L*, and 0 from a distance of 0.63 of the image's longer side.
    """
    guide = guide_of(lightness)
    total = np.zeros(guide.shape, np.float32)
    chroma = np.zeros((2, *guide.shape), np.float32)
    nearest = np.full(guide.shape, _FAR, np.float32)
    costs = _Costs.of(guide)
    for colors, begin in _groups(guide.shape, *_seeds(lightness, rows, guide)):
        distances = costs.distances(begin)
        weights = (1 + distances) ** np.float32(-_FALLOFF)
        total += weights.sum(axis=0)
        chroma += np.tensordot(colors, weights, ((0,), (0,)))
        np.minimum(nearest, distances.min(axis=0), out=nearest)
    # A smooth step from 1 at `_NEAR` to 0 at `_FAR`.
    t = np.clip((np.float32(_FAR) - nearest) * np.float32(1 / (_FAR - _NEAR)), 0, 1)
    cover = np.asarray(t * t * (3 - 2 * t), np.float32)
    chroma *= cover / np.maximum(total, np.float32(1e-12))
    return Overlay(np.stack([*chroma, cover]), rows)


def _seeds(
    lightness: Lightness, rows: HintRows, guide: Floats
) -> tuple[npt.NDArray[np.intp], Floats, Floats]:
    """Find the pixels of the reduced image that hints touch.

    Returns:
        Indices of the pixels in the flattened image, (n,); initial distances, (n,): the difference between
        the L* of the pixel and the mean L* of its part under the hints; and the mean a* and b* of the hints
        in each pixel, (n, 2).
    """
    height, width = lightness.shape
    sums = np.zeros((4, guide.size))  # a*, b*, L* and number of hint pixels
    step = max(1, _STRIPE_PIXELS // width)
    for start in range(0, height, step):
        stop = min(start + step, height)
        pins = rows(start, stop)
        if pins is None:
            continue
        mask, ab = pins
        y, x = np.nonzero(mask)
        flat = (y + start) * guide.shape[0] // height * guide.shape[1] + x * guide.shape[1] // width
        for total, values in zip(sums, (*ab, lightness.rows(start, stop)[mask], None), strict=True):
            total += np.bincount(flat, values, guide.size)
    pixels = np.flatnonzero(sums[3])
    a, b, mean_lightness = (sums[:3, pixels] / sums[3, pixels]).astype(np.float32)
    return pixels, np.abs(guide.ravel()[pixels] - mean_lightness), np.stack([a, b], axis=1)


def _groups(
    shape: tuple[int, ...], pixels: npt.NDArray[np.intp], distances: Floats, chroma: Floats
) -> Iterator[tuple[Floats, Floats]]:
    """Yield groups of k colors, (k, 2), with their initial distances, (h, k, w), from the seeds."""
    step = _FINEST
    while True:
        keys = np.rint(chroma / np.float32(step)).astype(np.intp)
        found, group = np.unique(keys, axis=0, return_inverse=True)
        if len(found) <= _MAX_COLORS:
            break
        step *= 1.5
    y, x = np.divmod(pixels, shape[1])
    for first in range(0, len(found), _GROUP_SIZE):
        numbers = range(first, min(first + _GROUP_SIZE, len(found)))
        colors = np.stack([chroma[group == number].mean(axis=0) for number in numbers])
        begin = np.full((shape[0], len(numbers), shape[1]), np.inf, np.float32)
        for k, number in enumerate(numbers):
            members = group == number
            begin[y[members], k, x[members]] = distances[members]
        yield colors, begin


@dataclass(frozen=True)
class _Costs:
    """Distances between neighboring pixels, the same in both directions.

    Attributes:
        right: Cumulative distances from the left end of each row, (h, w).
        down: Distances to the pixel below, (h - 1, w).
        falling: Distances to the pixel below on the right, (h - 1, w - 1).
        rising: Distances from the pixel below to the pixel above on its right, (h - 1, w - 1).
    """

    right: Floats
    down: Floats
    falling: Floats
    rising: Floats

    @staticmethod
    def of(guide: Floats) -> "_Costs":
        pixel = _ACROSS / max(guide.shape)
        right = np.zeros(guide.shape, np.float32)
        right[:, 1:] = _step_costs(guide[:, 1:] - guide[:, :-1], pixel)
        return _Costs(
            np.cumsum(right, axis=1),
            _step_costs(guide[1:] - guide[:-1], pixel),
            _step_costs(guide[1:, 1:] - guide[:-1, :-1], 2**0.5 * pixel),
            _step_costs(guide[:-1, 1:] - guide[1:, :-1], 2**0.5 * pixel),
        )

    def distances(self, begin: Floats) -> Floats:
        """Return the geodesic distances from k hints, (k, h, w), given the initial distances, (h, k, w).

        Sweeps alternately down and up. Within a row the shortest path to j is straight. Its length, the
        minimum of D_i + (C_j - C_i) over all i on one side of j with the cumulative distances C, is a running
        minimum.
        """
        distances = np.minimum(begin, np.float32(2 * _FAR))
        rows = range(len(distances))
        for _ in range(_MAX_SWEEPS):
            before = distances.copy()
            for row in rows:
                if row:
                    self._relax(distances[row - 1], distances[row], row - 1, self.falling, self.rising)
                self._relax_row(distances[row], row)
            for row in reversed(rows):
                if row + 1 < len(rows):
                    self._relax(distances[row + 1], distances[row], row, self.rising, self.falling)
                self._relax_row(distances[row], row)
            if (before - distances).max() <= _CONVERGED:
                break
        return np.moveaxis(distances, 1, 0)

    def _relax(self, near: Floats, row: Floats, number: int, from_left: Floats, from_right: Floats) -> None:
        """Relax the distances of a row, (k, w), from the row `near`. `number` is the upper row's."""
        np.minimum(row, near + self.down[number], out=row)
        np.minimum(row[:, 1:], near[:, :-1] + from_left[number], out=row[:, 1:])
        np.minimum(row[:, :-1], near[:, 1:] + from_right[number], out=row[:, :-1])

    def _relax_row(self, row: Floats, number: int) -> None:
        """Relax the distances within a row, (k, w)."""
        sums = self.right[number]
        np.minimum(row, np.minimum.accumulate(row - sums, axis=1) + sums, out=row)
        back = np.minimum.accumulate((row + sums)[:, ::-1], axis=1)[:, ::-1]
        np.minimum(row, back - sums, out=row)


def _step_costs(difference: Floats, length: float) -> Floats:
    """Return the distances between neighbors at spatial distance `length` with a difference of L*."""
    size = np.abs(difference)
    return np.asarray(size * size / (size + np.float32(_SHADING)) + np.float32(length), np.float32)
