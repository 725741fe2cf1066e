"""Photographs: a file to a `Frame`, and a frame with its colours to a file.

What is read is the picture as a viewer shows it: turned as its EXIF orientation says, converted to sRGB by
its ICC profile. What is kept aside for the writing is transparency, depth and metadata. Pictures that hold
several pages or an animation are refused rather than cut to the first.
"""

import contextlib
import functools
import io
import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from colorize_cli.color import Codes
from colorize_cli.errors import ReadError, WriteError, one_line
from colorize_cli.media import atomic, deep, tiff
from colorize_cli.media.frame import Frame, alpha_as, from_image, from_samples
from colorize_cli.media.metadata import described, options, orientation_of


@dataclass(frozen=True)
class Format:
    """What a format can hold, and how it is written.

    Attributes:
        suffixes: Endings of file names, in lower case; outputs get the first where they change format.
        alpha: Whether it holds transparency.
        deep: Whether it is written with 16 bits.
        longest: Most pixels on a side; what the other formats cannot hold they say themselves.
        saving: What to ask of Pillow.
    """

    suffixes: tuple[str, ...]
    alpha: bool = False
    deep: bool = False
    longest: int | None = None
    saving: dict[str, Any] = field(default_factory=dict)


# What each format holds, by Pillow's names. JPEG and AVIF with full-resolution chroma, for chroma is what is
# added here; PNG at the level beyond which files hardly shrink and time doubles.
HOLDS: dict[str, Format] = {
    "AVIF": Format(
        (".avif",),
        alpha=True,
        saving={"quality": 90, "subsampling": "4:4:4", "speed": 7, "max_threads": 1},
    ),
    "BMP": Format((".bmp",)),
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), longest=65500, saving={"subsampling": "4:4:4"}),
    "JPEG2000": Format((".jp2", ".j2k", ".j2c", ".jpx"), alpha=True),
    "PNG": Format((".png",), alpha=True, deep=True, saving={"compress_level": 2}),
    "TIFF": Format((".tif", ".tiff"), alpha=True, deep=True),
    "WEBP": Format((".webp",), alpha=True, longest=16383, saving={"quality": 95, "method": 3}),
}
# Ending of the file name, in lower case, to the format.
FORMATS: dict[str, str] = {suffix: name for name, format_ in HOLDS.items() for suffix in format_.suffixes}
# Each plugin registers itself with Pillow when it is imported; naming them here imports them.
_PLUGINS = (
    AvifImagePlugin.AvifImageFile,
    BmpImagePlugin.BmpImageFile,
    Jpeg2KImagePlugin.Jpeg2KImageFile,
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
)

# Chroma in a JPEG is as fine as at Pillow's quality 95. Lightness, which is the user's, is as fine as at 97,
# or the colours would put it further off than saving the grey picture at 95 does.
_JPEG_CHROMA, _JPEG_LIGHTNESS = 95, 97


def size_of(source: Path | bytes, max_pixels: int) -> int:
    """The number of pixels that the header of a file, or of its content, promises; nothing is decoded.

    Raises:
        ReadError: The file cannot be opened, is no picture of a known format, or has more pixels than
            allowed.
    """
    with explained(), _open(source) as file, _opened(file) as image:
        width, height = image.size
        if width < 1 or height < 1:
            raise ReadError(f"it has no pixels ({width} x {height})")
        if width * height > max_pixels:
            raise ReadError(f"{width} x {height} are more pixels than the limit of {max_pixels:,}")
        pages = getattr(image, "n_frames", 1)
        # The further pictures in a JPEG (MPO) are previews, depths or other views of the first.
        if pages > 1 and image.format not in ("JPEG", "MPO"):
            raise ReadError(f"it holds {pages} pages or frames; only single pictures are coloured")
        return width * height


