"""Report on a run as one self-contained HTML page: curves, sample sheets, scores, configuration."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from PIL import Image

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
    series = _series(_read(run / METRICS_NAME))
    scores = _scores(evaluation) if evaluation is not None else ""
    page = _PAGE.substitute(
        name=escape(run.resolve().name),
        style=_STYLE,
        script=_SCRIPT,
        sheets=_slider(_chosen(sorted((run / SAMPLES_NAME).glob("*.png")))),
        curves="\n".join(_chart(*curve) for curve in series.items())
        or "<p>Nothing has been measured yet.</p>",
        scores=scores,
        config=escape(config),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.part")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(out)


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


def _slider(sheets: Sequence[Path]) -> str:
    """Render all sheets, with the last one visible, and the slider that chooses among them."""
    if not sheets:
        return "<p>No sample sheet has been written yet.</p>"
    images = "\n".join(
        f'<img src="{_embedded(sheet)}" alt="After {_samples(sheet)} samples: gray, predicted and true '
        f'pictures" data-samples="{_samples(sheet)}"{"" if sheet == sheets[-1] else " hidden"}>'
        for sheet in sheets
    )
    return (
        '<p><label>After <output id="seen"></output> samples <input type="range" id="sheet" min="0" '
        f'max="{len(sheets) - 1}" value="{len(sheets) - 1}"></label></p>'
        f'\n<div id="sheets">\n{images}\n</div>'
    )


def _samples(sheet: Path) -> str:
    return escape(f"{int(sheet.stem):,}" if sheet.stem.isdigit() else sheet.stem)


def _embedded(sheet: Path) -> str:
    """Encode a sheet as a data URL."""
    try:
        with Image.open(sheet) as image:
            file = io.BytesIO()
            image.convert("RGB").save(file, "WEBP", quality=_SHEET_QUALITY)
    except (OSError, ValueError, SyntaxError) as error:
        raise ReportError(f"{sheet}: damaged ({error})") from error
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _chart(name: str, points: Sequence[Point]) -> str:
    """Render a curve as SVG, with its last value in the caption."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return ""
    across, up = _ticks(x for x, _ in finite), _ticks(y for _, y in finite)

    def to_pixels(x: float, y: float) -> Point:
        right = (x - across[0]) / (across[-1] - across[0])
        above = (y - up[0]) / (up[-1] - up[0])
        return (
            _LEFT + right * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - above * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = []
    for y in up:
        (left, level), (right, _) = to_pixels(across[0], y), to_pixels(across[-1], y)
        parts.append(f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{level + 4:.1f}" text-anchor="end">{y:g}</text>')
    parts += [
        f'<text x="{to_pixels(x, up[0])[0]:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{_short(x)}</text>'
        for x in across
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (to_pixels(*point) for point in finite))
    parts.append(f'<polyline points="{line}"/>')
    title = escape(name)
    return (
        f"<figure><figcaption>{title} <b>{finite[-1][1]:.4g}</b></figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title} over samples">'
        f"{''.join(parts)}</svg></figure>"
    )


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


def _scores(path: Path) -> str:
    """Render the table of an evaluation."""
    try:
        values = json.loads(_read(path))
        columns: dict[str, Mapping[str, float]] = {name: values[name] for name in ("model", "gray", "truth")}
        rows = "\n".join(
            f"<tr><th>{escape(name)}</th>"
            + "".join(
                f"<td>{column[name]:.3f}</td>" if name in column else "<td></td>"
                for column in columns.values()
            )
            + "</tr>"
            for name in columns["model"]
        )
        rows += "".join(
            f"\n<tr><th>gain over gray at {at['share']:.0%} of the true colorfulness, dB</th>"
            f"<td>{at['gain']:+.3f}</td></tr>"
            for at in values.get("gains", ())
            if at["gain"] is not None
        )
        caption = (
            f"{values['pictures']} pictures; {values['gain']:+.3f} dB above gray at "
            f"{values['colorfulness_share']:.1%} of the true colorfulness"
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{path}: not the output of `colorize-train evaluate --json`") from error
    head = "".join(f"<th>{name}</th>" for name in ("", "model", "gray", "truth"))
    return f"<h2>Evaluation</h2>\n<table><caption>{caption}</caption><tr>{head}</tr>\n{rows}</table>"


_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$name</title>
<style>$style</style>
<h1>$name</h1>
<h2>Samples</h2>
$sheets
<h2>Curves</h2>
<div class="curves">
$curves
</div>
$scores
<h2>Configuration</h2>
<pre>$config</pre>
<script>$script</script>
</html>
""")

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 1440px; margin: 2rem auto; padding: 0 1rem; }
#sheets img { max-width: 100%; height: auto; image-rendering: pixelated; }
#sheet { width: min(40rem, 100%); vertical-align: middle; }
output { display: inline-block; min-width: 6em; text-align: right; font-variant-numeric: tabular-nums; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; }
svg { width: 100%; height: auto; }
svg text { font-size: 11px; fill: currentColor; opacity: .7; }
svg line { stroke: currentColor; opacity: .15; }
svg polyline { fill: none; stroke: #3b7dd8; stroke-width: 1.6; stroke-linejoin: round; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5rem; }
th, td { padding: .15rem .9rem; text-align: right; border-bottom: 1px solid #8884; }
tr th:first-child { text-align: left; }
pre { overflow-x: auto; }
"""

_SCRIPT = """
const slider = document.getElementById("sheet");
if (slider) {
  const sheets = document.querySelectorAll("#sheets img");
  const show = () => {
    sheets.forEach((sheet, number) => { sheet.hidden = number != slider.value; });
    document.getElementById("seen").value = sheets[slider.value].dataset.samples;
  };
  slider.addEventListener("input", show);
  show();
}
"""
