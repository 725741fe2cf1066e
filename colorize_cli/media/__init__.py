"""The kinds of input: one file, or one folder of files, and one row each."""

from collections.abc import Mapping
from pathlib import Path

from colorize_cli.errors import ReadError
from colorize_cli.media import formats
from colorize_cli.media.formats import FILMS, FORMATS, SHEET, WRITABLE

__all__ = ["FILMS", "FORMATS", "KINDS", "SHEET", "WRITABLE", "check_kind", "endings", "is_film"]

# Ending of the file name, in lower case, to the kind.
KINDS: dict[str, str] = dict.fromkeys(FORMATS, "photo") | dict.fromkeys(FILMS, "film")


def check_kind(path: Path) -> None:
    """Raises ReadError where the name of a file is of no kind that can be read and written."""
    if path.suffix.lower() not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise ReadError(f"not a kind of file known here: {path.suffix or 'no suffix'!r} (known: {known})")


def is_film(path: Path) -> bool:
    """Whether a file of this name is a film."""
    return KINDS.get(path.suffix.lower()) == "film"


def endings(format_: str | None = None, films: str | None = None) -> Mapping[str, str]:
    """For each known ending of a file's name the ending of its output's.

    Args:
        format_: The format of pictures that is wanted, by Pillow's name; None for that of the input, or the
            one it is written as.
        films: The ending of what is made of films; None for that of the film.
    """
    return {**formats.endings(format_), **{suffix: films or suffix for suffix in FILMS}}
