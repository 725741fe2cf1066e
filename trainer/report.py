"""Report on a run as one self-contained HTML page: curves, sample sheets, scores, configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from colorize_cli.report import html
from trainer.run_log import CONFIG_NAME, METRICS_NAME, SAMPLES_NAME

_WIDTH, _HEIGHT = 460, 220  # of a chart, in CSS pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 12, 28  # margins between the edges and the axes of a chart
_TICKS = 4
_SHEETS = 40  # maximum number of sheets on the page, evenly spread over the run
_SHEET_QUALITY = 80

Point = tuple[float, float]


class ReportError(Exception):
    """A run or evaluation that cannot be shown. The message names the file."""


def report(run: Path, out: Path, evaluation: Path | None = None) -> None:
    """Write the page of a run.

    Args:
        run: folder of the run, which may be unfinished.
        out: the HTML file to write. It appears complete or not at all.
        evaluation: output of `colorize-train evaluate --json`, shown as a table.

    Raises:
        ReportError: if the folder does not belong to a run, or one of the files is damaged.
        OSError: if the page cannot be written.
    """
    config = _read(run / CONFIG_NAME)
    curves = [_chart(*curve) for curve in _series(_read(run / METRICS_NAME)).items()]
    sheets = _chosen(sorted((run / SAMPLES_NAME).glob("*.png")))
    out.parent.mkdir(parents=True, exist_ok=True)
    html.write(
        out,
        "training.html",
        name=run.resolve().name,
        about=f"colorize-train, {html.now()}",
        sheets=[{"image": _embedded(sheet), "samples": _samples(sheet)} for sheet in sheets],
        curves=[curve for curve in curves if curve is not None],
        scores=None if evaluation is None else _scores(evaluation),
        config=config.splitlines(),
        width=_WIDTH,
        height=_HEIGHT,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: cannot be read; is this the folder of a run? ({error})") from error


def _series(lines: str) -> dict[str, list[Point]]:
    """Read the curve of every figure over samples seen, evaluations first. Skips a truncated last line."""
    found: dict[str, dict[str, list[Point]]] = {"evaluation": {}, "train": {}}
    for number, line in enumerate(lines.splitlines()):
        try:
            values: dict[str, Any] = json.loads(line)
            kind, samples = str(values.pop("kind")), float(values.pop("samples"))
            values.pop("seconds", None)
            for name, value in values.items():
                found.setdefault(kind, {}).setdefault(f"{kind}: {name}", []).append((samples, float(value)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number + 1 == len(lines.splitlines()):
                break
            raise ReportError(f"{METRICS_NAME}: line {number + 1} is damaged") from error
    return {name: points for curves in found.values() for name, points in curves.items()}


def _chosen(sheets: Sequence[Path]) -> list[Path]:
    """Choose at most `_SHEETS` sheets, including the first and the last."""
    if len(sheets) <= _SHEETS:
        return list(sheets)
    return [sheets[round(i * (len(sheets) - 1) / (_SHEETS - 1))] for i in range(_SHEETS)]


def _samples(sheet: Path) -> str:
    return f"{int(sheet.stem):,}" if sheet.stem.isdigit() else sheet.stem


def _embedded(sheet: Path) -> dict[str, Any]:
    """Encode a sheet as a data URL."""
    try:
        with Image.open(sheet) as image:
            return html.embedded(image.convert("RGB"), "WEBP", quality=_SHEET_QUALITY)
    except (OSError, ValueError, SyntaxError) as error:
        raise ReportError(f"{sheet}: damaged ({error})") from error


def _chart(name: str, points: Sequence[Point]) -> dict[str, Any] | None:
    """Return a curve with its axes in pixels of the SVG and its last value; None if no value is finite."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return None
    across, up = _ticks(x for x, _ in finite), _ticks(y for _, y in finite)

    def column(x: float) -> float:
        return _LEFT + (x - across[0]) / (across[-1] - across[0]) * (_WIDTH - _LEFT - _RIGHT)

    def row(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - up[0]) / (up[-1] - up[0]) * (_HEIGHT - _TOP - _BOTTOM)

    return {
        "name": name,
        "last": f"{finite[-1][1]:.4g}",
        "across": [(round(column(x), 1), _short(x)) for x in across],
        "up": [(round(row(y), 1), f"{y:g}") for y in up],
        "points": " ".join(f"{column(x):.1f},{row(y):.1f}" for x, y in finite),
    }


def _ticks(values: Iterable[float]) -> list[float]:
    """Choose round numbers at equal distances that enclose the values."""
    known = list(values)
    low, high = min(known), max(known)
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    rough = (high - low) / _TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _short(samples: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(samples) >= unit:
            return f"{samples / unit:g}{name}"
    return f"{samples:g}"


def _scores(path: Path) -> dict[str, Any]:
    """Return the caption and the rows of the table of an evaluation."""
    try:
        values = json.loads(_read(path))
        columns: list[Mapping[str, float]] = [values[name] for name in ("model", "gray", "truth")]
        gains = {
            f"gain at {at['share']:.0%} colorfulness, dB": [f"{at['gain']:+.3f}", "", ""]
            for at in values.get("gains", ())
            if at["gain"] is not None
        }
        return {
            "caption": f"{values['pictures']} pictures; {values['gain']:+.3f} dB above gray at "
            f"{values['colorfulness_share']:.1%} of the true colorfulness",
            "rows": {
                name: [f"{column[name]:.3f}" if name in column else "" for column in columns]
                for name in columns[0]
            }
            | gains,
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{path}: not the output of `colorize-train evaluate --json`") from error
