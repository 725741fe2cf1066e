"""What the HTML pages of this program share; a page needs nothing beside itself.

It is read from disk, so nothing in it is loaded from elsewhere, and whatever a file is called or an error
says is text in it: all of it goes through `text`, all addresses through `Page.link`, and the page's own
Content-Security-Policy lets nothing run but the script it was written with.
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
# Where a template has what is added piece by piece.
_MIDDLE = "<!-- outcomes -->\n"


class Page:
    """A page that grows on disk.

    Its parts wait in files without a name in its own folder, so that memory does not grow with the number of
    pictures. Leaving the `with` block gives those files back.
    """

    def __init__(self, path: Path, what: str) -> None:
        """Prepares the page.

        Args:
            path: Where `write` puts it. The ending is one of SUFFIXES, so that it never replaces a picture.
            what: What errors call it, for instance "report".

        Raises:
            UsageError: `path` has another ending, or is a directory.
            WriteError: Its folder cannot be made or written to.
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
        with contextlib.suppress(OSError):  # a full disk, of which `write` has told
            self._parts.close()

    def part(self) -> IO[bytes]:
        """A new file for a part of the page."""
        return self._parts.enter_context(tempfile.TemporaryFile(dir=self._folder))

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """What the system says of the page's files, as a WriteError."""
        try:
            yield
        except OSError as error:
            raise WriteError(
                f"cannot write the {self._what} {self.path}: {error.strerror or error}"
            ) from error

    def write(self, frame: tuple[str, str], middle: Iterable[str | IO[bytes]]) -> None:
        """Writes the page; under its name it appears complete or not at all.

        Args:
            frame: Its beginning and its end, as `framed` gives them.
            middle: What lies between them, in order: HTML, and files that hold HTML.

        Raises:
            WriteError: It cannot be written.
        """
        begin, end = frame
        with self.explained(), atomic.writing(self.path) as file:
            file.write(begin.encode())
            for chunk_job in middle:
                if isinstance(chunk_job, str):
                    file.write(chunk_job.encode())
                else:
                    chunk_job.seek(0)
                    shutil.copyfileobj(chunk_job, file)
            file.write(end.encode())

    def link(self, location: Location, html: str) -> str:
        """HTML that leads to a file, as seen from the page; what browsers do not open has no link."""
        if isinstance(location, Url):
            return f'<a href="{escape(str(location))}">{html}</a>' if location.is_web else html
        if location == STREAM:
            return html
        return f'<a href="{escape(_address(location, self._folder))}">{html}</a>'


def framed(template: str, title: str, **html: str) -> tuple[str, str]:
    """A page up to what is added piece by piece, and from there on.

    Args:
        template: The name of a file in `templates`. Its style follows that of `style.css`.
        title: Of the page, as text.
        html: What else it has places for.
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
    """What may be any text, a file's name among them, as HTML on one line."""
    return escape(printable(value))


def picture(image: Image.Image, alt: str, **saving: int) -> str:
    """A picture as HTML that holds it, as JPEG.

    Args:
        image: Of mode L or RGB.
        alt: What it shows, as text.
        saving: What to ask of Pillow's encoder: quality, subsampling.
    """
    file = io.BytesIO()
    image.save(file, "JPEG", **saving)
    return (
        f'<img src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}" alt="{text(alt)}" '
        f'width="{image.width}" height="{image.height}" loading="lazy" decoding="async">'
    )


def duration(seconds: float) -> str:
    """A time in words."""
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
    # A browser drops `link/..` from an address, which is another place if `link` is a link.
    return os.path.realpath(path) if ".." in path.parts else os.path.abspath(path)  # noqa: PTH100


def _address(path: Path, folder: str) -> str:
    """The address of a file, as seen from a page in `folder`."""
    target = _absolute(path)
    try:
        relative = os.path.relpath(target, folder)
    except ValueError:  # on another drive
        return Path(target).as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def _policy(page: str) -> str:
    """The Content-Security-Policy: no loading, and only the page's own styles and scripts."""
    allowed = []
    for tag in ("style", "script"):
        contents = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(content.encode()).digest()) for content in contents)
        allowed.append(" ".join([f"{tag}-src", *(f"'sha256-{digest.decode()}'" for digest in digests)]))
    rest = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"
    return "; ".join([rest, *allowed])
