"""A self-contained HTML page of a run: counts, settings, failures, pictures before and after."""

import dataclasses
import os
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from colorize_cli.core.errors import ReadError
from colorize_cli.core.formats import is_video
from colorize_cli.core.jobs import UP_TO_DATE, Outcome, Status
from colorize_cli.core.location import STREAM, Location, Url
from colorize_cli.core.settings import Settings, VideoSettings
from colorize_cli.image.thumbnail import color_thumbnail, gray_thumbnail
from colorize_cli.report.html import Page, Spool, embedded
from colorize_cli.video.preview import stills

# Pictures shown per section; the rest are links. Five hundred pictures make a page of about 50 MB.
SHOWN = 500
# Longest side of the pictures in the page, in pixels.
SIDE = 640
_QUALITY = 75
_POSITION = 0.3  # of the frame that represents a video, as a fraction of its duration
_ROWS_PER_TABLE = 250
_ONLY_IF_SET = ("model_kind", "hints", "reference", "address", "start", "duration", "audio")


class Report:
    """Collects the outcomes of a run and writes the page.

    Leaving the `with` block deletes its temporary files.
    """

    def __init__(self, path: Path, settings: Settings, left_out: Sequence[Outcome] = ()) -> None:
        """Prepare the page, creating its folder if needed.

        Args:
            path: Destination of `write`. It ends in one of `html.SUFFIXES`.
            settings: The settings of the run.
            left_out: As in the plan.

        Raises:
            UsageError: `path` has another suffix, or is a directory.
            WriteError: The folder cannot be created or is not writable.
        """
        self._page = Page(path, "report")
        self._settings = settings
        self._left_out = left_out
        self._begun = time.monotonic()
        self._seconds: dict[str, float] = {}
        # For each section, by its title, the outcomes with pictures and those without.
        self._spools: dict[str, tuple[Spool, Spool]] = {}
        self._kinds: set[bool] = set()  # True for videos, False for pictures
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
        job = outcome.job
        self._kinds.add(is_video(job.source) or outcome.frames is not None)
        section = UP_TO_DATE if outcome.is_up_to_date else outcome.status.value
        record = {
            "source": self._page.link(job.source),
            "destination": self._page.link(job.destination),
            "reason": outcome.reason,
        }
        try:
            if section not in self._spools:
                self._spools[section] = self._page.spool(), self._page.spool()
            cards, rows = self._spools[section]
            if outcome.status is Status.FAILED or len(cards) >= SHOWN:
                rows.add(**record)
            else:
                named = {"name": job.source.name, "folder": str(job.source.parent)}
                pictures = _pictures(outcome, self._settings.max_pixels)
                seconds = sum(outcome.seconds.values())
                cards.add(**record, **named, **pictures, seconds=seconds, retouch=self._retouch(job.source))
        except OSError as error:
            self._error = error

    def _retouch(self, source: Location) -> str | None:
        """Return the command that corrects colors of a photograph; None if there is none for it."""
        if isinstance(source, Url) or source == STREAM or is_video(source):
            return None
        line = ["colorize", "retouch", str(source.absolute())]
        settings, default = self._settings, Settings()
        if settings.model is not None:
            line += ["--model", str(settings.model.absolute())]
        for name in ("size", "strength"):
            if (value := getattr(settings, name)) != getattr(default, name):
                line += [f"--{name}", str(value)]
        text = subprocess.list2cmdline(line) if os.name == "nt" else shlex.join(line)
        return text if text.isprintable() else None  # a page cannot show it as it must be typed

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
        order = (Status.FAILED.value, Status.DONE.value, UP_TO_DATE, Status.SKIPPED.value)
        self._page.write(
            "run.html",
            sections=[
                {"status": title, "cards": self._spools[title][0], "rows": self._spools[title][1]}
                for title in order
                if title in self._spools
            ],
            rows_per_table=_ROWS_PER_TABLE,
            settings=_applied(self._settings, videos=True in self._kinds, pictures=False in self._kinds),
            stages=self._seconds,
            seconds=time.monotonic() - self._begun,
            stopped=stopped,
            left=left,
            left_out=[
                {"source": self._page.link(each.job.source), "reason": each.reason} for each in self._left_out
            ],
        )


def _pictures(outcome: Outcome, max_pixels: int) -> dict[str, Any]:
    """Return the pictures `before` and `after`, or the `problem` for which there are none."""
    files = outcome.files or outcome.job
    source, destination = files.source, files.destination
    if isinstance(source, Url) or isinstance(destination, Url):
        return {"problem": "No preview: the file was not fetched"}
    if STREAM in (source, destination):
        return {"problem": "No preview: the input or output was a pipe"}
    images: dict[str, Any] = {"problem": None}
    video = is_video(source)
    for path, thumbnail, what in (
        (source, gray_thumbnail, "before"),
        (destination, color_thumbnail, "after"),
    ):
        try:
            small = next(stills(path, [_POSITION], SIDE)) if video else thumbnail(path, max_pixels, SIDE)
            small = small.convert("L") if video and thumbnail is gray_thumbnail else small
            images[what] = embedded(small, quality=_QUALITY)
        except ReadError as error:
            return {"problem": f"No preview of the {what} picture: {error}"}
    return images


def _applied(settings: Settings, *, videos: bool, pictures: bool) -> dict[str, str]:
    """Return the settings that had an effect, by their names in words.

    Args:
        settings: The settings of the run.
        videos: True if there were videos.
        pictures: True if there were pictures.
    """
    names = [field.name for field in dataclasses.fields(settings) if field.name != "video"]
    left_out = set(_ONLY_IF_SET if pictures else (*_ONLY_IF_SET, "format", "quality"))
    values = {name: getattr(settings, name) for name in names}
    if videos:
        video = vars(settings.video)
        left_out |= (
            {"preview"} if settings.video.preview is None else video.keys() - {"preview", "start", "duration"}
        )
        values |= video
    defaults = {**vars(Settings()), **vars(VideoSettings())}
    return {
        name.replace("_", " "): _shown(name, value)
        for name, value in values.items()
        if name not in left_out or (name in _ONLY_IF_SET and value != defaults[name])
    }


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
