"""Read picture files into `Frame`s. `writer` is the counterpart.

Pictures are read as a viewer shows them: rotated by their EXIF orientation and converted to sRGB by their ICC
profile. Transparency, depth and metadata are kept for the output.

A file may hold several pictures: the pages of a TIFF or the frames of an animation. Pages are read and
written one at a time. An animation counts as one picture with the pixels of all its frames.
"""

import contextlib
import dataclasses
import io
import math
import struct
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from colorize_cli.color.lab import Bytes, Codes
from colorize_cli.core.errors import ReadError, one_line, reason_of_damage
from colorize_cli.core.formats import BYTES_A_PIXEL, PICTURE_FORMATS
from colorize_cli.image import containers, gif, heif, jpeg, jpeg2000, png_reader, tiff_reader, webp
from colorize_cli.image.frame import Frame, Page, Showing, from_image, from_samples, own_colors, srgb_of
from colorize_cli.image.metadata import STORED, described, orientation_of
from colorize_cli.storage.filesystem import open_regular

T = TypeVar("T")

LONGEST_SIDE = 1_000_000
"""Limit on the sides of a picture in pixels, like libpng's. Work goes by rows, which must fit into memory."""

# What opens a file of each format, by Pillow's name. Importing a plugin registers with Pillow how its format
# is recognized.
_OPENERS: dict[str, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    "AVIF": AvifImagePlugin.AvifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "HEIF": heif.open_image,
    "JPEG": jpeg.open_image,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "PNG": png_reader.open_image,
    "TIFF": tiff_reader.open_image,
    "WEBP": WebPImagePlugin.WebPImageFile,
}

# TIFF 6.0, NewSubfileType: a smaller copy of another page, or its transparency.
_SUBFILE_TYPE, _NO_PAGE = 254, 1 | 4
_ACROSS, _UNIT, _NO_UNIT, _ICC = 282, 296, 1, 34675


def size_of(source: Path | bytes, max_pixels: int, written_as: str | None = None) -> int:
    """Return the number of pixels that are in memory at one time. Decodes nothing.

    Args:
        source: A path, or the content of a file.
        max_pixels: Limit on the number returned.
        written_as: Pillow's name of the output's format; None if nothing is written.

    Returns:
        The pixels of a picture, of the largest page, or of all frames of an animation. A picture whose
        decoder or encoder takes more than `BYTES_A_PIXEL` counts as more pixels, in proportion.

    Raises:
        ReadError: The file cannot be opened, is not a picture of a supported format, or has more than
            `max_pixels`.
    """
    with explained(), _open_binary(source) as file, _identify(file) as image:
        return _checked_size(image, max_pixels, written_as)


