"""Shared parts of the HTML pages. A page is self-contained.

A page is read from disk and loads nothing from elsewhere. File names and error messages are hostile input:
they pass through `text`, and addresses through `Page.link`. The Content-Security-Policy of the page allows
only its built-in script.
"""

import base64
import contextlib
import hashlib
import importlib.metadata
import importlib.resources
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from typing import IO, Self
from urllib.parse import quote

from PIL import Image

from colorize_cli.core.errors import UsageError, WriteError, printable
from colorize_cli.core.location import STREAM, Location, Url
from colorize_cli.storage import atomic

SUFFIXES = (".html", ".htm")
# Marks the place in a template for content that is added piece by piece.
_MIDDLE = "<!-- outcomes -->\n"


class Page:
    """A page that grows on disk.

    Its parts are stored in unnamed temporary files in the folder of the page, so that memory does not grow
    with the number of pictures. Leaving the `with` block deletes these files.
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
        self._parts = contextlib.ExitStack()
        with self.explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._folder).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a full disk, already reported by `write`
            self._parts.close()

    def part(self) -> IO[bytes]:
        """Return a new temporary file for a part of the page."""
        return self._parts.enter_context(tempfile.TemporaryFile(dir=self._folder))

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Convert an OSError in the block to a WriteError that names the page."""
        try:
            yield
        except OSError as error:
            raise WriteError(
                f"cannot write the {self._what} {self.path}: {error.strerror or error}"
            ) from error

    def write(self, frame: tuple[str, str], middle: Iterable[str | IO[bytes]]) -> None:
        """Write the page atomically.

        Args:
            frame: The beginning and end of the page, from `framed`.
            middle: The content between them, in order: HTML strings, and files of HTML.

        Raises:
            WriteError: The page cannot be written.
        """
        begin, end = frame
        with self.explained(), atomic.writing(self.path) as file:
            file.write(begin.encode())
            for piece in middle:
                if isinstance(piece, str):
                    file.write(piece.encode())
                else:
                    piece.seek(0)
                    shutil.copyfileobj(piece, file)
            file.write(end.encode())

    def link(self, location: Location, html: str) -> str:
        """Return `html` linked to a location, relative to the page; unlinked if browsers cannot open it."""
        if isinstance(location, Url):
            return f'<a href="{escape(str(location))}">{html}</a>' if location.is_web else html
        if location == STREAM:
            return html
        return f'<a href="{escape(_address(location, self._folder))}">{html}</a>'


def framed(template: str, title: str, **html: str) -> tuple[str, str]:
    """Return the beginning and the end of a page, around the content that is added piece by piece.

    Args:
        template: Name of a file in `templates`. Its style sheet follows `style.css`.
        title: Title of the page, as plain text.
        html: HTML for the other placeholders of the template.
    """
    version = importlib.metadata.version("colorize-cli")
    whole = Template(_asset(template)).safe_substitute(style=_asset("style.css"))
    page = Template(whole).substitute(
        policy=_policy(whole),
        title=text(title),
        about=f"colorize {text(version)}, {datetime.now().astimezone():%Y-%m-%d %H:%M}",
        **html,
    )
    begin, _, end = page.partition(_MIDDLE)
    return begin, end


def text(value: object) -> str:
    """Escape any text, such as a file name, as HTML on one line."""
    return escape(printable(value))


def picture(image: Image.Image, alt: str, **saving: int) -> str:
    """Return an `img` element with the picture embedded as JPEG.

    Args:
        image: A picture of mode L or RGB.
        alt: Alternative text, as plain text.
        saving: Options of Pillow's JPEG encoder: quality, subsampling.
    """
    file = io.BytesIO()
    image.save(file, "JPEG", **saving)
    return (
        f'<img src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}" alt="{text(alt)}" '
        f'width="{image.width}" height="{image.height}" loading="lazy" decoding="async">'
    )


def duration(seconds: float) -> str:
    """Format a time in seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, whole = divmod(round(seconds), 60)
    return f"{minutes} min {whole} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _asset(name: str) -> str:
    return (
        importlib.resources.files("colorize_cli.report")
        .joinpath("templates", name)
        .read_text(encoding="utf-8")
    )


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


def _policy(page: str) -> str:
    """Return a Content-Security-Policy that allows no loading, and only the styles and scripts in `page`."""
    allowed = []
    for tag in ("style", "script"):
        contents = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(content.encode()).digest()) for content in contents)
        allowed.append(" ".join([f"{tag}-src", *(f"'sha256-{digest.decode()}'" for digest in digests)]))
    rest = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"
    return "; ".join([rest, *allowed])