@contextlib.contextmanager
def opened(source: Path | bytes, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """A Pillow image of a file, or of its content, not yet decoded; what is raised of it is a ReadError.

    Raises:
        ReadError: As `size_of`, or the file is damaged.
    """
    size_of(source, max_pixels)
    with explained(), _open(source) as file, _opened(file) as image:
        yield image


def read(source: Path | bytes, max_pixels: int) -> Frame:
    """Reads a photograph from a file or from a file's content.

    Raises:
        ReadError: As `size_of`, or the file is damaged.
    """
    with opened(source, max_pixels) as image:
        if not deep.is_deep(image):
            return from_image(image)
        orientation = orientation_of(image)
        samples = deep.read(source if isinstance(source, bytes) else source.read_bytes(), orientation)
        metadata = described(image, orientation, (samples.shape[1], samples.shape[0]))
        return from_samples(samples, image.info.get("icc_profile"), metadata, str(image.format))


def write(
    path: Path, frame: Frame, rgb: Codes, ready: Callable[[os.stat_result], None] = lambda _: None
) -> None:
    """Writes a coloured picture in the format that the ending of `path` says; under that name it is complete.

    Args:
        path: Where to; its directory is made if there is none.
        frame: The picture.
        rgb: Its colours, (H, W, 3), uint8 or, where the format holds 16 bits, uint16.
        ready: Called with the status of the complete file before it gets its name.

    Raises:
        WriteError: The format cannot hold the picture, or the file cannot be written.
    """
    format_ = FORMATS[path.suffix.lower()]
    check(format_, frame)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.writing(path, ready) as file:
            encode(file, format_, frame, rgb)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def check(format_: str, frame: Frame) -> None:
    """Whether a format holds a picture.

    Raises:
        WriteError: It does not; nothing of it is left out silently.
    """
    held = HOLDS[format_]
    if frame.alpha is not None and not held.alpha and frame.alpha.min() < np.iinfo(frame.alpha.dtype).max:
        raise WriteError(f"{format_} cannot hold its transparency; choose another format")
    if held.longest is not None and max(frame.lightness.shape) > held.longest:
        raise WriteError(f"{format_} cannot hold more than {held.longest} pixels on a side")


def encode(file: BinaryIO, format_: str, frame: Frame, rgb: Codes) -> None:
    """Writes a coloured picture in a format, by Pillow's name of it, which holds it.

    Raises:
        WriteError: The format cannot hold the picture.
        OSError: The file cannot be written.
    """
    held = HOLDS[format_]
    samples: Any = rgb
    if frame.alpha is not None and held.alpha:
        samples = np.dstack([rgb, alpha_as(rgb.dtype, frame.alpha)])
    saving = held.saving | options(frame.metadata, format_)
    if format_ == "TIFF":
        tiff.write(file, samples, frame.metadata)
        return
    if format_ == "PNG" and samples.dtype == np.uint16:
        deep.write_png(file, samples, saving)
        return
    if format_ == "JPEG":
        saving["qtables"] = [_quantisation(_JPEG_LIGHTNESS)[0], _quantisation(_JPEG_CHROMA)[1]]
    try:
        Image.fromarray(samples).save(file, format_, **saving)
    except (ValueError, RuntimeError) as error:  # an encoder that refuses the picture
        raise WriteError(f"{format_} cannot hold it: {error}") from error


@functools.cache
def _quantisation(quality: int) -> dict[int, list[int]]:
    """The tables of luminance and chrominance that Pillow uses at a quality."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    file.seek(0)
    with JpegImagePlugin.JpegImageFile(file) as image:
        return dict(image.quantization)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Whatever Pillow or the system raise about a file, as one line."""
    try:
        yield
    except ReadError:
        raise
    except UnidentifiedImageError as error:
        raise ReadError(str(error)) from error
    except MemoryError as error:
        raise ReadError("not enough memory to decode it") from error
    except OSError as error:
        raise ReadError(one_line(error.strerror or error)) from error
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
        raise ReadError(f"damaged: {one_line(error) or type(error).__name__}") from error


def _open(source: Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not stat.S_ISREG(source.stat().st_mode):  # opening a pipe would wait for ever
        raise ReadError("it is a directory, a pipe or a device, not a regular file")
    return source.open("rb")


def _opened(file: BinaryIO) -> ImageFile.ImageFile:
    """As `Image.open`, for the formats known here alone, and without its limit on pixels.

    That limit is a global of Pillow's and lies below ours, so the plugins are called without it.
    """
    prefix = file.read(16)
    if not prefix:
        raise ReadError("the file is empty")
    for format_ in HOLDS:
        factory, accept = Image.OPEN[format_]
        if accept is not None and accept(prefix) is True:
            file.seek(0)
            try:
                return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error) as error:
                raise ReadError(f"damaged {format_} header: {one_line(error)}") from error
    raise ReadError("the content is not that of a picture in a format known here")
