"""A self-contained HTML page that compares models: measurements, and pictures side by side."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from colorize_cli.core.settings import Settings, available_cores
from colorize_cli.report.benchmark import BenchmarkedModel, Comparison, ModelResult
from colorize_cli.report.html import Page, embedded

# Pictures shown; the rest are listed with their figures. 200 by two models make a page of about 70 MB.
SHOWN = 200
# JPEG settings. Chroma has full resolution because it is the subject of the comparison.
QUALITY = 90
_SUBSAMPLING = 0  # 4:4:4 in Pillow
# Initial position of the slider: the percentage of each picture shown as before.
_SLIDER_START = 30


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
        # For each model, of each picture that it colorized: seconds, seconds in the network, colorfulness.
        self._figures: list[list[tuple[float, float, float]]] = [[] for _ in candidates]
        with self._page.explained():
            self._cards, self._rows, self._failures = (self._page.spool() for _ in range(3))
        self._color_inputs = 0

    def add(self, comparison: Comparison) -> None:
        """Add the results for a picture.

        Raises:
            WriteError: The disk is full.
        """
        shown = len(self._cards) < SHOWN
        results: list[dict[str, Any]] = []
        for figures, result in zip(self._figures, comparison.results, strict=True):
            if isinstance(result, ModelResult):
                figures.append((result.seconds, result.network_seconds, result.colorfulness))
                image = embedded(result.small, quality=QUALITY, subsampling=_SUBSAMPLING) if shown else None
                results.append(
                    {"image": image, "seconds": result.seconds, "colorfulness": result.colorfulness}
                )
            else:
                results.append({"problem": result})
        self._color_inputs += comparison.is_color
        file = self._page.link(comparison.path)
        with self._page.explained():
            if not shown:
                self._rows.add(file=file, results=results)
                return
            facts = []
            if comparison.pages > 1:
                facts.append(f"first of {comparison.pages:,} pages or frames")
            if comparison.is_color:
                facts.append("already in color, treated as gray")
            self._cards.add(
                file=file,
                name=comparison.path.name,
                folder=str(comparison.path.parent),
                size=comparison.size,
                facts=facts,
                before=embedded(comparison.before, quality=QUALITY, subsampling=_SUBSAMPLING),
                results=results,
            )

    def fail(self, path: Path, reason: str) -> None:
        """Add a file that could not be read.

        Raises:
            WriteError: The disk is full.
        """
        with self._page.explained():
            self._failures.add(file=self._page.link(path), reason=reason)

    def write(self, stopped: str | None = None, left: int = 0) -> None:
        """Write the page atomically.

        Args:
            stopped: Why the run stopped early; None if it finished.
            left: Number of files that were neither added nor failed.

        Raises:
            WriteError: The page cannot be written.
        """
        self._page.write(
            "comparison.html",
            models=[self._described(*pair) for pair in zip(self._candidates, self._figures, strict=True)],
            compared=len(self._cards) + len(self._rows),
            color_inputs=self._color_inputs,
            cards=self._cards,
            rows=self._rows,
            failures=self._failures,
            seconds=time.monotonic() - self._begun,
            stopped=stopped,
            left=left,
            cores=available_cores(),
            side=self._side,
            quality=QUALITY,
            strength=self._strength,
            slider_start=_SLIDER_START,
        )

    def _described(
        self, candidate: BenchmarkedModel, figures: Sequence[tuple[float, float, float]]
    ) -> dict[str, Any]:
        """Return the letter, name and file of a model, and its column of the table by row name.

        A value of the table is None if the model colorized no picture.
        """
        card = candidate.network.info
        seconds, network_seconds, colorfulness = zip(*figures, strict=True) if figures else ((), (), ())
        failed = len(self._cards) + len(self._rows) - len(figures)
        return {
            "letter": candidate.letter,
            "name": Path(candidate.named).name,
            "file": None if candidate.path is None else self._page.link(candidate.path),
            "facts": {
                "Name in file": card.name,
                "Kind": card.kind,
                "Working size": f"{candidate.size:,} pixels",
                "License": card.license,
                "Device": candidate.network.device,
                "Precision": candidate.network.precision,
                "Seconds per picture, median": f"{statistics.median(seconds):.3f}" if seconds else None,
                "… in the network": f"{statistics.median(network_seconds):.3f}" if seconds else None,
                "Colorfulness, mean": f"{statistics.mean(colorfulness):.1f}" if seconds else None,
                "Pictures that failed": f"{failed:,}",
            },
        }
