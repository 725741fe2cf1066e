"""ICC profiles: what the codes of a file mean in sRGB.

A profile that cannot be parsed, or is for another kind of picture than it is attached to, is ignored and the
file taken for sRGB, as browsers do.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

from colorize_cli.color import lab, lightness
from colorize_cli.color.lab import Floats

_SRGB = ImageCms.createProfile("sRGB")
# Nine levels of each channel against each other.
_PROBE = Image.fromarray(
    np.stack(np.meshgrid(*[np.linspace(0, 255, 9).astype(np.uint8)] * 3), -1).reshape(27, 27, 3)
)
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC


def gray_table(icc: bytes | None, levels: int) -> Floats:
    """L* of each code of a grey picture.

    Args:
        icc: The profile attached to the picture, for grey or for RGB, or None.
        levels: 256 or 65536 codes; of the latter, those between the 256 that the profile is asked about are
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
    """What turns a picture of a mode ("RGB" or "CMYK") with a profile into sRGB of mode "RGB"."""
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
    """Whether a picture of RGB with this profile is in sRGB, or is to be taken so."""
    profile = _parsed(icc)
    return profile is None or profile.profile.xcolor_space.strip() != "RGB"


def _parsed(icc: bytes | None) -> ImageCms.ImageCmsProfile | None:
    """The profile; None where there is none, it is damaged, or it is sRGB itself, which changes nothing."""
    if not icc:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return None if _is_srgb(profile) else profile
    except (OSError, ImageCms.PyCMSError):
        return None


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether it changes no colour by more than a level, whatever it is called."""
    if profile.profile.xcolor_space.strip() != "RGB":
        return False
    shown = ImageCms.profileToProfile(_PROBE, profile, _SRGB, _INTENT, outputMode="RGB")
    return bool(np.abs(np.asarray(shown).astype(int) - np.asarray(_PROBE)).max() <= 1)
