"""Photographs: a file to `Frame`s, and frames with their colours to a file.

What is read is the picture as a viewer shows it: turned as its EXIF orientation says, converted to sRGB by
its ICC profile. What is kept aside for the writing is transparency, depth and metadata.

A file may hold several pictures: the pages of a TIFF, the frames of an animation. Pages are read and written
one at a time; an animation counts with all its frames as one picture of as many pixels.
"""

import contextlib
import dataclasses
import functools
import io
import os
import stat
import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
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
from colorize_cli.media import atomic, deep, gif, png, tiff
from colorize_cli.media.formats import FORMATS, HOLDS, LOSSY
from colorize_cli.media.frame import Frame, Showing, from_image, from_samples, own_colours, with_alpha
from colorize_cli.media.metadata import described, options, orientation_of

T = TypeVar("T")
Page = tuple[Frame, Codes]

# Each plugin registers itself with Pillow when it is imported; naming them here imports them.
_PLUGINS = (
    AvifImagePlugin.AvifImageFile,
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    Jpeg2KImagePlugin.Jpeg2KImageFile,
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
)

# Chroma in a JPEG is as fine as at Pillow's quality 95, and lightness as in the JPEG that was read. If there
# was none it is as fine as at 97, or colours would put it further off than saving the grey picture at 95.
_JPEG_CHROMA, _JPEG_LIGHTNESS = 95, 97


# TIFF 6.0, NewSubfileType: a smaller copy of another page, or its transparency.
_SUBFILE_TYPE, _NO_PAGE = 254, 1 | 4
_ACROSS, _UNIT, _NO_UNIT, _ICC = 282, 296, 1, 34675
_MOST_LOOPS = 65535  # of a WebP


def size_of(source: Path | bytes, max_pixels: int) -> int:
    """How many pixels of a file, or of its content, are in memory at one time; nothing is decoded.

    Returns:
        The pixels of a picture, of the largest page, or of all frames of an animation.

    Raises:
        ReadError: The file cannot be opened, is no picture of a known format, or has more pixels than
            allowed.
    """
    with explained(), _open(source) as file, _opened(file) as image:
        return _checked_size(image, max_pixels)


