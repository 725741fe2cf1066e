"""A self-contained HTML page to place hints on photographs and to save them, in a browser.

The page colors as a run does, by a port to JavaScript of `guidance.propagation`. For each photograph it holds
the colors without hints, reduced to `SIDE` pixels, and the lightness on which hints spread.
"""

import base64
import json
from pathlib import Path
from typing import Any

from colorize_cli.color.lightness import uniform_codes
from colorize_cli.color.resize import working_copy
from colorize_cli.compose import compose
from colorize_cli.core.errors import ReadError, UsageError
from colorize_cli.core.formats import HINTS_SUFFIX, check_kind, is_video
from colorize_cli.core.settings import Settings
from colorize_cli.guidance import hints_of
from colorize_cli.guidance.hints import DrawnHints
from colorize_cli.guidance.propagation import guide_of
from colorize_cli.image import reader
from colorize_cli.image.frame import to_image
from colorize_cli.image.thumbnail import reduced
from colorize_cli.inference.model import Model
from colorize_cli.report.html import Page, Spool, embedded

# Longest side in pixels of the photographs in the page. One makes 1 to 1.5 MB of it.
SIDE = 1600
_QUALITY = 90
_SUBSAMPLING = 0  # 4:4:4 in Pillow
# Colors of things in photographs, to begin with. Only their chroma is used.
_THINGS = {
    "skin": "#c99a7c",
    "hair": "#6b4a2f",
    "leaves": "#6b7f3f",
    "sky": "#8fb4dc",
    "water": "#5f8790",
    "brick": "#9c5a45",
    "wood": "#a07850",
    "navy": "#2a3a6f",
    "denim": "#5b7390",
    "red": "#a8322d",
    "gold": "#c9a24a",
    "gray": "#808080",
}


class RetouchPage:
    """Collects photographs and writes the page."""

    def __init__(self, page: Page, network: Model, settings: Settings) -> None:
        """Start the page.

        Args:
            page: Receives the content.
            network: The model of the run whose colors are corrected.
            settings: The settings of this run.

        Raises:
            WriteError: The page's folder is not writable.
        """
        self._page, self._network, self._settings = page, network, settings
        with page.explained():
            self.photos: Spool = page.spool()

    def add(self, path: Path, below_input: Path) -> None:
        """Colorize a photograph, and add it with its hints: those in the settings' directory, or beside it.

        Args:
            path: The file.
            below_input: Its path below the input directory; its name if the file was given itself.

        Raises:
            ReadError: The photograph cannot be read, or hints cannot be used for it.
            UsageError: Its hints cannot be used.
            DeviceError: The network could not run.
            WriteError: The disk is full.
        """
        check_kind(path)
        if is_video(path):
            raise ReadError("hints are for pictures, and it is a video")
        frame = reader.read(path, self._settings.max_pixels)
        if frame.showing is not None:
            raise ReadError("hints work for still pictures only, and it is an animation")
        height, width = frame.lightness.shape
        beside = Path(f"{path}{HINTS_SUFFIX}").absolute()
        hints_file = beside
        if self._settings.hints is not None:
            hints_file = Path(f"{self._settings.hints / below_input}{HINTS_SUFFIX}").absolute()
        found = next((each for each in (hints_file, beside) if each.exists()), None)
        marks = [] if found is None else _marks(found, (height, width))
        info = self._network.info
        copy = working_copy(frame.lightness, self._settings.size or info.working_size, info.multiple_of)
        ab = self._network.predict(copy[None, None])[0]
        colors = compose(frame.lightness, ab, self._settings.strength)
        shown = reduced(to_image(frame, colors), SIDE)
        guide = guide_of(frame.lightness)
        with self._page.explained():
            self.photos.add(
                name=path.name,
                folder=str(beside.parent),
                hints_folder=str(hints_file.parent),
                width=width,
                height=height,
                image=embedded(shown, quality=_QUALITY, subsampling=_SUBSAMPLING),
                # L* in steps of 1/655.35, as 16 bits, the lower byte first.
                guide={
                    "width": guide.shape[1],
                    "height": guide.shape[0],
                    "codes": base64.b64encode(uniform_codes(guide).astype("<u2").tobytes()).decode(),
                },
                pages=frame.pages,
                is_color=frame.is_color,
                marks=marks,
                hints_file=found and str(found),
            )

    def write(self) -> None:
        """Write the page atomically.

        Raises:
            WriteError: The page cannot be written.
        """
        self._page.write("retouch.html", photos=self.photos, things=_THINGS, suffix=HINTS_SUFFIX)


def _marks(path: Path, shape: tuple[int, int]) -> list[dict[str, Any]]:
    """Return the hints in the file beside a photograph of `shape` (height, width), for the page.

    Raises:
        UsageError: The hints cannot be used.
    """
    hints = hints_of(path, 1)
    if not isinstance(hints, DrawnHints):
        raise UsageError(f"{path}: these hints are painted; the page shows points and strokes")
    hints.check(shape)
    given = json.loads(path.read_bytes())
    points, strokes = given.get("points", []), given.get("strokes", [])
    return [
        {
            "points": mark.points,
            "radius": mark.radius,
            "stroke": number >= len(points),
            "a": mark.chroma[0],
            "b": mark.chroma[1],
            "text": one.get("color", one.get("colour")),
        }
        for number, (mark, one) in enumerate(zip(hints.marks, [*points, *strokes], strict=True))
    ]
