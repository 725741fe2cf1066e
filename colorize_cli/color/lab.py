"""Convert between color spaces and fit colors into the sRGB gamut: pure functions on float32 arrays.

Conventions: sRGB and linear light are in [0, 1]; L* is in [0, 100]; a* and b* are in CIE units, about
[-110, 110] inside sRGB. Colors lie along the last axis.

Sources: the transfer curve is IEC 61966-2-1; CIE L*a*b* is CIE 15 / ISO 11664-4 for the white point D65
(2 degree observer); the matrix from linear sRGB to XYZ is the one derived from the sRGB primaries
(www.brucelindbloom.com, "RGB/XYZ Matrices").
"""

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_XYZ_FROM_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
# Weights of linear red, green and blue in luminance Y.
LUMINANCE = tuple(_XYZ_FROM_RGB[1].tolist())
# Divided by the white point, so that gray has X/Xn = Y/Yn = Z/Zn and therefore a* = b* = 0 exactly.
_RELATIVE_XYZ_FROM_RGB = _XYZ_FROM_RGB / _XYZ_FROM_RGB.sum(axis=1, keepdims=True)
_RGB_FROM_RELATIVE_XYZ = np.linalg.inv(_RELATIVE_XYZ_FROM_RGB)

# CIE 15: f(t) is the cube root above (6/29)^3, and its tangent at that point below.
_DELTA = 6 / 29
_SLOPE = 3 * _DELTA**2
_OFFSET = 4 / 29

# Linear light is quantized to this many equal steps before the conversion to 8-bit sRGB. Where the curve is
# steepest a step is 0.05 of an 8-bit level, so the extra rounding error is at most that.
_STEPS = 65535
_LEVELS16 = np.float32(65535)
# Linear light outside [0, 1] by at most this counts as inside the gamut; well below half of such a step.
_GAMUT_SLACK = 1e-6
_BISECTIONS = 9
# Pixels per stripe of the sums in `colorfulness`, and its opponent axes.
_STRIPE_PIXELS = 1 << 18
_OPPONENTS = np.array([[1, -1, 0], [0.5, 0.5, -1]])


