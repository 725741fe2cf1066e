"""Hints of colours, spread over the parts of a picture that they lie on.

They spread by geodesic distance, in which edges of lightness are long ways, as in Yatziv & Sapiro 2006 ("Fast
Image and Video Colorization Using Chrominance Blending", IEEE TIP 15(5)) and Criminisi et al. 2010 ("Geodesic
Image and Video Editing", ACM TOG 29(5)). Near a hint its colour covers the network's; further away it fades,
and beyond a limit nothing is changed at all. (The linear system of Levin et al. 2004, "Colorization using
Optimization", has no such limit: held to the network's colours, a small hint fades within its own object and
seeps through every edge.)
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from colorize_cli.color.lab import Floats
from colorize_cli.color.lightness import Lightness
from colorize_cli.color.resize import resized
from colorize_cli.compose import Overlay, Pins

# Hints spread on a copy of at most this many pixels.
_MOST_PIXELS = 1 << 18
# Distances are in units of L*. Up to the first a hint holds fully, from the second on not at all.
_NEAR, _FAR = 7.0, 20.0
# The distance of the picture's long side where lightness is the same all along.
_ACROSS = 32.0
# Steps of L* between neighbours well below this are shading or grain, and cost next to nothing.
_SHADING = 3.0
# How steeply the nearer of two hints prevails; between 1 and 6 in Yatziv & Sapiro.
_PREVAIL = 4
# Colours are told apart as finely as this, in units of a* and b*, if there are no more than so many.
_FINEST, _MOST_COLORS = 2.0, 48
_AT_ONCE = 8
# Distances are found in sweeps over the picture, until one changes none by more than this.
_CONVERGED, _MOST_SWEEPS = 0.02, 200
_STRIPE_PIXELS = 1 << 20


class HintRows(Protocol):
    """Hints, as they lie on pictures."""

    def rows(self, shape: tuple[int, int], start: int, stop: int) -> Pins | None:
        """Those on the rows [start, stop) of a picture of `shape` (height, width); None where there is none.

        Returns:
            The pixels that they cover, (stop - start, width), and these pixels' a* and b*, (2, n).
        """


def spread(lightness: Lightness, marks: HintRows) -> Overlay:
    """The chroma that hints give to a picture.

    Args:
        lightness: The picture's own, (H, W).
        marks: The hints.

    Returns:
        What is laid over the network's chroma. On the hints themselves it is theirs exactly; its weight is
        hardly more than 0 beyond an edge of 25 L*, and 0 at 0.63 of the picture's long side away.
    """
    height, width = lightness.shape
    scale = min(1.0, (_MOST_PIXELS / (height * width)) ** 0.5)
    guide = resized(lightness, (max(1, round(height * scale)), max(1, round(width * scale))))
    total = np.zeros(guide.shape, np.float32)
    chroma = np.zeros((2, *guide.shape), np.float32)
    nearest = np.full(guide.shape, _FAR, np.float32)
    costs = _Costs.of(guide)
    for colors, begin in _Seeds.of(lightness, marks, guide).groups():
        distances = costs.distances(begin)
        weights = (1 + distances) ** np.float32(-_PREVAIL)
        total += weights.sum(axis=0)
        chroma += np.tensordot(colors, weights, ((0,), (0,)))
        np.minimum(nearest, distances.min(axis=0), out=nearest)
    cover = _cover(nearest)
    chroma *= cover / np.maximum(total, np.float32(1e-12))
    return Overlay(np.stack([*chroma, cover]), functools.partial(marks.rows, lightness.shape))


def _cover(distance: Floats) -> Floats:
    """From 1 near to 0 far, smoothly."""
    t = np.clip((np.float32(_FAR) - distance) * np.float32(1 / (_FAR - _NEAR)), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


@dataclass(frozen=True)
class _Seeds:
    """The pixels of the small copy that hints touch.

    Attributes:
        shape: Height and width of the copy.
        pixels: Their indices in the flat copy, (n,).
        distances: At which they begin, (n,): how far their L* is from that of the part with the hint.
        chroma: a* and b* of the hints in them, (n, 2).
    """

    shape: tuple[int, int]
    pixels: npt.NDArray[np.intp]
    distances: Floats
    chroma: Floats

    @staticmethod
    def of(lightness: Lightness, marks: HintRows, guide: Floats) -> "_Seeds":
        height, width = lightness.shape
        sums = np.zeros((4, guide.size))  # of a*, b*, L*, and how many
        step = max(1, _STRIPE_PIXELS // width)
        for start in range(0, height, step):
            stop = min(start + step, height)
            pins = marks.rows(lightness.shape, start, stop)
            if pins is None:
                continue
            mask, ab = pins
            y, x = np.nonzero(mask)
            flat = (y + start) * guide.shape[0] // height * guide.shape[1] + x * guide.shape[1] // width
            for total, values in zip(sums, (*ab, lightness.rows(start, stop)[mask], None), strict=True):
                total += np.bincount(flat, values, guide.size)
        pixels = np.flatnonzero(sums[3])
        a, b, own = (sums[:3, pixels] / sums[3, pixels]).astype(np.float32)
        return _Seeds(guide.shape, pixels, np.abs(guide.ravel()[pixels] - own), np.stack([a, b], axis=1))

    def groups(self) -> Iterator[tuple[Floats, Floats]]:
        """A few colours (k, 2) at a time, and the distances at which they begin, (h, k, w)."""
        step = _FINEST
        while True:
            keys = np.rint(self.chroma / np.float32(step)).astype(np.intp)
            found, group = np.unique(keys, axis=0, return_inverse=True)
            if len(found) <= _MOST_COLORS:
                break
            step *= 1.5
        y, x = np.divmod(self.pixels, self.shape[1])
        for first in range(0, len(found), _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, len(found)))
            colors = np.stack([self.chroma[group == number].mean(axis=0) for number in numbers])
            begin = np.full((self.shape[0], len(numbers), self.shape[1]), np.inf, np.float32)
            for k, number in enumerate(numbers):
                own = group == number
                begin[y[own], k, x[own]] = self.distances[own]
            yield colors, begin


@dataclass(frozen=True)
class _Costs:
    """What it costs to go from a pixel to its neighbour, which is the same back.

    Attributes:
        right: To the one on the right, summed up from the left, (h, w).
        down: To the one below, (h - 1, w).
        falling: To the one below on the right, (h - 1, w - 1).
        rising: From it to the one above on the right, for the rows below the first, (h - 1, w - 1).
    """

    right: Floats
    down: Floats
    falling: Floats
    rising: Floats

    @staticmethod
    def of(guide: Floats) -> "_Costs":
        pixel = _ACROSS / max(guide.shape)
        right = np.zeros(guide.shape, np.float32)
        right[:, 1:] = _steps(guide[:, 1:] - guide[:, :-1], pixel)
        return _Costs(
            np.cumsum(right, axis=1),
            _steps(guide[1:] - guide[:-1], pixel),
            _steps(guide[1:, 1:] - guide[:-1, :-1], 2**0.5 * pixel),
            _steps(guide[:-1, 1:] - guide[1:, :-1], 2**0.5 * pixel),
        )

    def distances(self, begin: Floats) -> Floats:
        """The geodesic distances of k hints, (k, h, w), from where they begin, (h, k, w).

        Sweeps down and up in turns. Within a row the way goes straight: the least of D_i + (C_j - C_i) over
        the i on one side of j, C being the costs summed up, is a running minimum.
        """
        distances = np.minimum(begin, np.float32(2 * _FAR))
        rows = range(len(distances))
        for _ in range(_MOST_SWEEPS):
            before = distances.copy()
            for row in rows:
                if row:
                    self._step(distances[row - 1], distances[row], row - 1, self.falling, self.rising)
                self._along(distances[row], row)
            for row in reversed(rows):
                if row + 1 < len(rows):
                    self._step(distances[row + 1], distances[row], row, self.rising, self.falling)
                self._along(distances[row], row)
            if (before - distances).max() <= _CONVERGED:
                break
        return np.moveaxis(distances, 1, 0)

    def _step(self, near: Floats, row: Floats, number: int, from_left: Floats, from_right: Floats) -> None:
        """From a row, (k, w), to the next one; `number` is that of the upper."""
        np.minimum(row, near + self.down[number], out=row)
        np.minimum(row[:, 1:], near[:, :-1] + from_left[number], out=row[:, 1:])
        np.minimum(row[:, :-1], near[:, 1:] + from_right[number], out=row[:, :-1])

    def _along(self, row: Floats, number: int) -> None:
        """Within a row, (k, w)."""
        sums = self.right[number]
        np.minimum(row, np.minimum.accumulate(row - sums, axis=1) + sums, out=row)
        back = np.minimum.accumulate((row + sums)[:, ::-1], axis=1)[:, ::-1]
        np.minimum(row, back - sums, out=row)


def _steps(difference: Floats, length: float) -> Floats:
    """The costs of steps of that length with that difference of L*."""
    size = np.abs(difference)
    return np.asarray(size * size / (size + np.float32(_SHADING)) + np.float32(length), np.float32)
