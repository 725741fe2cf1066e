"""Y'CbCr as films have it: luma as it is, chroma that gives it a colour.

Luma Y' and R'G'B' are in [0, 1], Cb and Cr in [-0.5, 0.5]. Sources: matrices, ranges and their numbers are
those of ITU-T H.273 (2021), table 4 and equations 30 to 36; which is also in BT.601, BT.709 and BT.2020.

Grey of luma Y' is taken to look like the grey of sRGB value Y', as players show it on a computer's screen.
"""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from colorize_cli.color import lab
from colorize_cli.color.lab import Bytes, Codes, Floats


@dataclass(frozen=True)
class BytePlanes:
    """Y', Cb and Cr of a picture, as JPEG has them (ITU-T T.871): by BT601's matrix, in all codes of 8 bits.

    Attributes:
        luma: (H, W).
        blue: Cb, of each pixel (H, W), or of two by two (ceil(H / 2), ceil(W / 2)).
        red: Cr, as many.
    """

    luma: Bytes
    blue: Bytes
    red: Bytes


@dataclass(frozen=True)
class Matrix:
    """What red and blue weigh in luma."""

    red: float
    blue: float


BT709 = Matrix(0.2126, 0.0722)
BT601 = Matrix(0.299, 0.114)
BT2020 = Matrix(0.2627, 0.0593)
# By H.273's number for MatrixCoefficients. 0 is RGB; 8 and others have no luma of this kind.
MATRICES = {1: BT709, 4: Matrix(0.30, 0.11), 5: BT601, 6: BT601, 7: Matrix(0.212, 0.087), 9: BT2020}
UNSPECIFIED = 2
_HD_LINES = 720  # from which on players take an unspecified matrix for that of BT.709


def matrix_of(number: int, lines: int) -> Matrix | None:
    """The matrix of a film by H.273's number and its height in pixels; None where it has no such luma."""
    if number == UNSPECIFIED:
        return BT709 if lines >= _HD_LINES else BT601
    return MATRICES.get(number)


@dataclass(frozen=True)
class Coding:
    """How samples are stored.

    Attributes:
        bits: Of each.
        full: Whether luma uses all codes, or as in television those from 16 to 235 of 256.
    """

    bits: int
    full: bool

    def luma_table(self) -> Floats:
        """(2 ** bits,) Y' in [0, 1] that each code of luma means."""
        return _tables(self)[0]

    def lightness_table(self) -> Floats:
        """(2 ** bits,) L* in [0, 100] of the grey that each code of luma means."""
        return _tables(self)[1]

    def values(self, luma: Floats, blue: Floats, red: Floats) -> tuple[Floats, Floats, Floats]:
        """Y', Cb and Cr of codes, or of means of codes."""
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
        """The codes nearest to Cb or Cr."""
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
    """Cb and Cr that give luma the chroma wanted.

    Luma is not lightness: a colour of some L* has another luma than the grey of that L*. Since it is luma
    that is kept, the colour is the one of chroma a*, b* that has the grey's luma, to first order. Where that
    lies outside of R'G'B', Cb and Cr are reduced (see `fit_chroma`).

    Args:
        lightness: L* of the grey of the luma, (H, W).
        a: CIE a*, (H, W).
        b: CIE b*, (H, W).
        matrix: Of the film.

    Returns:
        Cb and Cr, (H, W) each; 0, but for rounding of floats, where a* = b* = 0.
    """
    luma = _srgb(lab.planes_to_linear(lightness, np.zeros_like(a), np.zeros_like(b))[1])
    excess = luma_of(_primed(lightness, a, b), matrix) - luma
    # The grey that is darker by as much as the colour has too much luma, and the colour at its lightness.
    nearer = _lightness_table().take(_steps(luma - excess, 0, 1))
    planes = _primed(nearer, a, b)
    own = luma_of(planes, matrix)
    red, _, blue = planes
    cb = np.asarray((blue - own) / np.float32(2 * (1 - matrix.blue)), np.float32)
    cr = np.asarray((red - own) / np.float32(2 * (1 - matrix.red)), np.float32)
    fit_chroma(luma, cb, cr, matrix)
    return cb, cr


def fit_chroma(luma: Floats, cb: Floats, cr: Floats, matrix: Matrix) -> None:
    """Reduces Cb and Cr in place, both by one factor, so that with that luma they are a colour.

    Args:
        luma: Y' in [0, 1], (H, W).
        cb: (H, W).
        cr: (H, W).
        matrix: Of the film.
    """
    steps = _steps_to_rgb(cb, cr, matrix)
    least, greatest = functools.reduce(np.minimum, steps), functools.reduce(np.maximum, steps)
    outside = np.flatnonzero((luma + least < 0) | (luma + greatest > 1))
    if not outside.size:
        return
    room = luma.ravel()[outside]
    down, up = -least.ravel()[outside], greatest.ravel()[outside]
    tiny = np.float32(1e-6)
    reach = np.minimum(room / np.maximum(down, tiny), (1 - room) / np.maximum(up, tiny))
    np.clip(reach, 0, 1, out=reach)
    for plane in (cb, cr):
        np.put(plane, outside, plane.ravel()[outside] * reach)


def rgb_of(luma: Floats, cb: Floats, cr: Floats, matrix: Matrix) -> Floats:
    """R'G'B' (..., 3) of Y'CbCr; outside of [0, 1] where there is no such colour."""
    red, blue = luma + 2 * (1 - matrix.red) * cr, luma + 2 * (1 - matrix.blue) * cb
    green = (luma - matrix.red * red - matrix.blue * blue) / (1 - matrix.red - matrix.blue)
    return np.stack([red, green, blue], axis=-1)


# Tables have steps so fine that nothing looked up is off by a fifth of a 10-bit code.
_STEPS = 1 << 16
_LEAST, _MOST = -0.5, 2.0  # linear light beyond that is of no colour that luma could keep

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
    """R', G' and B' of L*a*b*."""
    red, green, blue = lab.planes_to_linear(lightness, a, b)
    return _srgb(red), _srgb(green), _srgb(blue)


def luma_of(planes: Planes, matrix: Matrix) -> Floats:
    """Y' of R', G' and B'."""
    red, green, blue = planes
    weight = np.float32(1 - matrix.red - matrix.blue)
    return np.asarray(np.float32(matrix.red) * red + weight * green + np.float32(matrix.blue) * blue)


def _steps_to_rgb(cb: Floats, cr: Floats, matrix: Matrix) -> Planes:
    """How far R', G' and B' are from luma."""
    red, blue = cr * np.float32(2 * (1 - matrix.red)), cb * np.float32(2 * (1 - matrix.blue))
    green = red * np.float32(-matrix.red / (1 - matrix.red - matrix.blue))
    green -= blue * np.float32(matrix.blue / (1 - matrix.red - matrix.blue))
    return red, green, blue