def srgb_to_linear(srgb: npt.ArrayLike) -> Floats:
    """Convert sRGB values to linear light, both in [0, 1] (IEC 61966-2-1)."""
    v = np.asarray(srgb, np.float32)
    return np.where(v <= 0.04045, v / 12.92, ((np.maximum(v, 0) + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(linear: npt.ArrayLike) -> Floats:
    """Convert linear light to sRGB values, both in [0, 1] (IEC 61966-2-1)."""
    v = np.asarray(linear, np.float32)
    curve = 1.055 * np.maximum(v, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(v <= 0.0031308, v * 12.92, curve).astype(np.float32)


def srgb_to_lab(srgb: npt.ArrayLike) -> Floats:
    """Convert sRGB values (..., 3) in [0, 1] to CIE L*a*b* (..., 3)."""
    xyz = srgb_to_linear(srgb) @ _RELATIVE_XYZ_FROM_RGB.T.astype(np.float32)
    fx, fy, fz = np.moveaxis(_f(xyz), -1, 0)
    return np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], axis=-1)


def lab_to_linear(lab: npt.ArrayLike) -> Floats:
    """Convert CIE L*a*b* (..., 3) to linear light (..., 3), outside [0, 1] for colors outside sRGB."""
    lightness, a, b = np.moveaxis(np.asarray(lab, np.float32), -1, 0)
    return np.stack(_linear((lightness + np.float32(16)) / np.float32(116), a, b), axis=-1)


def planes_to_linear(lightness: Floats, a: Floats, b: Floats) -> tuple[Floats, Floats, Floats]:
    """Like `lab_to_linear`, but on separate planes, which is several times as fast."""
    return _linear((lightness + np.float32(16)) * np.float32(1 / 116), a, b)


def lab_to_srgb(lab: npt.ArrayLike) -> Floats:
    """Convert CIE L*a*b* (..., 3) to sRGB values (..., 3) in [0, 1], with chroma reduced to the gamut."""
    return linear_to_srgb(np.clip(lab_to_linear(fit_gamut(lab)), 0, 1))


def planes_to_srgb(lightness: Floats, a: Floats, b: Floats) -> tuple[Floats, Floats, Floats]:
    """Like `lab_to_srgb`, but on separate planes, which is several times as fast."""
    red, green, blue = (linear_to_srgb(np.clip(plane, 0, 1)) for plane in _inside(lightness, a, b))
    return red, green, blue


def srgb_of_lightness(lightness: Floats) -> Floats:
    """Return the sRGB value in [0, 1] of the gray of L*. Inverse of `lightness_of_gray`."""
    return linear_to_srgb(np.clip(_f_inverse((lightness + np.float32(16)) * np.float32(1 / 116)), 0, 1))


def fit_gamut(lab: npt.ArrayLike) -> Floats:
    """Bring colors into the sRGB gamut by reducing chroma, at constant lightness and hue.

    Args:
        lab: CIE L*a*b*, (..., 3), L* in [0, 100].

    Returns:
        (..., 3): (L*, k a*, k b*) with the largest k in [0, 1] inside sRGB, to within 1/512. Colors inside
        sRGB are returned unchanged.
    """
    lab = np.array(lab, np.float32)
    flat = lab.reshape(-1, 3)
    red, green, blue = lab_to_linear(flat).T
    outside = np.flatnonzero(_is_outside((red, green, blue)))
    lightness, a, b = flat[outside].T
    flat[outside, 1:] *= _chroma_limit((lightness + np.float32(16)) / np.float32(116), a, b)[:, None]
    return lab


def lightness_of_gray(srgb: npt.ArrayLike) -> Floats:
    """Return L* of the gray whose three sRGB values are all `srgb`, in [0, 1]."""
    return 116 * _f(srgb_to_linear(srgb)) - 16


def compose_rgb8(lightness: Floats, a: Floats, b: Floats) -> Bytes:
    """Convert lightness and chroma to 8-bit sRGB. Chroma is reduced, at constant hue, to the gamut.

    Args:
        lightness: L* in [0, 100], (H, W).
        a: CIE a*, (H, W).
        b: CIE b*, (H, W).

    Returns:
        (H, W, 3) uint8. Where a = b = 0 and L* is the lightness of an 8-bit gray, exactly that gray.
    """
    coded = []
    for plane in _inside(lightness, a, b):
        np.multiply(plane, np.float32(_STEPS), out=plane)
        np.clip(plane, 0, _STEPS, out=plane)
        np.rint(plane, out=plane)
        coded.append(_SRGB8.take(plane.astype(np.uint16)))
    return np.asarray(cv2.merge(coded), np.uint8)


def compose_rgb16(lightness: Floats, a: Floats, b: Floats) -> npt.NDArray[np.uint16]:
    """Like `compose_rgb8`, but returns 16 bits per channel, (H, W, 3) uint16."""
    coded = [np.rint(_LEVELS16 * linear_to_srgb(np.clip(plane, 0, 1))) for plane in _inside(lightness, a, b)]
    return np.stack(coded, axis=-1).astype(np.uint16)


def colorfulness(rgb: Bytes) -> float:
    """Measure colorfulness: 0 is gray, 33 moderately, 59 quite, 109 extremely colorful.

    Hasler & Suesstrunk 2003, "Measuring colourfulness in natural images": the standard deviations of the
    opponent axes R - G and (R + G) / 2 - B, in 8-bit units, plus 0.3 times the length of their mean.

    Args:
        rgb: (H, W, 3) 8-bit sRGB.
    """
    height, width, _ = rgb.shape
    total, products = np.zeros(3), np.zeros((3, 3))
    step = max(1, _STRIPE_PIXELS // width)
    for start in range(0, height, step):
        samples = rgb[start : start + step].reshape(-1, 3).astype(np.float64)
        total += samples.sum(axis=0)
        products += samples.T @ samples
    mean = total / (height * width)
    covariance = products / (height * width) - np.outer(mean, mean)
    variances = np.einsum("ij,jk,ik->i", _OPPONENTS, covariance, _OPPONENTS).clip(min=0)
    return float(np.sqrt(variances.sum()) + 0.3 * np.hypot(*(_OPPONENTS @ mean)))


def _f(t: Floats) -> Floats:
    """Apply the curve between relative XYZ and L*a*b* (CIE 15)."""
    return np.where(t > _DELTA**3, np.cbrt(t), t / _SLOPE + _OFFSET).astype(np.float32)


def _f_inverse(f: Floats) -> Floats:
    """Apply the inverse of `_f`: the cube, and its tangent at 6/29 below that."""
    upper = np.maximum(f, np.float32(_DELTA))
    t = upper * upper * upper
    if f.size and f.min() < _DELTA:
        t += (np.minimum(f, np.float32(_DELTA)) - np.float32(_DELTA)) * np.float32(_SLOPE)
    return np.asarray(t)


# Linear light as red, green and blue arrays: each step is several times as fast on contiguous planes.
_Planes = tuple[Floats, Floats, Floats]


def _linear(fy: Floats, a: Floats, b: Floats) -> _Planes:
    """Convert f(Y) = (L* + 16) / 116 and a*, b* to linear light, all of one shape."""
    x = _f_inverse(fy + a * np.float32(1 / 500))
    y = _f_inverse(fy)
    z = _f_inverse(fy - b * np.float32(1 / 200))
    red, green, blue = (x * mx + y * my + z * mz for mx, my, mz in _RGB_FROM_RELATIVE_XYZ.astype(np.float32))
    return red, green, blue


def _inside(lightness: Floats, a: Floats, b: Floats) -> _Planes:
    """Convert L*, a* and b* to linear light, with chroma reduced to the sRGB gamut."""
    fy = (lightness + np.float32(16)) * np.float32(1 / 116)
    linear = _linear(fy, a, b)
    outside = np.flatnonzero(_is_outside(linear))
    if outside.size:
        fy, a, b = (plane.ravel()[outside] for plane in (fy, a, b))
        k = _chroma_limit(fy, a, b)
        for plane, values in zip(linear, _linear(fy, a * k, b * k), strict=True):
            np.put(plane, outside, values)
    return linear


def _is_outside(linear: _Planes) -> npt.NDArray[np.bool_]:
    red, green, blue = linear
    least = np.minimum(np.minimum(red, green), blue)
    greatest = np.maximum(np.maximum(red, green), blue)
    return np.asarray((least < np.float32(-_GAMUT_SLACK)) | (greatest > np.float32(1 + _GAMUT_SLACK)))


def _chroma_limit(fy: Floats, a: Floats, b: Floats) -> Floats:
    """Find by bisection the largest factor on a* and b* inside sRGB, for colors outside."""
    inside = np.zeros_like(fy)
    step = np.float32(1)
    for _ in range(_BISECTIONS):
        step *= np.float32(0.5)
        middle = inside + step
        np.copyto(inside, middle, where=~_is_outside(_linear(fy, a * middle, b * middle)))
    return inside


_SRGB8: Bytes = np.rint(255 * linear_to_srgb(np.arange(_STEPS + 1) / _STEPS)).astype(np.uint8)
