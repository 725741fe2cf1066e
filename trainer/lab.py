"""sRGB and CIE L*a*b* in torch: batched, differentiable, on any device.

sRGB transfer curve and primaries: IEC 61966-2-1:1999. CIE 1976 L*a*b*: CIE 15:2004, with the white point
D65, 2 degree observer (X = 0.95047, Y = 1, Z = 1.08883). Both directions clamp where a power's derivative
would be infinite, so that gradients are finite everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

_XYZ_FROM_RGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE_D65 = (0.95047, 1.0, 1.08883)
_DELTA = 6 / 29

_NORMALISED_XYZ_FROM_RGB = torch.tensor(_XYZ_FROM_RGB, dtype=torch.float64) / torch.tensor(
    _WHITE_D65, dtype=torch.float64
).unsqueeze(1)
_RGB_FROM_NORMALISED_XYZ = torch.linalg.inv(_NORMALISED_XYZ_FROM_RGB)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB to CIE Lab.

    Args:
        rgb: (N, 3, H, W), gamma-encoded sRGB in [0, 1].

    Returns:
        (N, 3, H, W): L* in [0, 100], then a* and b* in CIE units (within about ±110 for sRGB).
    """
    fx, fy, fz = _cube_root(_mix(_NORMALISED_XYZ_FROM_RGB, rgb_to_linear(rgb))).unbind(1)
    return torch.stack((116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)), dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """CIE Lab to sRGB, the inverse of `rgb_to_lab`.

    Args:
        lab: (N, 3, H, W): L*, a*, b* in CIE units.

    Returns:
        (N, 3, H, W), gamma-encoded sRGB; outside [0, 1] where the colour is outside the sRGB gamut.
    """
    lightness, a, b = lab.unbind(1)
    fy = (lightness + 16) / 116
    f = torch.stack((fy + a / 500, fy, fy - b / 200), dim=1)
    t = torch.where(f > _DELTA, f**3, 3 * _DELTA**2 * (f - 4 / 29))
    linear = _mix(_RGB_FROM_NORMALISED_XYZ, t)
    return torch.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    )


def rgb_to_linear(rgb: Tensor) -> Tensor:
    """Gamma-encoded sRGB in [0, 1] to linear light in [0, 1], of any shape."""
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def luminance_to_lightness(luminance: Tensor) -> Tensor:
    """Relative luminance Y / Yn in [0, 1] to L* in [0, 100], of any shape."""
    return 116 * _cube_root(luminance) - 16


def _cube_root(t: Tensor) -> Tensor:
    """CIE's f: the cube root, linear near zero."""
    return torch.where(t > _DELTA**3, t.clamp(min=_DELTA**3) ** (1 / 3), t / (3 * _DELTA**2) + 4 / 29)


def _mix(matrix: Tensor, channels: Tensor) -> Tensor:
    """Apply a 3 x 3 matrix over the channels: (3, 3), N3HW => N3HW."""
    return torch.einsum("oc,nchw->nohw", matrix.to(channels), channels)
