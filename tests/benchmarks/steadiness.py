"""Measure how steady the colors of films are, with and without `--steady`.

    python tests/benchmarks/steadiness.py FILM...

For each film, in one run:

- warp error (Lai et al. 2018, "Learning Blind Video Temporal Consistency"): mean squared difference of a*
  and b* (CIE units) between a frame and the previous frame warped along the optical flow, where the flow is
  valid. Lightness is left out, because it is the film's. The flow is OpenCV's DIS on the network's input.
- CDC (Liu et al. 2021, "Temporally Consistent Video Colorization", TCVC): Jensen-Shannon divergence between
  the color histograms of frames that are 1, 2 and 4 apart, averaged. As in the paper of R, G and B, which
  includes the flicker of lightness (therefore also given for the gray film), and of a* and b* alone.
- colorfulness (Hasler and Suesstrunk 2003).

Pairs of frames across a cut are left out. Everything is measured at the size of the predicted chroma.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from colorize_cli.color import lab
from colorize_cli.color.resize import working_copy
from colorize_cli.inference import model
from colorize_cli.video import pixel_format, reader
from colorize_cli.video.stages import MOST_KEPT
from colorize_cli.video.temporal import FlowTracker, KeyframeSelector, TemporalFilter

Floats = npt.NDArray[np.float32]
_APART = (1, 2, 4)


def read(path: Path, network: model.Model) -> tuple[list[Floats], list[Floats]]:
    """Return the network's input and its predicted chroma for each frame."""
    copies, chroma = [], []
    with reader.opened(path) as video:
        table = video.info.coding.lightness_table()
        sides = network.info.working_size, network.info.multiple_of
        for frame in video.frames():
            small = working_copy(pixel_format.lightness_of(frame, table), *sides, float(video.info.aspect))
            copies.append(small)
            chroma.append(network.predict(small[None, None])[0])
    return copies, chroma


def steadied(
    copies: list[Floats], chroma: list[Floats], keep: float, every: int | None
) -> tuple[list[Floats], list[int], float]:
    """Return the filtered chroma, the frames after cuts, and the share of frames that the network saw."""
    tracker, selector, steady = FlowTracker(), KeyframeSelector(every), TemporalFilter(keep)
    result, cuts, count = [], [], 0
    for number, (small, ab) in enumerate(zip(copies, chroma, strict=True)):
        motion = tracker.next(small)
        seen = selector.next(motion)
        count += seen
        result.append(steady.next(motion, ab if seen else None))
        if motion is not None and motion.cut:
            cuts.append(number)
    return result, cuts, count / len(copies)


def warp_error(copies: list[Floats], chroma: list[Floats], cuts: list[int]) -> float:
    """Return the warp error of a film, see above."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    codes = [np.rint(small * 2.55).astype(np.uint8) for small in copies]
    errors = []
    for number in range(1, len(copies)):
        if number in cuts:
            continue
        before, now = codes[number - 1], codes[number]
        back, forth = dis.calc(now, before, None), dis.calc(before, now, None)
        height, width = now.shape
        x = np.arange(width, dtype=np.float32) + back[..., 0]
        y = np.arange(height, dtype=np.float32)[:, None] + back[..., 1]
        returned = cv2.remap(forth, x, y, cv2.INTER_LINEAR)
        miss = np.square(returned + back).sum(-1)
        holds = miss < 0.01 * (np.square(returned).sum(-1) + np.square(back).sum(-1)) + 0.5
        size = (width, height)
        old, new = (np.stack([cv2.resize(p, size) for p in chroma[n]]) for n in (number - 1, number))
        moved = np.stack([cv2.remap(p, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for p in old])
        errors.append(float((np.square(moved - new).sum(0) * holds).sum() / max(1, holds.sum())))
    return float(np.mean(errors))


def divergence(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Return the Jensen-Shannon divergence (natural logarithm) of (channels, bins), mean over channels."""
    middle = (one + other) / 2

    def relative(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        ratio = np.divide(p, middle, out=np.ones_like(p), where=p > 0)
        return (p * np.log(ratio)).sum(-1)

    return float((relative(one) + relative(other)).mean() / 2)


def consistency(planes: list[Floats], span: tuple[float, float], cuts: list[int]) -> float:
    """Return the CDC of planes (channels, H, W) with values in `span`."""
    histograms = [
        np.stack([np.histogram(plane, 256, span)[0] / plane.size for plane in frame]) for frame in planes
    ]
    means = []
    for apart in _APART:
        pairs = [n for n in range(len(planes) - apart) if not any(n < cut <= n + apart for cut in cuts)]
        means.append(np.mean([divergence(histograms[n], histograms[n + apart]) for n in pairs]))
    return float(np.mean(means))


def colorfulness(rgb: Floats) -> float:
    """Return the colorfulness of (3, H, W) sRGB in [0, 1]."""
    red, green, blue = rgb * 255
    first, second = red - green, (red + green) / 2 - blue
    return float(np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean()))


