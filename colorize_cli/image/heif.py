"""Read HEIF with HEVC pictures (ISO/IEC 23008-12), as phones write it, with pillow-heif.

A file may hold several pictures; only the primary one is read. Rotations that the file describes are applied
by the decoder.
"""

from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ImageFile

from colorize_cli.core.errors import ReadError, one_line
from colorize_cli.image.frame import with_space

# Brands of files whose pictures are coded with HEVC.
_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_BRAND = 4  # bytes


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Open a file as a Pillow image, at its primary picture."""
    import pillow_heif  # with its library, takes longer to import than Pillow

    image: ImageFile.ImageFile = pillow_heif.HeifImageFile(file)
    return image


def is_heif(file: BinaryIO) -> bool:
    """Return True if a file says that it is HEIF with HEVC. Reads from the start."""
    file.seek(0)
    head = file.read(8)
    size = int.from_bytes(head[:4], "big")
    if head[4:] != b"ftyp" or size > 1024:
        return False
    brands = file.read(size - len(head))
    return not _BRANDS.isdisjoint(brands[at : at + _BRAND] for at in range(0, len(brands), _BRAND))


def is_deep(image: Any) -> bool:
    """Return True if the samples of an opened image have more than 8 bits."""
    return int(image.info.get("bit_depth", 8)) > 8


def read(file: BinaryIO) -> tuple[npt.NDArray[np.uint16], str]:
    """Decode the primary picture of a file of more than 8 bits.

    Returns:
        Samples and color space, as `frame.with_space`.

    Raises:
        ReadError: The file is damaged.
    """
    import pillow_heif

    try:
        picture = pillow_heif.open_heif(file, convert_hdr_to_8bit=False, hdr_to_16bit=True)
        samples = np.asarray(picture[picture.primary_index])
    except (OSError, ValueError, RuntimeError, EOFError) as error:
        raise ReadError(f"damaged: {one_line(error)}") from error
    return with_space(samples)
