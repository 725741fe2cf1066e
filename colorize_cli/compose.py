"""Chroma onto lightness: low-resolution ab, upsampled along the full-resolution L*, joined to it.

The upsampling is a guided filter (He et al. 2013, "Guided Image Filtering"; its coefficients at low
resolution as in He & Sun 2015, arXiv 1505.00996) in residual form. Around each low-resolution pixel, ab is
regressed on L* over 3 x 3 pixels, which gives a slope; then

    ab = cubic(ab_low) + linear(slope) (L* - cubic(L*_low))

so that what the network said is kept, and only the detail that it could not say follows the lightness. (The
usual form replaces ab_low by its local fit, which smooths it: measured against true chroma, that is worse
than no guidance at all.) The result is held between the least and greatest ab_low nearby, so that nothing
overshoots.

Chroma that a user asks for is laid over that, upsampled in the same way together with its weight (see
`Overlay`).

Everything is done in horizontal stripes, each from the low-resolution arrays and its own rows of L* alone, so
memory beyond input and output is small, and the result does not depend on where stripes begin.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from colorize_cli import color
from colorize_cli.color import Bytes, Codes, Floats, Lightness
from colorize_cli.working import resized
from colorize_cli.ycbcr import Matrix, chroma_of, fit_chroma

# The regulariser of the regression, in L* squared: slopes matter where L* varies by more than its root, about
# 11.
_EPSILON = 128.0
_NEARBY = 3  # pixels across, of the regression and of the bounds
# Small enough for memory, and large enough that threads which compose at once do not spend their time on
# handing Python's lock to each other.
_STRIPE_PIXELS = 1 << 19


Paint = Callable[[Floats, Floats, Floats], Codes]
# Pixels of some rows, (rows, W), and the a* and b* that these n pixels have, (2, n).
Pins = tuple[npt.NDArray[np.bool_], Floats]


@dataclass(frozen=True)
class Overlay:
    """Chroma that is laid over a picture's, as paint over a ground.

    Attributes:
        planes: a* and b*, each times the weight, and the weight in [0, 1], float32 (3, h, w), covering the
            picture. Where the weight is 0 the picture's chroma stays as it is.
        pins: Of the full-resolution rows [start, stop), which pixels have what chroma exactly; None for none.
    """

    planes: Floats
    pins: Callable[[int, int], Pins | None]


def compose(
    lightness: Lightness,
    ab: Floats,
    strength: float = 1.0,
    overlay: Overlay | None = None,
    stripe_pixels: int = _STRIPE_PIXELS,
) -> Bytes:
    """Colours a picture.

    Args:
        lightness: The picture's own lightness, (H, W).
        ab: CIE a* and b* at low resolution, (2, h, w), covering the same picture.
        strength: Factor on ab; 0 gives grey.
        overlay: What is laid over that, whatever the strength.
        stripe_pixels: About how many pixels are worked on at a time; does not change the result.

    Returns:
        (H, W, 3) uint8 sRGB of that lightness. Where sRGB does not hold a colour, its chroma is reduced.
    """
    rgb = np.empty((*lightness.shape, 3), np.uint8)
    _paint(lightness, ab * np.float32(strength), overlay, rgb, color.compose_rgb8, stripe_pixels)
    return rgb


def compose16(
    lightness: Lightness,
    ab: Floats,
    strength: float = 1.0,
    overlay: Overlay | None = None,
    stripe_pixels: int = _STRIPE_PIXELS,
) -> npt.NDArray[np.uint16]:
    """As `compose`, to 16 bits: (H, W, 3) uint16."""
    rgb = np.empty((*lightness.shape, 3), np.uint16)
    _paint(lightness, ab * np.float32(strength), overlay, rgb, color.compose_rgb16, stripe_pixels)
    return rgb


def compose_chroma(
    lightness: Lightness, luma: Floats, ab: Floats, strength: float, matrix: Matrix
) -> tuple[Floats, Floats]:
    """The chroma of a film's frame.

    What the network says is turned into Cb and Cr at its own resolution, and these are upsampled: of a film
    luma is kept, not lightness, so that nothing at full resolution needs CIE Lab.

    Args:
        lightness: Of the grey of the frame's luma, averaged to the size of its chroma, (H, W).
        luma: Y' in [0, 1] of the same pixels, (H, W).
        ab: CIE a* and b* at low resolution, (2, h, w), covering the same picture.
        strength: Factor on ab; 0 gives grey.
        matrix: Of the film.

    Returns:
        Cb and Cr in [-0.5, 0.5], (H, W) each.
    """
    a, b = ab * np.float32(strength)
    guide = resized(lightness, (a.shape[0], a.shape[1]))
    low = _Low.of(guide, np.stack(chroma_of(guide, a, b, matrix)))
    cb, cr = low.whole(lightness.rows(0, lightness.shape[0]))
    fit_chroma(luma, cb, cr, matrix)
    return cb, cr


def _paint(
    lightness: Lightness, ab: Floats, overlay: Overlay | None, rgb: Codes, to_codes: Paint, stripe_pixels: int
) -> None:
    """Fills `rgb`."""
    height, width = lightness.shape
    low = _Low.of(resized(lightness, (ab.shape[1], ab.shape[2])), ab)
    over = None
    if overlay is not None:
        over = _Low.of(resized(lightness, (overlay.planes.shape[1], overlay.planes.shape[2])), overlay.planes)
    step = max(1, stripe_pixels // width)
    for start in range(0, height, step):
        stop = min(start + step, height)
        rows = lightness.rows(start, stop)
        chroma = low.planes(rows, start, height)
        if overlay is not None and over is not None:
            _lay_over(chroma, over.planes(rows, start, height), overlay.pins(start, stop))
        rgb[start:stop] = to_codes(rows, *chroma)


def _lay_over(ground: list[Floats], paint: list[Floats], pins: Pins | None) -> None:
    """Changes a* and b* in place."""
    *over, weight = paint
    for plane, painted in zip(ground, over, strict=True):
        plane *= 1 - weight
        plane += painted
    if pins is not None:
        mask, pinned = pins
        for plane, values in zip(ground, pinned, strict=True):
            plane[mask] = values


@dataclass(frozen=True)
class _Low:
    """What is known at low resolution, (channels, h, w) each.

    Attributes:
        base: The planes, a* and b* for instance, and L*.
        linear: The slopes of the planes on L*, the least of each nearby and the greatest.
    """

    base: Floats
    linear: Floats

    @staticmethod
    def of(guide: Floats, planes: Floats) -> "_Low":
        """Of L* (h, w), and planes (channels, h, w)."""
        guide_mean = _mean(guide)
        variance = _mean(guide * guide) - guide_mean * guide_mean + np.float32(_EPSILON)
        slopes = [(_mean(plane * guide) - _mean(plane) * guide_mean) / variance for plane in planes]
        window = np.ones((_NEARBY, _NEARBY), np.uint8)
        bounds = [change(plane, window) for change in (cv2.erode, cv2.dilate) for plane in planes]
        return _Low(np.stack([*planes, guide]), np.stack([*slopes, *bounds]).astype(np.float32))

    def planes(self, lightness: Floats, start: int, height: int) -> list[Floats]:
        """The planes at full resolution, (rows, W) each, for rows of L* that begin at `start` of `height`."""
        rows, width = lightness.shape
        centres = (np.arange(start, start + rows) + 0.5) * (self.base.shape[1] / height) - 0.5
        size = (width, rows)
        return self._joined(
            _enlarged(_cubic_rows(self.base, centres), size, cv2.INTER_CUBIC),
            _enlarged(_linear_rows(self.linear, centres), size, cv2.INTER_LINEAR),
            lightness,
        )

    def whole(self, lightness: Floats) -> list[Floats]:
        """As `planes`, of all rows at once: twice as fast, where memory for them matters less."""
        size = (lightness.shape[1], lightness.shape[0])
        return self._joined(
            _enlarged(self.base, size, cv2.INTER_CUBIC),
            _enlarged(self.linear, size, cv2.INTER_LINEAR),
            lightness,
        )

    def _joined(self, base: list[Floats], linear: list[Floats], lightness: Floats) -> list[Floats]:
        """Planes along the detail of L*, held between the bounds; made in the memory of `base`."""
        *planes, guide = base
        count = len(planes)
        detail = np.subtract(lightness, guide, out=guide)
        for plane, slope, least, greatest in zip(
            planes, linear[:count], linear[count : 2 * count], linear[2 * count :], strict=True
        ):
            slope *= detail
            plane += slope
            np.maximum(plane, least, out=plane)
            np.minimum(plane, greatest, out=plane)
        return planes


def _mean(values: Floats) -> Floats:
    return np.asarray(cv2.blur(values, (_NEARBY, _NEARBY), borderType=cv2.BORDER_REFLECT_101), np.float32)


def _enlarged(values: Floats, size: tuple[int, int], method: int) -> list[Floats]:
    """Each channel of (channels, h, w) at a new width and height, as an array of its own."""
    return [np.asarray(cv2.resize(plane, size, interpolation=method), np.float32) for plane in values]


def _linear_rows(values: Floats, centres: npt.NDArray[np.float64]) -> Floats:
    """Rows at fractional positions by linear interpolation; beyond the first and last these are repeated."""
    first = np.floor(centres).astype(np.intp)
    t = (centres - first).astype(np.float32)
    return _weighted_rows(values, first, [1 - t, t])


def _cubic_rows(values: Floats, centres: npt.NDArray[np.float64]) -> Floats:
    """Rows at fractional positions by cubic convolution (Keys 1981) with cv2's a = -0.75."""
    first = np.floor(centres).astype(np.intp)
    t = (centres - first).astype(np.float32)
    far = [-0.75 * (s**3 - 2 * s**2 + s) for s in (t, 1 - t)]
    near = [1.25 * s**3 - 2.25 * s**2 + 1 for s in (t, 1 - t)]
    return _weighted_rows(values, first - 1, [far[0], near[0], near[1], far[1]])


def _weighted_rows(values: Floats, first: npt.NDArray[np.intp], weights: list[Floats]) -> Floats:
    channels, height, width = values.shape
    total = np.zeros((channels, len(first), width), np.float32)
    for offset, weight in enumerate(weights):
        total += values[:, np.clip(first + offset, 0, height - 1)] * weight[:, None]
    return total
