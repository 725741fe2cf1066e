"""A self-contained HTML page of a run: counts, settings, failures, pictures before and after."""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

from colorize_cli.core.errors import ReadError
from colorize_cli.core.formats import is_video
from colorize_cli.core.jobs import Outcome, Status
from colorize_cli.core.location import STREAM, Url
from colorize_cli.core.settings import Settings
from colorize_cli.image.thumbnail import color_thumbnail, gray_thumbnail
from colorize_cli.report.html import Page, duration, framed, picture, text
from colorize_cli.video.preview import stills

# Pictures shown per status; the rest are links. A thousand pictures make a page of 40 MB.
SHOWN = 1000
# Longest side of the pictures in the page, in pixels.
SIDE = 320
_QUALITY = 75
_POSITION = 0.3  # of the frame that represents a video, as a fraction of its duration
# Browsers lay out only visible tables, so long lists are split.
_ROWS_PER_TABLE = 250
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

    Leaving the `with` block deletes its temporary files.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        """Prepare the page, creating its folder if needed.

        Args:
            path: Destination of `write`. It ends in one of `html.SUFFIXES`.
            settings: The settings of the run.

        Raises:
            UsageError: `path` has another suffix, or is a directory.
            WriteError: The folder cannot be created or is not writable.
        """
        self._page = Page(path, "report")
        self._settings = settings
        self._begun = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._sections: dict[Status, _Section] = {}
        self._error: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._page.__exit__(*error)

    def add(self, outcome: Outcome) -> None:
        """Add an outcome, and read its pictures if they will be shown.

        If a picture cannot be shown, the page gives the reason. `write` reports a full disk.
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
                if section.listed and section.listed % _ROWS_PER_TABLE == 0:
                    section.rows.write(_NEXT_TABLE)
                section.rows.write(self._row(outcome).encode())
                section.listed += 1
        except OSError as error:
            self._error = error

    def write(self, stopped: str | None = None, left: int = 0) -> None:
        """Write the page atomically.

        Args:
            stopped: Why the run stopped early; None if it finished.
            left: Number of jobs without an outcome.

        Raises:
            WriteError: The page cannot be written, or an outcome could not be stored.
        """
        with self._page.explained():
            if self._error is not None:
                raise self._error
        sections = (_pieces(status, self._sections[status]) for status in _order(self._sections))
        self._page.write(self._frame(stopped, left), itertools.chain.from_iterable(sections))

    def _section(self, status: Status) -> _Section:
        if status not in self._sections:
            self._sections[status] = _Section(self._page.part(), self._page.part())
        return self._sections[status]

    def _card(self, outcome: Outcome) -> str:
        """Return a picture before and after, with its name and links to the files, as HTML."""
        job = outcome.job
        seconds = sum(outcome.seconds.values())
        time_ = f'<span class="faint">{duration(seconds)}</span>' if seconds else ""
        reason = f"<p>{text(outcome.reason)}</p>" if outcome.reason else ""
        return (
            f'<article class="card">\n<div class="stage">{_pair(outcome, self._settings.max_pixels)}</div>\n'
            f'<p class="links">{self._page.link(job.source, "before")}{time_}'
            f"{self._page.link(job.destination, 'after')}</p>\n"
            f'<h3 class="name">{text(job.source.name)}</h3>\n'
            f'<p class="folder faint">{text(job.source.parent)}</p>\n'
            f"{reason}</article>\n"
        )

    def _row(self, outcome: Outcome) -> str:
        source, destination = outcome.job.source, outcome.job.destination
        cells = [self._page.link(source, text(source)), text(outcome.reason or "")]
        if outcome.status is not Status.FAILED:
            cells.insert(1, self._page.link(destination, text(destination)))
        return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n"

    def _frame(self, stopped: str | None, left: int) -> tuple[str, str]:
        """Return the parts of the page before and after the outcomes."""
        counts = [
            f'<li class="{_anchor(status)}"><a href="#{_anchor(status)}">'
            f"<b>{section.shown + section.listed:,}</b> {text(status.value)}</a></li>"
            for status, section in ((status, self._sections[status]) for status in _order(self._sections))
        ]
        if left:
            counts.append(f"<li><b>{left:,}</b> left</li>")
        counts.append(f"<li><b>{duration(time.monotonic() - self._begun)}</b> total</li>")
        notes = []
        if stopped:
            notes.append(f"The run did not finish: {text(stopped)}.")
        if any(section.shown for section in self._sections.values()):
            notes.append("Drag across a picture, or select it with Tab and use the arrow keys.")
        rows = [
            (field.name.replace("_", " "), _shown(field.name, getattr(settings, field.name)))
            for settings in (self._settings, self._settings.video)
            for field in dataclasses.fields(settings)
            if field.name != "video"
        ]
        rows += [(f"time: {stage}", f"{duration(s)}, all threads") for stage, s in self._seconds.items()]
        return framed(
            "run.html",
            "Run report",
            counts="\n".join(counts),
            notes="\n".join(f"<p>{note}</p>" for note in notes),
            settings="\n".join(f"<tr><th>{text(name)}</th><td>{text(v)}</td></tr>" for name, v in rows),
        )


def _order(statuses: dict[Status, _Section]) -> list[Status]:
    """Return the statuses present: failures first, then in order of declaration."""
    return sorted(filter(statuses.__contains__, Status), key=lambda status: status is not Status.FAILED)


def _pieces(status: Status, section: _Section) -> Iterator[str | IO[bytes]]:
    """Yield a section of the page, in order, as HTML strings and files of HTML."""
    total = section.shown + section.listed
    name = text(status.value.capitalize())
    yield f'<section id="{_anchor(status)}">\n<h2>{name} <small>{total:,}</small></h2>\n'
    if section.shown:
        yield '<div class="grid">\n'
        yield section.cards
        yield "</div>\n"
    if section.listed:
        columns = ("picture", "reason") if status is Status.FAILED else ("before", "after", "reason")
        head = "".join(f"<th>{column}</th>" for column in columns)
        if section.shown:
            yield (
                f"<p>The first {section.shown:,} of {total:,} are shown above; the other "
                f"{section.listed:,} are listed here.</p>\n"
            )
        yield f'<div class="rows"><table>\n<tr>{head}</tr>\n'
        yield section.rows
        yield "</table></div>\n"
    yield "</section>\n"


def _pair(outcome: Outcome, max_pixels: int) -> str:
    """Return both pictures under a slider as HTML, or the reason why there is no preview."""
    name = outcome.job.source.name
    files = outcome.files or outcome.job
    source, destination = files.source, files.destination
    if isinstance(source, Url) or isinstance(destination, Url):
        return '<p class="faint">No preview: the file was not fetched</p>'
    if STREAM in (source, destination):
        return '<p class="faint">No preview: the input or output was a pipe</p>'
    images = []
    video = is_video(source)
    for path, thumbnail, what in (
        (source, gray_thumbnail, "Before"),
        (destination, color_thumbnail, "After"),
    ):
        try:
            small = next(stills(path, [_POSITION], SIDE)) if video else thumbnail(path, max_pixels, SIDE)
            small = small.convert("L") if video and thumbnail is gray_thumbnail else small
            images.append(picture(small, what, quality=_QUALITY))
        except ReadError as error:
            return f'<p class="faint">No preview of the {what.lower()} picture: {text(error)}</p>'
    label = f"{text(name)}: percent shown as before"
    return (
        f'<div class="pair">{images[0]}{images[1]}'
        f'<input type="range" min="0" max="100" value="50" autocomplete="off" aria-label="{label}"></div>'
    )


def _shown(name: str, value: object) -> str:
    """Format the value of a setting for people."""
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
