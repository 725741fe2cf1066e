"""A run as one HTML page that needs nothing beside itself: counts, settings, failures, before and after.

The page is read from disk, so nothing in it is loaded from elsewhere, and whatever a file is called or an
error says is text in it: all of it goes through `_text`, all addresses through `_address`, and the page's own
Content-Security-Policy lets nothing run but the script it was written with.
"""

import base64
import contextlib
import dataclasses
import hashlib
import importlib.resources
import io
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from typing import IO, Self
from urllib.parse import quote

from PIL import Image

import colorize_cli
from colorize_cli.errors import ReadError, UsageError, WriteError, printable
from colorize_cli.jobs import STREAM, Job, Outcome, Settings, Status, Transfer
from colorize_cli.media import atomic, is_film
from colorize_cli.media.film.stills import stills
from colorize_cli.media.thumbnail import coloured, grey
from colorize_cli.places import Place, Url

SUFFIXES = (".html", ".htm")
# So many pictures of each status are shown, and of the rest there are links: a thousand make a page of 40 MB.
SHOWN = 1000
# Longest side of the pictures in the page, in pixels.
SIDE = 320
_QUALITY = 75
_PLACE = 0.3  # in a film, of the frame that is shown
# Browsers lay out only those tables that are seen.
_ROWS_OF_A_TABLE = 250
_NEXT_TABLE = b'</table></div>\n<div class="rows"><table>\n'


@dataclasses.dataclass
class _Section:
    """The outcomes of one status, as HTML on disk: pictures, and rows of a table."""

    cards: IO[bytes]
    rows: IO[bytes]
    shown: int = 0
    listed: int = 0


