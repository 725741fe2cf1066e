"""The kinds of input: one file and one row each."""

from pathlib import Path

from colorize_cli.errors import ReadError
from colorize_cli.media.formats import FORMATS, WRITABLE, endings

__all__ = ["KINDS", "WRITABLE", "check_kind", "endings"]

# Ending of the file name, in lower case, to the kind.
KINDS: dict[str, str] = dict.fromkeys(FORMATS, "photo")


def check_kind(path: Path) -> None:
    """Raises ReadError where the name of a file is of no kind that can be read and written."""
    if path.suffix.lower() not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise ReadError(f"not a kind of file known here: {path.suffix or 'no suffix'!r} (known: {known})")
