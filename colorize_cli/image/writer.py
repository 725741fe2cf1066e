"""Write pictures to files. A file appears under its name only when it is complete."""

import contextlib
import functools
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from colorize_cli.color.lab import Codes
from colorize_cli.color.ycbcr import BytePlanes
from colorize_cli.core.errors import WriteError, one_line
from colorize_cli.core.formats import FORMAT_OF_SUFFIX, LOSSY, PICTURE_FORMATS
from colorize_cli.image import jpeg, jpeg2000, png_writer, tiff_writer
from colorize_cli.image.frame import Colors, Frame, Page, with_alpha
from colorize_cli.image.metadata import jpeg2000_boxes, options
from colorize_cli.image.thumbnail import embedded
from colorize_cli.storage import atomic

# JPEG quality for inputs that are not JPEG. Color conversion rounds where gray does not, so the quality is
# raised by two: the error of lightness is then no larger than in the gray picture saved at the given quality.
_JPEG_QUALITY, _FINER = 95, 2
# `quality` is the effort here.
_LOSSLESS_WEBP = {"lossless": True, "exact": True, "quality": 50}
_MOST_LOOPS = 65535  # limit of WebP


def write(
    path: Path,
    pages: Iterable[Page],
    quality: int | None = None,
    ready: Callable[[os.stat_result], None] = lambda _: None,
) -> None:
    """Write colorized pictures in the format of the suffix of `path`. The file appears when complete.

    Args:
        path: The file to write; its directory is created if needed.
        pages: Pictures with their colors: RGB (H, W, 3), uint8, or uint16 where the format holds 16 bits; or
            planes, for JPEG.
        quality: Quality of JPEG, WebP and AVIF, from 1 to 100; None for the input's, or a high one.
        ready: Called with the status of the complete file before it gets its name.

    Raises:
        WriteError: The format cannot hold the pictures, or the file cannot be written.
    """
    with _file(path, ready) as file:
        encode(file, FORMAT_OF_SUFFIX[path.suffix.lower()], pages, quality)


def write_content(path: Path, content: bytes, ready: Callable[[os.stat_result], None]) -> None:
    """Like `write`, for a picture that is already encoded."""
    with _file(path, ready) as file:
        file.write(content)


@contextlib.contextmanager
def _file(path: Path, ready: Callable[[os.stat_result], None]) -> Iterator[BinaryIO]:
    try:
        with atomic.writing(path, ready) as file:
            yield file
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def check(format_: str, frame: Frame) -> None:
    """Check that a format can hold a picture without loss of transparency, size or animation.

    Args:
        format_: Pillow's name of the format.
        frame: The picture.

    Raises:
        WriteError: The format cannot.
    """
    held = PICTURE_FORMATS[format_]
    if frame.alpha is not None and not held.alpha and frame.alpha.min() < np.iinfo(frame.alpha.dtype).max:
        raise WriteError(f"{format_} cannot hold transparency; choose another format")
    if held.longest is not None and max(frame.lightness.shape) > held.longest:
        raise WriteError(
            f"{format_} cannot hold more than {held.longest} pixels a side; choose another format"
        )
    if frame.showing is not None and not held.animated:
        raise WriteError(f"{format_} cannot hold an animation; choose another format")


def encode(file: BinaryIO, format_: str, pages: Iterable[Page], quality: int | None = None) -> None:
    """Encode colorized pictures to an open file in a format, given by Pillow's name. See `write`.

    Raises:
        WriteError: The format cannot hold the pictures.
        OSError: The file cannot be written.
    """
    if format_ == "TIFF":
        writer = tiff_writer.Writer(file)
        for frame, colors in pages:
            check(format_, frame)
            writer.add(_array(format_, colors), frame.alpha, frame.metadata)
        return
    remaining = iter(pages)
    first, colors = next(remaining)
    check(format_, first)
    if first.showing is None and next(remaining, None) is not None:
        raise WriteError(f"{format_} cannot hold several pages; choose TIFF")
    saving = PICTURE_FORMATS[format_].saving | options(
        first.metadata, format_, functools.partial(embedded, colors)
    )
    if format_ == "JPEG":
        _write_jpeg(file, first, colors, quality, saving)
        return
    if quality is not None and format_ in LOSSY:
        saving["quality"] = quality
    elif format_ == "WEBP" and first.lossless:
        saving |= _LOSSLESS_WEBP
    if format_ == "PNG" and isinstance(colors, np.ndarray) and colors.dtype == np.uint16:
        png_writer.write(file, np.asarray(colors, np.uint16), first.alpha, saving)
        return
    if format_ == "JPEG2000" and isinstance(colors, np.ndarray) and colors.dtype == np.uint16:
        file.write(jpeg2000.encode(np.asarray(_samples(format_, first, colors), np.uint16)))
        file.write(jpeg2000_boxes(first.metadata))
        return
    animation = [(first, colors), *remaining]
    images: list[Image.Image] = [Image.fromarray(_samples(format_, *page)) for page in animation]
    if first.showing is not None:
        saving |= _timing(format_, [frame for frame, _ in animation])
        mode = "RGBA" if any(image.mode == "RGBA" for image in images) else "RGB"
        images = [image.convert(mode) for image in images]
        saving["append_images"] = images[1:]
    # OpenJPEG tries for ever to write to a full disk.
    target = io.BytesIO() if format_ == "JPEG2000" else file
    try:
        images[0].save(target, format_, **saving)
    except (ValueError, RuntimeError) as error:  # the encoder rejects the picture
        raise WriteError(f"{format_} cannot hold the picture: {one_line(error)}") from error
    if isinstance(target, io.BytesIO) and target is not file:
        file.write(target.getbuffer())
        file.write(jpeg2000_boxes(first.metadata))


def _array(format_: str, colors: Colors) -> Codes:
    if isinstance(colors, BytePlanes):
        raise TypeError(f"planes are for JPEG, not {format_}")
    return colors


def _samples(format_: str, frame: Frame, colors: Colors) -> Codes:
    """Return the samples to store: colors, with transparency if the format supports it."""
    return with_alpha(_array(format_, colors), frame.alpha if PICTURE_FORMATS[format_].alpha else None)


def _write_jpeg(
    file: BinaryIO, frame: Frame, colors: Colors, quality: int | None, saving: dict[str, Any]
) -> None:
    if not isinstance(colors, BytePlanes):
        colors = np.asarray(colors, np.uint8)
    fineness: int | jpeg.Table = min((quality or _JPEG_QUALITY) + _FINER, 100)
    if quality is None and frame.luma_table is not None:
        fineness = jpeg.quality_of(frame.luma_table) or frame.luma_table
    jpeg.write(file, colors, fineness, saving)


def _timing(format_: str, frames: list[Frame]) -> dict[str, Any]:
    """Return Pillow's `save` options for an animation."""
    showings = [frame.showing for frame in frames if frame.showing is not None]
    timed = [showing.milliseconds for showing in showings if showing.milliseconds is not None]
    saving: dict[str, Any] = {"save_all": True, "duration": timed, "loop": showings[0].loops}
    if format_ == "PNG":
        return saving | ({"default_image": True} if len(timed) < len(frames) else {})
    if len(timed) < len(frames):
        raise WriteError(f"{format_} cannot hold the default image of an animated PNG; choose PNG")
    # Rounds start times, not durations, to milliseconds: then no frame starts more than half of one off.
    begins = np.rint(np.cumsum([0.0, *timed])).astype(int)
    return saving | {"duration": np.diff(begins).tolist(), "loop": min(showings[0].loops, _MOST_LOOPS)}
