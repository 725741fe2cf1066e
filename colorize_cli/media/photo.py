"""Photographs: a file to a `Frame`, and a frame with its colours to a file.

What is read is the picture as a viewer shows it: turned as its EXIF orientation says, converted to sRGB by
its ICC profile. What is kept aside for the writing is transparency, EXIF and resolution. Pictures that hold
several pages or an animation are refused rather than cut to the first.
"""

import contextlib
import functools
import io
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from colorize_cli.color import Bytes
from colorize_cli.errors import ReadError, WriteError, one_line
from colorize_cli.media import atomic
from colorize_cli.media.frame import Frame, from_image, to_image

# Ending of the file name, in lower case, to Pillow's name of the format.
FORMATS: dict[str, str] = {
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
# Each plugin registers itself with Pillow when it is imported; naming them here imports them.
_PLUGINS = (
    AvifImagePlugin.AvifImageFile,
    BmpImagePlugin.BmpImageFile,
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
)

# Chroma in a JPEG is as fine as at Pillow's quality 95. Lightness, which is the user's, is as fine as at 97,
# or the colours would put it further off than saving the grey picture at 95 does.
_JPEG_CHROMA, _JPEG_LIGHTNESS = 95, 97
# What to ask of Pillow for each format. JPEG with full-resolution chroma, since chroma is what is added here;
# PNG at the level beyond which files hardly shrink and time doubles.
_SAVING: dict[str, dict[str, Any]] = {
    "AVIF": {"quality": 90, "subsampling": "4:4:4", "speed": 7, "max_threads": 1},
    "BMP": {},
    "JPEG": {"subsampling": "4:4:4"},
    "PNG": {"compress_level": 2},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "WEBP": {"quality": 95, "method": 3},
}
# Pixels on a side; what the other formats cannot hold they say themselves.
_LONGEST = {"JPEG": 65500, "WEBP": 16383}
_HOLDS_ALPHA = frozenset({"AVIF", "PNG", "TIFF", "WEBP"})
_HOLDS_EXIF = frozenset({"AVIF", "JPEG", "PNG", "WEBP"})
_HOLDS_DPI = frozenset({"BMP", "JPEG", "PNG", "TIFF"})


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


def read(source: Path | bytes, max_pixels: int) -> Frame:
    """Reads a photograph from a file or from a file's content.

    Raises:
        ReadError: As `size_of`, or the file is damaged.
    """
    size_of(source, max_pixels)
    with explained(), _open(source) as file, _opened(file) as image:
        image.load()
        return from_image(image)


def write(
    path: Path, frame: Frame, rgb: Bytes, ready: Callable[[os.stat_result], None] = lambda _: None
) -> None:
    """Writes a coloured picture in the format that the ending of `path` says; under that name it is complete.

    Args:
        path: Where to; its directory is made if there is none.
        frame: The picture.
        rgb: Its colours, (H, W, 3).
        ready: Called with the status of the complete file before it gets its name.

    Raises:
        WriteError: The format cannot hold the picture, or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.writing(path, ready) as file:
            encode(file, FORMATS[path.suffix.lower()], frame, rgb)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def encode(file: BinaryIO, format_: str, frame: Frame, rgb: Bytes) -> None:
    """Writes a coloured picture in a format, by Pillow's name of it.

    Raises:
        WriteError: The format cannot hold the picture.
        OSError: The file cannot be written.
    """
    if frame.alpha is not None and format_ not in _HOLDS_ALPHA and frame.alpha.min() < 255:
        raise WriteError(f"{format_} cannot hold its transparency; choose another format")
    if max(rgb.shape[:2]) > _LONGEST.get(format_, max(rgb.shape)):
        raise WriteError(f"{format_} cannot hold more than {_LONGEST[format_]} pixels on a side")
    image = to_image(frame, rgb) if format_ in _HOLDS_ALPHA else Image.fromarray(rgb)
    options = dict(_SAVING[format_])
    if format_ == "JPEG":
        options["qtables"] = [_quantisation(_JPEG_LIGHTNESS)[0], _quantisation(_JPEG_CHROMA)[1]]
    if frame.exif and format_ in _HOLDS_EXIF:
        options["exif"] = frame.exif
    if frame.dpi and format_ in _HOLDS_DPI:
        options["dpi"] = frame.dpi
    if frame.tiff_tags and format_ == "TIFF":
        options["tiffinfo"] = TiffImagePlugin.ImageFileDirectory_v2()
        for tag, text in frame.tiff_tags:
            options["tiffinfo"][tag] = text
    try:
        image.save(file, format_, **options)
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
    for format_ in dict.fromkeys(FORMATS.values()):
        factory, accept = Image.OPEN[format_]
        if accept is not None and accept(prefix) is True:
            file.seek(0)
            try:
                return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error) as error:
                raise ReadError(f"damaged {format_} header: {one_line(error)}") from error
    raise ReadError("the content is not that of a picture in a format known here")
