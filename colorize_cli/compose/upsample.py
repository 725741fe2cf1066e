"""Upsample low-resolution planes, such as chroma, under the guidance of full-resolution L*.

The method is a guided filter (He et al. 2013, "Guided Image Filtering"; coefficients at low resolution as in
He & Sun 2015, arXiv 1505.00996) in residual form. Around each low-resolution pixel, ab is regressed on L*
over 3 x 3 pixels, which gives a slope; then

    ab = cubic(ab_low) + linear(slope) (L* - cubic(L*_low))

This keeps the prediction. Only detail beyond its resolution follows the lightness. (The usual form replaces
ab_low by its local fit, which smooths it. Measured against true chroma, that is worse than no guidance.) The
result is clamped between the least and greatest ab_low nearby, which prevents overshoot.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from colorize_cli.color.lab import Floats

# Regularizer of the regression, in L* squared. Slopes take effect where L* varies by more than its square
# root, about 11.
_EPSILON = 128.0
_NEARBY = 3  # pixels: side of the window of the regression and of the bounds


@dataclass(frozen=True)
class GuidedUpsampler:
    """Guided filter with its low-resolution coefficients, (channels, h, w) each.

    Attributes:
        base: The planes, such as a* and b*, then L*. Upsampled by cubic interpolation.
        linear: The slopes of the planes on L*, then their least, then their greatest values nearby. Upsampled
            by linear interpolation.
    """

    base: Floats
    linear: Floats

    @staticmethod
    def of(guide: Floats, planes: Floats) -> "GuidedUpsampler":
        """Fit the coefficients to L* (h, w) and planes (channels, h, w)."""
        guide_mean = _mean(guide)
        variance = _mean(guide * guide) - guide_mean * guide_mean + np.float32(_EPSILON)
        slopes = [(_mean(plane * guide) - _mean(plane) * guide_mean) / variance for plane in planes]
        window = np.ones((_NEARBY, _NEARBY), np.uint8)
        bounds = [change(plane, window) for change in (cv2.erode, cv2.dilate) for plane in planes]
        return GuidedUpsampler(np.stack([*planes, guide]), np.stack([*slopes, *bounds]).astype(np.float32))

    def planes(self, lightness: Floats, start: int, height: int) -> list[Floats]:
        """Upsample the planes for some rows of the picture.

        Args:
            lightness: L* of these rows, (rows, W).
            start: Number of the first row.
            height: Height of the picture in pixels.

        Returns:
            For each plane an array (rows, W).
        """
        rows, width = lightness.shape
        centers = (np.arange(start, start + rows) + 0.5) * (self.base.shape[1] / height) - 0.5
        size = (width, rows)
        return self._combine(
            _resize(_cubic_rows(self.base, centers), size, cv2.INTER_CUBIC),
            _resize(_linear_rows(self.linear, centers), size, cv2.INTER_LINEAR),
            lightness,
        )

    def whole(self, lightness: Floats) -> list[Floats]:
        """Like `planes`, but for all rows at once: twice as fast, and with more memory."""
        size = (lightness.shape[1], lightness.shape[0])
        return self._combine(
            _resize(self.base, size, cv2.INTER_CUBIC),
            _resize(self.linear, size, cv2.INTER_LINEAR),
            lightness,
        )

    def _combine(self, base: list[Floats], linear: list[Floats], lightness: Floats) -> list[Floats]:
        """Add the detail of L* and clamp to the bounds. Reuses the memory of `base`."""
        *planes, guide = base
        count = len(planes)
        detail = np.subtract(lightness, guide, out=guide)
        slopes, leasts, greatests = (linear[start : start + count] for start in range(0, 3 * count, count))
        for plane, slope, least, greatest in zip(planes, slopes, leasts, greatests, strict=True):
            slope *= detail
            plane += slope
            np.maximum(plane, least, out=plane)
            np.minimum(plane, greatest, out=plane)
        return planes


def _mean(values: Floats) -> Floats:
    return np.asarray(cv2.blur(values, (_NEARBY, _NEARBY), borderType=cv2.BORDER_REFLECT_101), np.float32)


def _resize(values: Floats, size: tuple[int, int], method: int) -> list[Floats]:
    """Resize each channel of (channels, h, w) to a width and height, as separate arrays."""
    return [np.asarray(cv2.resize(plane, size, interpolation=method), np.float32) for plane in values]


def _linear_rows(values: Floats, centers: npt.NDArray[np.float64]) -> Floats:
    """Interpolate rows linearly at fractional positions. Edge rows are repeated outside."""
    first = np.floor(centers).astype(np.intp)
    t = (centers - first).astype(np.float32)
    return _weighted_rows(values, first, [1 - t, t])


def _cubic_rows(values: Floats, centers: npt.NDArray[np.float64]) -> Floats:
    """Interpolate rows at fractional positions by cubic convolution (Keys 1981) with cv2's a = -0.75."""
    first = np.floor(centers).astype(np.intp)
    t = (centers - first).astype(np.float32)
    far = [-0.75 * (s**3 - 2 * s**2 + s) for s in (t, 1 - t)]
    near = [1.25 * s**3 - 2.25 * s**2 + 1 for s in (t, 1 - t)]
    return _weighted_rows(values, first - 1, [far[0], near[0], near[1], far[1]])


def _weighted_rows(values: Floats, first: npt.NDArray[np.intp], weights: list[Floats]) -> Floats:
    channels, height, width = values.shape
    total = np.zeros((channels, len(first), width), np.float32)
    for offset, weight in enumerate(weights):
        total += values[:, np.clip(first + offset, 0, height - 1)] * weight[:, None]
    return total
