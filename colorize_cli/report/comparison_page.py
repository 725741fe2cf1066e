"""A self-contained HTML page that compares models: measurements, and pictures side by side."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from PIL import Image

from colorize_cli.core.settings import Settings, available_cores
from colorize_cli.report.benchmark import BenchmarkedModel, Comparison, ModelResult
from colorize_cli.report.html import Page, duration, framed, picture, text

# Pictures shown; the rest are listed with their figures. 200 by two models make a page of about 70 MB.
SHOWN = 200
# JPEG settings. Chroma has full resolution because it is the subject of the comparison.
QUALITY = 90
_SUBSAMPLING = 0  # 4:4:4 in Pillow
# Initial position of the slider: the percentage of each picture shown as before.
_SLIDER_START = 30


@dataclass
class _Figures:
    """The measurements of a model."""

    seconds: list[float] = field(default_factory=list)
    network_seconds: list[float] = field(default_factory=list)
    colorfulness: list[float] = field(default_factory=list)
    failed: int = 0

    def add(self, result: ModelResult | str) -> None:
        if isinstance(result, str):
            self.failed += 1
            return
        self.seconds.append(result.seconds)
        self.network_seconds.append(result.network_seconds)
        self.colorfulness.append(result.colorfulness)


class ComparisonPage:
    """Collects the results of several models and writes the page."""

    def __init__(
        self, page: Page, candidates: Sequence[BenchmarkedModel], settings: Settings, side: int
    ) -> None:
        """Start the page.

        Args:
            page: Receives the content.
            candidates: The models, in the order of the results to be added.
            settings: The settings of all models.
            side: Longest side in pixels of the pictures in the page.

        Raises:
            WriteError: The page's folder is not writable.
        """
        self._page = page
        self._candidates = candidates
        self._strength = settings.strength
        self._side = side
        self._begun = time.monotonic()
        self._figures = [_Figures() for _ in candidates]
        with self._page.explained():
            self._cards, self._rows, self._failures = (self._page.part() for _ in range(3))
        self._compared = self._failed = self._color_inputs = 0

    def add(self, comparison: Comparison) -> None:
        """Add the results for a picture.

        Raises:
            WriteError: The disk is full.
        """
        for figures, result in zip(self._figures, comparison.results, strict=True):
            figures.add(result)
        with self._page.explained():
            if self._compared < SHOWN:
                self._cards.write(self._card(comparison).encode())
            else:
                self._rows.write(self._row(comparison).encode())
        self._compared += 1
        self._color_inputs += comparison.is_color

    def fail(self, path: Path, reason: str) -> None:
        """Add a file that could not be read.

        Raises:
            WriteError: The disk is full.
        """
        row = f"<tr><td>{self._page.link(path, text(path))}</td><td>{text(reason)}</td></tr>\n"
        with self._page.explained():
            self._failures.write(row.encode())
        self._failed += 1

    def write(self, stopped: str | None = None, left: int = 0) -> None:
        """Write the page atomically.

        Args:
            stopped: Why the run stopped early; None if it finished.
            left: Number of files that were neither added nor failed.

        Raises:
            WriteError: The page cannot be written.
        """
        frame = framed(
            "comparison.html",
            "Comparison of models",
            counts="\n".join(self._counts(left)),
            notes="\n".join(f"<p>{note}</p>" for note in self._notes(stopped)),
            models=self._table(),
            method="\n".join(f"<li>{text(line)}</li>" for line in self._method()),
            buttons="\n".join(self._buttons()),
            last=str(len(self._candidates)),
            at=str(_SLIDER_START),
        )
        self._page.write(frame, self._pieces())

    def _pieces(self) -> Iterator[str | IO[bytes]]:
        """Yield the content between the beginning and end of the page."""
        if self._failed:
            yield f'<section id="failed">\n<h2>Not compared <small>{self._failed:,}</small></h2>\n'
            yield '<div class="rows"><table>\n<tr><th>File</th><th>Reason</th></tr>\n'
            yield self._failures
            yield "</table></div>\n</section>\n"
        yield '<section id="pictures">\n'
        yield self._cards
        yield "</section>\n"
        if self._compared > SHOWN:
            heads = "".join(f"<th>{_title(candidate)}</th>" for candidate in self._candidates)
            yield f"<section>\n<h2>Further pictures <small>{self._compared - SHOWN:,}</small></h2>\n"
            yield '<div class="wide" role="region" aria-label="Further pictures" tabindex="0"><table>\n'
            yield f"<tr><th>File</th>{heads}</tr>\n"
            yield self._rows
            yield "</table></div>\n</section>\n"

    def _card(self, comparison: Comparison) -> str:
        """Return a picture before, and after each model, as HTML."""
        name, (width, height) = comparison.path.name, comparison.size
        facts = [f"{width:,} &times; {height:,} pixels"]
        if comparison.pages > 1:
            facts.append(f"first of {comparison.pages:,} pages or frames")
        if comparison.is_color:
            facts.append("already in color, treated as gray")
        before = _jpeg(comparison.before, f"{name}, before")
        figures = "".join(
            f'<figure class="model m{number}">{_shown(result, f"{name}, colorized by {candidate.letter}")}'
            f"<figcaption>{_title(candidate)} {_measured(result)}</figcaption></figure>\n"
            for number, (candidate, result) in enumerate(
                zip(self._candidates, comparison.results, strict=True), 1
            )
        )
        return (
            f'<article class="card">\n<h2 class="name">{self._page.link(comparison.path, text(name))}</h2>\n'
            f'<p class="folder faint">{text(comparison.path.parent)} · {"; ".join(facts)}</p>\n'
            f'<div class="models">\n<figure class="before">{before}<figcaption>Before</figcaption></figure>\n'
            f"{figures}</div>\n</article>\n"
        )

    def _row(self, comparison: Comparison) -> str:
        """Return the figures of a picture beyond the shown ones as a table row."""
        cells = [
            self._page.link(comparison.path, text(comparison.path)),
            *(
                text(result) if isinstance(result, str) else _measured(result)
                for result in comparison.results
            ),
        ]
        return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n"

    def _counts(self, left: int) -> Iterator[str]:
        yield f"<li><b>{self._compared:,}</b> pictures compared</li>"
        if self._failed:
            yield f'<li class="failed"><a href="#failed"><b>{self._failed:,}</b> not compared</a></li>'
        if left:
            yield f"<li><b>{left:,}</b> left</li>"
        yield f"<li><b>{duration(time.monotonic() - self._begun)}</b> total</li>"

    def _notes(self, stopped: str | None) -> Iterator[str]:
        if stopped:
            yield f"The run did not finish: {text(stopped)}."
        if self._color_inputs:
            yield f"Already in color, treated as gray: {self._color_inputs:,} of the pictures."

    def _method(self) -> Iterator[str]:
        """Yield sentences that explain the figures and pictures."""
        yield (
            "Seconds are for one picture at full size: making the network's input, running the network, and "
            f"composing its chroma with the picture, on {available_cores()} CPU cores. They exclude reading "
            "and writing. They also exclude the overhead of first calls: a picture of a new shape is "
            "colorized twice, and only the second time is measured."
        )
        yield (
            "Colorfulness is the measure of Hasler and Suesstrunk (2003) on the full-size result: 0 is gray, "
            "33 moderately colorful, 59 quite colorful. More color is not better color."
        )
        yield (
            f"Pictures here are up to {self._side:,} pixels long, JPEGs of quality {QUALITY} with chroma at "
            f"full resolution. The predicted chroma is multiplied by {self._strength:g}."
        )

    def _buttons(self) -> Iterator[str]:
        yield '<button type="button" value="0" aria-pressed="true"><kbd>0</kbd> All</button>'
        for number, candidate in enumerate(self._candidates, 1):
            yield (
                f'<button type="button" value="{number}" aria-pressed="false"><kbd>{number}</kbd> '
                f"{_title(candidate)}</button>"
            )

    def _table(self) -> str:
        """Return the table of the models, one column each."""
        heads = "".join(f'<th scope="col">{_title(candidate)}</th>' for candidate in self._candidates)
        columns = [
            self._facts(candidate, figures)
            for candidate, figures in zip(self._candidates, self._figures, strict=True)
        ]
        rows = []
        for name in columns[0]:
            cells = "".join(f"<td>{column[name]}</td>" for column in columns)
            rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>\n')
        return f"<tr><td></td>{heads}</tr>\n{''.join(rows)}"

    def _facts(self, candidate: BenchmarkedModel, figures: _Figures) -> dict[str, str]:
        """Return a model's column of the table: HTML by row name."""
        card = candidate.network.info
        file = (
            "the bundled model"
            if candidate.path is None
            else self._page.link(candidate.path, text(candidate.path))
        )
        return {
            "File": file,
            "Name in file": text(card.name),
            "Kind": text(card.kind),
            "Working size": f"{candidate.size:,} pixels",
            "License": text(card.license),
            "Device": text(candidate.network.device),
            "Precision": text(candidate.network.precision),
            "Seconds per picture, median": _average(statistics.median, figures.seconds, 3),
            "… in the network": _average(statistics.median, figures.network_seconds, 3),
            "Colorfulness, mean": _average(statistics.mean, figures.colorfulness, 1),
            "Pictures that failed": f"{figures.failed:,}",
        }


def _title(candidate: BenchmarkedModel) -> str:
    """Return a model's letter and name as HTML."""
    return f'<b>{candidate.letter}</b> <span class="named">{text(Path(candidate.named).name)}</span>'


def _shown(result: ModelResult | str, alt: str) -> str:
    """Return the result of a model for a picture, or the reason for its failure, as HTML."""
    if isinstance(result, str):
        return f'<p class="none">No result: {text(result)}</p>'
    return f'<div class="pair">{_jpeg(result.small, alt)}</div>'


def _measured(result: ModelResult | str) -> str:
    if isinstance(result, str):
        return ""
    seconds, color = f"{result.seconds:.3f} s", f"colorfulness {result.colorfulness:.1f}"
    return f'<span class="faint"><span>{seconds}</span> <span>{color}</span></span>'


def _jpeg(image: Image.Image, alt: str) -> str:
    return picture(image, alt, quality=QUALITY, subsampling=_SUBSAMPLING)


def _average(mean: Callable[[list[float]], float], values: list[float], digits: int) -> str:
    return f"{mean(values):.{digits}f}" if values else "&ndash;"