@contextlib.contextmanager
def opened(source: Path | bytes, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """A Pillow image of a file, or of its content, not yet decoded; what is raised of it is a ReadError.

    Raises:
        ReadError: As `size_of`, or the file is damaged.
    """
    with explained(), _open(source) as file, _opened(file) as image:
        _checked_size(image, max_pixels)
        _turn_to(image, _page_numbers(image)[0])
        yield image


def read(source: Path | bytes, max_pixels: int) -> Frame:
    """Reads a photograph from a file or from a file's content, of several pages the first.

    Raises:
        ReadError: As `size_of`, or the file is damaged.
    """
    with contextlib.closing(read_pages(source, max_pixels)) as frames:
        return next(frames)


def read_pages(source: Path | bytes, max_pixels: int) -> Generator[Frame, None, None]:
    """Reads the pages or frames in a file, or in a file's content, one by one.

    Raises:
        ReadError: As `read`; of several pages it says which.
    """
    return _pages(source, max_pixels, _frame)


def original_pages(source: Path | bytes, max_pixels: int) -> Generator[Page, None, None]:
    """As `read_pages`, each with the colours that it has, of 8 bits."""

    def page(image: ImageFile.ImageFile, content: Callable[[], bytes], pages: int) -> Page:
        return dataclasses.replace(_frame(image, content, pages), deep=False), own_colours(image)

    return _pages(source, max_pixels, page)


def _pages(
    source: Path | bytes,
    max_pixels: int,
    read_page: Callable[[ImageFile.ImageFile, Callable[[], bytes], int], T],
) -> Generator[T, None, None]:
    content = functools.cache(lambda: source if isinstance(source, bytes) else source.read_bytes())
    with opened(source, max_pixels) as image:
        pages = _page_numbers(image)
        for number, page in enumerate(pages, 1):
            try:
                with explained():
                    _turn_to(image, page)
                    result = read_page(image, content, len(pages))
            except ReadError as error:
                if len(pages) == 1:
                    raise
                raise ReadError(f"{number} of {len(pages)}: {error}") from error
            yield result


def write(
    path: Path,
    pages: Iterable[Page],
    quality: int | None = None,
    ready: Callable[[os.stat_result], None] = lambda _: None,
) -> None:
    """Writes coloured pictures in the format that the ending of `path` says; under that name it is complete.

    Args:
        path: Where to; its directory is made if there is none.
        pages: Each picture with its colours, (H, W, 3), uint8 or, where the format holds 16 bits, uint16.
        quality: Of JPEG, WebP and AVIF, from 1 to 100; None for that of the input, or a high one.
        ready: Called with the status of the complete file before it gets its name.

    Raises:
        WriteError: The format cannot hold them, or the file cannot be written.
    """
    with _file(path, ready) as file:
        encode(file, FORMATS[path.suffix.lower()], pages, quality)


def write_content(path: Path, content: bytes, ready: Callable[[os.stat_result], None]) -> None:
    """As `write`, of a picture that is encoded already."""
    with _file(path, ready) as file:
        file.write(content)


@contextlib.contextmanager
def _file(path: Path, ready: Callable[[os.stat_result], None]) -> Iterator[BinaryIO]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.writing(path, ready) as file:
            yield file
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
    if frame.showing is not None and not held.animated:
        raise WriteError(f"{format_} holds no animation; choose another format")


def encode(file: BinaryIO, format_: str, pages: Iterable[Page], quality: int | None = None) -> None:
    """Writes coloured pictures in a format, by Pillow's name of it; otherwise as `write`.

    Raises:
        WriteError: The format cannot hold them.
        OSError: The file cannot be written.
    """
    if format_ == "TIFF":
        writer = tiff.Writer(file)
        for frame, rgb in pages:
            check(format_, frame)
            writer.add(_samples(format_, frame, rgb), frame.metadata)
        return
    remaining = iter(pages)
    first, rgb = next(remaining)
    check(format_, first)
    if first.showing is None and next(remaining, None) is not None:
        raise WriteError(f"{format_} holds a single picture, and here are several; choose TIFF")
    saving = HOLDS[format_].saving | options(first.metadata, format_) | _fineness(format_, first, quality)
    if format_ == "PNG" and rgb.dtype == np.uint16:
        png.write(file, np.asarray(_samples(format_, first, rgb), np.uint16), saving)
        return
    animation = [(first, rgb), *remaining]
    images: list[Image.Image] = [Image.fromarray(_samples(format_, *page)) for page in animation]
    if first.showing is not None:
        saving |= _timing(format_, [frame for frame, _ in animation])
        mode = "RGBA" if any(image.mode == "RGBA" for image in images) else "RGB"
        images = [image.convert(mode) for image in images]
        saving["append_images"] = images[1:]
    try:
        images[0].save(file, format_, **saving)
    except (ValueError, RuntimeError) as error:  # an encoder that refuses the picture
        raise WriteError(f"{format_} cannot hold it: {error}") from error


def _checked_size(image: ImageFile.ImageFile, max_pixels: int) -> int:
    if image.format == "GIF" and image.fp is not None and not gif.is_whole(cast(BinaryIO, image.fp)):
        raise ReadError("damaged: it breaks off")  # and Pillow would read what frames there are
    pages = _page_numbers(image)
    sizes = []
    for page in pages if image.format == "TIFF" else (0,):
        image.seek(page)
        width, height = image.size
        if width < 1 or height < 1:
            raise ReadError(f"it has no pixels ({width} x {height})")
        if width * height > max_pixels:
            raise ReadError(f"{width} x {height} are more pixels than the limit of {max_pixels:,}")
        sizes.append(width * height)
    if len(sizes) < len(pages) and len(pages) * sizes[0] > max_pixels:
        width, height = image.size
        what = f"{len(pages)} frames of {width} x {height}"
        raise ReadError(f"{what} are more pixels than the limit of {max_pixels:,}")
    return max(sizes) if image.format == "TIFF" else len(pages) * sizes[0]


def _page_numbers(image: ImageFile.ImageFile) -> list[int]:
    """What to seek for each page or frame."""
    # The further pictures in a JPEG (MPO) are previews, depths or other views of the first.
    if image.format in ("JPEG", "MPO"):
        return [0]
    numbers = list(range(getattr(image, "n_frames", 1)))
    if image.format != "TIFF" or len(numbers) == 1:
        return numbers
    pages = []
    for number in numbers:
        image.seek(number)
        if not getattr(image, "tag_v2", {}).get(_SUBFILE_TYPE, 0) & _NO_PAGE:
            pages.append(number)
    return pages or numbers


def _turn_to(image: ImageFile.ImageFile, page: int) -> None:
    """Seeks a page, and forgets what Pillow remembers of others and this one does not say."""
    size = image.size
    image.seek(page)
    if image.format == "GIF" and image.size != size:  # Pillow enlarges it
        raise ReadError("damaged: it lies outside of the picture")
    if image.format != "TIFF":
        return
    tags = getattr(image, "tag_v2", {})
    if _ICC not in tags:
        image.info.pop("icc_profile", None)
    if _ACROSS not in tags or tags.get(_UNIT) == _NO_UNIT:
        image.info.pop("dpi", None)


def _frame(image: ImageFile.ImageFile, content: Callable[[], bytes], pages: int) -> Frame:
    """The frame of the page that an image of `pages` is at."""
    if pages > 1 and image.format != "TIFF":
        # Pillow composes frames of colour at 8 bits.
        return dataclasses.replace(from_image(image), deep=False, pages=pages, showing=_showing(image))
    if not deep.is_deep(image):
        return dataclasses.replace(from_image(image), pages=pages)
    orientation = orientation_of(image)
    samples = deep.read(content(), image, orientation)
    metadata = described(image, orientation, (samples.shape[1], samples.shape[0]))
    frame = from_samples(samples, image.info.get("icc_profile"), metadata, str(image.format))
    return dataclasses.replace(frame, pages=pages)


def _showing(image: ImageFile.ImageFile) -> Showing:
    """How the frame that an image is at is shown."""
    if image.format == "GIF":  # which says how often it is shown again, if it is
        again = image.info.get("loop")
        loops = 1 if again is None else again and again + 1
    else:
        loops = int(image.info.get("loop", 0))  # of AVIF nobody tells
    if image.info.get("default_image") and image.tell() == 0:
        return Showing(None, loops)
    return Showing(float(image.info.get("duration", 0)), loops)


def _samples(format_: str, frame: Frame, rgb: Codes) -> Codes:
    """What is stored of a picture: its colours, and its transparency where the format has that."""
    return with_alpha(frame, rgb) if HOLDS[format_].alpha else rgb


def _fineness(format_: str, frame: Frame, quality: int | None) -> dict[str, Any]:
    """What to ask of Pillow for a quality."""
    if format_ not in LOSSY:
        return {}
    if quality is not None:
        return {"quality": quality}
    if format_ != "JPEG":
        return {}
    luma = frame.luma_table or _quantisation(_JPEG_LIGHTNESS)[0]
    return {"qtables": [list(luma), _quantisation(_JPEG_CHROMA)[1]]}


def _timing(format_: str, frames: list[Frame]) -> dict[str, Any]:
    """What to ask of Pillow for an animation."""
    showings = [frame.showing for frame in frames if frame.showing is not None]
    timed = [showing.milliseconds for showing in showings if showing.milliseconds is not None]
    saving: dict[str, Any] = {"save_all": True, "duration": timed, "loop": showings[0].loops}
    if format_ == "PNG":
        return saving | ({"default_image": True} if len(timed) < len(frames) else {})
    if len(timed) < len(frames):
        raise WriteError(f"{format_} holds no picture for where animations are not shown; choose PNG")
    # In whole milliseconds, so that a frame begins at most half of one too early or too late.
    begins = np.rint(np.cumsum([0.0, *timed])).astype(int)
    return saving | {"duration": np.diff(begins).tolist(), "loop": min(showings[0].loops, _MOST_LOOPS)}


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

    That limit is a global of Pillow's and lies below ours, so the plugins are called without it. Some of them
    ask for it again when they decode; the engine lifts it.
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
