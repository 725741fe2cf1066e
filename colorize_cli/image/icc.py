"""Convert stored codes to sRGB by ICC profiles.

A profile that cannot be parsed, or is meant for another color space than the picture's, is ignored. The file
is then read as sRGB, as browsers do.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

from colorize_cli.color import lab, lightness
from colorize_cli.color.lab import Floats

_SRGB = ImageCms.createProfile("sRGB")
# All combinations of nine levels of each channel.
_PROBE = Image.fromarray(
    np.stack(np.meshgrid(*[np.linspace(0, 255, 9).astype(np.uint8)] * 3), -1).reshape(27, 27, 3)
)
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC


def gray_table(icc: bytes | None, levels: int) -> Floats:
    """Return L* of each code of a gray picture.

    Args:
        icc: The profile attached to the picture, for gray or for RGB, or None.
        levels: Number of codes, 256 or 65536. The profile is evaluated at 256 levels; those between are
            interpolated.

    Returns:
        (levels,) float32, L* in [0, 100].
    """
    plain = lightness.GRAY8 if levels == 256 else lightness.GRAY16
    profile = _parsed(icc)
    if profile is None:
        return plain
    space = profile.profile.xcolor_space.strip()
    if space not in ("GRAY", "RGB"):
        return plain
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert("L" if space == "GRAY" else "RGB")
    try:
        shown = np.asarray(ImageCms.profileToProfile(ramp, profile, _SRGB, _INTENT, outputMode="RGB"))
    except ImageCms.PyCMSError:
        return plain
    known = lab.srgb_to_lab(shown[0] / 255)[:, 0]
    if levels == 256:
        return known
    return np.interp(np.linspace(0, 255, levels), np.arange(256), known).astype(np.float32)


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


def is_srgb(icc: bytes | None) -> bool:
    """Return True if an RGB picture with this profile is in sRGB, or is read as sRGB."""
    profile = _parsed(icc)
    return profile is None or profile.profile.xcolor_space.strip() != "RGB"


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
