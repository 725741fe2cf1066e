"""Chroma onto lightness: low-resolution ab, upsampled along the full-resolution L*, joined to it.

The upsampling is `upsample`'s. For 8 bits, where nothing is laid over it, the colour is worked out by
`eight_bit.compose_rgb8`.

Chroma that a user asks for is laid over that, upsampled in the same way together with its weight (see
`Overlay`).

Everything is done in horizontal stripes, each from the low-resolution arrays and its own rows of L* alone, so
memory beyond input and output is small, and the result does not depend on where stripes begin.
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
from colorize_cli.compose.eight_bit import compose_planes8, compose_rgb8
from colorize_cli.compose.upsample import GuidedUpsampler

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
    if overlay is None:
        return compose_rgb8(lightness.levels(), ab * np.float32(strength))
    rgb = np.empty((*lightness.shape, 3), np.uint8)
    _paint(lightness, ab * np.float32(strength), overlay, rgb, lab.compose_rgb8, stripe_pixels)
    return rgb


def compose_planes(lightness: Lightness, ab: Floats, strength: float = 1.0) -> BytePlanes:
    """As `compose`, to what JPEG stores, with chroma as fine as it is worked out: see `compose_planes8`."""
    return compose_planes8(lightness.levels(), ab * np.float32(strength))


def compose16(
    lightness: Lightness,
    ab: Floats,
    strength: float = 1.0,
    overlay: Overlay | None = None,
    stripe_pixels: int = _STRIPE_PIXELS,
) -> npt.NDArray[np.uint16]:
    """As `compose`, to 16 bits: (H, W, 3) uint16."""
    rgb = np.empty((*lightness.shape, 3), np.uint16)
    _paint(lightness, ab * np.float32(strength), overlay, rgb, lab.compose_rgb16, stripe_pixels)
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
    upsampler = GuidedUpsampler.of(guide, np.stack(chroma_of(guide, a, b, matrix)))
    cb, cr = upsampler.whole(lightness.rows(0, lightness.shape[0]))
    fit_chroma(luma, cb, cr, matrix)
    return cb, cr


def _paint(
    lightness: Lightness, ab: Floats, overlay: Overlay | None, rgb: Codes, to_codes: Paint, stripe_pixels: int
) -> None:
    """Fills `rgb`."""
    height, width = lightness.shape
    upsampler = GuidedUpsampler.of(resized(lightness, (ab.shape[1], ab.shape[2])), ab)
    over = None
    if overlay is not None:
        over = GuidedUpsampler.of(
            resized(lightness, (overlay.planes.shape[1], overlay.planes.shape[2])), overlay.planes
        )
    step = max(1, stripe_pixels // width)
    for start in range(0, height, step):
        stop = min(start + step, height)
        rows = lightness.rows(start, stop)
        chroma = upsampler.planes(rows, start, height)
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
