"""Write HTML pages from the templates of this package. A page is self-contained.

A page is read from disk and loads nothing from elsewhere. File names and error messages are hostile input:
the templates escape every value, and `Page.link` makes addresses. The Content-Security-Policy of a page
allows only its built-in style and script.
"""

import base64
import contextlib
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from PIL import Image

from colorize_cli.core.errors import UsageError, WriteError, printable
from colorize_cli.core.location import STREAM, Location, Url
from colorize_cli.storage import atomic

SUFFIXES = (".html", ".htm")


class Spool:
    """Records in a file on disk, for a template to iterate over. A record is what JSON can hold."""

    def __init__(self, file: IO[bytes]) -> None:
        """Start without records in an empty file."""
        self._file = file
        self._count = 0

    def add(self, **record: Any) -> None:
        """Append a record. Raises OSError if the disk is full."""
        self._file.write(json.dumps(record).encode() + b"\n")
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._file.seek(0)
        return map(json.loads, self._file)


class Page:
    """A page whose pictures are kept on disk until it is written.

    They are in unnamed temporary files in the folder of the page, so that memory does not grow with their
    number. Leaving the `with` block deletes these files.
    """

    def __init__(self, path: Path, what: str) -> None:
        """Prepare the page, creating its folder if needed.

        Args:
            path: Destination of `write`. It ends in one of SUFFIXES, so that it never replaces a picture.
            what: The word for the page in error messages, for example "report".

        Raises:
            UsageError: `path` has another suffix, or is a directory.
            WriteError: The folder cannot be created or is not writable.
        """
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"the {what} {path} must end in {' or '.join(SUFFIXES)}")
        if path.is_dir():
            raise UsageError(f"the {what} {path} is a directory; give a file")
        self.path = path
        self._what = what
        self._folder = _absolute(path.parent)
        self._files = contextlib.ExitStack()
        with self.explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._folder).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a full disk, already reported by `write`
            self._files.close()

    def spool(self) -> Spool:
        """Return a new list of records on disk."""
        return Spool(self._files.enter_context(tempfile.TemporaryFile(dir=self._folder)))

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Convert an OSError in the block to a WriteError that names the page."""
        try:
            yield
        except OSError as error:
            raise WriteError(
                f"cannot write the {self._what} {self.path}: {error.strerror or error}"
            ) from error

    def write(self, template: str, **values: Any) -> None:
        """Write the page atomically.

        Args:
            template: Name of a file in `templates`.
            values: The variables of the template.

        Raises:
            WriteError: The page cannot be written.
        """
        about = f"colorize {importlib.metadata.version('colorize-cli')}, {now()}"
        with self.explained():
            write(self.path, template, about=about, **values)

    def link(self, location: Location) -> dict[str, str | None]:
        """Return the text and the address of a location for the macro `link`.

        The address is relative to the page. It is None if browsers cannot open the location.
        """
        address: str | None = None
        if isinstance(location, Url):
            address = str(location) if location.is_web else None
        elif location != STREAM:
            address = _address(location, self._folder)
        return {"text": str(location), "address": address}


def write(path: Path, template: str, **values: Any) -> None:
    """Write a page atomically, piece by piece.

    Args:
        path: The file.
        template: Name of a file in `templates`.
        values: The variables of the template.

    Raises:
        OSError: The page cannot be written.
    """
    with atomic.writing(path) as file:
        for piece in _templates().get_template(template).generate(values):
            file.write(piece.encode())


def now() -> str:
    """Return the local date and time to the minute."""
    return f"{datetime.now().astimezone():%Y-%m-%d %H:%M}"


def embedded(image: Image.Image, format_: str = "JPEG", **saving: int) -> dict[str, Any]:
    """Return a picture as a data URL, with its size, for the macro `picture`.

    Args:
        image: A picture of mode L or RGB.
        format_: JPEG or WEBP.
        saving: Options of Pillow's encoder: quality, subsampling.
    """
    file = io.BytesIO()
    image.save(file, format_, **saving)
    data = base64.b64encode(file.getvalue()).decode()
    url = f"data:image/{format_.lower()};base64,{data}"
    return {"url": url, "width": image.width, "height": image.height}


def duration(seconds: float) -> str:
    """Format a time in seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, whole = divmod(round(seconds), 60)
    return f"{minutes} min {whole} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("colorize_cli.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(duration=duration, thousands="{:,}".format)
    environment.globals["policy"] = _policy
    return environment


def _absolute(path: Path) -> str:
    # Browsers remove `name/..` from an address, which is wrong if `name` is a symbolic link.
    return os.path.realpath(path) if ".." in path.parts else os.path.abspath(path)  # noqa: PTH100


def _address(path: Path, folder: str) -> str:
    """Return the address of a file relative to a page in `folder`."""
    target = _absolute(path)
    try:
        relative = os.path.relpath(target, folder)
    except ValueError:  # on another drive
        return Path(target).as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def _policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy that allows no loading, and only this style and script."""
    allowed = [
        f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
        for kind, content in (("style", style), ("script", script))
    ]
    return "; ".join(["default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'", *allowed])
