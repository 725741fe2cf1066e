"""Compute Y'CbCr of videos: chroma that colors a given luma.

Luma Y' and R'G'B' are in [0, 1], Cb and Cr in [-0.5, 0.5]. Sources: matrices, ranges and code numbers are
from ITU-T H.273 (2021), table 4 and equations 30 to 36. They are also in BT.601, BT.709 and BT.2020.

A gray of luma Y' is assumed to look like the sRGB gray of value Y', as players show it on a computer screen.
"""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from colorize_cli.color import lab
from colorize_cli.color.lab import Bytes, Codes, Floats


@dataclass(frozen=True)
class BytePlanes:
    """Y', Cb and Cr of a picture for JPEG (ITU-T T.871): BT.601 matrix, full-range 8-bit codes.

    Attributes:
        luma: (H, W).
        blue: Cb, (H, W) for 4:4:4 or (ceil(H / 2), ceil(W / 2)) for 4:2:0.
        red: Cr, of the same shape as `blue`.
    """

    luma: Bytes
    blue: Bytes
    red: Bytes


@dataclass(frozen=True)
class Matrix:
    """Weights of red and blue in luma."""

    red: float
    blue: float


BT709 = Matrix(0.2126, 0.0722)
BT601 = Matrix(0.299, 0.114)
BT2020 = Matrix(0.2627, 0.0593)
# By H.273's number for MatrixCoefficients. 0 is RGB. 8 and others have another kind of luma.
MATRICES = {1: BT709, 4: Matrix(0.30, 0.11), 5: BT601, 6: BT601, 7: Matrix(0.212, 0.087), 9: BT2020}
UNSPECIFIED = 2
_HD_LINES = 720  # players read an unspecified matrix as BT.709 from this height on


def matrix_of(number: int, lines: int) -> Matrix | None:
    """Return a video's matrix by H.273's number and the height in pixels; None for other kinds of luma."""
    if number == UNSPECIFIED:
        return BT709 if lines >= _HD_LINES else BT601
    return MATRICES.get(number)


@dataclass(frozen=True)
class Coding:
    """Storage of samples.

    Attributes:
        bits: Bits per sample.
        full: True for full-range luma; False for limited range, 16 to 235 of 256 codes, as in television.
    """

    bits: int
    full: bool

    def luma_table(self) -> Floats:
        """Return Y' in [0, 1] of each luma code, (2 ** bits,)."""
        return _tables(self)[0]

    def lightness_table(self) -> Floats:
        """Return L* in [0, 100] of the gray of each luma code, (2 ** bits,)."""
        return _tables(self)[1]

    def values(self, luma: Floats, blue: Floats, red: Floats) -> tuple[Floats, Floats, Floats]:
        """Convert codes, or means of codes, to Y', Cb and Cr."""
        if self.full:
            steps, black = 2.0**self.bits - 1, 0.0
        else:
            steps, black = 219.0 * 2 ** (self.bits - 8), 16.0 * 2 ** (self.bits - 8)
        chroma, neutral = self._chroma_steps, 2 ** (self.bits - 1)
        return (luma - black) / steps, (blue - neutral) / chroma, (red - neutral) / chroma

    @property
    def _chroma_steps(self) -> int:
        return int(2**self.bits - 1 if self.full else 224 * 2 ** (self.bits - 8))

    def chroma_codes(self, chroma: Floats) -> Codes:
        """Return the codes nearest to Cb or Cr."""
        step = self._chroma_steps
        neutral = 2 ** (self.bits - 1)
        codes = np.rint(np.clip(chroma * np.float32(step) + np.float32(neutral), 0, 2**self.bits - 1))
        return np.asarray(codes, np.uint8) if self.bits <= 8 else np.asarray(codes, np.uint16)


@functools.cache
def _tables(coding: Coding) -> tuple[Floats, Floats]:
    codes = np.arange(2**coding.bits, dtype=np.float32)
    luma = np.clip(coding.values(codes, codes, codes)[0], 0, 1)
    return luma, lab.lightness_of_gray(luma)


