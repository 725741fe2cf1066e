"""sRGB and CIE L*a*b* in torch: batched, differentiable, on any device.

sRGB transfer curve and primaries: IEC 61966-2-1:1999. CIE 1976 L*a*b*: CIE 15:2004, with the white point
D65, 2 degree observer (X = 0.95047, Y = 1, Z = 1.08883). Both directions clamp where the derivative of a
power would be infinite, so that gradients are finite everywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_XYZ_FROM_RGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE_D65 = (0.95047, 1.0, 1.08883)
_DELTA = 6 / 29

_NORMALIZED_XYZ_FROM_RGB = torch.tensor(_XYZ_FROM_RGB, dtype=torch.float64) / torch.tensor(
    _WHITE_D65, dtype=torch.float64
).unsqueeze(1)
_RGB_FROM_NORMALIZED_XYZ = torch.linalg.inv(_NORMALIZED_XYZ_FROM_RGB)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB to CIE Lab.

    Args:
        rgb: (N, 3, H, W), gamma-encoded sRGB in [0, 1].

    Returns:
        (N, 3, H, W): L* in [0, 100], then a* and b* in CIE units (within about ±110 for sRGB).
    """
    fx, fy, fz = _cube_root(_mix(_NORMALIZED_XYZ_FROM_RGB, rgb_to_linear(rgb))).unbind(1)
    return torch.stack((116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)), dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Convert CIE Lab to sRGB. The inverse of `rgb_to_lab`.

    Args:
        lab: (N, 3, H, W): L*, a*, b* in CIE units.

    Returns:
        (N, 3, H, W), gamma-encoded sRGB, outside [0, 1] for colors outside the sRGB gamut.
    """
    lightness, a, b = lab.unbind(1)
    fy = (lightness + 16) / 116
    f = torch.stack((fy + a / 500, fy, fy - b / 200), dim=1)
    t = torch.where(f > _DELTA, f**3, 3 * _DELTA**2 * (f - 4 / 29))
    linear = _mix(_RGB_FROM_NORMALIZED_XYZ, t)
    return torch.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    )


def recompose(lightness: Tensor, ab: Tensor) -> Tensor:
    """Combine lightness and chroma into sRGB. Computes in fp32 even under autocast.

    Args:
        lightness: (N, 1, H, W) L* in [0, 100].
        ab: (N, 2, h, w) a*, b* in CIE units, upsampled bilinearly.

    Returns:
        (N, 3, H, W) sRGB, clipped to [0, 1].
    """
    with torch.autocast(lightness.device.type, enabled=False):
        chroma = ab.float()
        if chroma.shape[-2:] != lightness.shape[-2:]:
            chroma = F.interpolate(chroma, lightness.shape[-2:], mode="bilinear", align_corners=False)
        return lab_to_rgb(torch.cat((lightness.float(), chroma), dim=1)).clamp(0, 1)


def rgb_to_linear(rgb: Tensor) -> Tensor:
    """Convert gamma-encoded sRGB in [0, 1] to linear light in [0, 1], for tensors of any shape."""
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def luminance_to_lightness(luminance: Tensor) -> Tensor:
    """Convert relative luminance Y / Yn in [0, 1] to L* in [0, 100], for tensors of any shape."""
    return 116 * _cube_root(luminance) - 16


def _cube_root(t: Tensor) -> Tensor:
    """Compute f of CIE 15:2004: the cube root, linear near zero."""
    return torch.where(t > _DELTA**3, t.clamp(min=_DELTA**3) ** (1 / 3), t / (3 * _DELTA**2) + 4 / 29)


def _mix(matrix: Tensor, channels: Tensor) -> Tensor:
    """Multiply the channels by a 3 x 3 matrix: (3, 3), (N, 3, H, W) => (N, 3, H, W)."""
    return torch.einsum("oc,nchw->nohw", matrix.to(channels), channels)


def ciede2000(first: Tensor, second: Tensor) -> Tensor:
    """Compute the color difference CIEDE2000 (CIE 142-2001) with k_L = k_C = k_H = 1.

    Equations and their numbers: Sharma, Wu & Dalal 2005, "The CIEDE2000 color-difference formula:
    Implementation notes, supplementary test data, and mathematical observations".

    Args:
        first: (N, 3, H, W) L*, a*, b* in CIE units.
        second: like `first`.

    Returns:
        (N, 1, H, W), at least 0.
    """
    (l1, a1, b1), (l2, a2, b2) = first.unbind(1), second.unbind(1)
    # Step 1: stretch a* near the gray axis, then compute C' and h'.  (2)-(7)
    g = 0.5 * (1 - _of_seventh_power((torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2))
    a1, a2 = a1 * (1 + g), a2 * (1 + g)
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    h1, h2 = (torch.atan2(b, a).rad2deg().remainder(360) for a, b in ((a1, b1), (a2, b2)))
    gray = c1 * c2 == 0
    # Step 2: differences, with hue along the shorter arc.  (8)-(11)
    turn = h2 - h1
    turn = torch.where(turn > 180, turn - 360, torch.where(turn < -180, turn + 360, turn))
    turn = torch.where(gray, 0, turn)
    delta_l, delta_c = l2 - l1, c2 - c1
    delta_h = 2 * (c1 * c2).sqrt() * (turn / 2).deg2rad().sin()
    # Step 3: means, and the weights that depend on them.  (12)-(21)
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    apart = (h1 - h2).abs() > 180
    middle = (h1 + h2) / 2
    h = torch.where(apart, torch.where(h1 + h2 < 360, middle + 180, middle - 180), middle)
    h = torch.where(gray, h1 + h2, h)
    t = (
        1
        - 0.17 * (h - 30).deg2rad().cos()
        + 0.24 * (2 * h).deg2rad().cos()
        + 0.32 * (3 * h + 6).deg2rad().cos()
        - 0.20 * (4 * h - 63).deg2rad().cos()
    )
    rotation = 30 * (-(((h - 275) / 25) ** 2)).exp()
    s_l = 1 + 0.015 * (lightness - 50) ** 2 / (20 + (lightness - 50) ** 2).sqrt()
    s_c, s_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    r_t = -(2 * rotation).deg2rad().sin() * 2 * _of_seventh_power(chroma)
    x, y, z = delta_l / s_l, delta_c / s_c, delta_h / s_h
    return (x**2 + y**2 + z**2 + r_t * y * z).clamp(min=0).sqrt().unsqueeze(1)  # (22)


def _of_seventh_power(chroma: Tensor) -> Tensor:
    """Compute sqrt(C^7 / (C^7 + 25^7)), which CIEDE2000 uses twice."""
    power = (chroma / 25) ** 7
    return (power / (power + 1)).sqrt()