@contextlib.contextmanager
def open_page(source: Path | bytes, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """Open a file, or its content, as a Pillow image at its first page, not yet decoded.

    Raises:
        ReadError: As in `size_of`, or the file is damaged. Exceptions in the `with` block become ReadErrors.
    """
    with _open_checked(source, max_pixels) as (image, file):
        _turn_to(image, _page_numbers(image)[0], file)
        yield image


@contextlib.contextmanager
def _open_checked(source: Path | bytes, max_pixels: int) -> Iterator[tuple[ImageFile.ImageFile, BinaryIO]]:
    """Like `open_page`, but yields the file too, and reads no page's metadata."""
    with explained(), _open_binary(source) as file, _identify(file) as image:
        _checked_size(image, max_pixels)
        yield image, file


def read(source: Path | bytes, max_pixels: int) -> Frame:
    """Read the first page of a file, or of a file's content.

    Raises:
        ReadError: As in `size_of`, or the file is damaged.
    """
    with contextlib.closing(read_pages(source, max_pixels)) as frames:
        return next(frames)


def read_pages(source: Path | bytes, max_pixels: int) -> Generator[Frame, None, None]:
    """Read the pages or frames of a file, or of a file's content, one by one.

    Raises:
        ReadError: As in `read`. If there are several pages, the message names the page.
    """
    return _pages(source, max_pixels, lambda image, file, pages: _page(image, file, pages)[0])


def original_pages(source: Path | bytes, max_pixels: int) -> Generator[Page, None, None]:
    """Like `read_pages`, but yields each page with its original colors, at 8 bits."""

    def page(image: ImageFile.ImageFile, file: BinaryIO, pages: int) -> Page:
        frame, colors = _page(image, file, pages)
        return dataclasses.replace(frame, deep=False), colors()

    return _pages(source, max_pixels, page)


def _pages(
    source: Path | bytes, max_pixels: int, read_page: Callable[[ImageFile.ImageFile, BinaryIO, int], T]
) -> Generator[T, None, None]:
    with _open_checked(source, max_pixels) as (image, file):
        pages = _page_numbers(image)
        for number, page in enumerate(pages, 1):
            try:
                with explained():
                    _turn_to(image, page, file)
                    result = read_page(image, file, len(pages))
            except ReadError as error:
                if len(pages) == 1:
                    raise
                kind = "page" if image.format == "TIFF" else "frame"
                raise ReadError(f"{kind} {number} of {len(pages)}: {error}") from error
            yield result


def _checked_size(image: ImageFile.ImageFile, max_pixels: int, written_as: str | None = None) -> int:
    if image.format == "GIF" and image.fp is not None and not gif.is_whole(cast(BinaryIO, image.fp)):
        raise ReadError("damaged: the file ends too early")  # Pillow would silently read the frames before
    pages = _page_numbers(image)
    weights = []
    for page in pages if image.format == "TIFF" else pages[:1]:
        image.seek(page)
        width, height = image.size
        if width < 1 or height < 1:
            raise ReadError(f"the picture has no pixels ({width} x {height})")
        if max(width, height) > LONGEST_SIDE:
            raise ReadError(f"{width} x {height} exceeds the limit of {LONGEST_SIDE:,} pixels a side")
        if width * height > max_pixels:
            raise ReadError(
                f"{width} x {height} exceeds the limit of {max_pixels:,} pixels (see --max-pixels)"
            )
        beyond = _bytes_a_pixel(image, written_as) - BYTES_A_PIXEL
        # Of an animation, frames are decoded one by one.
        frames = 1 if image.format == "TIFF" else len(pages)
        if frames * width * height > max_pixels:
            size = f"{frames} frames of {width} x {height}"
            raise ReadError(f"{size} exceed the limit of {max_pixels:,} pixels (see --max-pixels)")
        weight = math.ceil((frames + beyond / BYTES_A_PIXEL) * width * height)
        if weight > max_pixels:
            format_ = written_as or image.format
            raise ReadError(
                f"{width} x {height} as {format_} need the memory of {weight:,} pixels, beyond the limit of "
                f"{max_pixels:,} (see --max-pixels)"
            )
        weights.append(weight)
    return max(weights)


def _bytes_a_pixel(image: ImageFile.ImageFile, written_as: str | None) -> int:
    """Return the bytes of memory that a pixel of the current page takes, at least `BYTES_A_PIXEL`."""
    is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    alpha = image.has_transparency_data or (is_tiff and tiff_reader.may_be_transparent(image))
    source = "JPEG" if image.format == "MPO" else str(image.format)
    needs = [PICTURE_FORMATS[source].reading[alpha]]
    if written_as is not None:
        needs.append(PICTURE_FORMATS[written_as].writing[alpha])
    if is_tiff:
        needs.append(tiff_reader.bytes_a_pixel(image))
    return max(needs)


def _page_numbers(image: ImageFile.ImageFile) -> list[int]:
    """Return the seek position of each page or frame."""
    # The other pictures in a JPEG (MPO) are previews, depth maps or other views of the first.
    if image.format in ("JPEG", "MPO"):
        return [0]
    if image.format == "HEIF":  # opened at the primary picture
        return [image.tell()]
    numbers = list(range(getattr(image, "n_frames", 1)))
    if image.format != "TIFF" or len(numbers) == 1:
        return numbers
    pages = []
    for number in numbers:
        image.seek(number)
        if not getattr(image, "tag_v2", {}).get(_SUBFILE_TYPE, 0) & _NO_PAGE:
            pages.append(number)
    return pages or numbers


def _turn_to(image: ImageFile.ImageFile, page: int, file: BinaryIO) -> None:
    """Seek to a page and read its metadata. Drops profile and resolution of an earlier page if absent."""
    size = image.size
    image.seek(page)
    if image.format == "GIF" and image.size != size:  # Pillow enlarges the picture
        raise ReadError("damaged: the frame lies outside the picture")
    with _from_start(file):
        image.info[STORED] = containers.read(file, image)
    if image.format != "TIFF":
        return
    tags = getattr(image, "tag_v2", {})
    if _ICC not in tags:
        image.info.pop("icc_profile", None)
    if _ACROSS not in tags or tags.get(_UNIT) == _NO_UNIT:
        image.info.pop("dpi", None)


def _page(image: ImageFile.ImageFile, file: BinaryIO, pages: int) -> tuple[Frame, Callable[[], Bytes]]:
    """Decode the current page of an image with `pages` pages.

    Returns:
        The page, and a function that returns its original colors, (H, W, 3) 8-bit sRGB.
    """
    if pages > 1 and image.format == "PNG" and png_reader.bits(file) > 8:
        raise ReadError(
            "an animation of 16 bits would lose bits, as it is decoded with 8; convert it to 8 bits"
        )
    if pages > 1 and image.format != "TIFF":
        # Pillow composes color frames at 8 bits.
        frame = dataclasses.replace(from_image(image), deep=False, showing=_showing(image))
        if image.format == "PNG" and image.tell() == 0:
            with _from_start(file):
                frame = dataclasses.replace(frame, damage=png_reader.damage(file))
    elif (decoded := _samples(image, file)) is not None:
        samples, space = decoded
        orientation, icc = orientation_of(image), image.info.get("icc_profile")
        samples = tiff_reader.turned(samples, orientation)
        metadata = described(image, orientation, (samples.shape[1], samples.shape[0]))
        frame = from_samples(samples, space, icc, metadata, str(image.format))
        return dataclasses.replace(frame, pages=pages), lambda: srgb_of(samples, space, icc)
    else:
        damage = None
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            with _from_start(file):
                decoded_image, damage = jpeg.read(file.read(), image.mode)
            image.im, image.tile = decoded_image.im, []
        elif isinstance(image, TiffImagePlugin.TiffImageFile):
            damage = tiff_reader.load(image)
        elif image.format == "PNG":
            with _from_start(file):
                damage = png_reader.damage(file)
        frame = dataclasses.replace(from_image(image), damage=damage)
    if image.format == "WEBP":
        with _from_start(file):
            frame = dataclasses.replace(frame, lossless=webp.is_lossless(file))
    return dataclasses.replace(frame, pages=pages), lambda: own_colors(image)


def _samples(image: ImageFile.ImageFile, file: BinaryIO) -> tuple[Codes, str] | None:
    """Decode what Pillow would reduce to 8 bits, misread or refuse. Returns None for other pictures.

    Returns:
        The samples and the color space for `from_samples`.
    """
    with _from_start(file):
        if image.format == "TIFF" and not tiff_reader.is_plain(image):
            return tiff_reader.read(file, image.tell())
        if image.format == "PNG" and png_reader.is_deep(file):
            return png_reader.read(file)
        if image.format == "HEIF" and heif.is_deep(image):
            return heif.read(file)
        if image.format == "JPEG2000" and image.mode in ("RGB", "RGBA", "LA"):
            depth = jpeg2000.bits(file)
            file.seek(0)
            return jpeg2000.read(file, depth) if depth > 8 else None
        if isinstance(image, jpeg.TwelveBits):
            return jpeg.read_12_bits(file.read())
    return None


def _showing(image: ImageFile.ImageFile) -> Showing:
    """Return the timing of the current frame of an image."""
    if image.format == "GIF":  # stores the number of repetitions; without it the animation plays once
        again = image.info.get("loop")
        loops = 1 if again is None else again and again + 1
    else:
        loops = int(image.info.get("loop", 0))  # Pillow gives none for AVIF
    if image.info.get("default_image") and image.tell() == 0:
        return Showing(None, loops)
    return Showing(float(image.info.get("duration", 0)), loops)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn any exception of Pillow or the system about a file into a one-line ReadError."""
    try:
        yield
    except ReadError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
        raise ReadError(reason_of_damage(error)) from error


@contextlib.contextmanager
def _from_start(file: BinaryIO) -> Iterator[None]:
    """Move to the start of a file that Pillow has open too, and back to where Pillow left it."""
    position = file.tell()
    file.seek(0)
    try:
        yield
    finally:
        file.seek(position)


def _open_binary(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else open_regular(source)


def _identify(file: BinaryIO) -> ImageFile.ImageFile:
    """Like `Image.open`, but only for supported formats and without Pillow's limit on pixels.

    That limit is a global of Pillow's and is lower than ours, so the plugins are called directly. Some of
    them check it again when they decode; the engine removes it.
    """
    prefix = file.read(16)
    if not prefix:
        raise ReadError("the file is empty")
    format_ = None
    if heif.is_heif(file):  # before AVIF, since some of them begin alike
        format_ = "HEIF"
    else:
        for name, (_, accept) in Image.OPEN.items():
            if name in _OPENERS and accept is not None and accept(prefix) is True:
                format_ = name
    if format_ is not None:
        file.seek(0)
        try:
            return _OPENERS[format_](file)
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            is_said = isinstance(error, SyntaxError) and error.__cause__ is None  # others are about code
            why = f": {one_line(error)}" if is_said else ""
            raise ReadError(f"damaged {format_} header{why}") from error
    raise ReadError("the content is not a picture in a supported format")