def chroma_of(lightness: Floats, a: Floats, b: Floats, matrix: Matrix) -> tuple[Floats, Floats]:
    """Compute the Cb and Cr that give a luma the chroma a*, b*.

    Luma is not lightness: a color of some L* differs in luma from the gray of that L*. Luma is kept, so the
    result is the color of chroma a*, b* with the luma of the gray, to first order. If that color lies outside
    R'G'B', Cb and Cr are reduced (see `fit_chroma`).

    Args:
        lightness: L* of the gray of the luma, (H, W).
        a: CIE a*, (H, W).
        b: CIE b*, (H, W).
        matrix: Matrix of the video.

    Returns:
        Cb and Cr, (H, W) each; 0 up to float rounding where a* = b* = 0.
    """
    luma = _srgb(lab.planes_to_linear(lightness, np.zeros_like(a), np.zeros_like(b))[1])
    excess = luma_of(_primed(lightness, a, b), matrix) - luma
    # Lower the lightness to the gray that makes up for the excess luma, and take the color there.
    nearer = _lightness_table().take(_steps(luma - excess, 0, 1))
    planes = _primed(nearer, a, b)
    color_luma = luma_of(planes, matrix)
    red, _, blue = planes
    cb = np.asarray((blue - color_luma) / np.float32(2 * (1 - matrix.blue)), np.float32)
    cr = np.asarray((red - color_luma) / np.float32(2 * (1 - matrix.red)), np.float32)
    fit_chroma(luma, cb, cr, matrix)
    return cb, cr


def fit_chroma(luma: Floats, cb: Floats, cr: Floats, matrix: Matrix) -> None:
    """Reduce Cb and Cr in place, both by one factor, so that R'G'B' with this luma lies in [0, 1].

    Args:
        luma: Y' in [0, 1], (H, W).
        cb: (H, W).
        cr: (H, W).
        matrix: Matrix of the video.
    """
    # Differences of R', G' and B' from luma.
    red, blue = cr * np.float32(2 * (1 - matrix.red)), cb * np.float32(2 * (1 - matrix.blue))
    green = red * np.float32(-matrix.red / (1 - matrix.red - matrix.blue))
    green -= blue * np.float32(matrix.blue / (1 - matrix.red - matrix.blue))
    steps = red, green, blue
    least, greatest = functools.reduce(np.minimum, steps), functools.reduce(np.maximum, steps)
    outside = np.flatnonzero((luma + least < 0) | (luma + greatest > 1))
    if not outside.size:
        return
    y = luma.ravel()[outside]
    down, up = -least.ravel()[outside], greatest.ravel()[outside]
    tiny = np.float32(1e-6)
    reach = np.minimum(y / np.maximum(down, tiny), (1 - y) / np.maximum(up, tiny))
    np.clip(reach, 0, 1, out=reach)
    for plane in (cb, cr):
        np.put(plane, outside, plane.ravel()[outside] * reach)


def rgb_of(luma: Floats, cb: Floats, cr: Floats, matrix: Matrix) -> Floats:
    """Convert Y'CbCr to R'G'B' (..., 3), outside [0, 1] for impossible colors."""
    red, blue = luma + 2 * (1 - matrix.red) * cr, luma + 2 * (1 - matrix.blue) * cb
    green = (luma - matrix.red * red - matrix.blue * blue) / (1 - matrix.red - matrix.blue)
    return np.stack([red, green, blue], axis=-1)


# Steps of the lookup tables are fine enough for errors below a fifth of a 10-bit code.
_STEPS = 1 << 16
_LEAST, _MOST = -0.5, 2.0  # linear light outside this range belongs to no color that keeps its luma

Planes = tuple[Floats, Floats, Floats]


def _steps(values: Floats, least: float, most: float) -> npt.NDArray[np.int32]:
    clipped = np.clip(values, np.float32(least), np.float32(most))
    clipped -= np.float32(least - 0.5 / _STEPS)
    clipped *= np.float32(_STEPS)
    return clipped.astype(np.int32)


@functools.cache
def _srgb_table() -> Floats:
    return lab.linear_to_srgb(np.linspace(_LEAST, _MOST, round((_MOST - _LEAST) * _STEPS) + 1))


@functools.cache
def _lightness_table() -> Floats:
    return lab.lightness_of_gray(np.linspace(0, 1, _STEPS + 1))


def _srgb(linear: Floats) -> Floats:
    return np.asarray(_srgb_table().take(_steps(linear, _LEAST, _MOST)))


def _primed(lightness: Floats, a: Floats, b: Floats) -> Planes:
    """Convert L*a*b* planes to R', G' and B'."""
    red, green, blue = lab.planes_to_linear(lightness, a, b)
    return _srgb(red), _srgb(green), _srgb(blue)


def luma_of(planes: Planes, matrix: Matrix) -> Floats:
    """Return Y' of R', G' and B'."""
    red, green, blue = planes
    weight = np.float32(1 - matrix.red - matrix.blue)
    return np.asarray(np.float32(matrix.red) * red + weight * green + np.float32(matrix.blue) * blue)