def shown(copies: list[Floats], chroma: list[Floats]) -> Iterator[Floats]:
    """Yield the colorized frames as (3, h, w) sRGB in [0, 1]."""
    for small, ab in zip(copies, chroma, strict=True):
        lightness = cv2.resize(small, (ab.shape[2], ab.shape[1]), interpolation=cv2.INTER_AREA)
        yield np.moveaxis(lab.lab_to_srgb(np.dstack([lightness, *ab])), -1, 0)


def measure(copies: list[Floats], chroma: list[Floats], keep: float, every: int | None) -> dict[str, float]:
    """Return all figures of a film."""
    result, cuts, seen = steadied(copies, chroma, keep, every)
    each, _, _ = steadied(copies, chroma, keep, 1)
    rgb = list(shown(copies, result))
    gray = list(shown(copies, [np.zeros_like(ab) for ab in result]))
    return {
        "warp error": warp_error(copies, result, cuts),
        "CDC of RGB": consistency(rgb, (0, 1), cuts),
        "CDC of RGB, gray": consistency(gray, (0, 1), cuts),
        "CDC of ab": consistency(result, (-110, 110), cuts),
        "colorfulness": float(np.mean([colorfulness(frame) for frame in rgb])),
        "cuts": float(len(cuts)),
        "share seen": seen,
        "mean |ab - ab of every 1|": float(
            np.mean([np.abs(a - b).mean() for a, b in zip(result, each, strict=True)])
        ),
    }


WAYS: dict[str, tuple[float, int | None]] = {
    "off": (0.0, 1),
    "on, every 1": (MOST_KEPT, 1),
    "on, auto": (MOST_KEPT, None),
}


@click.command()
@click.argument(
    "videos", nargs=-1, metavar="FILM...", required=True, type=click.Path(exists=True, path_type=Path)
)
@click.option("--model", "model_path", type=click.Path(path_type=Path), default=None)
@click.option("--json", "as_json", is_flag=True)
def main(videos: tuple[Path, ...], model_path: Path | None, as_json: bool) -> None:
    """Measure FILMS with and without temporal filter."""
    network = model.load(model_path, "auto")
    found = {}
    for path in videos:
        copies, chroma = read(path, network)
        found[path.name] = {name: measure(copies, chroma, *way) for name, way in WAYS.items()}
    if as_json:
        click.echo(json.dumps(found))
        return
    table = Table("film", "", *WAYS, "every 1 / off", "auto / every 1")
    for name, figures in found.items():
        off, each, auto = (figures[way] for way in WAYS)
        for key in off:
            values = off[key], each[key], auto[key]
            ratios = [f"{b / a:.3f}" if a else "" for a, b in itertools.pairwise(values)]
            table.add_row(name, key, *(f"{value:.4g}" for value in values), *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