class Report:
    """Collects the outcomes of a run and writes the page.

    What is collected waits on disk, in files without a name in the folder of the page, so that memory does
    not grow with the number of pictures. Leaving the `with` block gives those files back.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        """Prepares the page.

        Args:
            path: Where `write` puts it. The ending is one of SUFFIXES, so that it never replaces a picture.
            settings: What the run was asked to do.

        Raises:
            UsageError: `path` has another ending, or is a directory.
            WriteError: Its folder cannot be made or written to.
        """
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"the report {path} must end in {' or '.join(SUFFIXES)}")
        if path.is_dir():
            raise UsageError(f"the report {path} is a directory; give a file")
        self._path = path
        self._folder = _absolute(path.parent)
        self._settings = settings
        self._begun = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._sections: dict[Status, _Section] = {}
        self._files = contextlib.ExitStack()
        self._error: OSError | None = None
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a full disk, of which `write` has told
            self._files.close()

    def add(self, outcome: Outcome) -> None:
        """Takes up the end of a job, and reads its pictures if they will be shown.

        That a picture cannot be shown is said in its place in the page; that the disk is full, by `write`.
        """
        if self._error is not None:
            return
        for stage, seconds in outcome.seconds.items():
            self._seconds[stage] = self._seconds.get(stage, 0) + seconds
        try:
            section = self._section(outcome.status)
            if outcome.status is not Status.FAILED and section.shown < SHOWN:
                section.cards.write(self._card(outcome).encode())
                section.shown += 1
            else:
                if section.listed and section.listed % _ROWS_OF_A_TABLE == 0:
                    section.rows.write(_NEXT_TABLE)
                section.rows.write(self._row(outcome).encode())
                section.listed += 1
        except OSError as error:
            self._error = error

    def write(self, stopped: str | None = None, left: int = 0) -> None:
        """Writes the page; under its name it appears complete or not at all.

        Args:
            stopped: What stopped the run before its end, if anything did.
            left: How many jobs have no outcome.

        Raises:
            WriteError: It cannot be written, or what was added could not be kept.
        """
        begin, end = self._frame(stopped, left)
        with self._explained():
            if self._error is not None:
                raise self._error
            with atomic.writing(self._path) as page:
                page.write(begin.encode())
                for status in _order(self._sections):
                    _copy(status, self._sections[status], page)
                page.write(end.encode())

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WriteError(f"cannot write the report {self._path}: {error.strerror or error}") from error

    def _file(self) -> IO[bytes]:
        return tempfile.TemporaryFile(dir=self._folder)

    def _section(self, status: Status) -> _Section:
        if status not in self._sections:
            cards, rows = (self._files.enter_context(self._file()) for _ in range(2))
            self._sections[status] = _Section(cards, rows)
        return self._sections[status]

    def _card(self, outcome: Outcome) -> str:
        """A picture before and after, with its name and links to the files."""
        job = outcome.job
        seconds = sum(outcome.seconds.values())
        time_ = f'<span class="faint">{_duration(seconds)}</span>' if seconds else ""
        reason = f"<p>{_text(outcome.reason)}</p>" if outcome.reason else ""
        return (
            f'<article class="card">\n<div class="stage">{_pair(job, self._settings.max_pixels)}</div>\n'
            f'<p class="links">{self._link(job.source, "before")}{time_}'
            f"{self._link(job.destination, 'after')}</p>\n"
            f'<h3 class="name">{_text(job.source.name)}</h3>\n'
            f'<p class="folder faint">{_text(job.source.parent)}</p>\n'
            f"{reason}</article>\n"
        )

    def _row(self, outcome: Outcome) -> str:
        source, destination = outcome.job.source, outcome.job.destination
        cells = [self._link(source, _text(source)), _text(outcome.reason or "")]
        if outcome.status is not Status.FAILED:
            cells.insert(1, self._link(destination, _text(destination)))
        return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n"

    def _link(self, place: Place, html: str) -> str:
        if isinstance(place, Url):
            return f'<a href="{escape(str(place))}">{html}</a>' if place.is_web else html
        if place == STREAM:
            return html
        return f'<a href="{escape(_address(place, self._folder))}">{html}</a>'

    def _frame(self, stopped: str | None, left: int) -> tuple[str, str]:
        """The page up to its outcomes, and from there on."""
        template = importlib.resources.files(colorize_cli).joinpath("report.html").read_text(encoding="utf-8")
        counts = [
            f'<li class="{_anchor(status)}"><a href="#{_anchor(status)}">'
            f"<b>{section.shown + section.listed:,}</b> {_text(status.value)}</a></li>"
            for status, section in ((status, self._sections[status]) for status in _order(self._sections))
        ]
        if left:
            counts.append(f"<li><b>{left:,}</b> left</li>")
        counts.append(f"<li><b>{_duration(time.monotonic() - self._begun)}</b> in all</li>")
        notes = []
        if stopped:
            notes.append(f"The run did not come to its end: {_text(stopped)}.")
        if any(section.shown for section in self._sections.values()):
            notes.append("Drag across a picture, or reach it with Tab and use the arrow keys.")
        rows = [
            (field.name.replace("_", " "), _shown(field.name, getattr(settings, field.name)))
            for settings in (self._settings, self._settings.film)
            for field in dataclasses.fields(settings)
            if field.name != "film"
        ]
        rows += [(f"time: {stage}", f"{_duration(s)}, all threads") for stage, s in self._seconds.items()]
        page = Template(template).substitute(
            policy=_policy(template),
            title="Run report",
            about=f"colorize {_text(colorize_cli.__version__)}, {datetime.now().astimezone():%Y-%m-%d %H:%M}",
            counts="\n".join(counts),
            notes="\n".join(f"<p>{note}</p>" for note in notes),
            settings="\n".join(f"<tr><th>{_text(name)}</th><td>{_text(v)}</td></tr>" for name, v in rows),
        )
        begin, _, end = page.partition("<!-- outcomes -->\n")
        return begin, end


def _order(statuses: dict[Status, _Section]) -> list[Status]:
    """Failures first, the others as they are declared."""
    return sorted(filter(statuses.__contains__, Status), key=lambda status: status is not Status.FAILED)


def _copy(status: Status, section: _Section, page: IO[bytes]) -> None:
    """Writes a section of the page from its files."""
    total = section.shown + section.listed
    name = _text(status.value.capitalize())
    page.write(f'<section id="{_anchor(status)}">\n<h2>{name} <small>{total:,}</small></h2>\n'.encode())
    if section.shown:
        page.write(b'<div class="grid">\n')
        _append(section.cards, page)
        page.write(b"</div>\n")
    if section.listed:
        columns = ("picture", "reason") if status is Status.FAILED else ("before", "after", "reason")
        head = "".join(f"<th>{column}</th>" for column in columns)
        if section.shown:
            page.write(
                f"<p>The first {section.shown:,} of {total:,} are shown above; here are the other "
                f"{section.listed:,}.</p>\n".encode()
            )
        page.write(f'<div class="rows"><table>\n<tr>{head}</tr>\n'.encode())
        _append(section.rows, page)
        page.write(b"</table></div>\n")
    page.write(b"</section>\n")


def _append(file: IO[bytes], page: IO[bytes]) -> None:
    file.seek(0)
    shutil.copyfileobj(file, page)


def _pair(job: Job | Transfer, max_pixels: int) -> str:
    """Both pictures with the slider over them, or why there are none."""
    name = job.source.name
    if isinstance(job, Transfer):
        if job.files is None:
            return '<p class="faint">No preview: it was not fetched</p>'
        job = job.files
    if STREAM in (job.source, job.destination):
        return '<p class="faint">No preview: it came or went through a pipe</p>'
    images = []
    film = is_film(job.source)
    for path, thumbnail, what in ((job.source, grey, "Before"), (job.destination, coloured, "After")):
        try:
            small = next(stills(path, [_PLACE], SIDE)) if film else thumbnail(path, max_pixels, SIDE)
            images.append(_image(small.convert("L") if film and thumbnail is grey else small, what))
        except ReadError as error:
            return f'<p class="faint">No preview of the picture {what.lower()}: {_text(error)}</p>'
    label = f"{_text(name)}: per cent shown as before"
    return (
        f'<div class="pair">{images[0]}{images[1]}'
        f'<input type="range" min="0" max="100" value="50" autocomplete="off" aria-label="{label}"></div>'
    )


def _image(thumbnail: Image.Image, what: str) -> str:
    file = io.BytesIO()
    thumbnail.save(file, "JPEG", quality=_QUALITY)
    return (
        f'<img src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}" alt="{what}" '
        f'width="{thumbnail.width}" height="{thumbnail.height}" loading="lazy" decoding="async">'
    )


def _text(value: object) -> str:
    """What may be any text, a file's name among them, as HTML on one line."""
    return escape(printable(value))


def _shown(name: str, value: object) -> str:
    """The value of a setting, for people."""
    match value:
        case None:
            unset = {"model": "the bundled model", "hints": "none", "reference": "none"}
            return unset.get(name, "the default")
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def _anchor(status: Status) -> str:
    return status.name.lower()


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


def _policy(template: str) -> str:
    """The Content-Security-Policy: no loading, and only the template's own style and script."""
    allowed = {}
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", template, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        allowed[tag] = f"{tag}-src 'sha256-{digest}'"
    rest = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"
    return f"{rest}; {allowed['style']}; {allowed['script']}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, whole = divmod(round(seconds), 60)
    return f"{minutes} min {whole} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
