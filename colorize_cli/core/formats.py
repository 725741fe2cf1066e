"""The formats of pictures: what each holds, and how it is written; and the endings of films.

Nothing here needs Pillow or PyAV.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colorize_cli.core.errors import ReadError


@dataclass(frozen=True)
class Format:
    """What a format can hold, and how it is written.

    Attributes:
        suffixes: Endings of file names, in lower case; outputs get the first where they change format.
        alpha: Whether it holds transparency.
        deep: Whether it is written with 16 bits.
        longest: Most pixels on a side; what the other formats cannot hold they say themselves.
        animated: Whether it holds an animation.
        written_as: The format of outputs, where this one cannot hold what is coloured.
        saving: What to ask of Pillow.
    """

    suffixes: tuple[str, ...]
    alpha: bool = False
    deep: bool = False
    longest: int | None = None
    animated: bool = False
    written_as: str | None = None
    saving: dict[str, Any] = field(default_factory=dict)


# What each format holds, by Pillow's names. AVIF with full-resolution chroma, for chroma is what is added;
# PNG at the level beyond which files hardly shrink and time doubles.
HOLDS: dict[str, Format] = {
    "AVIF": Format(
        (".avif",),
        alpha=True,
        animated=True,
        saving={"quality": 90, "subsampling": "4:4:4", "speed": 7, "max_threads": 1},
    ),
    "BMP": Format((".bmp",)),
    # Of 256 colours a coloured photograph would not keep its lightness; browsers show animated PNG too.
    "GIF": Format((".gif",), written_as="PNG"),
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), longest=65500),
    "JPEG2000": Format((".jp2", ".j2k", ".j2c", ".jpx"), alpha=True),
    "PNG": Format((".png", ".apng"), alpha=True, deep=True, animated=True, saving={"compress_level": 2}),
    "TIFF": Format((".tif", ".tiff"), alpha=True, deep=True),
    "WEBP": Format((".webp",), alpha=True, longest=16383, animated=True, saving={"quality": 95, "method": 3}),
}
# Ending of the file name, in lower case, to the format.
FORMATS: dict[str, str] = {suffix: name for name, format_ in HOLDS.items() for suffix in format_.suffixes}
VIDEOS = (".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".y4m")
SHEET = ".png"  # of contact sheets of films
# What `quality` changes.
LOSSY = frozenset({"AVIF", "JPEG", "WEBP"})
WRITABLE = tuple(name for name, format_ in HOLDS.items() if format_.written_as is None)
# Ending of the file name, in lower case, to the kind.
KINDS: dict[str, str] = dict.fromkeys(FORMATS, "photo") | dict.fromkeys(VIDEOS, "film")


def check_kind(path: Path) -> None:
    """Raises ReadError where the name of a file is of no kind that can be read and written."""
    if path.suffix.lower() not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise ReadError(f"not a kind of file known here: {path.suffix or 'no suffix'!r} (known: {known})")


def is_video(path: Path) -> bool:
    """Whether a file of this name is a film."""
    return KINDS.get(path.suffix.lower()) == "film"


def endings(format_: str | None = None, videos: str | None = None) -> Mapping[str, str]:
    """For each known ending of a file's name the ending of its output's.

    Args:
        format_: The format of pictures that is wanted, by Pillow's name; None for that of the input, or the
            one it is written as.
        videos: The ending of what is made of films; None for that of the film.
    """

    def ending(suffix: str) -> str:
        wanted = format_ or HOLDS[FORMATS[suffix]].written_as or FORMATS[suffix]
        return suffix if FORMATS[suffix] == wanted else HOLDS[wanted].suffixes[0]

    images = {suffix: ending(suffix) for suffix in FORMATS}
    return images | {suffix: videos or suffix for suffix in VIDEOS}
