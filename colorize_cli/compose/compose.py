"""Combine low-resolution ab with full-resolution L*.

`upsample` does the guided upsampling of ab. There are two ways to 8 bits. Without an overlay the faster
`eight_bit.compose_rgb8` is used, which works on ratios of channels. With an overlay, for 16 bits, and for
very long pictures, L*a*b* is converted per pixel.

Chroma requested by the user is blended over the predicted chroma. It is upsampled in the same way, together
with its weight (see `Overlay`).

All work is done in horizontal stripes. A stripe depends only on the low-resolution arrays and its rows of L*,
so memory beyond input and output is small, and the result does not depend on the stripe boundaries.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from colorize_cli.color import lab
from colorize_cli.color.lab import Bytes, Codes, Floats
from colorize_cli.color.lightness import Lightness
from colorize_cli.color.resize import resized
from colorize_cli.color.ycbcr import BytePlanes, Matrix, chroma_of, fit_chroma
from colorize_cli.compose.chroma_ratios import cell_size
from colorize_cli.compose.eight_bit import compose_planes8, compose_rgb8
from colorize_cli.compose.upsample import GuidedUpsampler

# Small enough for memory, and large enough to keep concurrent threads from contending for Python's lock.
_STRIPE_PIXELS = 1 << 19
# Limit on the pixels of one row or column of cells, for memory. Only sides above 100,000 pixels exceed it.
_LARGEST_STRIPE = 1 << 22


ToCodes = Callable[[Floats, Floats, Floats], Codes]
# Mask of n pixels in a block of rows, (rows, W), and their a* and b*, (2, n).
Pins = tuple[npt.NDArray[np.bool_], Floats]


@dataclass(frozen=True)
class Overlay:
    """Chroma to blend over the predicted chroma of a picture.

    Attributes:
        planes: a* and b*, premultiplied by the weight, and the weight in [0, 1], float32 (3, h, w), covering
            the picture. Where the weight is 0 the predicted chroma is unchanged.
        pins: Function of start and stop that returns the pixels with exact chroma in the full-resolution rows
            [start, stop), or None if there are none.
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
    """Colorize a picture.

    Args:
        lightness: Lightness of the picture, (H, W).
        ab: CIE a* and b* at low resolution, (2, h, w), covering the same picture.
        strength: Factor on ab; 0 gives gray.
        overlay: Chroma to blend over the result, independent of the strength.
        stripe_pixels: Approximate number of pixels per stripe; does not change the result.

    Returns:
        (H, W, 3) uint8 sRGB of the given lightness. The chroma of colors outside the sRGB gamut is reduced.
    """
    if overlay is None and cell_size(lightness.shape, ab) * max(lightness.shape) <= _LARGEST_STRIPE:
        return compose_rgb8(lightness.levels(), ab * np.float32(strength))
    rgb = np.empty((*lightness.shape, 3), np.uint8)
    _fill(lightness, ab * np.float32(strength), overlay, rgb, lab.compose_rgb8, stripe_pixels)
    return rgb


def compose_planes(lightness: Lightness, ab: Floats, strength: float = 1.0) -> BytePlanes:
    """Like `compose`, but returns Y'CbCr planes for the JPEG encoder.

    Chroma is 4:4:4 or 4:2:0, see `compose_planes8`.
    """
    return compose_planes8(lightness.levels(), ab * np.float32(strength))


def compose16(
    lightness: Lightness,
    ab: Floats,
    strength: float = 1.0,
    overlay: Overlay | None = None,
    stripe_pixels: int = _STRIPE_PIXELS,
) -> npt.NDArray[np.uint16]:
    """Like `compose`, but returns 16 bits per channel, (H, W, 3) uint16."""
    rgb = np.empty((*lightness.shape, 3), np.uint16)
    _fill(lightness, ab * np.float32(strength), overlay, rgb, lab.compose_rgb16, stripe_pixels)
    return rgb


def compose_chroma(
    lightness: Lightness, luma: Floats, ab: Floats, strength: float, matrix: Matrix
) -> tuple[Floats, Floats]:
    """Compute the chroma of a video frame.

    The prediction is converted to Cb and Cr at its low resolution, and these are upsampled. A video keeps
    luma, not lightness, so that nothing at full resolution needs CIE Lab.

    Args:
        lightness: L* of the gray of the frame's luma, averaged to the size of its chroma planes, (H, W).
        luma: Y' in [0, 1] of the same pixels, (H, W).
        ab: CIE a* and b* at low resolution, (2, h, w), covering the same frame.
        strength: Factor on ab; 0 gives gray.
        matrix: Y'CbCr matrix of the video.

    Returns:
        Cb and Cr in [-0.5, 0.5], (H, W) each.
    """
    a, b = ab * np.float32(strength)
    guide = resized(lightness, (a.shape[0], a.shape[1]))
    upsampler = GuidedUpsampler.of(guide, np.stack(chroma_of(guide, a, b, matrix)))
    cb, cr = upsampler.whole(lightness.rows(0, lightness.shape[0]))
    fit_chroma(luma, cb, cr, matrix)
    return cb, cr


def _fill(
    lightness: Lightness, ab: Floats, overlay: Overlay | None, rgb: Codes, encode: ToCodes, stripe_pixels: int
) -> None:
    """Fill `rgb` (H, W, 3) in stripes."""
    height, width = lightness.shape
    layers = [ab] if overlay is None else [ab, overlay.planes]
    upsampler, *over = (
        GuidedUpsampler.of(resized(lightness, (planes.shape[1], planes.shape[2])), planes)
        for planes in layers
    )
    step = max(1, stripe_pixels // max(width, *(planes.shape[2] for planes in layers)))
    for start in range(0, height, step):
        stop = min(start + step, height)
        rows = lightness.rows(start, stop)
        chroma = upsampler.planes(rows, start, height)
        if overlay is not None:
            _blend(chroma, over[0].planes(rows, start, height), overlay.pins(start, stop))
        rgb[start:stop] = encode(rows, *chroma)


def _blend(chroma: list[Floats], over: list[Floats], pins: Pins | None) -> None:
    """Blend an overlay over a* and b* in place, then set the pinned pixels."""
    *premultiplied, weight = over
    for plane, values in zip(chroma, premultiplied, strict=True):
        plane *= 1 - weight
        plane += values
    if pins is not None:
        mask, pinned = pins
        for plane, values in zip(chroma, pinned, strict=True):
            plane[mask] = values
