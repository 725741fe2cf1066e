"""The kinds of input: one file and one row each."""

from pathlib import Path

from colorize_cli.errors import ReadError
from colorize_cli.media import photo

__all__ = ["KINDS", "SUFFIXES", "check_kind"]

# Ending of the file name, in lower case, to the kind.
KINDS: dict[str, str] = dict.fromkeys(photo.FORMATS, "photo")
SUFFIXES = frozenset(KINDS)


def check_kind(path: Path) -> None:
    """Raises ReadError where the name of a file is of no kind that can be read and written."""
    if path.suffix.lower() not in KINDS:
        known = ", ".join(sorted(SUFFIXES))
        raise ReadError(f"not a kind of file known here: {path.suffix or 'no suffix'!r} (known: {known})")
