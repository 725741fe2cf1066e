"""Picture formats with their capabilities and save options, and the file name suffixes of videos.

This module imports neither Pillow nor PyAV.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colorize_cli.core.errors import ReadError
from colorize_cli.core.location import Location

BYTES_A_PIXEL = 12
"""Limit on the memory of a run for each pixel of `--max-pixels`. Formats beyond it count as more pixels."""


@dataclass(frozen=True)
class Format:
    """Capabilities and save options of a picture format.

    Attributes:
        suffixes: File name suffixes, in lower case. An output that changes format gets the first.
        alpha: True if the format holds transparency.
        deep: True if files are written with 16 bits per sample.
        longest: Maximum side length in pixels; None for a format whose encoder reports its limit itself.
        animated: True if the format holds animations.
        written_as: Format of the outputs, if this one cannot hold a colorized picture; otherwise None.
        saving: Keyword arguments for Pillow's `save`.
        reading: Bytes of memory per pixel while a file is read, without and with transparency.
        writing: The same, while a file is written.
    """

    suffixes: tuple[str, ...]
    alpha: bool = False
    deep: bool = False
    longest: int | None = None
    animated: bool = False
    written_as: str | None = None
    saving: dict[str, Any] = field(default_factory=dict)
    reading: tuple[int, int] = (BYTES_A_PIXEL, BYTES_A_PIXEL)
    writing: tuple[int, int] = (BYTES_A_PIXEL, BYTES_A_PIXEL)


# Formats by Pillow's names. Memory is measured by `tests/benchmarks/large.py` and rounded up. AVIF keeps
# chroma at full resolution, because colorizing adds just the chroma.
# Beyond level 2 of PNG, files hardly shrink and the time doubles.
PICTURE_FORMATS: dict[str, Format] = {
    "AVIF": Format(
        (".avif",),
        alpha=True,
        animated=True,
        saving={"quality": 90, "subsampling": "4:4:4", "speed": 7, "max_threads": 1},
        reading=(12, 16),
        writing=(48, 56),
    ),
    "BMP": Format((".bmp",)),
    # With 256 colors a colorized photograph would not keep its lightness. Browsers show animated PNG too.
    "GIF": Format((".gif",), written_as="PNG"),
    # What phones write; it is read only.
    "HEIF": Format((".heic", ".heif", ".hif"), written_as="JPEG", reading=(14, 18)),
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), longest=65500),
    "JPEG2000": Format(
        (".jp2", ".j2k", ".j2c", ".jpx"), alpha=True, deep=True, reading=(24, 32), writing=(48, 64)
    ),
    "PNG": Format((".png", ".apng"), alpha=True, deep=True, animated=True, saving={"compress_level": 2}),
    "TIFF": Format((".tif", ".tiff"), alpha=True, deep=True),
    "WEBP": Format(
        (".webp",),
        alpha=True,
        longest=16383,
        animated=True,
        saving={"quality": 95, "method": 3},
        reading=(14, 22),
        writing=(24, 52),
    ),
}
# Format by file name suffix, in lower case.
FORMAT_OF_SUFFIX: dict[str, str] = {
    suffix: name for name, format_ in PICTURE_FORMATS.items() for suffix in format_.suffixes
}
# Suffix of the output by suffix of the video. The formats that become Matroska hold few kinds of picture or
# sound. Each output has a row in `video.encoder.CONTAINERS`, which loads PyAV.
_WRITTEN = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv", ".y4m"),
)
VIDEOS = {suffix: suffix for suffix in _WRITTEN} | dict.fromkeys((".dv", ".mxf", ".ogv", ".vob"), ".mkv")
HINTS_SUFFIX = ".hints.json"  # added to the name of a picture: the file with its hints, beside it
SHEET = ".png"  # suffix of a video's contact sheet
# Formats that `quality` affects.
LOSSY = frozenset({"AVIF", "JPEG", "WEBP"})
WRITABLE = tuple(name for name, format_ in PICTURE_FORMATS.items() if format_.written_as is None)
# Suffixes that stay inside the name of an output with another suffix (`a.gif.png`), so that it differs from
# the names of other outputs: those of formats that cannot be written, and of videos with contact sheets.
SUFFIXES_KEPT_IN_NAME = frozenset(
    suffix for suffix, name in FORMAT_OF_SUFFIX.items() if PICTURE_FORMATS[name].written_as
) | frozenset(VIDEOS)
# Kind by file name suffix, in lower case.
KINDS: dict[str, str] = dict.fromkeys(FORMAT_OF_SUFFIX, "picture") | dict.fromkeys(VIDEOS, "video")


def check_kind(path: Path) -> None:
    """Raise ReadError if a file's suffix is not one of a supported type."""
    if path.suffix.lower() not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise ReadError(f"unsupported file type: {path.suffix or 'no suffix'!r} (supported: {known})")


def is_video(path: Location) -> bool:
    """Return True if the file name has the suffix of a video."""
    return KINDS.get(path.suffix.lower()) == "video"


def endings(format_: str | None = None, videos: str | None = None) -> Mapping[str, str]:
    """Map each supported suffix, in lower case with the dot, to the suffix of its output.

    Args:
        format_: Output format of pictures, by Pillow's name; None for the input's format, or the one that
            this is written as.
        videos: Output suffix of videos; None for the input's suffix, or the one that this is written as.
    """

    def ending(suffix: str) -> str:
        wanted = format_ or PICTURE_FORMATS[FORMAT_OF_SUFFIX[suffix]].written_as or FORMAT_OF_SUFFIX[suffix]
        return suffix if FORMAT_OF_SUFFIX[suffix] == wanted else PICTURE_FORMATS[wanted].suffixes[0]

    images = {suffix: ending(suffix) for suffix in FORMAT_OF_SUFFIX}
    return images | {suffix: videos or written for suffix, written in VIDEOS.items()}
