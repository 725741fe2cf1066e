"""Convert stored codes to linear light or to sRGB by ICC profiles.

Lightness is computed in floats from the codes as they are stored, so 16 bits stay 16 bits, and colors outside
sRGB keep their lightness.

A profile that cannot be parsed, or is meant for another color space than the picture's, is ignored. The file
is then read as sRGB, as browsers do.
"""

import functools
import io
from collections.abc import Callable, Mapping
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image, ImageCms

from colorize_cli.color import lab, lightness
from colorize_cli.color.lab import Codes, Floats

# Greatest error of linear light where a profile counts as a sum over the channels.
_ADDITIVE_SLACK = 2e-6
ToLinear = Callable[[Codes], Floats]

_SRGB = ImageCms.createProfile("sRGB")
# All combinations of nine levels of each channel.
_PROBE = Image.fromarray(
    np.stack(np.meshgrid(*[np.linspace(0, 255, 9).astype(np.uint8)] * 3), -1).reshape(27, 27, 3)
)
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
# White point and primaries of sRGB (IEC 61966-2-1), as x and y.
_SRGB_WHITE, _SRGB_PRIMARIES = (0.3127, 0.3290), (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
# The PNG specification has encoders of sRGB write this gamma beside the chunk sRGB; many write only it.
_SRGB_GAMMA, _GAMMA_SLACK = 0.45455, 0.0005
_CHROMATICITY_SLACK = 0.001  # in x and y


def _profile(
    space: str, white: tuple[float, ...], primaries: tuple[float, ...], gamma: float | None
) -> bytes:
    """Return a profile. `space` is "gray" or "rgb", and the light is the code to the power `gamma`.

    The curve is that of sRGB if `gamma` is None.
    """
    red, green, blue = ((*primaries[i : i + 2], 1.0) for i in (0, 2, 4))
    curve = None if gamma else lab.srgb_to_linear(np.linspace(0, 1, 4096))
    return bytes(
        imagecodecs.cms_profile(
            space,
            whitepoint=(*white, 1.0),
            primaries=(*red, *green, *blue) if space == "rgb" else None,
            gamma=gamma,
            transferfunction=curve,
        )
    )


@functools.cache
def _linear_srgb() -> bytes:
    return _profile("rgb", _SRGB_WHITE, _SRGB_PRIMARIES, 1.0)


def gray_table(icc: bytes | None, levels: int) -> Floats:
    """Return L* of each code of a gray picture.

    Args:
        icc: The profile attached to the picture, for gray or for RGB, or None.
        levels: Number of codes, 256 or 65536.

    Returns:
        (levels,) float32, L* in [0, 100].
    """
    plain = lightness.GRAY8 if levels == 256 else lightness.GRAY16
    profile = _parsed(icc)
    if icc is None or profile is None:
        return plain
    space = profile.profile.xcolor_space.strip()
    ramp: Any = np.arange(levels, dtype=np.uint8 if levels == 256 else np.uint16)[None]
    if space == "RGB":
        ramp = np.dstack([ramp] * 3)
    elif space != "GRAY":
        return plain
    try:
        return lab.lightness_of_linear(_transformed(ramp, icc, space)[0]).clip(0, 100)
    except imagecodecs.CmsError:
        return plain


def to_linear(icc: bytes | None, space: str) -> ToLinear:
    """Return a function from codes to linear light with the primaries of sRGB.

    Args:
        icc: The profile attached to the picture, or None.
        space: "RGB" or "CMYK". CMYK without a profile is read as Pillow reads it.

    Returns:
        A function from (H, W, 3) or (H, W, 4) uint8 or uint16 to (H, W, 3) float32, outside [0, 1] for colors
        outside sRGB.
    """
    profile = _parsed(icc)
    if icc is not None and profile is not None and profile.profile.xcolor_space.strip() == space:
        probe = np.random.default_rng(0).integers(0, 65536, (1, 4096, len(space)), dtype=np.uint16)
        try:
            exact = _transformed(probe, icc, space)
        except imagecodecs.CmsError:
            pass
        else:
            tables = functools.cache(lambda size: _tables(icc, space, 256**size))
            if np.abs(_sum(tables, probe) - exact).max() < _ADDITIVE_SLACK:
                return lambda codes: _sum(tables, codes)
            return lambda codes: _transformed(codes, icc, space)
    return _linear_of_cmyk if space == "CMYK" else _linear_of_srgb


def _tables(icc: bytes, space: str, levels: int) -> Floats:
    """Return the linear light of each code of each channel alone, (channels, levels, 3).

    Most profiles for RGB are a curve for each channel and a matrix. Light then is the sum over the channels,
    and looking it up takes a fraction of the time of the transformation.
    """
    channels = len(space)
    alone = np.zeros((channels, levels, channels), np.uint8 if levels == 256 else np.uint16)
    for channel in range(channels):
        alone[channel, :, channel] = np.arange(levels)
    tables = _transformed(alone, icc, space)
    tables[1:] -= tables[0, 0]  # the light of black counts once
    return tables


def _sum(tables: Callable[[int], Floats], codes: Codes) -> Floats:
    light = 0
    for channel, table in enumerate(tables(codes.dtype.itemsize)):
        light = light + table.take(codes[..., channel], axis=0)
    return np.asarray(light, np.float32)


def _transformed(codes: Codes, icc: bytes, space: str) -> Floats:
    transformed = imagecodecs.cms_transform(
        np.ascontiguousarray(codes),
        icc,
        _linear_srgb(),
        colorspace=space.lower(),
        outcolorspace="rgb",
        outdtype="float32",
        intent=int(_INTENT),
    )
    return np.asarray(transformed, np.float32)


def _linear_of_srgb(codes: Codes) -> Floats:
    return np.asarray(_curve(codes.dtype.itemsize).take(codes), np.float32)


def _linear_of_cmyk(codes: Codes) -> Floats:
    white = np.float32(np.iinfo(codes.dtype).max)
    light = 1 - codes / white
    return lab.srgb_to_linear(light[..., :3] * light[..., 3:])


@functools.cache
def _curve(size: int) -> Floats:
    """Return the linear light of each sRGB code of `size` bytes."""
    levels = 256**size
    return lab.srgb_to_linear(np.arange(levels) / (levels - 1))


def to_srgb(icc: bytes | None, mode: str) -> Callable[[Image.Image], Image.Image]:
    """Return a function that converts an image of `mode` ("RGB" or "CMYK") with this profile to sRGB."""
    profile = _parsed(icc)
    if profile is None or profile.profile.xcolor_space.strip() != mode:
        return lambda image: image.convert("RGB")
    try:
        transform = ImageCms.buildTransform(profile, _SRGB, mode, "RGB", _INTENT)
    except ImageCms.PyCMSError:
        return lambda image: image.convert("RGB")

    def convert(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image, transform)
        if converted is None:
            raise RuntimeError("applyTransform worked in place")
        return converted

    return convert


def of_png(info: Mapping[str, Any], *, gray: bool) -> bytes | None:
    """Return a profile for the gamma and chromaticities of a PNG (chunks gAMA and cHRM), or None for sRGB.

    Args:
        info: Pillow's `info` of the file, which has neither an ICC profile nor the chunk sRGB.
        gray: True if the picture is gray; its chromaticities do not matter.
    """
    gamma, chromaticities = info.get("gamma"), info.get("chromaticity")
    if gamma is not None and not (gamma > 0 and abs(gamma - _SRGB_GAMMA) > _GAMMA_SLACK):
        gamma = None
    wanted = (*_SRGB_WHITE, *_SRGB_PRIMARIES)
    if gray or not chromaticities or np.abs(np.subtract(chromaticities, wanted)).max() < _CHROMATICITY_SLACK:
        chromaticities = wanted
    if gamma is None and chromaticities == wanted:
        return None
    space, exponent = "gray" if gray else "rgb", 1 / gamma if gamma else None
    try:
        return _profile(space, chromaticities[:2], chromaticities[2:], exponent)
    except imagecodecs.CmsError:  # impossible chromaticities
        return None


def _parsed(icc: bytes | None) -> ImageCms.ImageCmsProfile | None:
    """Parse a profile. Returns None if there is none, if it is damaged, or if it is sRGB (a no-op)."""
    if not icc:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return None if _is_srgb(profile) else profile
    except (OSError, ImageCms.PyCMSError):
        return None


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Return True if the profile changes no color by more than one level, whatever its name."""
    if profile.profile.xcolor_space.strip() != "RGB":
        return False
    shown = ImageCms.profileToProfile(_PROBE, profile, _SRGB, _INTENT, outputMode="RGB")
    return bool(np.abs(np.asarray(shown).astype(int) - np.asarray(_PROBE)).max() <= 1)
